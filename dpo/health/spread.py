"""What can be learned and measured: which pairs are left out, how they spread over prompts, what validation can resolve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpo.health.findings import FINE, KNOW, MEND, WRONG, Finding, UsedPairs, count, percent
from dpo.pairs import held_out_prompts, same_words

if TYPE_CHECKING:
    from dpo.picks import PickedPair

ENOUGH_PAIRS = 8  # to say that one prompt has too many of them
Z = 1.96  # of a 95% interval
FINE_ENOUGH = 0.1  # half the interval of an accuracy that validation is good for


def check_missing(pairs: Sequence[PickedPair]) -> Finding | None:
    gone = tuple(place for place, picked in enumerate(pairs) if picked.missing and picked.state != "deleted")
    if not gone:
        return None
    return Finding(
        "gone", WRONG,
        f"Files of {count(len(gone), 'pair')} are gone, such as {pairs[gone[0]].missing[0]}; training leaves these pairs out.",
        "Scan the folder the files are in now: they are known by their content. Or remove these pairs.", gone,
    )  # fmt: skip


def check_unfinished(pairs: Sequence[PickedPair]) -> Finding | None:
    unfinished = tuple(place for place, picked in enumerate(pairs) if picked.state == "needs_reject")
    if not unfinished:
        return None
    have = "has" if len(unfinished) == 1 else "have"
    return Finding(
        "needs_reject", KNOW, f"{count(len(unfinished), 'pair')} {have} no rejected image yet; training leaves them out.",
        "Pick in their groups to give them one, or delete them.", unfinished,
    )  # fmt: skip


def check_skew(used: UsedPairs) -> Finding | None:
    counts = np.array(list(used.prompts.values()))
    shares = counts / counts.sum()
    effective = 1 / (shares**2).sum()  # as many equal prompts would be as concentrated (inverse Simpson index)
    most = shares.max()
    if counts.sum() < ENOUGH_PAIRS or (most <= 0.25 and effective >= len(counts) / 2):
        return None
    if len(counts) == 1:
        return Finding(
            "one_prompt", MEND, f"All {count(len(used.places), 'pair')} are of one prompt.",
            "Pick from other prompts as well: what is learned from one shows little on others, and none is left to measure on.",
        )  # fmt: skip
    ((prompt, number),) = used.prompts.most_common(1)
    return Finding(
        "skewed", MEND if most > 0.5 else KNOW,
        f"The pairs are of {count(len(counts), 'prompt')} but spread like {effective:.1f} equal ones: the largest has "
        f"{used.some(number)}.",
        "Pick from the prompts that have few pairs.", used.where(np.array([words == prompt for words in used.words])),
    )  # fmt: skip


def check_validation(used: UsedPairs, share: float) -> Finding | None:
    """How many pairs are held out at this share of the prompts (0 to 1), and what an accuracy measured on them can resolve."""
    held_out = held_out_prompts({picked.pair.prompt for picked in used.pairs}, share)
    mask = np.array([picked.pair.prompt in held_out for picked in used.pairs])
    number = int(mask.sum())
    if not number:
        why = "their share is 0" if share <= 0 else "there is only one prompt"
        return Finding(
            "no_validation", MEND, f"No pair is kept for validation: {why}. Nothing will say whether training helps.",
            "Set the validation share to 0.1." if share <= 0 else "Pick from a second prompt.",
        )  # fmt: skip
    half = Z / (2 * math.sqrt(number + Z * Z))  # Wilson's interval around one half
    steps = "accuracy is either 0% or 100%" if number == 1 else f"accuracy moves in steps of {percent(1 / number)}"
    needed = math.ceil((Z / (2 * FINE_ENOUGH)) ** 2 - Z * Z)
    prompts = len({same_words(prompt) for prompt in held_out})
    remedy = ""
    if number < needed:
        remedy = f"More pairs, or a larger validation share: {needed} of them would bring that down to {FINE_ENOUGH:.0%}."
    return Finding(
        "validation", MEND if number < 8 else KNOW if number < 30 else FINE,
        f"With {count(number, 'validation pair')} of {count(prompts, 'prompt')} {steps}, and chance alone moves it by up to "
        f"{percent(half)} either way (95% interval).",
        remedy, used.where(mask),
    )  # fmt: skip
