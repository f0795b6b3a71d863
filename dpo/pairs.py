"""Pairs: what training learns from, and the prompts that are kept out of it to measure on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dpo.groups import normalise_prompt


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt, one of them preferred.

    `chosen` and `rejected` are file paths. `confidence` in (0.5, 1] is how sure the pick was. `source` says where the pair
    came from: "best_worst", "duel", "import" or "demo".
    """

    prompt: str
    chosen: str
    rejected: str
    confidence: float = 1.0
    source: str = "best_worst"


def split_pairs(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, validation): about `share` of the prompts, with all their pairs, are kept out of training."""

    def order(prompt: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{prompt}".encode()).digest()

    prompts = sorted({normalise_prompt(pair.prompt) for pair in pairs}, key=order)
    held_out = set(prompts[: round(share * len(prompts))])
    training = [pair for pair in pairs if normalise_prompt(pair.prompt) not in held_out]
    return training, [pair for pair in pairs if normalise_prompt(pair.prompt) in held_out]
