"""Whether a blind test has shown a difference, by numbers that hold whenever a person looks, and whenever they stop.

Only decisive votes count, one after the other; a tie says nothing about which side is better. If nobody can tell the sides
apart, each vote is a fair coin. Somebody who bets on the next vote, with odds after what was seen so far (Laplace's rule,
(s + 1) / (n + 2)), would then multiply their stake by 20 with a chance of at most 1 in 20, however often they look (Ville 1939).
What their stake has grown to is the evidence. With s wins in n votes it is, in closed form,

    E = 2^n / ((n + 1) C(n, s))                 the mixture over all win rates, Beta(1, 1) (Robbins 1970)

and the interval holds every win rate p with (n + 1) C(n, s) p^s (1 - p)^(n - s) > 1 / 20: the rates that the same bet, against
them, would not have refuted. It leaves out one half exactly where E is 20 or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

GOAL = 20.0  # evidence at which a test is decided: at most one false alarm in 20 tests
LOG_GOAL = math.log(GOAL)
RATES = (0.6, 0.65, 0.7)  # for which a person is told how many more votes it would take
MOST_MORE = 1000  # votes; where more would be needed nobody wants to know how many


@dataclass(frozen=True)
class Verdict:
    """What decisive votes come to: `wins` of `votes` are for the adapter. `ties` were left out.

    `decided_after`: after how many votes the evidence first reached GOAL, None if it never did; `winner`: who was in front then,
    "adapter" or "base", "" for nobody. That stands, whatever is voted afterwards. `log_evidence` is of all votes.
    """

    wins: int
    votes: int
    ties: int
    log_evidence: float
    decided_after: int | None
    winner: str

    @property
    def evidence(self) -> float:
        """To one; below 1 it speaks for no difference. At most 1e300."""
        return math.exp(min(self.log_evidence, 690.0))

    @property
    def rate(self) -> float | None:
        """The adapter's share of the decisive votes; None without any."""
        return self.wins / self.votes if self.votes else None

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of the adapter's true win rate: 95%, at whatever vote one stops."""
        return rate_interval(self.wins, self.votes)


def judge(outcomes: Iterable[bool], ties: int = 0) -> Verdict:
    """The verdict on decisive votes in the order in which they were given, True for the adapter."""
    wins = votes = 0
    log_evidence, decided_after, winner = 0.0, None, ""
    for is_win in outcomes:
        wins, votes = wins + bool(is_win), votes + 1
        log_evidence = log_e_value(wins, votes)
        if decided_after is None and log_evidence >= LOG_GOAL:
            decided_after, winner = votes, "adapter" if 2 * wins > votes else "base"
    return Verdict(wins, votes, ties, log_evidence, decided_after, winner)


def log_e_value(wins: int, votes: int) -> float:
    """Natural logarithm of the evidence that the sides differ."""
    return votes * math.log(2) - math.log(votes + 1) - _log_binomial(votes, wins)


def rate_interval(wins: int, votes: int) -> tuple[float, float]:
    """(low, high) win rates that are not refuted: 95%, at every number of votes at once. No votes: (0, 1)."""
    top = math.log(votes + 1) + _log_binomial(votes, wins) + LOG_GOAL

    def is_refuted(rate: float) -> bool:
        return top + _times_log(wins, rate) + _times_log(votes - wins, 1 - rate) <= 0

    best = wins / votes if votes else 0.5
    low = 0.0 if wins == 0 else _edge(is_refuted, 0.0, best)
    high = 1.0 if wins == votes else _edge(is_refuted, 1.0, best)
    return low, high


def votes_needed(wins: int, votes: int, rate: float) -> int | None:
    """After how many more decisive votes the test is decided with a chance of one half, if the adapter's true rate is `rate`.

    Exact: the chances of all numbers of wins are carried from vote to vote, and those that stop leave. Either side may end up in
    front. 0 where it is decided now; None for more than MOST_MORE.
    """
    if log_e_value(wins, votes) >= LOG_GOAL:
        return 0
    chances, first = np.ones(1), wins  # chances[i]: of first + i wins, without having stopped
    needed = wins_to_stop(votes)
    for more in range(1, MOST_MORE + 1):
        after = np.zeros(len(chances) + 1)
        after[:-1] += chances * (1 - rate)
        after[1:] += chances * rate
        total = votes + more
        while needed <= total and log_e_value(needed, total) < LOG_GOAL:
            needed += 1
        # Going on are those with fewer wins than `needed`, and fewer losses.
        lowest, highest = total - needed + 1, needed - 1
        chances = after[max(0, lowest - first) : highest - first + 1]
        first = max(first, lowest)
        if chances.sum() <= 0.5:
            return more
    return None


def wins_to_stop(votes: int) -> int:
    """The fewest wins, more than half, at which so many votes decide a test; votes + 1 where none would."""
    needed = votes // 2 + 1
    while needed <= votes and log_e_value(needed, votes) < LOG_GOAL:
        needed += 1
    return needed


def _edge(is_refuted, outside: float, inside: float) -> float:
    """The place between a rate that is refuted and one that is not, to a millionth."""
    while abs(outside - inside) > 1e-6:
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if is_refuted(middle) else (outside, middle)
    return inside


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _times_log(times: int, value: float) -> float:
    """times * log(value), with 0 * log(0) = 0."""
    if times == 0:
        return 0.0
    return times * math.log(value) if value > 0 else -math.inf
