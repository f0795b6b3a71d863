import json
import math
import random

import pytest

from dpo.config import TrainConfig
from dpo.patience import Judge

CONFIG = TrainConfig(max_chosen_drift=0.05, patience=2)


def validation(accuracy=0.6, chosen=0.0, loss=0.6, *, drift=None, noise=0.05, margin=None) -> dict[str, float]:
    """`noise` is the standard error of the accuracy."""
    return {
        "rewards/accuracies": accuracy, "rewards/accuracies_low": accuracy - 1.96 * noise,
        "rewards/accuracies_high": accuracy + 1.96 * noise, "rewards/chosen": chosen, "loss": loss,
        "rewards/margins": chosen if margin is None else margin,
        "errors/chosen_drift": -chosen / 100 if drift is None else drift,
    }  # fmt: skip


def judged(validations, config=CONFIG) -> tuple[list[int], list[str]]:
    """(steps that were best when they came, what was said of going on after each)."""
    judge = Judge(config)
    best, said = [], []
    for step, metrics in enumerate(validations, 1):
        judge.add(step, metrics)
        best += [step] if judge.is_best else []
        said.append(judge.exhausted)
        assert judge.best_step == (best[-1] if best else None)
    return best, said


def stops_at(validations, **fields) -> int | None:
    """Number of the validation after which patience ran out."""
    _, said = judged(validations, TrainConfig(**{"patience": 2, **fields}))
    return next((number for number, reason in enumerate(said, 1) if reason), None)


# ------------------------------------------------------------------------------------------------ the best step


def test_a_growing_margin_while_the_chosen_reward_falls_never_wins():
    """The way these runs break: everything but the chosen image looks better and better."""
    best, _ = judged(
        validation(accuracy=0.6 + 0.01 * step, chosen=0.5 - 0.1 * step, margin=float(step), loss=0.6 - 0.05 * step)
        for step in range(5)
    )
    assert best == [1]


def test_of_steps_equally_accurate_within_noise_the_kindest_to_chosen_images_is_kept():
    best, _ = judged([validation(0.60, 0.1), validation(0.57, 0.2), validation(0.61, 0.15), validation(0.60, 0.3)])
    assert best == [1, 2, 4]


def test_clearly_better_accuracy_wins_over_the_kindest_of_two_that_did_no_harm():
    best, _ = judged([validation(0.60, 0.5), validation(0.80, 0.2)])
    assert best == [1, 2]


def test_no_accuracy_makes_up_for_harm():
    """The demo at a learning rate of 0.003, steps 20 to 60; an interval over its 8 prompts would call the last drift noise."""
    harm = validation(0.75, drift=0.005) | {"errors/chosen_drift_low": -0.009, "errors/chosen_drift_high": 0.019}
    assert judged([validation(0.645, drift=-0.0021), validation(0.648, drift=-0.0022), harm])[0] == [1, 2]


def test_no_accuracy_makes_up_for_images_that_begin_to_suffer_though_no_step_was_harmless():
    """The demo at a learning rate of 0.006, steps 20 and 40, before the run was stopped: at 0.035 its pictures are worse."""
    assert judged([validation(0.661, drift=0.0013, noise=0.091), validation(0.826, drift=0.0348, noise=0.089)])[0] == [1]
    assert judged([validation(0.9, drift=0.016), validation(0.6, drift=0.015)])[0] == [1, 2]  # 0.3 of the limit: a run warns


def test_without_a_harmless_step_the_same_rule_holds_among_the_harmful_ones_until_one_is_harmless():
    harmful = [validation(0.60, drift=0.03), validation(0.62, drift=0.02), validation(0.80, drift=0.04)]
    assert judged(harmful)[0] == [1, 2, 3]
    assert judged([*harmful, validation(0.55, drift=0.0), validation(0.9, drift=0.02)])[0] == [1, 2, 3, 4]


def test_clearly_worse_accuracy_never_wins_however_kind():
    best, _ = judged([validation(0.80, 0.0), validation(0.60, 3.0)])
    assert best == [1]


