"""The stopping rule: its values by hand, the law that makes it safe at any time, and the interval that goes with it."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from dpo.verdict import GOAL, MOST_MORE, RATES, judge, log_e_value, rate_interval, votes_needed, wins_to_stop
from tests.benchmarks.verdict import e_value_stops, first_stop, wilson_stops, wins_by_vote


def exact(wins: int, votes: int) -> Fraction:
    """2^n / ((n + 1) C(n, s)), without rounding."""
    return Fraction(2**votes, (votes + 1) * math.comb(votes, wins))


def test_the_evidence_is_the_closed_form():
    # 7 of 7: 128 / 8. 3 of 4: 16 / (5 * 4). 29 of 40: 11.6, said as 12 to 1.
    assert [round(math.exp(log_e_value(*case)), 9) for case in ((7, 7), (3, 4), (0, 0))] == [16, 0.8, 1]
    assert f"{judge([True] * 29 + [False] * 11).evidence:.0f}" == "12"
    for votes in (1, 10, 60):
        for wins in range(votes + 1):
            assert math.exp(log_e_value(wins, votes)) == pytest.approx(float(exact(wins, votes)), rel=1e-9)


def test_thousands_of_votes_neither_overflow_nor_lose_the_evidence():
    assert log_e_value(2600, 5000) == pytest.approx(
        math.log(exact(2600, 5000).numerator) - math.log(exact(2600, 5000).denominator)
    )
    assert judge([True] * 5000).evidence == pytest.approx(math.exp(690))


@pytest.mark.parametrize(
    ("votes", "wins"),
    [
        (8, 8),
        (10, 10),
        (15, 14),
        (20, 17),
        (25, 20),
        (30, 24),
        (40, 30),
        (50, 36),
        (60, 42),
        (80, 55),
        (100, 66),
        (150, 95),
        (200, 124),
    ],
)
def test_wins_that_stop_a_test(votes, wins):
    assert wins_to_stop(votes) == wins
    assert exact(wins, votes) >= GOAL > exact(wins - 1, votes)


def test_seven_votes_decide_nothing():
    assert [wins_to_stop(votes) for votes in range(1, 8)] == [votes + 1 for votes in range(1, 8)]


def test_a_bet_on_a_fair_coin_is_expected_to_stay_what_it_is():
    """E[E_n | past] = E_(n-1): so by Ville's inequality it ever reaches 20 with a chance of at most 1 in 20."""
    for votes in range(40):
        for wins in range(votes + 1):
            assert (exact(wins + 1, votes + 1) + exact(wins, votes + 1)) / 2 == exact(wins, votes)
            after = math.exp(log_e_value(wins + 1, votes + 1)) + math.exp(log_e_value(wins, votes + 1))
            assert after / 2 == pytest.approx(math.exp(log_e_value(wins, votes)), rel=1e-9)


def test_of_all_ways_ten_fair_votes_can_fall_few_ever_decide():
    decided = sum(judge(votes).decided_after is not None for votes in product((True, False), repeat=10))
    assert decided == 2 * 4  # the first eight all alike, the last two anyhow; ten alike are among them
    assert decided / 2**10 < 1 / GOAL


# ------------------------------------------------------------------------------------------------ verdicts


def test_ties_are_told_and_count_nothing():
    assert judge([True, False], ties=7).log_evidence == judge([True, False]).log_evidence
    assert judge([True, False], ties=7).ties == 7


def test_either_side_may_win():
    assert [judge([is_win] * 8).winner for is_win in (True, False)] == ["adapter", "base"]
    assert judge([True] * 7).winner == "" and judge([]).rate is None


def test_a_decision_stands_whatever_is_voted_afterwards():
    verdict = judge([True] * 8 + [False] * 8)
    assert (verdict.winner, verdict.decided_after, verdict.rate) == ("adapter", 8, 0.5)
    assert verdict.evidence < 1


def test_false_alarms_stay_below_five_per_cent_where_a_wilson_interval_has_28():
    fair = wins_by_vote(0.5, 1000, 4000)
    alarms = np.isfinite(first_stop(fair, e_value_stops(1000))).mean()
    assert 0.02 < alarms <= 0.05
    assert 0.25 < wilson_stops(fair[:, :100])[:, 9:].any(1).mean() < 0.32


# ------------------------------------------------------------------------------------------------ the interval


def test_the_interval_leaves_out_one_half_exactly_where_the_test_is_decided():
    for votes in (0, 1, 7, 8, 40, 100):
        for wins in range(votes + 1):
            low, high = rate_interval(wins, votes)
            assert (low > 0.5 or high < 0.5) == (log_e_value(wins, votes) >= math.log(GOAL))


def test_the_interval_mirrors_when_sides_are_swapped_and_holds_what_was_seen():
    for wins, votes in ((29, 40), (0, 5), (70, 100)):
        low, high = rate_interval(wins, votes)
        assert low <= wins / votes <= high
        assert rate_interval(votes - wins, votes) == pytest.approx((1 - high, 1 - low), abs=1e-5)
    assert rate_interval(0, 0) == (0.0, 1.0)


def test_the_ends_of_the_interval_are_rates_that_the_bet_just_fails_to_refute():
    for end in rate_interval(29, 40):
        assert 41 * math.comb(40, 29) * end**29 * (1 - end) ** 11 == pytest.approx(1 / GOAL, rel=1e-3)


def test_the_interval_holds_the_true_rate_at_every_vote_for_19_people_of_20():
    rate, people, votes = 0.7, 400, 200
    wins = wins_by_vote(rate, votes, people)
    holds = {
        (count, total): _holds(count, total, rate) for total in range(1, votes + 1) for count in map(int, set(wins[:, total - 1]))
    }
    missed = sum(not all(holds[int(row[total - 1]), total] for total in range(1, votes + 1)) for row in wins)
    assert 0 < missed / people <= 0.05


def _holds(wins: int, votes: int, rate: float) -> bool:
    low, high = rate_interval(wins, votes)
    return low <= rate <= high


# ------------------------------------------------------------------------------------------------ how many more


def test_votes_still_needed_by_hand():
    assert votes_needed(0, 0, 1.0) == 8  # eight wins in a row
    assert votes_needed(7, 7, 0.6) == 1
    assert votes_needed(8, 8, 0.6) == 0
    assert votes_needed(7, 7, 0.4) > 1  # the next one is likelier lost
    assert votes_needed(500, 1000, 0.51) is None and MOST_MORE == 1000


@pytest.mark.parametrize(("rate", "most"), list(zip(RATES, (230, 95, 50), strict=True)))
def test_a_whole_test_needs_no_more_votes_than_asked_and_as_many_as_people_do(rate, most):
    needed = votes_needed(0, 0, rate)
    simulated = np.median(first_stop(wins_by_vote(rate, 600, 4000), e_value_stops(600)))
    assert needed <= most
    assert needed == pytest.approx(simulated, rel=0.05)


def test_votes_needed_go_down_as_votes_for_the_side_in_front_come_in():
    assert votes_needed(20, 30, 0.65) > votes_needed(22, 32, 0.65) > votes_needed(24, 34, 0.65)


def test_sides_are_alike():
    assert votes_needed(20, 30, 0.65) == votes_needed(10, 30, 0.35)
