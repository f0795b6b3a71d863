"""What watches over a run: the damage to chosen images, and the running means that losses and beta follow. No torch.

Everything here is a small function of numbers that the trainer has anyway, and its state goes into a checkpoint as plain
JSON, so a resumed run decides what an uninterrupted one would.
"""

from __future__ import annotations

import math

from dpo.config import TrainConfig

WINDOW = 8  # training steps over which the damage is averaged: a step alone is mostly its timesteps
STANDARD_ERRORS = 2  # about 95%: what counts as beyond noise
# On the demo a healthy run stays under 0.015 and images suffer past 0.03: a warning at 0.3 of the default limit, 0.05,
# comes before either is seen.
WARNING_SHARE = 0.3

LEAST_BETA = 0.25  # of the configured beta; OneTrainer's adaptive beta clamps there too
MEMORY = 0.9  # of a running mean: the newest value weighs a tenth, as in beta-DPO


class DriftGuard:
    """Watches the policy's error on chosen images over the reference's: the one number that tells a run that breaks images.

    Loss, margin and accuracy go on looking fine in such a run. The drift of a step is noisy, so it speaks only when the mean of
    the last `WINDOW` steps, less two of its standard errors (from their spread), is over a threshold: a share of the damage
    limit for a warning, the limit for the end. A validation, whose draws never change, speaks for itself, by the lower end of
    its interval; it is all there is for losses without a reference, and what sees a policy walk off together with a moving one.
    """

    window = WINDOW

    def __init__(self, config: TrainConfig):
        self._config = config
        self._drifts: list[float] = []
        self._said = 0  # 1: warned, 2: said that the limit is passed
        self.drift = 0.0  # what the last decision was about: of the window, or of a validation

    def add(self, metrics: dict[str, float], measured: dict[str, float]) -> str:
        """Take in the metrics of a step, and of its validation ({} if there was none).

        Returns "stop" over the limit, where `on_damage` is "stop"; "warn" for what is worth saying, once for each threshold
        passed; "" otherwise.
        """
        newest = metrics.get("errors/chosen_drift", math.nan)
        if math.isfinite(newest):
            self._drifts = [*self._drifts, newest][-WINDOW:]
        passed = 0
        for drift, least in filter(None, (self._of_training(), _of_validation(measured))):
            reached = 2 if least > self._config.max_chosen_drift else int(least > WARNING_SHARE * self._config.max_chosen_drift)
            if reached > passed:
                passed, self.drift = reached, drift
        if passed == 2 and self._config.on_damage == "stop":
            return "stop"
        if passed > self._said:
            self._said = passed
            return "warn"
        return ""

    def warning(self) -> str:
        """The sentence for "warn"."""
        limit = self._config.max_chosen_drift
        if self._said == 2:
            return f"The images are being damaged: {self._finding()}, over the limit of {limit:g}. {self._advice()}"
        return f"The chosen images begin to suffer: {self._finding()}; from {limit:g} on they break. {self._advice()}"

    def report(self, step: int) -> str:
        """The sentence for "stop"."""
        return (
            f"Stopped at step {step}: {self._finding()}, over the limit of {self._config.max_chosen_drift:g}. "
            f"Such an adapter breaks the images, however good loss and accuracy look. {self._advice()}"
        )

    def state_dict(self) -> dict:
        return {"drifts": self._drifts, "said": self._said, "drift": self.drift}

    def load_state_dict(self, state: dict) -> None:
        self._drifts, self._said, self.drift = list(state["drifts"]), state["said"], state["drift"]

    def _of_training(self) -> tuple[float, float] | None:
        """(mean, mean less two standard errors) of the window; None until it is full."""
        if len(self._drifts) < WINDOW:
            return None
        mean = math.fsum(self._drifts) / WINDOW
        variance = math.fsum((drift - mean) ** 2 for drift in self._drifts) / (WINDOW - 1)
        return mean, mean - STANDARD_ERRORS * math.sqrt(variance / WINDOW)

    def _finding(self) -> str:
        return f"the error on chosen images is {self.drift:.3f} above the reference's"

    def _advice(self) -> str:
        config = self._config
        if config.reference_mode == "none":
            return f"Lower the learning rate ({config.learning_rate:g}), or make fewer steps."
        return f"Lower the learning rate ({config.learning_rate:g}) or raise beta ({config.beta:g})."


def _of_validation(measured: dict[str, float]) -> tuple[float, float] | None:
    """(drift, lower end of its interval); with prompts too few for an interval, the drift is both."""
    drift = measured.get("errors/chosen_drift")
    return None if drift is None else (drift, measured.get("errors/chosen_drift_low", drift))


class Running:
    """The mean of a series that forgets: every newer value weighs a tenth. The first values are averaged without bias towards 0.

    As Adam corrects its means (Kingma & Ba 2015, section 3): the sum of the weights is kept beside the weighted sum.
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self.newest = 0.0

    @property
    def value(self) -> float:
        """0 before the first value."""
        return self._sum / self._weight if self._weight else 0.0

    def add(self, value: float) -> None:
        """A value that is not finite is no news."""
        if not math.isfinite(value):
            return
        self.newest = value
        self._sum = MEMORY * self._sum + (1 - MEMORY) * value
        self._weight = MEMORY * self._weight + (1 - MEMORY)

    def state_dict(self) -> dict:
        return {"sum": self._sum, "weight": self._weight, "newest": self.newest}

    def load_state_dict(self, state: dict) -> None:
        self._sum, self._weight, self.newest = state["sum"], state["weight"], state["newest"]


def adapted_beta(beta: float, strength: float, gaps: Running) -> float:
    """Beta for the next step: higher after pairs that were easier than usual, lower after harder ones (beta-DPO).

    beta * (1 + strength * tanh(beta * (gaps.newest - gaps.value))), at least beta / 4. In beta-DPO (Wu et al. 2024,
    arXiv 2407.08639) it is beta * (1 + strength * (M - M0)), of the margins M of a batch and their running mean M0; far
    from the mean that goes below zero, and their code cuts it off at 0.001. OneTrainer's tanh has the same slope where it
    matters and never goes past beta * (1 +- strength), so a single odd step cannot take the run anywhere. As in both, margins
    are in units of the *configured* beta, so the adapted one never feeds back into what it is made from. We use the step before,
    not this one: beta is then known before the first micro-batch, and the same for all of them and for every process.

    Args:
        strength: in [0, 1]; 0 leaves beta as it is. gaps: per step, the mean of chosen minus rejected log-ratio, without beta.
    """
    return max(LEAST_BETA * beta, beta * (1 + strength * math.tanh(beta * (gaps.newest - gaps.value))))
