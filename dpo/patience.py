"""What validations decide: which step was the best, and when it is no use to go on. No torch.

**The best step** is one that did chosen images no harm; of those the most accurate, as far as that can be told; of those the
kindest:

1. A validation whose chosen error is above the reference's by more than the damage limit is never the best.
2. One whose chosen error is above the reference's at all is beaten by any whose is not, and one at which images begin to suffer
   (where a run warns, dpo/guards.py) by any that stays below. No noise is granted here: the draws never change, and an interval
   over a few prompts would let a run through that has begun to break.
3. Of these, a step stays in the running while its accuracy is within one standard error of the highest so far (the
   one-standard-error rule of Breiman et al. 1984; Hastie et al. 2009, section 7.10, with the kindest in the simplest's place).
4. Of these, the smallest chosen error wins: the highest chosen reward.

Margin and loss have no say, and accuracy comes second, because all three go on improving while chosen images get worse, as long
as rejected ones get worse faster: that is how these runs break. On the demo at a learning rate that breaks it (0.003), from
step 40 to step 80 accuracy on held-out prompts rose from 0.64 to 0.91 while the chosen error went from 0.002 below the
reference's to 0.07 above, and pictures that follow their prompt from all to 0.90. In a healthy run (0.001) accuracy is noise
around 0.6 from step 20 to 100, and the chosen reward is what rises with the win rate, from 0.92 to 0.98.

A step that is not the best when it is validated never becomes it later: nothing of it is kept.
"""

from __future__ import annotations

import math

from dpo.config import TrainConfig
from dpo.guards import WARNING_SHARE

DIGITS = 5  # validations that agree to so many decimals are no progress
INTERVAL_WIDTH = 2 * 1.96  # standard errors from one end of a 95% interval to the other
HARMLESS, ABOVE, SUFFERS = range(3)  # what a step does to chosen images
WATCHED = {  # what `patience_metrics` names -> (metric, sign that makes higher better)
    "accuracy": ("rewards/accuracies", 1),
    "chosen_reward": ("rewards/chosen", 1),
    "loss": ("loss", -1),
}
WORDS = {"accuracy": "accuracy", "chosen_reward": "the chosen reward", "loss": "the loss"}


class Judge:
    """What the validations of a run amount to, one after the other."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._harm = SUFFERS  # of the best step, and of all that compete with it
        self._highest, self._noise = -math.inf, 0.0  # accuracy of these, and its standard error
        self._accuracy, self._drift = -math.inf, math.inf  # of the best step
        self._tops = dict.fromkeys(config.patience_watches, -math.inf)
        self._stalled = dict.fromkeys(config.patience_watches, 0)  # validations in a row without a better one
        self.best_step: int | None = None
        self.is_best = False  # whether the newest validation is the best

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Take in the validation after `step`."""
        self._watch(metrics)
        self.is_best = self._judge(metrics)
        if self.is_best:
            self.best_step = step

    @property
    def exhausted(self) -> str:
        """Why it is no use to go on, as the end of a sentence; "" while it is."""
        config = self._config
        out = [name for name, stalled in self._stalled.items() if stalled >= config.patience]
        if not config.patience or not out or (config.patience_rule == "both" and len(out) < len(self._stalled)):
            return ""
        return f"no better value of {' or '.join(WORDS[name] for name in out)} in {config.patience} validations in a row."

    def state_dict(self) -> dict:
        """Plain JSON: what is still infinite is left out."""
        numbers = {"highest": self._highest, "noise": self._noise, "accuracy": self._accuracy, "drift": self._drift}
        return {
            "numbers": {name: value for name, value in numbers.items() if math.isfinite(value)},
            "tops": {name: value for name, value in self._tops.items() if math.isfinite(value)},
            "stalled": dict(self._stalled),
            "harm": self._harm,
            "best_step": self.best_step,
            "is_best": self.is_best,
        }

    def load_state_dict(self, state: dict) -> None:
        numbers = {"highest": -math.inf, "noise": 0.0, "accuracy": -math.inf, "drift": math.inf} | state["numbers"]
        self._highest, self._noise = numbers["highest"], numbers["noise"]
        self._accuracy, self._drift = numbers["accuracy"], numbers["drift"]
        self._tops |= state["tops"]
        self._stalled |= state["stalled"]
        self._harm, self.best_step, self.is_best = state["harm"], state["best_step"], state["is_best"]

    def _judge(self, metrics: dict[str, float]) -> bool:
        accuracy, drift = metrics.get("rewards/accuracies", math.nan), metrics.get("errors/chosen_drift", math.nan)
        limit = self._config.max_chosen_drift
        if not drift <= limit or math.isnan(accuracy):
            return False
        harm = HARMLESS if drift <= 0 else ABOVE if drift <= WARNING_SHARE * limit else SUFFERS
        if harm > self._harm:
            return False
        if harm < self._harm:
            self._harm, self._highest, self._accuracy = harm, -math.inf, -math.inf
        if accuracy > self._highest:
            low = metrics.get("rewards/accuracies_low", accuracy)
            high = metrics.get("rewards/accuracies_high", accuracy)
            self._highest, self._noise = accuracy, (high - low) / INTERVAL_WIDTH
        least = self._highest - self._noise
        if accuracy < least or (self._accuracy >= least and drift >= self._drift):
            return False
        self._accuracy, self._drift = accuracy, drift
        return True

    def _watch(self, metrics: dict[str, float]) -> None:
        for name, top in self._tops.items():
            metric, sign = WATCHED[name]
            value = round(sign * metrics.get(metric, math.nan), DIGITS)
            is_better = value > top  # nothing is better than nan, and nan is better than nothing
            self._tops[name] = value if is_better else top
            self._stalled[name] = 0 if is_better else self._stalled[name] + 1
