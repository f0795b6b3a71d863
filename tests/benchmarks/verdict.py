"""The stopping rule of the blind test: false alarms with a look after every vote, and votes until a difference is found.

Simulated people vote up to 1,000 times, by a seeded generator. A false alarm is a person whose true rate is one half and whose
test was decided anyway. Beside it, what is done elsewhere: watching a 95% Wilson interval from the tenth vote on, and stopping
once it leaves out one half. The anchors are of the simulation that this project was planned with.
"""

from __future__ import annotations

import time

import numpy as np

from dpo.verdict import LOG_GOAL, log_e_value, rate_interval

PEOPLE, LONGEST, SEED = 20_000, 1_000, 0
WILSON_FIRST, WILSON_LONGEST = 10, 100  # earlier than that nobody looks at an interval
INTERVAL_PEOPLE, INTERVAL_LONGEST, INTERVAL_RATE = 2_000, 300, 0.65
ANCHORS = {60: 210, 65: 86, 70: 46}
ASKED = {60: 230, 65: 95, 70: 50}


def measure() -> dict:
    started = time.perf_counter()
    fair = wins_by_vote(0.5, LONGEST, PEOPLE)
    result = {
        "benchmark": "verdict", "people": PEOPLE, "votes": LONGEST,
        "false_alarm_rate": round(float(np.isfinite(first_stop(fair, e_value_stops(LONGEST))).mean()), 4),
        "wilson_false_alarm_rate": round(float(wilson_stops(fair[:, :WILSON_LONGEST])[:, WILSON_FIRST - 1 :].any(1).mean()), 4),
        "wilson_votes": WILSON_LONGEST,
    }  # fmt: skip
    for percent, anchor in ANCHORS.items():
        stops = first_stop(wins_by_vote(percent / 100, LONGEST, PEOPLE), e_value_stops(LONGEST))
        result |= {
            f"median_votes_{percent}": int(np.median(stops)), f"median_votes_{percent}_anchor": anchor,
            f"decided_{percent}": round(float(np.isfinite(stops).mean()), 4),
        }  # fmt: skip
    result["interval_miss_rate"] = round(interval_misses(), 4)
    result["as_asked"] = result["false_alarm_rate"] <= 0.05 and all(
        result[f"median_votes_{percent}"] <= most for percent, most in ASKED.items()
    )
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def wins_by_vote(rate: float, votes: int, people: int) -> np.ndarray:
    """(people, votes) int16: wins after each vote."""
    random = np.random.default_rng((SEED, int(1000 * rate)))
    wins = np.empty((people, votes), np.int16)
    for start in range(0, people, 1000):  # a thousand at a time: random numbers take more memory than wins
        rows = wins[start : start + 1000]
        np.cumsum(random.random(rows.shape) < rate, axis=1, dtype=np.int16, out=rows)
    return wins


def e_value_stops(votes: int) -> np.ndarray:
    """(votes,) int16: the fewest wins, more than half, that stop at that vote; more than all of them where none do."""
    needed, found = 1, []
    for total in range(1, votes + 1):
        needed = max(needed, total // 2 + 1)
        while needed <= total and log_e_value(needed, total) < LOG_GOAL:
            needed += 1
        found.append(needed)
    return np.array(found, np.int16)


def first_stop(wins: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """(people,) the vote at which each stops, for either side; infinite for those who never do."""
    losses = np.arange(1, wins.shape[1] + 1, dtype=np.int16) - wins
    stopped = (wins >= needed) | (losses >= needed)
    return np.where(stopped.any(1), stopped.argmax(1) + 1, np.inf)


def wilson_stops(wins: np.ndarray) -> np.ndarray:
    """(people, votes): whether the 95% Wilson interval leaves out one half."""
    total, z = np.arange(1, wins.shape[1] + 1), 1.959964
    centre, half = (wins + z * z / 2) / (total + z * z), z / (total + z * z) * np.sqrt(wins * (total - wins) / total + z * z / 4)
    return (centre - half > 0.5) | (centre + half < 0.5)


def interval_misses() -> float:
    """Share of people whose interval ever leaves out their true rate."""
    wins = wins_by_vote(INTERVAL_RATE, INTERVAL_LONGEST, INTERVAL_PEOPLE)
    missed = np.zeros(len(wins), bool)
    for total in range(1, INTERVAL_LONGEST + 1):
        column = wins[:, total - 1]
        bad = [count for count in np.unique(column) if not _holds(int(count), total)]
        missed |= np.isin(column, bad)
    return float(missed.mean())


def _holds(wins: int, total: int) -> bool:
    low, high = rate_interval(wins, total)
    return low <= INTERVAL_RATE <= high
