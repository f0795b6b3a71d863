"""Events -> data frames for plots. No gradio, no state.

Every frame is long: `step` (optimizer steps done), `value`, `series` (the name in the legend), at most `MOST_POINTS` rows.
Steps whose value is not finite are left out, as a plot cannot hold them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dpo.events import Event, StepEnd, ValidationEnd

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 500
SMOOTHING = 0.1  # share of the newest value in the running mean
DASH = 0.02  # of a plot's width: a line through one point would not be seen, so it is drawn as a dash
SUFFERING = 0.03  # chosen error over the reference's from which images visibly suffer

Points = list[tuple[int, float]]

RAW, SMOOTH, VALIDATION = "each step", "smoothed", "validation"
CHANCE, SUFFERS, STOPS = "chance", "suffering", "limit"
CHOSEN, REJECTED, MARGIN = "chosen", "rejected", "margin"
LOWEST, HIGHEST = "validation, at least", "validation, at most"  # the 95% interval
LEGEND = (SMOOTH, CHOSEN, REJECTED, MARGIN, VALIDATION, CHANCE, SUFFERS, STOPS)  # the faint raw lines explain themselves
COLOURS = {
    RAW: "rgba(224, 153, 46, 0.28)",
    SMOOTH: "#e0992e",
    VALIDATION: "#3aa39c",
    LOWEST: "rgba(58, 163, 156, 0.3)",
    HIGHEST: "rgba(58, 163, 156, 0.3)",
    CHANCE: "rgba(128, 128, 128, 0.75)",
    SUFFERS: "rgba(214, 96, 77, 0.55)",
    STOPS: "#d6453d",
    CHOSEN: "#e0992e",
    REJECTED: "#7f8c9b",
    MARGIN: "#3aa39c",
    f"{CHOSEN}, {RAW}": "rgba(224, 153, 46, 0.22)",
    f"{REJECTED}, {RAW}": "rgba(127, 140, 155, 0.22)",
    f"{MARGIN}, {RAW}": "rgba(58, 163, 156, 0.22)",
}


# Of two runs in the same plots, the shown one first: smoothed, each step, validation.
PAIR_COLOURS = (("#e0992e", "rgba(224, 153, 46, 0.2)", "#b5561e"), ("#3aa39c", "rgba(58, 163, 156, 0.2)", "#3b78b8"))
COMPARED = {"loss": "loss", "accuracy": "rewards/accuracies", "rewards": "rewards/margins", "drift": "errors/chosen_drift"}


def loss_frame(events: Sequence[Event]) -> pd.DataFrame:
    points = metric_points(events, "loss")
    return _frame({RAW: points, SMOOTH: smooth(points)})


def accuracy_frame(events: Sequence[Event], total_steps: int) -> pd.DataFrame:
    """Share of pairs the adapter gets right, with the 0.5 of guessing and the validation points."""
    points = metric_points(events, "rewards/accuracies")
    held_out = metric_points(events, "rewards/accuracies", ValidationEnd)
    interval = {
        series: metric_points(events, f"rewards/accuracies{end}", ValidationEnd)
        for series, end in ((LOWEST, "_low"), (HIGHEST, "_high"))
    }
    chance = _level(0.5, points or held_out, total_steps)
    return _frame({RAW: points, CHANCE: chance, **interval, SMOOTH: smooth(points), VALIDATION: held_out})


def reward_frame(events: Sequence[Event]) -> pd.DataFrame:
    metrics = {CHOSEN: "rewards/chosen", REJECTED: "rewards/rejected", MARGIN: "rewards/margins"}
    points = {series: metric_points(events, metric) for series, metric in metrics.items()}
    faint = {f"{series}, {RAW}": values for series, values in points.items()}
    return _frame({**faint, **{series: smooth(values) for series, values in points.items()}})


def drift_frame(events: Sequence[Event], total_steps: int, limit: float) -> pd.DataFrame:
    """Chosen error over the reference's, with the band in which images suffer: from 0.03 to the run's damage limit.

    The one number that tells a healthy run from a destroyed one while loss, accuracy and margin look fine.
    """
    points = metric_points(events, "errors/chosen_drift")
    held_out = metric_points(events, "errors/chosen_drift", ValidationEnd)
    known = points or held_out
    band = {SUFFERS: _level(SUFFERING, known, total_steps), STOPS: _level(limit, known, total_steps)}
    return _frame({RAW: points, **band, SMOOTH: smooth(points), VALIDATION: held_out})


def compare_frames(runs: dict[str, Sequence[Event]]) -> dict[str, pd.DataFrame]:
    """The four plots for two runs at once, by the plots' names: each run smoothed under its own name over its faint steps, and
    of accuracy and drift its validation. Of the rewards, the margin alone."""
    frames = {}
    for plot, metric in COMPARED.items():
        series: dict[str, Points] = {}
        is_validated = plot in ("accuracy", "drift")
        for name, events in runs.items():
            points = metric_points(events, metric)
            series |= {f"{name}, {RAW}": points, name: smooth(points)}
            if is_validated:
                series[f"{name}, {VALIDATION}"] = metric_points(events, metric, ValidationEnd)
        frames[plot] = _frame(series)
    return frames


def compare_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each series of `compare_frames`."""
    return {
        series: colour
        for name, colours in zip(names, PAIR_COLOURS, strict=True)
        for series, colour in zip((name, f"{name}, {RAW}", f"{name}, {VALIDATION}"), colours, strict=True)
    }


def metric_points(events: Iterable[Event], name: str, kind: type = StepEnd) -> Points:
    """(step, value) of one metric, from the events of one kind, finite values only."""
    found = ((event.step, event.metrics.get(name)) for event in events if isinstance(event, kind))
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def smooth(points: Points, share: float = SMOOTHING) -> Points:
    """Running mean: of all values so far at first, so that no first value weighs too much; then the newest weighs `share`."""
    smoothed: Points = []
    for number, (step, value) in enumerate(points, start=1):
        mean = smoothed[-1][1] if smoothed else value
        smoothed.append((step, mean + max(share, 1 / number) * (value - mean)))
    return smoothed


def thin(points: Points, most: int) -> Points:
    """At most `most` of the points: the lowest and the highest of each of most // 2 stretches, so that spikes stay."""
    if len(points) <= most:
        return points
    stretches = max(1, most // 2)
    kept: Points = []
    for number in range(stretches):
        stretch = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        ends = {min(stretch, key=_value), max(stretch, key=_value)}
        kept.extend(sorted(ends))
    return kept


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _level(value: float, points: Points, total_steps: int) -> Points:
    """A horizontal line over the whole run; none before there is anything to compare with it."""
    return [(0, value), (total_steps, value)] if points else []


def _frame(series: dict[str, Points]) -> pd.DataFrame:
    import pandas as pd

    most = MOST_POINTS // len(series)
    width = max((step for points in series.values() for step, _ in points), default=0)
    rows = [(step, value, name) for name, points in series.items() for step, value in _line(thin(points, most), DASH * width)]
    return pd.DataFrame(rows, columns=["step", "value", "series"])


def _line(points: Points, dash: float) -> Sequence[tuple[float, float]]:
    if len(points) != 1:
        return points
    ((step, value),) = points
    return [(step - dash / 2, value), (step + dash / 2, value)]
