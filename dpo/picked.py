"""Pairs as the review, exports and training see them: what was judged, and the files it is about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpo.book import Book
from dpo.config import TrainConfig
from dpo.judging import JudgedPair
from dpo.pairs import Pair, held_out_prompts


@dataclass(frozen=True)
class PickedPair:
    """A pair, the group it came from, and how it stands.

    `chosen` and `rejected` are keys; "" for a reject that is still needed. `position`, `rater` and `made` (seconds since 1970)
    are of the newest pick that it rests on. `missing`: its files that are no longer there. `is_validation`: its prompt is kept
    out of training at the usual share.
    """

    pair: Pair
    group: str
    chosen: str
    rejected: str
    rater: str
    made: float
    position: int
    state: str  # as JudgedPair.state
    is_swapped: bool
    missing: tuple[str, ...]
    is_validation: bool


def pick_pairs(book: Book, judged: list[JudgedPair], elsewhere: dict[str, str], rounds: Path) -> list[PickedPair]:
    """The pairs with their files. `elsewhere`: where images are that are not where they were last shown, "" for nowhere.
    `rounds`: the folder of sets of candidates."""
    usable = (
        pair.prompt
        for pair in judged
        if pair.state == "used" and elsewhere.get(pair.chosen) != "" != elsewhere.get(pair.rejected)
    )
    held_out = held_out_prompts(usable, TrainConfig().validation_share)
    found = []
    for pair in judged:
        keys = [key for key in (pair.chosen, pair.rejected) if key]
        paths = [elsewhere.get(key) or book.path_of(key) for key in keys]
        missing = tuple(path for key, path in zip(keys, paths, strict=True) if elsewhere.get(key) == "")
        files = Pair(
            pair.prompt, *(*paths, "")[:2], pair.confidence, pair.source, pair.made_by, round_of(paths, rounds),
            book.highest_place(keys) if len(keys) == 2 else 1.0,
        )  # fmt: skip
        found.append(
            PickedPair(
                files, pair.group, pair.chosen, pair.rejected, pair.rater, pair.made, pair.position, pair.state,
                pair.is_swapped, missing, pair.prompt in held_out,
            )
        )  # fmt: skip
    return found


def round_of(paths: Iterable[str], rounds: Path) -> str:
    """The set of candidates that these images all are of: the folder in `rounds` that holds them, "" if there is none."""
    inside = str(rounds) + os.sep
    names = {path.removeprefix(inside).partition(os.sep)[0] if path.startswith(inside) else "" for path in paths}
    return names.pop() if len(names) == 1 else ""
