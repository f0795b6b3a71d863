"""Choosing beta by measurement: one optimizer step on a throw-away copy of the adapter, and what it does to log-ratios.

Beta has no unit that tools or models share: it multiplies differences of errors, and how large those are depends on the family,
the data, the rank and the learning rate. What can be compared is the margin, beta times that difference. So the probe takes one
step at the peak learning rate, looks at pairs that were not in it, says how far their margins moved, and which beta would have
moved them as far as it does where beta is known to be right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dpo.adapters import Adapter, attach_adapter
from dpo.cache import TrainingData, encode_items
from dpo.config import TrainConfig
from dpo.draws import Draws, pair_generator
from dpo.events import Note, ProbeEnd
from dpo.families import Family, load_family
from dpo.losses import make_recipe, preference_losses, reward_metrics
from dpo.models import default_device, load_parts, place_denoiser
from dpo.optimisation import Scaler, make_optimizer, prepare_denoiser, set_learning_rate
from dpo.pairs import Item, split_pairs
from dpo.scoring import Reference, backward, errors

ITEMS = 32  # that are looked at after the step
SATURATED = 4.0  # a margin past this pushes with less than 2% of its force: sigmoid(-4) = 0.018
# The median movement of a margin in one step that the suggestion aims at. It comes from the demo (preset "demo": AdamW, learning
# rate 0.001, rank 8, 100 steps). There beta 100 is right: the win rate is 0.98 and the error on chosen images falls. At 500 it is
# 0.91, at 2000 0.84; at 20 the chosen error is 0.047 above the base's in the end. One step moves the median gap by 0.5e-4 to
# 1.2e-4 (five seeds), so the margin at beta 100 by about 0.007, and the suggestions are 80 to 140.
TARGET = 0.007
DEVIATIONS = 1.4826  # standard deviation over median deviation, of a normal distribution


def probe(
    config: TrainConfig, data: TrainingData, family: Family, adapter: Adapter, reference: Reference, draws: Draws
) -> Iterator[Note | ProbeEnd]:
    """Measure before the first step; adapter and gradients are bitwise as they were afterwards, whatever happens.

    The metrics of the ProbeEnd:
        probe/base_separates   share of comparisons whose chosen image the reference denoises better anyway: near 1, the pairs
                               differ in something the model knows already
        probe/logratio_std     spread of the log-ratio difference of chosen and rejected, without beta, as a standard deviation
                               (from the median: a few pairs at low noise move far more than all others)
        probe/margin_p50, probe/margin_p90, probe/saturated   percentiles of |margin|, and the share above 4, at the run's beta
        probe/suggested_beta   the beta of which the median margin had moved by `TARGET`, but not less than 4 over the damage
                               limit: under that a pair pushes on until its error shows the damage

    It suggests a beta for this learning rate, and does not know whether the learning rate is any good. Without comparisons
    there is no `base_separates`; where beta means nothing (sft) or a first step says nothing (prodigy, whose first steps are all
    but zero), there is nothing else.
    """
    yield Note(0, "Measuring what one step does")
    parts = _split(config, len(data))
    measured_against = Reference(family, adapter, "base") if config.reference_mode == "none" else reference
    before = adapter.copy()
    try:
        steps = set(config.losses) != {"sft"} and config.optimizer != "prodigy"
        if steps:
            _step(config, data, family, adapter, reference, draws, parts[0])
        margins, separates = _look(config, data, family, measured_against, draws, *parts)
    finally:
        adapter.load_state_dict(before)
        for parameter in adapter.parameters():
            parameter.grad = None
    metrics = {"probe/base_separates": separates.mean().item()} if len(separates) else {}
    yield ProbeEnd(0, metrics | (_summary(config, margins.abs()) if steps else {}))


def probe_config(config: TrainConfig, items: Sequence[Item], cache: Path) -> Iterator[Note | ProbeEnd]:
    """The same without a run: load the model, prepare the few items that are needed, and measure.

    items: those of a run, before any are held out. cache: the folder of encoded tensors.
    """
    yield Note(0, f"Loading {config.model}")
    device = default_device()
    family = load_family(load_parts(config.model, config.precision, device, **config.base), device)
    training, _ = split_pairs(items, config.validation_share)
    order = _order(config, len(training))[: config.step_size + ITEMS]
    data = None
    for found in encode_items([training[index] for index in order], family, config.resolution, cache):
        if isinstance(found, Note):
            yield found
        else:
            data = found
    family.release_encoders()
    place_denoiser(family.pipeline, config.model, config.precision, device, **config.base)
    starting = Path(config.starting_adapter).expanduser() if config.starting_adapter else None
    file = {"file": config.reference_adapter, "adapter": config.starting_adapter}.get(config.reference_mode)
    adapter = attach_adapter(family, config, starting=starting, reference=Path(file).expanduser() if file else None, moving=False)
    prepare_denoiser(config, family)
    yield from probe(config, data, family, adapter, Reference(family, adapter, config.reference_mode), Draws(config, family))


def _step(
    config: TrainConfig,
    data: TrainingData,
    family: Family,
    adapter: Adapter,
    reference: Reference,
    draws: Draws,
    indices: list[int],
) -> None:
    """One optimizer step as the trainer makes it, at the peak of the learning rate."""
    recipe = make_recipe(config)
    optimizer, scaler = make_optimizer(config, adapter.parameters(), adapter.rate_shares(config)), Scaler(config)
    for start in range(0, len(indices), config.batch_size):
        part = indices[start : start + config.batch_size]
        for batch in data.batches(part, range(start, start + len(part)), [0] * len(part)):

            def loss(policy_error: Tensor, reference_error: Tensor | None, rejected_scale: Tensor | None, batch=batch) -> Tensor:
                losses = preference_losses(
                    policy_error, reference_error, batch.comparisons, batch.labels, recipe, rejected_scale=rejected_scale
                )
                return scaler.scale(losses.total.sum() / config.step_size)

            backward(family, reference, draws.draw(batch), batch, draws.keys(batch), config, loss)
    if scaler.unscale(adapter.parameters()):
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.max_grad_norm or math.inf)
        set_learning_rate(optimizer, config.learning_rate)
        optimizer.step()


@torch.no_grad()
def _look(
    config: TrainConfig,
    data: TrainingData,
    family: Family,
    reference: Reference,
    draws: Draws,
    stepped: list[int],
    indices: list[int],
) -> tuple[Tensor, Tensor]:
    """(margins at the config's beta, whether the reference separates each comparison), one value a comparison or label."""
    margins, separates = [], []
    at_once = config.execution == "full_concurrent"
    for start in range(0, len(indices), config.batch_size):
        part = indices[start : start + config.batch_size]
        first = len(stepped) + start
        for batch in data.batches(part, range(first, first + len(part)), [0] * len(part)):
            noised, comparisons = draws.draw(batch), batch.comparisons
            known = reference.errors(noised, batch, draws.keys(batch), at_once=at_once)
            policy = errors(family, noised, at_once=config.execution != "sequential")
            metrics = reward_metrics(policy, known, comparisons, batch.labels, beta=config.beta)
            margins.append(metrics["rewards/margins"])
            separates.append((known[comparisons.chosen] < known[comparisons.rejected]).float())
    return torch.cat(margins), torch.cat(separates)


def _summary(config: TrainConfig, margins: Tensor) -> dict[str, float]:
    if not margins.isfinite().all():  # the first training step will say why
        return {}
    middle, high = torch.quantile(margins.float(), torch.tensor([0.5, 0.9], device=margins.device)).tolist()
    metrics = {
        "probe/logratio_std": DEVIATIONS * middle / config.beta,
        "probe/margin_p50": middle,
        "probe/margin_p90": high,
        "probe/saturated": (margins > SATURATED).float().mean().item(),
    }
    if middle:
        least = SATURATED / config.max_chosen_drift if config.max_chosen_drift else 0.0
        metrics["probe/suggested_beta"] = float(f"{max(least, TARGET * config.beta / middle):.2g}")  # no more is known of it
    return metrics


def _split(config: TrainConfig, count: int) -> tuple[list[int], list[int]]:
    """(items to step on, items to look at): different ones as far as there are enough."""
    order = _order(config, count)
    looked = max(1, min(ITEMS, count))
    return (
        [order[place % count] for place in range(config.step_size)],
        [order[(config.step_size + place) % count] for place in range(looked)],
    )


def _order(config: TrainConfig, count: int) -> list[int]:
    return torch.randperm(count, generator=pair_generator(f"probe {config.seed}", count)).tolist()
