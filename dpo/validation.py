"""Measuring on prompts that training never sees, with draws that never change.

The split (`dpo.pairs.split_pairs`) is by prompt. Every validation item is measured at the same few timesteps, one in each
stratum, with the same noise, in every validation of every run of this seed: a difference between two steps is the adapter's
doing, not the dice's. Which step was the best, and when to stop: dpo/patience.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dpo.adapters import Adapter
from dpo.cache import Batch, TrainingData
from dpo.config import TrainConfig
from dpo.draws import Noised, fixed_draw
from dpo.families import Family
from dpo.intervals import mean_interval, share_interval
from dpo.losses import by_quartile, make_recipe, preference_losses, reward_metrics
from dpo.pairs import same_words
from dpo.scoring import Reference, errors

# Items differ more from each other than draws of one item do: few items are worth more draws, many need fewer.
MEASUREMENTS = 256
FEWEST_DRAWS, MOST_DRAWS = 4, 16
ITEMS_AT_ONCE = 4  # times what a training batch holds: without gradients, rows need less memory
INTERVALS = {
    "rewards/accuracies": share_interval, "rewards/margins": mean_interval, "errors/chosen_drift": mean_interval,
}  # fmt: skip


class Validation:
    """The fixed measurement of one run.

    It is measured against the reference as it is when this is made, even where that moves later: otherwise a policy and a
    reference that walk off together would look well. So make it before a checkpoint is loaded. A loss without a reference
    is measured against the base model, so that harm is seen there too.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, family: Family, adapter: Adapter, reference: Reference):
        self._config, self._data, self._family = config, data, family
        self._at_once = config.execution != "sequential"
        self._draws = max(FEWEST_DRAWS, min(MOST_DRAWS, MEASUREMENTS // len(data)))
        self._prompts = [same_words(item.prompt) for item in data.items]
        if config.reference_mode == "none":
            reference = Reference(family, adapter, "base")
        # As at_once as the policy: in another grouping of rows its last digits would differ.
        self._reference_errors = [
            reference.errors(noised, batch, None, at_once=self._at_once) for batch, noised in self._measurements()
        ]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The metrics of a training step over all items and draws, at the configured beta, and how sure they are.

        NAME_low and NAME_high are ends of 95% intervals over prompts (dpo/intervals.py), of "rewards/accuracies",
        "rewards/margins" and "errors/chosen_drift"; the last two need two prompts. "margins/quartile_1" to "_4" are margins by
        quarter of the schedule. "loss" and "loss/preference" are means per item.
        """
        recipe = make_recipe(self._config)
        columns: dict[str, list[Tensor]] = {}
        prompts: dict[str, list[str]] = {name: [] for name in INTERVALS}
        for (batch, noised), reference_error in zip(self._measurements(), self._reference_errors, strict=True):
            policy_error = errors(self._family, noised, at_once=self._at_once)
            known = None if self._config.reference_mode == "none" else reference_error
            found = preference_losses(policy_error, known, batch.comparisons, batch.labels, recipe)
            metrics = reward_metrics(policy_error, reference_error, batch.comparisons, batch.labels, beta=recipe.beta)
            rows = torch.cat([batch.comparisons.chosen, batch.labels.rows])
            chosen = torch.cat([batch.comparisons.chosen, batch.labels.rows[batch.labels.liked]])
            for quarter, values in by_quartile(metrics["rewards/margins"], noised.u[rows]).items():
                metrics[f"margins/quartile_{quarter}"] = values
            for name in INTERVALS:
                prompts[name] += self._prompts_of(batch, chosen if name == "errors/chosen_drift" else rows)
            for name, values in (("loss", found.total), ("loss/preference", found.preference)):
                metrics[name] = values.sum().expand(len(batch.numbers)) / len(batch.numbers)
            for name, values in metrics.items():
                columns.setdefault(name, []).append(values)
        return _summary({name: torch.cat(values).double().tolist() for name, values in columns.items()}, prompts)

    def _measurements(self) -> Iterator[tuple[Batch, Noised]]:
        """All items at all draws, always in the same order and batches."""
        size = ITEMS_AT_ONCE * self._config.batch_size
        for start in range(0, len(self._data), size):
            indices = list(range(start, min(start + size, len(self._data))))
            for batch in self._data.batches(indices, indices, [0] * len(indices)):
                for draw in range(self._draws):
                    yield batch, fixed_draw(self._family, batch, draw, self._draws, self._config.seed, self._config)

    def _prompts_of(self, batch: Batch, rows: Tensor) -> list[str]:
        return [self._prompts[batch.numbers[group]] for group in batch.groups[rows].tolist()]


def _summary(columns: dict[str, list[float]], prompts: dict[str, list[str]]) -> dict[str, float]:
    summary = {name: sum(values) / len(values) for name, values in columns.items()}
    for name, interval in INTERVALS.items():
        ends = interval(columns[name], prompts[name]) if name in columns else None
        if ends is not None:
            summary[f"{name}_low"], summary[f"{name}_high"] = ends
    return summary
