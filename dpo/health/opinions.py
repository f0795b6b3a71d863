"""What people said of images: against each other, by habit, without being sure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpo.health.findings import FINE, KNOW, MEND, WRONG, Finding, UsedPairs, count
from dpo.judging import BASE_REJECT, IMPORT

if TYPE_CHECKING:
    from dpo.picks import Agreement, Pick, PickedPair, Sides

SIGNIFICANT = 0.05
ENOUGH_DUELS = 20  # to say that no side is favoured, or how many are ties
MANY_TIES = 0.4
ENOUGH_OPINIONS = 10  # to judge an agreement
UNSURE = 0.8  # a pair less sure than that
# Landis and Koch 1977: up to that value.
KAPPA_WORDS = ((0.0, "no better than chance"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))


def check_conflicts(pairs: Sequence[PickedPair], used: UsedPairs, picks: Iterable[Pick]) -> Finding | None:
    """Two pictures of which one was preferred once, and the other another time; by picks, or by two pairs that are both used.

    Settled are grids that the same person picked from again, and pairs that were turned round or deleted in the review.
    """
    said: dict[tuple, Pick] = {}
    for pick in picks:
        if pick.chosen and pick.rejected:
            said[(pick.rater, *sorted(pick.keys)) if pick.op == "best_worst" else (pick.position,)] = pick
    raters = defaultdict(set)  # (better, worse) -> who said so
    for pick in said.values():
        raters[used.picture_of.get(pick.chosen, pick.chosen), used.picture_of.get(pick.rejected, pick.rejected)].add(pick.rater)
    settled = {
        frozenset(used.picture_of.get(key, key) for key in (picked.chosen, picked.rejected))
        for picked in pairs
        if picked.is_swapped or picked.state == "deleted"
    }
    opposed = {
        frozenset(order): raters[order] | raters[order[::-1]]
        for order in list(raters)
        if order[::-1] in raters and frozenset(order) not in settled
    }
    between = sum(len(names) > 1 for names in opposed.values())
    orders = list(map(tuple, used.pictures.tolist()))
    trained = set(orders)
    both_ways = {frozenset(order) for order in orders if order[0] != order[1] and order[::-1] in trained}
    found = opposed.keys() | both_ways
    if not found:
        return None
    people = f", {between:,} of them by different people" if between else ""
    return Finding(
        "conflicts", WRONG if both_ways or len(found) > 0.1 * len(orders) else MEND,
        f"{count(len(found), 'comparison')} {'was' if len(found) == 1 else 'were'} answered both ways round{people}.",
        "Look at them again: swap or delete the pairs that are wrong. Two images that are hard to tell apart are a tie.",
        used.where(np.array([frozenset(order) in found for order in orders], bool)),
    )  # fmt: skip


def check_sides(sides: Sides) -> Finding | None:
    total = sides.left + sides.right
    if not total:
        return None
    name, wins = ("left", sides.left) if sides.left >= sides.right else ("right", sides.right)
    if _chance_of_split(wins, total) <= SIGNIFICANT:
        return Finding(
            "position_bias", MEND,
            f"The {name} image wins {wins / total:.0%} of {count(total, 'duel')}, more than chance explains: sides are drawn at "
            "random.",
            "Look at the other side first for a while, or lay the two over each other and flip.",
        )  # fmt: skip
    if total < ENOUGH_DUELS:
        return None
    left = f"{sides.left / total:.0%} of {count(total, 'duel')}"
    return Finding("no_position_bias", FINE, f"Neither side is favoured: the left image wins {left}.")


def check_ties(sides: Sides) -> Finding | None:
    total = sides.left + sides.right + sides.ties
    if total < ENOUGH_DUELS or sides.ties <= MANY_TIES * total:
        return None
    return Finding(
        "ties", KNOW, f"{sides.ties / total:.0%} of {count(total, 'duel')} are ties: many images are too alike to choose from.",
        "Compare images that differ more: other seeds, or other settings of the same prompt.",
    )  # fmt: skip


def check_agreement(agreement: Agreement) -> Finding | None:
    if not agreement.count:
        return None
    share, kappa = agreement.agreed / agreement.count, agreement.kappa
    if kappa is None:
        words = "too few, or too much the same, for Cohen's kappa"
    else:
        strength = next((word for limit, word in KAPPA_WORDS if kappa <= limit), "almost perfect")
        words = f"Cohen's kappa {kappa:.2f}, {strength}"
    severity, remedy = FINE, ""
    if agreement.count < ENOUGH_OPINIONS:
        pass  # too few to judge by
    elif share <= 0.5 or (kappa is not None and kappa <= 0.4):
        severity = MEND if share <= 0.5 or kappa <= 0.2 else KNOW
        remedy = "Agree on what makes an image better, then judge those pairs again."
    elif share < 0.9:
        # Two people who each err with probability e agree on 1 - 2e(1 - e).
        mistakes = (1 - math.sqrt(2 * share - 1)) / 2
        remedy = f"If both err alike, each errs on {mistakes:.0%}: a label smoothing of {mistakes:.2f} tells training so."
    return Finding(
        "agreement", severity,
        f"Second opinions agree on {agreement.agreed:,} of {count(agreement.count, 'pair')} ({words}).", remedy,
    )  # fmt: skip


def check_confidence(used: UsedPairs) -> Finding | None:
    confidences = np.array([picked.pair.confidence for picked in used.pairs])
    unsure = confidences < UNSURE
    number = int(unsure.sum())
    if not number:
        return None
    wrong = float((1 - confidences).sum())
    return Finding(
        "unsure", MEND if wrong > 0.2 * len(confidences) else KNOW,
        f"{used.some(number)} {'is' if number == 1 else 'are'} less than {UNSURE:.0%} sure. Going by how sure each is, of all "
        f"pairs {'less than one is' if wrong < 1 else f'about {wrong:,.0f} are'} the wrong way round.",
        "Training counts each pair by how sure it is. More duels in these groups, or larger grids, make it surer.",
        used.where(unsure),
    )  # fmt: skip


def check_base_rejects(used: UsedPairs) -> Finding | None:
    """Pairs whose rejected image was made for want of one (dpo/rejects.py): nobody saw the two side by side."""
    made = np.array([picked.pair.source == IMPORT + BASE_REJECT for picked in used.pairs], bool)
    number = int(made.sum())
    if not number:
        return None
    return Finding(
        "base_rejects", MEND if number > 0.5 * len(used.pairs) else KNOW,
        f"{used.some(number)} {'has' if number == 1 else 'have'} a rejected image by the base model: they teach what sets the "
        "chosen images' origin apart from the model's own images, such as grain, compression and framing, more than taste.",
        "Train them briefly, look for such traces in Compare, and then pick among images that the adapter makes.",
        used.where(made),
    )  # fmt: skip


def _chance_of_split(wins: int, total: int) -> float:
    """Two-sided binomial test: how likely a fair coin gives a split as uneven as `wins` of `total`, or more so."""
    wins = max(wins, total - wins)
    log_all = math.lgamma(total + 1) - total * math.log(2)
    tail = sum(math.exp(log_all - math.lgamma(k + 1) - math.lgamma(total - k + 1)) for k in range(wins, total + 1))
    return min(1.0, 2 * tail)
