"""Every finding on a run made for it, and silence on runs that only look a little like it."""

import math
import random
from dataclasses import replace

import pytest

from dpo.config import TrainConfig
from dpo.diagnosis import EASY_STEPS, FIRST_WORDS, PATIENT, RECENT, SHOWN, diagnose
from dpo.events import Note, ProbeEnd, RunStarted, StepEnd, ValidationEnd

CONFIG = TrainConfig(max_steps=200, beta=100.0, learning_rate=1e-3, warmup_steps=10, max_chosen_drift=0.05)
HEALTHY = {  # metric -> (its value at the share x of the run, its noise)
    "rewards/margins": (lambda x: 0.8 * x, 0.1),
    "rewards/accuracies": (lambda x: 0.6 + 0.15 * x, 0.1),
    "errors/chosen_drift": (lambda x: -0.004 * x, 0.003),
    "loss": (lambda x: 0.69 - 0.15 * x, 0.05),
    "loss/preference": (lambda x: 0.69 - 0.15 * x, 0.05),
}


def run(steps=100, *, probe=None, measured=None, without=(), **changes) -> list:
    """The events of a healthy run of `steps` steps (as the demo's), but for the `changes`: metric -> its mean at x in [0, 1]."""
    rng = random.Random(steps)
    curves = HEALTHY | {name.replace("__", "/"): (mean, HEALTHY[name.replace("__", "/")][1]) for name, mean in changes.items()}
    events = [RunStarted(0, CONFIG.max_steps, 100, 10)]
    events += [ProbeEnd(0, probe)] if probe else []
    for step in range(1, steps + 1):
        metrics = {
            name: mean(step / steps) + rng.gauss(0, noise) for name, (mean, noise) in curves.items() if name not in without
        }
        events.append(StepEnd(step, 0.4, metrics))
    return [*events, ValidationEnd(steps, measured)] if measured else events


def kinds(events, config=CONFIG) -> list[str]:
    return [finding.kind for finding in diagnose(events, config)]


def only(events, config=CONFIG):
    (finding,) = diagnose(events, config)
    return finding


def interval(accuracy=0.7, low=0.6, high=0.8, **metrics) -> dict[str, float]:
    return {"rewards/accuracies": accuracy, "rewards/accuracies_low": low, "rewards/accuracies_high": high, **metrics}


# ------------------------------------------------------------------------------------------------ well, and too young to tell


def test_a_healthy_run_hears_that_all_is_well_and_nothing_else():
    found = only(run(probe={"probe/base_separates": 0.22, "probe/saturated": 0.0}, measured=interval()))
    assert found.kind == "well" and "not above the reference's" in found.text and found.advice == ""
    for steps in (FIRST_WORDS, 60, 150):
        assert kinds(run(steps)) == ["well"], steps


def test_a_run_too_young_to_tell_hears_nothing():
    for steps in (0, 1, RECENT, FIRST_WORDS - 1):
        assert kinds(run(steps)) == [], steps
    assert diagnose([], CONFIG) == [] == diagnose([Note(0, "Loading demo")], CONFIG)


def test_a_loss_without_a_reference_is_judged_by_its_validations():
    config = replace(CONFIG, loss="sft")
    bare = {"without": ("rewards/margins", "rewards/accuracies", "errors/chosen_drift", "loss/preference")}
    good = interval(**{"rewards/margins_low": 0.1, "errors/chosen_drift": -0.01, "errors/chosen_drift_low": -0.02})
    assert kinds(run(**bare, measured=good), config) == ["well"]
    bad = interval(**{"rewards/margins_low": 0.1, "errors/chosen_drift": 0.06, "errors/chosen_drift_low": 0.04})
    found = only(run(**bare, measured=bad), config)
    assert found.kind == "both_errors_rise" and "beta" not in found.advice and "safeguard" not in found.advice


# ------------------------------------------------------------------------------------------------ both errors rise


def test_chosen_images_that_get_worse_while_accuracy_rises_are_the_first_thing_said():
    events = run(errors__chosen_drift=lambda x: 0.05 * x, rewards__accuracies=lambda x: 0.6 + 0.3 * x)
    found = only(events)
    assert found.kind == "both_errors_rise"
    assert "0.04" in found.text and "limit 0.05" in found.text and "accuracy (86%) and margin look fine" in found.text
    assert found.advice == "Lower the learning rate (0.001) or raise beta (100), or set the safeguard."
    assert "safeguard" not in only(events, replace(CONFIG, safeguard_mu=0.9)).advice


