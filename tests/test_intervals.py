import random

import pytest

from dpo.intervals import mean_interval, share_interval, t_quantile


def test_one_value_a_prompt_is_the_textbook_t_interval():
    """1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/12) = 0.6455, t for 3 degrees of freedom 3.182."""
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0], "abcd")
    assert (low, high) == pytest.approx((2.5 - 3.182 * 0.6455, 2.5 + 3.182 * 0.6455), abs=1e-3)


def test_the_same_value_of_a_prompt_again_is_no_evidence():
    values = [1.0, 2.0, 3.0, 4.0]
    assert mean_interval(values * 5, "abcd" * 5) == pytest.approx(mean_interval(values, "abcd"))
    narrow = mean_interval(values * 5, range(20))
    assert narrow[1] - narrow[0] < 1.2


def test_a_prompt_with_more_values_counts_for_more():
    """Mean 10/4, deviations by prompt 3 - 7.5 and 7 - 2.5: their squares sum to 40.5, over (2**2 * 1), over 2 prompts."""
    low, high = mean_interval([1.0, 1.0, 1.0, 7.0], "aaab")
    assert (low + high) / 2 == pytest.approx(2.5)
    assert high - low == pytest.approx(2 * 12.706 * (40.5 / 4 / 2) ** 0.5)


def test_one_prompt_says_nothing():
    assert mean_interval([1.0, 2.0], "aa") is None
    assert share_interval([1.0, 1.0], "aa") == (0.0, 1.0)


def test_a_share_of_few_prompts_all_right_is_still_unsure_and_of_many_hardly():
    ends = {count: share_interval([1.0] * count, range(count)) for count in (2, 3, 8, 30)}
    assert ends[2] == (0.0, 1.0)
    assert ends[3][0] < 0.6 and 0.85 < ends[8][0] < 0.97 and ends[30][0] > 0.98
    assert all(high == 1.0 for _, high in ends.values())
    almost = share_interval([1.0] * 127 + [0.0], [number // 16 for number in range(128)])
    assert almost == pytest.approx(ends[8], abs=0.02)  # one draw of 128 wrong changes little


def test_a_share_stays_between_zero_and_one_and_no_spread_at_one_half_is_no_certainty():
    low, high = share_interval([0.0, 0.0, 0.1], "abc")
    assert low == 0.0 < high < 1.0
    low, high = share_interval([0.0, 1.0] * 4, "aabbccdd")
    assert high - low > 0.2


@pytest.mark.parametrize("count", [4, 8, 20])
def test_the_interval_of_a_share_holds_the_truth_nineteen_times_in_twenty(count):
    """Prompts whose accuracies lie anywhere from 0.3 to 1, mean 0.65, three pairs of each."""
    rng = random.Random(count)
    held = 0
    for _ in range(1000):
        accuracies = [rng.uniform(0.3, 1.0) for _ in range(count)]
        values = [float(rng.random() < accuracy) for accuracy in accuracies for _ in range(3)]
        low, high = share_interval(values, [number // 3 for number in range(3 * count)])
        held += low <= 0.65 <= high
    assert 0.93 <= held / 1000 <= 0.995


def test_quantiles_of_t_are_those_of_the_tables():
    tables = {1: 12.706, 5: 2.571, 10: 2.228, 11: 2.201, 15: 2.131, 30: 2.042, 120: 1.980, 10**6: 1.960}
    for freedom, value in tables.items():
        assert t_quantile(freedom) == pytest.approx(value, abs=3e-3), freedom
