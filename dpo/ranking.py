"""Ranking: from duels within one group to how sure the order is, the duels worth asking next, and the pairs to train on.

Pure functions of numbers: images are indices 0..size-1, `BAR` is one more item, the line between good and bad, against which
an image labelled good won and one labelled bad lost. Qualities are in logits: an image 1 better wins a duel with probability
sigmoid(1) = 0.73.

The model is Bradley-Terry with the prior N(0, PRIOR_SD^2) on every quality, fitted to its mode by Newton's method, with the
Laplace covariance: it does not depend on the order of votes, it says how sure it is, and the prior keeps an image that was never
beaten finite. Elo and Swiss only choose duels here; the pairs always come out of this model. Everything is deterministic in its
arguments: whatever is drawn, is drawn from a generator seeded with them.

Cost on one core, for 16 images and 64 votes: `fit` 0.2 ms, `stand` 0.4 ms, three `next_duels` 0.4 ms; for 100 images and 400
votes 3, 9 and 7 ms (20 ms by Elo). The systems are too small for threads to help.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BAR = -1  # also the last row of an array with one row more than there are images
PRIOR_SD = 2.0  # a typical rater: right in 83 % of duels of two images at random
CLEAR_WEIGHT = 2.0  # votes that a "clearly better" counts as
PAIRINGS = ("top_two", "elo", "swiss")
SURE = 0.9  # probability at which a group is done, or a pair made before it is
SPAN = 0.8  # share of the quality range between best and worst that the pair is to span
LEAST_CONFIDENCE = 0.7  # below it, not even a finished group gives a pair
MOST_CONFIDENCE = 0.99  # a model of votes is never surer than that of a person
DUELS_PER_IMAGE = 4  # at most, as a mean over the group
ELO_K = 32.0
NEWTON_STEPS = 50  # 5 or 6 are usual
SPAN_DRAWS = 1000
THOMPSON_DRAWS = 64


class Vote(NamedTuple):
    """`better` beat `worse` (indices of images, or BAR) as `weight` duels would say it; in a tie the two stand in any order."""

    better: int
    worse: int
    weight: float = 1.0
    is_tie: bool = False


@dataclass(frozen=True)
class Posterior:
    """Gaussian over the qualities of the images, in logits: mean (N,), covariance (N, N). The bar is integrated out."""

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Standing:
    """How far a group is. `span_probability`: that best and worst as ranked now span SPAN of the range of true qualities.
    `likely_left`: duels until it is finished, as a mean of simulations; 0 if and only if it is finished."""

    is_finished: bool
    span_probability: float
    likely_left: int


class RankedPair(NamedTuple):
    """Indices of two images, and the probability that the chosen one is better."""

    chosen: int
    rejected: int
    confidence: float


def fit(size: int, votes: Sequence[Vote], prior_sd: float = PRIOR_SD) -> Posterior:
    """Most likely qualities of `size` images, with the Laplace covariance. Ties are half a win each way.

    The bar is fitted as one more item with the same prior; where no vote names it, that changes nothing.
    """
    items = size + 1
    wins = np.zeros((items, items))
    for better, worse, weight, is_tie in votes:
        assert better != worse and min(better, worse) >= BAR and max(better, worse) < size, (better, worse, size)
        wins[better, worse] += weight / 2 if is_tie else weight
        if is_tie:
            wins[worse, better] += weight / 2
    duels = wins + wins.T
    won = wins.sum(axis=1)
    precision = np.eye(items) / prior_sd**2

    def log_posterior(qualities: np.ndarray) -> float:
        gaps = qualities[:, None] - qualities[None, :]
        return -(wins * np.logaddexp(0, -gaps)).sum() - qualities @ qualities / (2 * prior_sd**2)

    qualities, height = np.zeros(items), log_posterior(np.zeros(items))
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(qualities[None, :] - qualities[:, None]))
        gradient = won - (duels * chances).sum(axis=1) - qualities / prior_sd**2
        information = duels * chances * chances.T
        hessian = precision + np.diag(information.sum(axis=1)) - information
        step = np.linalg.solve(hessian, gradient)
        if np.abs(step).max() < 1e-9:
            break
        # The posterior is concave, but a full step may overshoot where it is nearly flat.
        while (reached := log_posterior(qualities + step)) < height - 1e-12 * abs(height):
            step /= 2
        qualities, height = qualities + step, reached
    return Posterior(qualities[:size], np.linalg.inv(hessian)[:size, :size])


def probability_better(posterior: Posterior, i: int, j: int) -> float:
    """That image i has the higher quality than image j (which it may have and still lose a duel)."""
    if i == j:
        return 0.5
    covariance = posterior.covariance
    variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
    return 0.5 * math.erfc(-(posterior.mean[i] - posterior.mean[j]) / math.sqrt(2 * variance))


def stand(size: int, votes: Sequence[Vote], duels: int, pairing: str = "top_two") -> Standing:
    """Whether the group is ranked well enough, and about how many duels that still takes.

    `duels`: answered so far, ties and skips too. Top-two ends when the span is SURE or at DUELS_PER_IMAGE per image; Elo and
    Swiss after the number of duels that is known from the start.
    """
    assert pairing in PAIRINGS, pairing
    if size < 2:
        return Standing(is_finished=True, span_probability=1.0, likely_left=0)
    span_probability = _span_probability(fit(size, votes))
    left = max(0, _budget(size, pairing) - duels)
    if pairing == "top_two":
        left = 0 if span_probability >= SURE else _likely_left(size, span_probability, left)
    return Standing(is_finished=left == 0, span_probability=span_probability, likely_left=left)


def _span_probability(posterior: Posterior) -> float:
    best, worst = int(posterior.mean.argmax()), int(posterior.mean.argmin())
    if best == worst:  # all are equal, as before the first vote: any two stand for the best and the worst
        worst = (best + 1) % len(posterior.mean)
    draws = _draw(posterior, SPAN_DRAWS, np.random.default_rng(0))
    spans = draws[:, best] - draws[:, worst]
    return float((spans >= SPAN * (draws.max(axis=1) - draws.min(axis=1))).mean())


def _budget(size: int, pairing: str) -> int:
    most = DUELS_PER_IMAGE * size
    match pairing:
        case "elo":  # OneTrainer's suggestion
            return min(most, max(15, math.ceil(size * math.log2(size))))
        case "swiss":
            return math.ceil(size / 2 * math.ceil(math.log2(size)))
    return most


def _likely_left(size: int, span_probability: float, budget_left: int) -> int:
    """Mean number of duels until top-two ends, if it has not: what simulated raters of PRIOR_SD took (benchmark `ranking`).

    In a round of `size` duels a group gets sure at a rate that grows with how sure it is; the budget ends the wait.
    """
    missing = SURE - span_probability
    rate = (size / 8) ** 0.7 * math.exp(0.14 - 8.5 * missing + 5.5 * missing**2)
    rounds = -math.expm1(-rate * budget_left / size) / rate
    return min(budget_left, max(1, round(size * rounds)))


def _draw(posterior: Posterior, count: int, random: np.random.Generator) -> np.ndarray:
    """(count, N) qualities."""
    noise = random.standard_normal((count, len(posterior.mean)))
    return posterior.mean + noise @ np.linalg.cholesky(posterior.covariance).T


def next_duels(
    size: int,
    votes: Sequence[Vote],
    avoid: Collection[tuple[int, int]],
    count: int,
    seed: int,
    pairing: str = "top_two",
) -> list[tuple[int, int]]:
    """Up to `count` different duels (i, j), i < j, to ask next; fewer when all others are to be avoided.

    `avoid`: duels that a page holds unanswered, or that were skipped: never returned, and their images count as shown. Images
    nobody has seen come first, whatever the pairing. `seed`: 0 or more, the group's own.
    """
    assert pairing in PAIRINGS, pairing
    taken = {(min(pair), max(pair)) for pair in avoid}
    asked = [(min(vote[:2]), max(vote[:2])) for vote in votes if BAR not in vote[:2]]
    shown = Counter(itertools.chain(itertools.chain.from_iterable(vote[:2] for vote in votes), *taken))
    posterior = fit(size, votes) if pairing == "top_two" else None
    ratings = elo_ratings(size, votes) if pairing != "top_two" else None
    found = []
    for _ in range(count):
        free = [pair for pair in itertools.combinations(range(size), 2) if pair not in taken]
        if not free:
            break
        turn = len(votes) + len(taken)
        random = np.random.default_rng((seed, turn))
        seen = [min(1, shown[image]) for image in range(size)]
        fewest = min(seen[i] + seen[j] for i, j in free)
        free = [(i, j) for i, j in free if seen[i] + seen[j] == fewest]
        match pairing:
            case "top_two":
                pair = _top_two(posterior, set(free), is_best_end=turn % 2 == 0, random=random)
            case "elo":
                # The same two again at once would say little new; among the others, chance: it is what keeps Elo from sticking.
                pair = _similar(ratings, [pair for pair in free if pair not in asked[-2:]] or free, random)
            case "swiss":
                pair = _swiss(ratings, asked, free, shown, random)
        found.append(pair)
        taken.add(pair)
        shown.update(pair)
    return found


def _top_two(posterior: Posterior, free: set[tuple[int, int]], is_best_end: bool, random: np.random.Generator):
    """Top-two Thompson sampling (Russo 2016): the best of one draw against the best of the first draw in which it is another.

    At the other end, the worst. What is asked again and again is so the duel most likely to change who is best or worst.
    """
    sign = 1 if is_best_end else -1
    draws = sign * _draw(posterior, THOMPSON_DRAWS, random)
    leader, *challengers = draws.argmax(axis=1).tolist()
    for challenger in challengers:
        pair = (min(leader, challenger), max(leader, challenger))
        if pair in free:
            return pair
    # So sure of this end that no other is drawn, or its rivals are to be avoided: the foremost two that are free.
    rank = (-draws[-1]).argsort().argsort()
    return min(free, key=lambda pair: (max(rank[pair[0]], rank[pair[1]]), min(rank[pair[0]], rank[pair[1]])))


def elo_ratings(size: int, votes: Sequence[Vote]) -> np.ndarray:
    """(size,) Elo ratings after the votes in their order, from 1500, K = 32. The bar is rated as one more player."""
    ratings = [1500.0] * (size + 1)
    for better, worse, weight, is_tie in votes:
        expected = 1 / (1 + 10 ** ((ratings[worse] - ratings[better]) / 400))
        change = ELO_K * weight * ((0.5 if is_tie else 1.0) - expected)
        ratings[better] += change
        ratings[worse] -= change
    return np.array(ratings[:size])


def _similar(ratings: np.ndarray, free: list[tuple[int, int]], random: np.random.Generator) -> tuple[int, int]:
    """One at random of the free duels whose images are nearest in the table of ratings: neighbours, if any are free."""
    place = np.argsort(np.argsort(ratings, kind="stable"), kind="stable")
    nearest = min(abs(place[i] - place[j]) for i, j in free)
    near = [(i, j) for i, j in free if abs(place[i] - place[j]) == nearest]
    return near[random.integers(len(near))]


def _swiss(ratings, asked, free, shown, random) -> tuple[int, int]:
    """Whoever was shown least plays next, if it can be against one of the same round and nearly the same rating, not yet met.

    An odd one out of a round meets one of the next, so that nobody sits out and any number of duels can be held at once.
    """
    met = Counter(asked)
    lots = random.random(len(ratings))

    def order(pair: tuple[int, int]) -> tuple:
        i, j = pair
        return min(shown[i], shown[j]), met[pair], max(shown[i], shown[j]), abs(ratings[i] - ratings[j]), lots[i] + lots[j]

    return min(free, key=order)


def rank_pairs(
    posterior: Posterior, count: int, barred: Collection[int] = frozenset(), is_finished: bool = False
) -> list[RankedPair]:
    """Up to `count` pairs, no image in two of them: best against worst, then the widest gaps that are SURE.

    Nothing while best against worst is not SURE; once the group is finished, LEAST_CONFIDENCE is enough for that one. `barred`
    images are never chosen, but may be rejected.
    """
    images = range(len(posterior.mean))
    pairs = [(i, j) for i in images for j in images if i != j and i not in barred]
    pairs.sort(key=lambda pair: posterior.mean[pair[1]] - posterior.mean[pair[0]])
    found = []
    used = set()
    needed = LEAST_CONFIDENCE if is_finished else SURE
    for chosen, rejected in pairs:
        if len(found) == count:
            break
        if chosen in used or rejected in used:
            continue
        confidence = probability_better(posterior, chosen, rejected)
        if confidence >= needed:
            found.append(RankedPair(chosen, rejected, min(confidence, MOST_CONFIDENCE)))
            used |= {chosen, rejected}
        elif not found:
            break
        needed = SURE
    return found


def order_confidence(posterior: Posterior, order: Sequence[int]) -> float:
    """Mean over any two of the images in `order`, best first, of the probability that the earlier one is better."""
    mean, covariance = posterior.mean[list(order)], posterior.covariance[np.ix_(order, order)]
    spread = np.diagonal(covariance)
    earlier, later = np.triu_indices(len(mean), 1)
    variance = (spread[:, None] + spread[None, :] - 2 * covariance)[earlier, later]
    deviations = (mean[earlier] - mean[later]) / np.sqrt(2 * variance)
    return min(sum(0.5 * math.erfc(-deviation) for deviation in deviations) / len(deviations), MOST_CONFIDENCE)


def grid_confidence(shown: int) -> float:
    """Chance that of `shown` images (2 or more) on one screen, the one picked as best is better than the one picked as worst.

    Simulated: qualities N(0, PRIOR_SD^2), best and then worst picked with the noise of a duel (Luce's choice). A test simulates
    it again. More than nine on a screen are held to be worth no more than nine: nobody looks at all of them.
    """
    chances = {2: 0.83, 3: 0.92, 4: 0.95, 5: 0.964, 6: 0.973, 7: 0.978, 8: 0.981, 9: 0.984}
    return chances[min(shown, 9)]


def cohens_kappa(one: Sequence, other: Sequence) -> float | None:
    """Agreement of two raters on the same cases beyond chance (Cohen 1960): 1 always, 0 as by chance, below 0 less than that.

    None where it is not defined: no cases, or both always said one and the same.
    """
    cases = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True))
    said, other_said = Counter(one), Counter(other)
    by_chance = sum(said[answer] * other_said[answer] for answer in said)
    if by_chance == cases * cases:
        return None
    return (agreed / cases - by_chance / cases**2) / (1 - by_chance / cases**2)
