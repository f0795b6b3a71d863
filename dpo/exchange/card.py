"""The card of a dataset: README.md with what is in it, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from statistics import median

from dpo.exchange.dataset import count
from dpo.groups import normalise_prompt
from dpo.pairs import Pair

CARD = "README.md"
SURE = 0.9


def card_text(
    name: str, training: Sequence[Pair], validation: Sequence[Pair], share: float, files: dict[str, str], layout: str
) -> str:
    """The text of README.md.

    Args:
        share: the share of prompts that was asked to be kept out of training.
        files: split -> glob of its files, for the hub's viewer; {} where it cannot read them as a table.
        layout: a paragraph on how the pairs lie here.
    """
    pairs = [*training, *validation]
    sizes = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    size = next((words for limit, words in sizes if len(pairs) < limit), "100K<n<1M")
    head = [
        "---", "tags: [dpo, preference, text-to-image]", "task_categories: [text-to-image]",
        f"pretty_name: {json.dumps(name)}", f"size_categories: [{size}]",
    ]  # fmt: skip
    if files:
        head += ["configs:", "  - config_name: default", "    data_files:"]
        for split, glob in files.items():
            head += [f"      - split: {split}", f"        path: {json.dumps(glob)}"]
    sources = Counter(pair.source or "unknown" for pair in pairs)
    confidences = [pair.confidence for pair in pairs]
    sure = sum(confidence >= SURE for confidence in confidences)
    body = f"""---

# {name}

Pairs of images of one prompt, one of them preferred, for preference optimisation (DPO) of an image model.

| split | pairs | prompts |
| --- | --- | --- |
| train | {len(training):,} | {_prompts(training):,} |
| validation | {len(validation):,} | {_prompts(validation):,} |

{share:.0%} of the prompts were to be kept for validation. A prompt with all its pairs is on one side only, which its own text
decides: other pairs do not move it.

| how they were picked | pairs |
| --- | --- |
{chr(10).join(f"| {_cell(source)} | {number:,} |" for source, number in sources.most_common())}

Confidence is the chance that the preferred image is the better one: {min(confidences):.2f} at the lowest,
{median(confidences):.2f} in the middle; {count(sure, "pair")} ({sure / len(pairs):.0%}) of {SURE} or more.

{layout}
"""
    return "\n".join(head) + "\n" + body


def _prompts(pairs: Sequence[Pair]) -> int:
    return len({normalise_prompt(pair.prompt) for pair in pairs})


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
