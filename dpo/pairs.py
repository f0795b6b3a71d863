"""Pairs: what training learns from."""

from __future__ import annotations

from dataclasses import dataclass


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