def test_a_series_of_small_steps_does_not_walk_away_from_the_highest_accuracy():
    """Each is within noise of the one before it, and kinder; the last two are not within noise of the first."""
    best, _ = judged(validation(0.80 - 0.03 * step, 0.1 * step, noise=0.05) for step in range(4))
    assert best == [1, 2]


def test_a_step_beyond_the_damage_limit_is_never_the_best():
    assert judged([validation(1.0, drift=0.051, noise=0.0)])[0] == []
    assert judged([validation(0.5, drift=0.04), validation(1.0, drift=0.06), validation(0.5, drift=0.03)])[0] == [1, 3]


def test_a_better_accuracy_of_a_damaged_step_shuts_no_later_one_out():
    assert judged([validation(1.0, drift=0.06), validation(0.6, drift=0.0)])[0] == [2]


def test_a_validation_that_is_not_finite_is_never_the_best():
    assert judged([validation(math.nan), validation(0.6, drift=math.nan), validation(0.6)])[0] == [3]


def test_the_same_again_is_not_better():
    assert judged([validation(), validation()])[0] == [1]


# ------------------------------------------------------------------------------------------------ patience


def test_the_first_validation_is_an_improvement_whatever_it_says():
    """Bests start at minus infinity, not at zero: a negative chosen reward that rises is progress."""
    rising = [validation(0.0, -3.0 + 0.1 * step) for step in range(6)]
    assert stops_at(rising, patience_metrics="chosen_reward") is None
    assert stops_at(rising, patience_metrics="accuracy") == 3


def test_a_difference_in_the_sixth_decimal_is_no_progress():
    assert stops_at([validation(chosen=0.1 + 1e-6 * step) for step in range(4)], patience_metrics="chosen_reward") == 3
    assert stops_at([validation(chosen=0.1 + 2e-5 * step) for step in range(4)], patience_metrics="chosen_reward") is None


def test_any_improvement_starts_the_count_again():
    values = [0.5, 0.4, 0.6, 0.5, 0.5]
    assert stops_at([validation(value) for value in values], patience_metrics="accuracy") == 5


def test_a_lower_loss_is_the_better_one():
    assert stops_at([validation(loss=0.6 - 0.1 * step) for step in range(5)], patience_metrics="loss") is None
    assert stops_at([validation(loss=0.6 + 0.1 * step) for step in range(5)], patience_metrics="loss") == 3


@pytest.mark.parametrize(("rule", "end"), [("either", 3), ("both", 5)])
def test_either_ends_with_the_first_metric_to_stall_and_both_with_the_last(rule, end):
    values = [validation(0.6, chosen) for chosen in (0.1, 0.2, 0.3, 0.3, 0.3)]
    assert stops_at(values, patience_rule=rule, patience_metrics="accuracy, chosen_reward") == end


def test_without_patience_a_run_never_ends_early():
    assert stops_at([validation()] * 50, patience=0) is None


def test_the_end_says_what_stalled():
    _, said = judged([validation()] * 3)
    assert said == ["", "", "no better value of accuracy or the chosen reward in 2 validations in a row."]


def test_a_judge_resumed_from_its_state_decides_as_one_that_went_on():
    rng = random.Random(1)
    values = [validation(rng.uniform(0.5, 0.7), rng.uniform(-0.3, 0.3), rng.uniform(0.5, 0.7)) for _ in range(30)]
    config = TrainConfig(patience=4, patience_metrics="accuracy, chosen_reward, loss")
    for cut in (0, 1, 7, 20):
        whole, parts = Judge(config), Judge(config)
        for step, metrics in enumerate(values):
            if step == cut:
                state = json.loads(json.dumps(parts.state_dict(), allow_nan=False))
                parts = Judge(config)
                parts.load_state_dict(state)
            for judge in (whole, parts):
                judge.add(step, metrics)
            assert (parts.best_step, parts.is_best, parts.exhausted) == (whole.best_step, whole.is_best, whole.exhausted)