def test_a_chosen_error_that_rises_within_its_noise_or_by_little_is_not_worth_words():
    assert kinds(run(errors__chosen_drift=lambda x: 0.01 * x)) == ["well"]
    noisy = run()
    rng = random.Random(3)
    for event in noisy[1:]:
        event.metrics["errors/chosen_drift"] = rng.gauss(0.016, 0.05)
    assert kinds(noisy) == ["well"]


def test_a_validation_that_shows_harm_beyond_noise_is_enough():
    harm = {"errors/chosen_drift": 0.03, "errors/chosen_drift_low": 0.02}
    assert kinds(run(measured=interval(**harm))) == ["both_errors_rise"]
    assert kinds(run(measured=interval(**harm | {"errors/chosen_drift_low": -0.01}))) == ["well"]


# ------------------------------------------------------------------------------------------------ the preference term


@pytest.mark.parametrize("mix", [{"sft_weight": 1.0}, {"loss": "sigmoid, sft"}], ids=str)
def test_a_stable_total_that_hides_a_diverging_preference_term_is_uncovered(mix):
    config = replace(CONFIG, **mix)
    diverging = {"loss": lambda x: 1.2, "loss__preference": lambda x: 0.69 + 0.4 * x}
    found = only(run(**diverging), config)
    assert found.kind == "preference_diverges" and "supervised mix (1)" in found.advice
    assert "from 0.7" in found.text and "to 1.0" in found.text


def test_a_preference_term_that_falls_or_rises_with_the_total_hides_nothing():
    config = replace(CONFIG, sft_weight=1.0)
    assert kinds(run(), config) == ["well"]
    both = {"loss": lambda x: 1.2 + 0.4 * x, "loss__preference": lambda x: 0.69 + 0.4 * x}
    assert kinds(run(**both), config) == ["well"]  # the plot shows it
    assert kinds(run(loss__preference=lambda x: 0.69 + 0.05 * x, loss=lambda x: 1.2), config) == ["well"]
    hidden = {"loss": lambda x: 1.2, "loss__preference": lambda x: 0.69 + 0.4 * x}
    assert kinds(run(**hidden), CONFIG) == ["well"]  # without a mix the two are one curve


# ------------------------------------------------------------------------------------------------ jumps


def with_jumps(count: int, height: float) -> list:
    events = run(120)
    for number in range(count):
        events[-5 - 9 * number].metrics["loss"] += height
    return events


def test_a_loss_that_jumps_again_and_again_is_named():
    found = only(with_jumps(4, 3.0))
    assert found.kind == "jumps" and found.text.startswith("The loss jumps: 4 of the last 60 steps")
    assert "Lower the learning rate (0.001)" in found.advice and "is 4" in found.advice


def test_one_odd_step_or_an_ordinary_spread_is_no_habit():
    assert kinds(with_jumps(2, 3.0)) == ["well"]
    assert kinds(with_jumps(6, 0.1)) == ["well"]
    early = with_jumps(4, 3.0)
    assert kinds(early + [StepEnd(120 + step, 0.4, event.metrics) for step, event in enumerate(run(80)[1:], 1)]) == ["well"]


# ------------------------------------------------------------------------------------------------ stuck

NOTHING_LEARNED = {"rewards__margins": lambda x: 0.0, "rewards__accuracies": lambda x: 0.5}


def test_accuracy_at_one_half_with_a_margin_of_noise_is_stuck():
    found = only(run(90, **NOTHING_LEARNED))
    assert found.kind == "stuck" and "after 90 steps" in found.text
    assert found.advice.startswith("Give it more steps, or raise the learning rate (0.001).")
    assert only(run(160, **NOTHING_LEARNED)).advice.startswith("Raise the learning rate")


def test_a_run_is_not_stuck_before_it_had_time_nor_while_its_margin_grows():
    assert kinds(run(CONFIG.warmup_steps + PATIENT - 1, **NOTHING_LEARNED)) == []
    assert kinds(run(100, rewards__accuracies=lambda x: 0.5)) == ["well"]  # accuracy of few pairs a step is mostly timesteps
    assert "stuck" not in kinds(run(100, rewards__margins=lambda x: 0.0, rewards__accuracies=lambda x: 0.7))


