"""The card of an adapter: README.md beside the file, in the form that the Hugging Face hub reads. Numbers are the run's own."""

from __future__ import annotations

import json
import re

from dpo.formats import FORMATS, KINDS
from dpo.formats.origin import Origin

CARD = "README.md"


def card_text(origin: Origin, file: str, *, kind: str, format: str, precision: str, rank: str, proof: str) -> str:
    """The text of README.md. rank: in words, as in "rank 16, alpha 8". proof: what the check of the file found, as a sentence."""
    head = ["---", "library_name: diffusers", "pipeline_tag: text-to-image", "tags: [dpo, lora, text-to-image]"]
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", origin.model):
        head.append(f"base_model: {json.dumps(origin.model)}")
    rows = [["adapter", f"{KINDS[kind]}, {rank}"], ["file", f"`{file}`, {format}, {precision}: for {FORMATS[format]}"]]
    if origin.model:
        rows.insert(0, ["base model", origin.model])
    if origin.pairs:
        rows.append(["pairs", f"{origin.pairs:,} to train on, {origin.held_out:,} kept out"])
    if origin.step:
        rows.append(["steps", f"{origin.step:,}"])
    if origin.accuracy and origin.held_out:
        share, low, high = origin.accuracy
        rows.append(["agrees with the picks kept out", f"{share:.0%} (95% interval {low:.0%} to {high:.0%})"])
    settings = origin.settings
    for name in ("loss", "beta", "learning_rate", "resolution"):
        if name in settings:
            value = settings[name]
            rows.append([name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value)])
    lines = [*head, "---", "", f"# {origin.name}", ""]
    told = origin.comment
    if told:
        lines += [told, ""]
    lines += ["| | |", "|---|---|", *(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows), ""]
    lines += [proof, "", "No licence is stated here. That of the base model may decide; add yours as `license:` above.", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
