"""What a run's numbers say, in plain words, and what to try. Pure functions of events: no torch, no page.

Every check looks for one way a run goes wrong, and says nothing while the numbers could as well be noise: means are over the
last `RECENT` steps, and "beyond noise" is two standard errors of such a mean. The order of `CHECKS` is the order of importance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from dpo.config import TrainConfig
from dpo.events import Event, ProbeEnd, RunStarted, StepEnd, ValidationEnd
from dpo.guards import STANDARD_ERRORS, WARNING_SHARE, WINDOW

SHOWN = 2  # more than two sentences are not read
RECENT = 20  # steps: on the demo the mean margin of so many has a standard error of a fifth of itself
FIRST_WORDS = 30  # steps before anything good or bad is said of the curves: warm-up and first noise
# Steps after the warm-up by which a run that learns shows it: on the demo the margin is beyond noise after 20, at a learning
# rate that is three times too low after 40.
PATIENT = 60
NEAR_CHANCE = 0.55  # accuracy; on the demo it is 0.67 within twenty steps
SEPARATED = 0.9  # share of pairs the base tells apart: real preferences were at 0.1 to 0.3 on the demo, damage tells at 1.0
EASY_STEPS, EASY = 20, 0.95  # accuracy that only a shortcut reaches so early
SATURATED = 4.0  # mean margin past which the loss pushes with less than 2% of its force: sigmoid(-4) = 0.018
SHARE_SATURATED = 0.25  # of pairs, before the first step: nothing has been learned that could have saturated them
RISE = 0.2  # of the preference term over its lowest, to be called divergence
STABLE = 0.05  # of the total over its lowest, to be called stable
JUMP_WINDOW = 20  # steps whose median a jump is measured from
JUMP = 8.0  # times the typical deviation (1.4826 median deviations): a normal series has one such step in 10**15
JUMPS, JUMPS_WITHIN = 3, 60  # one odd step is bad luck, three in sixty are a habit
UNSURE = 0.3  # width of the accuracy's 95% interval from which validation tells little


@dataclass(frozen=True)
class Finding:
    """`kind` is "well", or what is wrong. `text`: what was seen, with its numbers. `advice`: what to try, "" for "well"."""

    kind: str
    text: str
    advice: str


def diagnose(events: Sequence[Event], config: TrainConfig) -> list[Finding]:
    """What matters most about a run so far: at most two findings, the most important first.

    Nothing is said of a run too young to tell. One of which there is nothing bad to say is "well"; how little its validation
    knows is said after that.
    """
    curves = _Curves(events)
    wrong = [finding for check in CHECKS if (finding := check(curves, config)) is not None]
    return [*(wrong or _well(curves)), *_small_validation(curves, config)][:SHOWN]


class _Curves:
    """Metrics by name, finite values only, of steps, validations and the probe."""

    def __init__(self, events: Sequence[Event]):
        self._steps = [event for event in events if isinstance(event, StepEnd)]
        self._validations = [event for event in events if isinstance(event, ValidationEnd)]
        probes = [event.metrics for event in events if isinstance(event, ProbeEnd)]
        self.probe: dict[str, float] = probes[-1] if probes else {}
        self.measured: dict[str, float] = self._validations[-1].metrics if self._validations else {}
        self.last_step = self._steps[-1].step if self._steps else 0
        self.total_steps = max((event.total_steps for event in events if isinstance(event, RunStarted)), default=0)

    def of_steps(self, name: str) -> list[float]:
        return _finite(self._steps, name)

    def of_validations(self, name: str) -> list[float]:
        return _finite(self._validations, name)


def _finite(events: Sequence[StepEnd | ValidationEnd], name: str) -> list[float]:
    values = (event.metrics.get(name, math.nan) for event in events)
    return [value for value in values if math.isfinite(value)]


@dataclass(frozen=True)
class _Mean:
    value: float
    error: float  # standard error

    @property
    def low(self) -> float:
        return self.value - STANDARD_ERRORS * self.error


def _recent(values: Sequence[float], count: int = RECENT) -> _Mean | None:
    """Of the last `count` values; None while there are fewer."""
    last = values[-count:]
    return _Mean(fmean(last), stdev(last) / math.sqrt(count)) if len(last) == count else None


def _lowest(values: Sequence[float]) -> float:
    """The lowest mean of `RECENT` values in a row, counted in whole blocks from the start."""
    blocks = [values[start : start + RECENT] for start in range(0, len(values) - RECENT + 1, RECENT)]
    return min(fmean(block) for block in blocks)


# ------------------------------------------------------------------------------------------------ the checks


def _both_errors_rise(curves: _Curves, config: TrainConfig) -> Finding | None:
    """Chosen images get worse and rejected ones worse still: everything but this number looks better and better."""
    threshold = WARNING_SHARE * config.max_chosen_drift
    drift = _recent(curves.of_steps("errors/chosen_drift"), WINDOW)  # as the guard that stops the run
    measured = curves.measured.get("errors/chosen_drift_low", -math.inf)
    if drift is not None and drift.low > threshold:
        amount, margins, accuracies = (
            drift.value,
            *(_recent(curves.of_steps(name)) for name in ("rewards/margins", "rewards/accuracies")),
        )
        margin, accuracy = (mean.value if mean else 0.0 for mean in (margins, accuracies))
    elif measured > threshold:
        amount = curves.measured["errors/chosen_drift"]
        margin, accuracy = (curves.measured.get(name, 0.0) for name in ("rewards/margins", "rewards/accuracies"))
    else:
        return None
    text = f"The chosen images get worse: their error is {amount:.3f} above the reference's (limit {config.max_chosen_drift:g})."
    if margin > 0:
        text += f" The rejected ones get worse still, so accuracy ({accuracy:.0%}) and margin look fine."
    advice = f"Lower the learning rate ({config.learning_rate:g})"
    if config.reference_mode != "none":
        advice += f" or raise beta ({config.beta:g})"
    if config.data == "pairs" and not config.safeguard_mu and set(config.losses) != {"sft"}:
        advice += ", or set the safeguard"
    return Finding("both_errors_rise", text, advice + ".")


def _preference_diverges(curves: _Curves, config: TrainConfig) -> Finding | None:
    """A supervised mix can hide in the total that the preference term goes the other way."""
    preference, total = curves.of_steps("loss/preference"), curves.of_steps("loss")
    recent, whole = _recent(preference), _recent(total)
    if not config.supervised_mix or recent is None or whole is None:
        return None
    lowest, least = _lowest(preference), _lowest(total)
    rises = recent.low > lowest + RISE * abs(lowest)
    if not rises or whole.value > least + STABLE * abs(least):
        return None
    return Finding(
        "preference_diverges",
        f"The total loss is stable, but its preference term has risen from {lowest:.3f} to {recent.value:.3f}: "
        "the supervised mix hides that the preference is being unlearned.",
        f"Lower the supervised mix ({config.supervised_mix:g}) or the learning rate ({config.learning_rate:g}).",
    )


def _jumps(curves: _Curves, config: TrainConfig) -> Finding | None:
    values = curves.of_steps("loss")
    jumps = 0
    for at in range(max(JUMP_WINDOW, len(values) - JUMPS_WITHIN), len(values)):
        before = values[at - JUMP_WINDOW : at]
        middle = median(before)
        typical = 1.4826 * median(abs(value - middle) for value in before)
        jumps += values[at] - middle > JUMP * typical + RISE * abs(middle)
    if jumps < JUMPS:
        return None
    return Finding(
        "jumps",
        f"The loss jumps: {jumps} of the last {min(JUMPS_WITHIN, len(values))} steps stand far above those before them.",
        f"Lower the learning rate ({config.learning_rate:g}), or average more pairs per step (batch size times accumulation is "
        f"{config.step_size}).",
    )


def _stuck(curves: _Curves, config: TrainConfig) -> Finding | None:
    if curves.last_step < config.warmup_steps + PATIENT:
        return None
    margin, accuracy = (_recent(curves.of_steps(name), PATIENT) for name in ("rewards/margins", "rewards/accuracies"))
    if margin is not None and accuracy is not None:
        learns, seen = margin.low > 0 or accuracy.value > NEAR_CHANCE, accuracy.value
    elif "rewards/accuracies" in curves.measured:  # a loss without a reference is compared with the base in validations alone
        seen = curves.measured["rewards/accuracies"]
        learns = curves.measured.get("rewards/margins_low", 1.0) > 0 or seen > NEAR_CHANCE
    else:
        return None
    if learns:
        return None
    advice = f"Raise the learning rate ({config.learning_rate:g})"
    if curves.total_steps > 2 * curves.last_step:
        advice = f"Give it more steps, or raise the learning rate ({config.learning_rate:g})"
    return Finding(
        "stuck",
        f"Accuracy is stuck at one half ({seen:.0%} after {curves.last_step} steps), and the margin is no more than noise: "
        "the adapter cannot tell chosen from rejected.",
        f"{advice}. If that does not help, look in Review whether the picks agree with each other.",
    )


def _too_easy(curves: _Curves, config: TrainConfig) -> Finding | None:
    separated = curves.probe.get("probe/base_separates", 0.0)
    advice = (
        "Look at the pairs in Review: rejected images that are blurred, damaged or of another kind teach only that. "
        "Pick among images that are alike in quality."
    )
    if separated >= SEPARATED:
        text = f"The base model already separates {separated:.0%} of the pairs by itself: they differ in something it knows."
        return Finding("too_easy", text, advice)
    first = curves.of_steps("rewards/accuracies")[:EASY_STEPS]
    # The first step is all ties, and the warm-up barely moves: the later half of the first steps.
    if len(first) == EASY_STEPS and fmean(first[EASY_STEPS // 2 :]) >= EASY:
        text = (
            f"Accuracy was {fmean(first[EASY_STEPS // 2 :]):.0%} within {EASY_STEPS} steps: the pairs are too easy to learn from."
        )
        return Finding("too_easy", text, advice)
    return None


def _saturated(curves: _Curves, config: TrainConfig) -> Finding | None:
    if _both_errors_rise(curves, config):  # that saturates margins too, and asks for a higher beta, not for a lower one
        return None
    margin = _recent(curves.of_steps("rewards/margins"))
    if margin is not None and margin.low > SATURATED:
        return Finding(
            "saturated",
            f"The margins are saturated: {margin.value:.1f} on average, and past {SATURATED:g} a pair hardly pushes any more. "
            "What still changes is mostly harm.",
            f"Stop here or take an earlier step. Next time make fewer steps, or lower beta ({config.beta:g}) if the pictures "
            "changed too little.",
        )
    share = curves.probe.get("probe/saturated", 0.0)
    if share >= SHARE_SATURATED and curves.last_step < FIRST_WORDS:
        suggested = curves.probe.get("probe/suggested_beta")
        hint = f" The probe suggests {suggested:g}." if suggested else ""
        return Finding(
            "saturated",
            f"One step is enough to saturate {share:.0%} of the pairs at beta {config.beta:g}: they will hardly push.",
            f"Lower beta or the learning rate ({config.learning_rate:g}).{hint}",
        )
    return None


CHECKS = (_both_errors_rise, _preference_diverges, _jumps, _stuck, _too_easy, _saturated)


def _small_validation(curves: _Curves, config: TrainConfig) -> list[Finding]:
    low, high = (curves.measured.get(f"rewards/accuracies_{end}") for end in ("low", "high"))
    if low is None or high is None or high - low < UNSURE:
        return []
    text = (
        f"Validation is too small to say much: an accuracy of {curves.measured['rewards/accuracies']:.0%} could be anything "
        f"from {low:.0%} to {high:.0%}."
    )
    advice = f"Pick pairs of more prompts, or keep more out for validation (now {config.validation_share:.0%})."
    return [Finding("small_validation", text, advice)]


def _well(curves: _Curves) -> list[Finding]:
    margin, drift = (_recent(curves.of_steps(name)) for name in ("rewards/margins", "errors/chosen_drift"))
    if margin is not None and drift is not None:
        least, above, amount = margin.low, drift.low, drift.value
    else:
        names = ("rewards/margins_low", "errors/chosen_drift_low", "errors/chosen_drift")
        least, above, amount = (curves.measured.get(name, 0.0) for name in names)
    if curves.last_step < FIRST_WORDS or least <= 0:
        return []
    images = f"only {amount:.3f} above" if above > 0 else "not above"
    return [
        Finding(
            "well", f"All well: the margin grows beyond noise, and the error on chosen images is {images} the reference's.", ""
        )
    ]
