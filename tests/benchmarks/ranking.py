"""Duels until the pair of a group spans 80 % of its quality range in 90 % of groups: similar Elo, random Elo, top-two.

Simulated raters: qualities N(0, 2^2), a duel is won with probability sigmoid(difference). Beside each number stands its anchor,
from the simulation that this project was planned with (1000 groups each), and the ratio to it. `top_two_stop_*`: duels at which
top-two ends by itself, by the span rule alone (as the anchors have it) and with the budget of 4 duels per image (`in_use`), and
the share of groups that are spanned then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from dpo.ranking import SPAN, SURE, Vote, elo_ratings, fit, next_duels, stand

SIGMA = 2.0
GOAL = 0.9  # share of groups
# Duels needed in the anchors, by number of images.
ANCHORS = {
    "elo_similar": {4: 26, 8: 70, 16: 126},
    "elo_random": {4: 38, 8: 98, 16: 246},
    "top_two": {4: 21, 8: 37, 16: 60},
}
ANCHORS_STOP = {4: (22, 0.93), 8: (38, 0.95), 16: (61, 0.95)}  # mean duels, share of groups that span 80 %
# Elo's share of spanned groups grows so slowly that with 1000 groups, as the anchors have, chance moves the result by 15 %: in
# ten lots of 1000 groups of 4, neighbours at random (the anchors' rule) needed 24 to 37 duels, and 32 in all 10,000 together.
GROUPS = {
    "elo_similar": {4: 4000, 8: 4000, 16: 2000},
    "elo_random": {4: 4000, 8: 4000, 16: 2000},
    "top_two": {4: 2000, 8: 1500, 16: 1000},
}
STOP_GROUPS = 400
LONGEST = 20  # duels per image: where the anchors gave up


class Group:
    """One simulated group and its rater."""

    def __init__(self, size: int, number: int):
        self.random = np.random.default_rng((size, number))
        self.qualities = self.random.normal(0, SIGMA, size)
        self.seed = number
        self.votes: list[Vote] = []

    def answer(self, i: int, j: int) -> None:
        i_wins = self.random.random() < 1 / (1 + np.exp(self.qualities[j] - self.qualities[i]))
        self.votes.append(Vote(i, j) if i_wins else Vote(j, i))

    def is_spanned(self, scores: np.ndarray) -> bool:
        """Whether the pair of the highest and the lowest score spans enough of the true range."""
        span = self.qualities[scores.argmax()] - self.qualities[scores.argmin()]
        return bool(span >= SPAN * np.ptp(self.qualities) - 1e-12)


def measure() -> dict:
    started = time.perf_counter()
    result = {"benchmark": "ranking", "sigma": SIGMA}
    needed = {}
    for method, anchors in ANCHORS.items():
        for size, anchor in anchors.items():
            needed[method, size] = duels_needed(method, size, GROUPS[method][size])
            result |= compared(f"{method}_{size}", needed[method, size], anchor)
    result["within_15_percent"] = all(result[f"{method}_{size}_within_15_percent"] for method, size in needed)
    result["top_two_fewest"] = all(
        needed["top_two", size] < min(needed["elo_similar", size], needed["elo_random", size]) for size in ANCHORS_STOP
    )
    for size, (duels, success) in ANCHORS_STOP.items():
        result |= stops(size, STOP_GROUPS)
        result |= {f"top_two_stop_{size}_anchor": duels, f"top_two_stop_{size}_success_anchor": success}
    return result | {
        **{f"{method}_{size}_groups": count for method, counts in GROUPS.items() for size, count in counts.items()},
        "top_two_stop_groups": STOP_GROUPS, "seconds": round(time.perf_counter() - started), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def compared(key: str, value: int, anchor: int) -> dict:
    ratio = round(value / anchor, 3)
    return {key: value, f"{key}_anchor": anchor, f"{key}_ratio": ratio, f"{key}_within_15_percent": abs(ratio - 1) <= 0.15}


def duels_needed(method: str, size: int, groups: int) -> int:
    """First number of duels after which GOAL of the groups are spanned; all groups go on in step."""
    next_duel, scores = METHODS[method]
    simulated = [Group(size, number) for number in range(groups)]
    for duels in range(1, LONGEST * size + 1):
        for group in simulated:
            group.answer(*next_duel(size, group))
        if np.mean([group.is_spanned(scores(size, group.votes)) for group in simulated]) >= GOAL:
            return duels
    raise RuntimeError(f"{method}, {size} images: too few groups are spanned after {duels} duels.")


def ask(pairing: str) -> Callable[[int, Group], tuple[int, int]]:
    return lambda size, group: next_duels(size, group.votes, (), 1, group.seed, pairing)[0]


def at_random(size: int, group: Group) -> tuple[int, int]:
    i, j = group.random.choice(size, 2, replace=False)
    return int(i), int(j)


def quality_modes(size: int, votes: list[Vote]) -> np.ndarray:
    return fit(size, votes).mean


# What asks, and what scores the images: the pair is highest against lowest. Elo is judged by its own ratings, as in the anchors.
METHODS = {
    "elo_similar": (ask("elo"), elo_ratings),
    "elo_random": (at_random, elo_ratings),
    "top_two": (ask("top_two"), quality_modes),
}


def stops(size: int, groups: int) -> dict:
    """Where top-two ends: by the span rule alone, and with its budget."""
    by_rule, in_use = [], []  # (duels, spanned) of each group
    for number in range(groups):
        group = Group(size, number)
        is_ended = False
        for duels in range(LONGEST * size + 1):
            standing = stand(size, group.votes, duels)
            is_sure = standing.span_probability >= SURE
            if standing.is_finished and not is_ended:
                in_use.append((duels, group.is_spanned(quality_modes(size, group.votes))))
                is_ended = True
            if is_sure or duels == LONGEST * size:
                by_rule.append((duels, group.is_spanned(quality_modes(size, group.votes))))
                break
            group.answer(*ask("top_two")(size, group))
    (duels, success), (duels_in_use, success_in_use) = np.mean(by_rule, axis=0), np.mean(in_use, axis=0)
    return {
        f"top_two_stop_{size}": round(float(duels), 1), f"top_two_stop_{size}_success": round(float(success), 3),
        f"top_two_stop_{size}_in_use": round(float(duels_in_use), 1),
        f"top_two_stop_{size}_in_use_success": round(float(success_in_use), 3),
    }  # fmt: skip
