import json
import math
import random

import pytest

from dpo.config import TrainConfig
from dpo.guards import WINDOW, DriftGuard, Running, adapted_beta

CONFIG = TrainConfig(max_chosen_drift=0.05, learning_rate=1e-3, beta=100.0)


def feed(guard: DriftGuard, drifts) -> list[str]:
    return [guard.add({"errors/chosen_drift": drift}, {}) for drift in drifts]


def test_a_drift_over_the_limit_stops_as_soon_as_the_window_is_full_and_not_before():
    assert feed(DriftGuard(CONFIG), [0.06] * WINDOW) == [""] * (WINDOW - 1) + ["stop"]


def test_a_mean_over_the_limit_by_less_than_its_noise_does_not_stop():
    """Mean 0.06, spread 0.0321: the standard error of 8 steps is 0.0113, so the mean less two of them is 0.0373."""
    noisy = [0.03, 0.09] * (WINDOW // 2)
    assert "stop" not in feed(DriftGuard(CONFIG), noisy)
    assert feed(DriftGuard(CONFIG), [value + 0.02 for value in noisy])[-1] == "stop"  # 0.0573 > 0.05


def test_the_same_damage_counts_only_while_it_is_in_the_window():
    guard = DriftGuard(CONFIG)
    assert "stop" not in feed(guard, [0.5, *[0.0] * 3 * WINDOW])


def test_a_healthy_run_hears_nothing():
    rng = random.Random(0)
    assert set(feed(DriftGuard(CONFIG), [rng.gauss(0.004, 0.01) for _ in range(300)])) == {""}


def test_a_warning_comes_before_the_end_and_once():
    guard = DriftGuard(CONFIG)
    said = feed(guard, [step * 0.001 for step in range(80)])
    assert [word for word in said if word][:2] == ["warn", "stop"]
    assert said.index("warn") < said.index("stop") - 10
    assert "begin to suffer: the error on chosen images is 0.0" in guard.warning()
    assert "Lower the learning rate (0.001) or raise beta (100)" in guard.warning()


def test_where_damage_only_warns_the_run_goes_on_and_hears_of_both_thresholds_once():
    guard = DriftGuard(TrainConfig(max_chosen_drift=0.05, on_damage="warn"))
    said = feed(guard, [step * 0.001 for step in range(120)])
    assert [word for word in said if word] == ["warn", "warn"]
    assert "over the limit of 0.05" in guard.warning()


def test_a_validation_speaks_for_itself_by_the_lower_end_of_its_interval():
    unsure = {"errors/chosen_drift": 0.07, "errors/chosen_drift_low": 0.01, "errors/chosen_drift_high": 0.13}
    sure = {**unsure, "errors/chosen_drift_low": 0.06}
    guard = DriftGuard(CONFIG)
    assert guard.add({}, unsure) == ""
    assert guard.add({}, sure) == "stop"  # a loss without a reference has no drift in its steps
    assert guard.drift == 0.07
    assert DriftGuard(CONFIG).add({}, {"errors/chosen_drift": 0.06}) == "stop"  # one prompt: there is no interval


def test_the_report_names_what_was_seen_the_limit_and_the_remedy():
    guard = DriftGuard(CONFIG)
    feed(guard, [0.0612] * WINDOW)
    report = guard.report(40)
    assert report.startswith(
        "Stopped at step 40: the error on chosen images is 0.061 above the reference's, over the limit of 0.05."
    )
    assert report.endswith("Lower the learning rate (0.001) or raise beta (100).")
    without = DriftGuard(TrainConfig(loss="sft", learning_rate=2e-4))
    assert without.report(9).endswith("Lower the learning rate (0.0002), or make fewer steps.")  # beta means nothing to it


def test_a_step_without_a_drift_is_no_news():
    """Such as a step of disliked images only: nothing was chosen in it."""
    guard = DriftGuard(CONFIG)
    feed(guard, [0.06] * (WINDOW - 1))
    assert feed(guard, [math.nan]) == [""]
    assert feed(guard, [0.06]) == ["stop"]


def test_a_guard_resumed_from_its_state_decides_as_one_that_went_on():
    drifts = [step * 0.001 for step in range(70)]
    whole = feed(DriftGuard(CONFIG), drifts)
    for cut in (3, 20, 40):
        first = DriftGuard(CONFIG)
        said = feed(first, drifts[:cut])
        second = DriftGuard(CONFIG)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert said + feed(second, drifts[cut:]) == whole
        assert second.drift > 0.03


# ------------------------------------------------------------------------------------------------ running means


def test_a_running_mean_starts_at_its_first_value_and_forgets():
    running = Running()
    assert (running.value, running.newest) == (0.0, 0.0)
    running.add(2.0)
    assert running.value == pytest.approx(2.0)  # not 0.2: the start is not pulled to zero
    running.add(4.0)
    assert running.value == pytest.approx((0.9 * 2 + 4) / 1.9) and running.newest == 4.0
    for _ in range(200):
        running.add(-1.0)
    assert running.value == pytest.approx(-1.0)


def test_a_value_that_is_not_finite_leaves_a_running_mean_as_it_was():
    running = Running()
    running.add(2.0)
    running.add(math.nan)
    assert (running.value, running.newest) == (2.0, 2.0)


def test_a_running_mean_resumed_from_its_state_goes_on():
    running, resumed = Running(), Running()
    for value in (0.5, 1.5, -2.0):
        running.add(value)
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    for one in (running, resumed):
        one.add(3.0)
    assert (resumed.value, resumed.newest) == (running.value, running.newest)


def gaps(usual: float, newest: float) -> Running:
    running = Running()
    for value in [usual] * 500 + [newest]:
        running.add(value)
    return running


def test_beta_rises_after_easy_pairs_and_falls_after_hard_ones():
    assert adapted_beta(100.0, 0.5, gaps(0.01, 0.02)) > 100.0 > adapted_beta(100.0, 0.5, gaps(0.01, 0.0))


def test_adapted_beta_follows_its_formula():
    """Running mean 0.9 * 0.01 + 0.1 * 0.02 = 0.011, so the gap is 0.009 * 100 = 0.9 in units of beta."""
    assert adapted_beta(100.0, 0.5, gaps(0.01, 0.02)) == pytest.approx(100 * (1 + 0.5 * math.tanh(0.9)))


def test_beta_stays_where_adaption_is_off_or_nothing_was_seen_or_nothing_is_unusual():
    assert adapted_beta(100.0, 0.0, gaps(0.01, 5.0)) == 100.0
    assert adapted_beta(100.0, 1.0, Running()) == 100.0
    assert adapted_beta(100.0, 1.0, gaps(0.01, 0.01)) == pytest.approx(100.0)


def test_no_step_however_odd_takes_beta_below_a_quarter_or_above_twice_itself():
    assert adapted_beta(100.0, 1.0, gaps(0.0, -1e6)) == 25.0
    assert adapted_beta(100.0, 1.0, gaps(0.0, 1e6)) == pytest.approx(200.0)