def test_without_margins_in_the_steps_validations_say_that_a_run_is_stuck():
    config = replace(CONFIG, loss="sft")
    bare = {"without": ("rewards/margins", "rewards/accuracies", "errors/chosen_drift")}
    assert kinds(run(90, **bare, measured=interval(0.5, 0.45, 0.53, **{"rewards/margins_low": -0.1})), config) == ["stuck"]
    assert kinds(run(90, **bare, measured=interval(0.5, 0.45, 0.53, **{"rewards/margins_low": 0.1})), config) == ["well"]


# ------------------------------------------------------------------------------------------------ too easy


def test_pairs_that_the_base_tells_apart_are_too_easy_from_the_start():
    found = only(run(3, probe={"probe/base_separates": 0.97}))
    assert found.kind == "too_easy" and "97% of the pairs by itself" in found.text and "Review" in found.advice
    assert kinds(run(probe={"probe/base_separates": 0.97})) == ["too_easy"]


def test_an_accuracy_that_is_perfect_at_once_is_too_easy():
    found = only(run(40, rewards__accuracies=lambda x: 1.2))
    assert found.kind == "too_easy" and f"within {EASY_STEPS} steps" in found.text


def test_pairs_that_the_base_gets_wrong_or_an_accuracy_that_is_earned_are_not_too_easy():
    assert kinds(run(probe={"probe/base_separates": 0.05})) == ["well"]
    assert kinds(run(probe={"probe/base_separates": 0.8})) == ["well"]
    assert kinds(run(200, rewards__accuracies=lambda x: 0.5 + 0.5 * x)) == ["well"]


# ------------------------------------------------------------------------------------------------ saturated margins


def test_margins_past_four_are_saturated():
    found = only(run(rewards__margins=lambda x: 8 * x))
    assert found.kind == "saturated" and "7.2 on average" in found.text and "lower beta (100)" in found.advice


def test_margins_that_grow_to_where_the_loss_flattens_are_not_saturated():
    assert kinds(run(rewards__margins=lambda x: 3.5 * x)) == ["well"]


def test_one_step_that_saturates_pairs_is_said_before_the_curves_can_tell_and_no_longer():
    probe = {"probe/saturated": 0.4, "probe/suggested_beta": 250.0}
    found = only(run(2, probe=probe))
    assert found.kind == "saturated" and "40% of the pairs at beta 100" in found.text and "suggests 250" in found.advice
    assert kinds(run(2, probe={"probe/saturated": 0.1})) == []
    assert kinds(run(100, probe=probe)) == ["well"]


def test_margins_saturated_by_damage_are_not_answered_with_a_lower_beta():
    both = run(rewards__margins=lambda x: 20 * x, errors__chosen_drift=lambda x: 0.2 * x)
    assert kinds(both) == ["both_errors_rise"]


# ------------------------------------------------------------------------------------------------ validation too small


def test_a_validation_that_could_be_anything_is_called_too_small():
    well, found = diagnose(run(measured=interval(0.6, 0.35, 0.85)), CONFIG)
    assert (well.kind, found.kind) == ("well", "small_validation")
    assert "60% could be anything from 35% to 85%" in found.text and "now 10%" in found.advice


@pytest.mark.parametrize("measured", [interval(0.7, 0.6, 0.8), {"rewards/accuracies": 0.7}, None])
def test_a_validation_that_knows_or_is_not_there_is_not_called_small(measured):
    assert kinds(run(measured=measured)) == ["well"]


# ------------------------------------------------------------------------------------------------ several at once


def test_at_most_two_are_said_and_the_most_important_first():
    events = run(
        150, probe={"probe/base_separates": 0.99}, measured=interval(0.6, 0.3, 0.9),
        errors__chosen_drift=lambda x: 0.1 * x, rewards__accuracies=lambda x: 0.5,
    )  # fmt: skip
    assert kinds(events) == ["both_errors_rise", "too_easy"] and len(kinds(events)) == SHOWN
    assert kinds(run(3, measured=interval(0.6, 0.3, 0.9))) == ["small_validation"]


def test_values_that_are_not_finite_are_left_out():
    events = run()
    for event in events[1::7]:
        event.metrics.update({name: math.nan for name in HEALTHY})
    assert kinds(events) == ["well"]
