"""Events become plots: values worked by hand, spikes kept, never more than 500 points."""

import math

import pytest

from dpo.events import Note, RunStarted, StepEnd, ValidationEnd
from ui.plots import (
    MOST_POINTS,
    accuracy_frame,
    compare_colours,
    compare_frames,
    drift_frame,
    loss_frame,
    metric_points,
    reward_frame,
    smooth,
    thin,
)


def step(number: int, **metrics: float) -> StepEnd:
    return StepEnd(number, 0.1, {name.replace("__", "/"): value for name, value in metrics.items()})


def values_of(frame, series: str) -> list[float]:
    return frame[frame["series"] == series]["value"].tolist()


def test_the_running_mean_is_the_plain_mean_at_first_and_then_forgets():
    assert smooth([(1, 1.0), (2, 2.0), (3, 0.0)]) == [(1, 1.0), (2, 1.5), (3, pytest.approx(1.0))]
    assert smooth([(1, 1.0), (2, 2.0), (3, 0.0)], share=0.5)[-1] == (3, pytest.approx(0.75))
    ones_then_zero = smooth([(step, 1.0) for step in range(1, 101)] + [(101, 0.0)])
    assert ones_then_zero[-1] == (101, pytest.approx(0.9))


def test_thinning_keeps_the_lowest_and_highest_of_each_stretch_in_order():
    points = [(1, 5.0), (2, 9.0), (3, 1.0), (4, 4.0), (5, 0.0), (6, 3.0)]
    assert thin(points, 4) == [(2, 9.0), (3, 1.0), (4, 4.0), (5, 0.0)]


def test_thinning_leaves_few_points_alone():
    points = [(1, 5.0), (2, 9.0)]
    assert thin(points, 2) == points


def test_a_spike_among_ten_thousand_steps_stays_and_the_frame_stays_small():
    events = [step(number, loss=0.69) for number in range(1, 10_001)]
    events[6_543] = step(6_544, loss=12.0)
    frame = loss_frame(events)
    assert len(frame) <= MOST_POINTS
    assert values_of(frame, "each step").count(12.0) == 1


def test_values_that_are_not_finite_are_left_out():
    assert metric_points([step(1, loss=0.7), step(2, loss=math.nan), step(3, loss=math.inf)], "loss") == [(1, 0.7)]


def test_accuracy_has_its_chance_line_over_the_whole_run_and_validation_apart():
    events = [
        RunStarted(0, 4, 10, 2),
        step(1, rewards__accuracies=0.25),
        Note(1, "a word"),
        step(2, rewards__accuracies=1.0),
        ValidationEnd(2, {"rewards/accuracies": 0.75}),
    ]
    frame = accuracy_frame(events, total_steps=4)
    assert frame[frame["series"] == "chance"][["step", "value"]].values.tolist() == [[0, 0.5], [4, 0.5]]
    assert values_of(frame, "each step") == [0.25, 1.0]
    assert values_of(frame, "validation") == [0.75, 0.75]


def test_a_single_point_is_drawn_as_a_dash_around_it():
    frame = accuracy_frame([ValidationEnd(20, {"rewards/accuracies": 0.75})], total_steps=100)
    assert frame[frame["series"] == "validation"][["step", "value"]].values.tolist() == [[19.0, 0.75], [21.0, 0.75]]


def test_validation_stands_between_the_ends_of_its_interval():
    interval = {"rewards/accuracies": 0.75, "rewards/accuracies_low": 0.5, "rewards/accuracies_high": 0.9}
    frame = accuracy_frame([ValidationEnd(2, interval)], total_steps=4)
    assert values_of(frame, "validation, at least") == [0.5] * 2 and values_of(frame, "validation, at most") == [0.9] * 2


def test_two_runs_share_each_plot_under_their_own_names_and_colours():
    cats = [step(number, loss=0.5, rewards__margins=1.0) for number in (1, 2)]
    dogs = [step(number, loss=0.7, rewards__margins=2.0) for number in (1, 2)]
    frames = compare_frames({"cats-1": [*cats, ValidationEnd(1, {"rewards/accuracies": 0.8})], "dogs-1": dogs})
    assert values_of(frames["loss"], "cats-1") == [0.5, 0.5] and values_of(frames["loss"], "dogs-1") == [0.7, 0.7]
    assert values_of(frames["rewards"], "dogs-1, each step") == [2.0, 2.0]
    assert values_of(frames["accuracy"], "cats-1, validation") == [0.8, 0.8]
    colours = compare_colours(["cats-1", "dogs-1"])
    assert len(set(colours.values())) == len(colours) == 6
    assert all(set(frame["series"]) <= colours.keys() for frame in frames.values())


def test_rewards_show_both_sides_and_their_margin_smoothed_over_raw():
    events = [
        step(1, rewards__chosen=0.0, rewards__rejected=0.0, rewards__margins=0.0),
        step(2, rewards__chosen=1.0, rewards__rejected=-2.0, rewards__margins=3.0),
    ]
    frame = reward_frame(events)
    assert values_of(frame, "chosen") == pytest.approx([0.0, 0.5])
    assert values_of(frame, "rejected") == pytest.approx([0.0, -1.0])
    assert values_of(frame, "margin, each step") == [0.0, 3.0]


def test_the_danger_band_reaches_from_suffering_to_the_runs_own_limit():
    frame = drift_frame([step(1, errors__chosen_drift=0.001), step(2, errors__chosen_drift=0.04)], total_steps=9, limit=0.07)
    assert values_of(frame, "suffering") == [0.03, 0.03]
    assert values_of(frame, "limit") == [0.07, 0.07]


def test_a_run_without_steps_makes_empty_frames_with_columns():
    for frame in (loss_frame([]), accuracy_frame([], 0), reward_frame([]), drift_frame([], 0, 0.05)):
        assert frame.empty and list(frame.columns) == ["step", "value", "series"]
