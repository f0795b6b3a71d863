"""Train an adapter on preference pairs.

`train` is the whole algorithm: read it top to bottom. It yields what happens (dpo/events.py) and does not know who is
watching. To stop a run, set its stop file: it is looked at before every forward pass, and everything up to the last whole
step is kept. Closing the generator checkpoints as well.

Randomness: the order of pairs follows from (seed, epoch), timestep and noise of a pair from (seed, its position in the run).
A resumed run repeats nothing and skips nothing, and needs no saved generator state.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from dpo import StudioError
from dpo.adapters import Adapter
from dpo.cache import Batch, PairData
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, Event, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.families import Family
from dpo.losses import preference_loss, reward_metrics
from dpo.runs import Run
from dpo.scoring import Noised, add_noise, backward, pair_generator
from dpo.validation import Validation

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill [0, 1) evenly however many there are
DRIFT_WINDOW = 8  # steps over which the damage to chosen images is averaged


class TrainingError(StudioError, RuntimeError):
    """Training cannot go on. The message says at which step, what was seen and what to try."""


def train(
    config: TrainConfig, data: PairData, validation_data: PairData, family: Family, adapter: Adapter, run: Run
) -> Iterator[Event]:
    """Optimise `adapter` so that the policy prefers what the user chose; yield an Event for all that happens.

    The newest checkpoint in the run's folder is resumed. Every ending but a failure leaves the adapter file behind.

    Raises:
        TrainingError: the loss stopped being finite.
    """
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    step = load_checkpoint(run, adapter, optimizer)
    validation = Validation(config, validation_data, family, adapter) if config.validate_every and len(validation_data) else None
    drifts: deque[float] = deque(maxlen=DRIFT_WINDOW)
    yield RunStarted(step, config.max_steps, len(data), len(validation_data))

    try:
        while step < config.max_steps:
            started = time.perf_counter()
            columns: dict[str, list[Tensor]] = {}
            for micro_batch in range(config.accumulation):
                first = (step * config.accumulation + micro_batch) * config.batch_size
                numbers = list(range(first, first + config.batch_size))
                for batch in data.batches([pair_index(len(data), config.seed, number) for number in numbers], numbers):
                    if run.stop_requested():
                        optimizer.zero_grad(set_to_none=True)
                        save_checkpoint(run, step, adapter, optimizer)
                        adapter.save(run.adapter)
                        yield RunEnded(step, "stopped", f"Stopped after step {step}. What was learned is kept.")
                        return
                    for name, values in _accumulate(config, batch, family, adapter).items():
                        columns.setdefault(name, []).append(values)

            metrics = {name: torch.cat(values).mean() for name, values in columns.items()}
            if not metrics["loss"].isfinite():
                raise TrainingError(
                    f"The loss became {metrics['loss'].item()} at step {step + 1} (beta={config.beta}, "
                    f"learning_rate={config.learning_rate}). Lower the learning rate and start again; "
                    f"the last checkpoint in {run.checkpoints} is as it was."
                )
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
            metrics["grad_norm"] = torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.max_grad_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1

            values = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))  # one wait for the device
            values["learning_rate"] = optimizer.param_groups[0]["lr"]
            yield StepEnd(step, time.perf_counter() - started, values)

            if validation and (step % config.validate_every == 0 or step == config.max_steps):
                yield ValidationEnd(step, validation.measure())
            drifts.append(values["errors/chosen_drift"])
            drift = sum(drifts) / len(drifts)
            if len(drifts) == DRIFT_WINDOW and drift > config.max_chosen_drift:
                kept = load_checkpoint(run, adapter, optimizer)
                if kept:
                    adapter.save(run.adapter)
                yield RunEnded(step, "damaged", _damage_report(config, step, drift, kept))
                return
            if step % config.save_every == 0 or step == config.max_steps:
                yield CheckpointSaved(step, save_checkpoint(run, step, adapter, optimizer))
    except GeneratorExit:  # the caller stopped iterating: keep what was learned
        save_checkpoint(run, step, adapter, optimizer)
        raise
    adapter.save(run.adapter)
    yield RunEnded(step, "finished", f"Finished after {step} steps.")


def _accumulate(config: TrainConfig, batch: Batch, family: Family, adapter: Adapter) -> dict[str, Tensor]:
    """One forward and backward; returns the metrics of every comparison, (M,) each."""
    noised = draw_noise(family, batch, config.seed)
    step_size = config.batch_size * config.accumulation

    def loss(policy_error: Tensor, reference_error: Tensor) -> Tensor:
        losses = preference_loss(
            policy_error, reference_error, batch.comparisons,
            beta=config.beta, label_smoothing=config.label_smoothing, sft_weight=config.sft_weight,
        )  # fmt: skip
        return (batch.comparisons.weight * losses).sum() / step_size

    policy_error, reference_error = backward(family, adapter, noised, loss, config.execution)
    losses = loss(policy_error, reference_error) * step_size / len(batch.comparisons.chosen)
    metrics = reward_metrics(policy_error, reference_error, batch.comparisons, beta=config.beta)
    return metrics | {"loss": losses.expand(len(batch.comparisons.chosen))}


def _damage_report(config: TrainConfig, step: int, drift: float, kept: int) -> str:
    return (
        f"Stopped at step {step}: the error on chosen images is {drift:.3f} above the reference's, over the limit of "
        f"{config.max_chosen_drift:g}. Such an adapter breaks the images, however good loss and accuracy look. "
        f"Lower the learning rate ({config.learning_rate:g}) or raise beta ({config.beta:g}). "
        + (f"The adapter of step {kept} is kept." if kept else "There was no checkpoint yet, so nothing is kept.")
    )


def draw_noise(family: Family, batch: Batch, seed: int) -> Noised:
    """Timestep and noise for every group of the batch, from (seed, number).

    Timesteps of successive pairs are spread evenly (a golden-ratio sequence from a seeded start), which lowers the variance
    of a step for nothing.
    """
    start = torch.rand(1, generator=pair_generator(seed, -1), dtype=torch.float64)
    u = ((start + GOLDEN * torch.tensor(batch.numbers, dtype=torch.float64)) % 1).float().clamp(max=1 - 2**-24)
    shape = batch.latents.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=pair_generator(seed, number)) for number in batch.numbers])
    return add_noise(family, batch, u, noise)


def pair_index(num_pairs: int, seed: int, number: int) -> int:
    """Which pair is at position `number` of a run: every epoch is a fresh permutation of all pairs."""
    epoch, position = divmod(number, num_pairs)
    return int(torch.randperm(num_pairs, generator=pair_generator(f"epoch {seed}", epoch))[position])


def save_checkpoint(run: Run, step: int, adapter: Adapter, optimizer: torch.optim.Optimizer) -> str:
    """Write all that resuming needs, atomically: the step, the adapter, the optimizer. Keeps the newest three."""
    path = run.checkpoints / f"step-{step:06d}.pt"
    partial = path.with_suffix(".partial")
    try:
        torch.save({"step": step, "adapter": adapter.state_dict(), "optimizer": optimizer.state_dict()}, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"The checkpoint of step {step} cannot be written to {run.checkpoints}: {error}. Free some space and resume."
        ) from error
    for old in sorted(run.checkpoints.glob("step-*.pt"))[:-3]:
        old.unlink()
    return str(path)


def load_checkpoint(run: Run, adapter: Adapter, optimizer: torch.optim.Optimizer) -> int:
    """Restore the newest checkpoint of the run, if any; return how many steps are done."""
    paths = sorted(run.checkpoints.glob("step-*.pt"))
    if not paths:
        return 0
    state = torch.load(paths[-1], weights_only=True, map_location="cpu")
    adapter.load_state_dict(state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
