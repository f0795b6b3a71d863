"""Measuring on prompts that training never sees, with draws that never change.

The split (`dpo.pairs.split_pairs`) is by prompt. Every validation pair is measured at the same few timesteps, one in each
stratum, with the same noise, in every validation of every run of this seed: a difference between two steps is the
adapter's doing, not the dice's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpo.adapters import Adapter
from dpo.cache import Batch, PairData
from dpo.config import TrainConfig
from dpo.families import Family
from dpo.losses import preference_loss, reward_metrics
from dpo.scoring import Noised, add_noise, errors, pair_generator, reference_errors

DRAWS = 4  # timesteps per validation pair, one in each quarter of the schedule
BATCH = 16  # rows are cheap without gradients


class Validation:
    """The fixed measurement of one run. The reference does not move, so its errors are measured once and remembered."""

    def __init__(self, config: TrainConfig, data: PairData, family: Family, adapter: Adapter):
        self._config, self._family, self._adapter = config, family, adapter
        self._batches = []
        for start in range(0, len(data), BATCH):
            indices = list(range(start, min(start + BATCH, len(data))))
            for draw in range(DRAWS):
                for batch in data.batches(indices, indices):
                    noised = _fixed_draw(family, batch, draw, config.seed)
                    self._batches.append((batch, noised, reference_errors(family, adapter, noised)))

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The metrics of a training step, over all validation pairs and draws."""
        columns: dict[str, list[Tensor]] = {}
        for batch, noised, reference_error in self._batches:
            policy_error = errors(self._family, noised)
            config = self._config
            metrics = reward_metrics(policy_error, reference_error, batch.comparisons, beta=config.beta)
            metrics["loss"] = preference_loss(
                policy_error, reference_error, batch.comparisons,
                beta=config.beta, label_smoothing=config.label_smoothing, sft_weight=config.sft_weight,
            )  # fmt: skip
            for name, values in metrics.items():
                columns.setdefault(name, []).append(values)
        return {name: torch.cat(values).mean().item() for name, values in columns.items()}


def _fixed_draw(family: Family, batch: Batch, draw: int, seed: int) -> Noised:
    generators = [pair_generator(f"validation {seed}", number * DRAWS + draw) for number in batch.numbers]
    u = torch.cat([(draw + torch.rand(1, generator=generator)) / DRAWS for generator in generators])
    noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=generator) for generator in generators])
    return add_noise(family, batch, u, noise)
