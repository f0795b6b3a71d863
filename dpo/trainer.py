"""Train an adapter on preferences.

`train` is the whole algorithm: read it top to bottom. It yields what happens (dpo/events.py) and does not know who is
watching. To stop a run, set its stop file: it is looked at before every forward pass, and everything up to the last whole
step is kept. Closing the generator checkpoints as well.

Randomness: the order of items follows from (seed, epoch), timestep and noise of an item from its place in the run or, where
draws are remembered, from the item itself (dpo/draws.py). A resumed run repeats nothing and skips nothing, and needs no saved
generator state; neither the number of processes nor the size of a micro-batch changes what is drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

import psutil
import torch
from torch import Tensor

from dpo import StudioError
from dpo.adapters import Adapter, Average
from dpo.cache import Batch, TrainingData
from dpo.checkpoints import CheckpointError, Checkpoints
from dpo.config import TrainConfig
from dpo.draws import Draws, pair_generator
from dpo.events import CheckpointSaved, Event, Note, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.families import Family
from dpo.guards import DriftGuard, Running, adapted_beta
from dpo.losses import Losses, Recipe, by_quartile, logratios, make_recipe, preference_losses, reward_metrics
from dpo.optimisation import Scaler, learning_rate_at, make_optimizer, set_learning_rate
from dpo.parallel import Processes
from dpo.patience import Judge
from dpo.portions import Portions, is_out_of_memory, memory_report
from dpo.probe import probe
from dpo.remembered import RememberedErrors
from dpo.runs import Run
from dpo.scoring import Reference, backward
from dpo.strip import Strip
from dpo.validation import Validation

SECONDS_BETWEEN_LOOKS = 0.2  # while a run is paused


class TrainingError(StudioError, RuntimeError):
    """Training cannot go on. The message says at which step, what was seen and what to try."""


def train(
    config: TrainConfig,
    data: TrainingData,
    validation_data: TrainingData,
    family: Family,
    adapter: Adapter,
    run: Run,
    *,
    processes: Processes,
    memory: RememberedErrors | None = None,
    strip: Strip | None = None,
) -> Iterator[Event]:
    """Optimise `adapter` so that the policy prefers what the user chose; yield an Event for all that happens.

    The newest checkpoint in the run's folder is resumed. Every ending but a failure leaves the adapter file behind: that of the
    best validation, or of the last step. `processes` share each step: all of them iterate this, the first one writes.

    Raises:
        TrainingError: the loss or its gradient stopped being finite, or one image alone does not fit the memory. Nothing of that
            step is kept, the last checkpoint is intact.
    """
    num_steps = config.num_steps(len(data))
    parameters = adapter.parameters()
    optimizer, scaler, average = (
        make_optimizer(config, parameters, adapter.rate_shares(config)),
        Scaler(config),
        Average(adapter, config.ema_decay),
    )
    draws, reference = Draws(config, family), Reference(family, adapter, config.reference_mode, memory)
    judge, guard, margins, rewards = Judge(config), DriftGuard(config), Running(), Running()
    parts = {
        "adapter": adapter, "reference": reference, "optimizer": optimizer, "scaler": scaler, "average": average,
        "judge": judge, "guard": guard, "margins": margins, "rewards": rewards,
    }  # fmt: skip
    checkpoints, portions = Checkpoints(run, config.keep_checkpoints, parts), Portions(config)

    validates = bool(config.validate_every and len(validation_data))
    # Before a checkpoint is loaded: what is measured is how far the policy went from where the run began.
    validation = Validation(config, validation_data, family, adapter, reference) if validates and processes.is_main else None
    step, problems = checkpoints.load_newest()
    yield RunStarted(step, num_steps, len(data), len(validation_data))
    yield from (Note(step, problem, tone="warning") for problem in problems)
    if step == 0 and processes.is_main:
        yield from probe(config, data, family, adapter, reference, draws)
    if strip and step == 0:
        yield from strip.sample(0)

    reason, message = "finished", ""
    try:
        while step < num_steps and not message:
            started = time.perf_counter()
            beta = adapted_beta(config.beta, config.adaptive_beta, margins)
            recipe = make_recipe(config, beta=beta, kto_offset=max(0.0, rewards.value))
            sums: dict[str, list[Tensor]] = {}
            is_stopped, fits = False, True
            for micro_batch in range(processes.rank, config.accumulation, processes.count):
                if processes.agree(run.stop_requested()):
                    is_stopped = True
                    break
                first = (step * config.accumulation + micro_batch) * config.batch_size
                for numbers in portions.split(range(first, first + config.batch_size)):
                    if not fits:  # the step is made again; only what processes agree on goes on
                        break
                    indices = [item_index(len(data), config.seed, number) for number in numbers]
                    for batch in data.batches(indices, numbers, visits=[number // len(data) for number in numbers]):
                        found = _accumulate(portions.config, recipe, batch, draws, family, reference, scaler)
                        fits = fits and found is not None
                        for name, total in (found or {}).items():
                            sums.setdefault(name, []).append(total)
            if is_stopped:
                optimizer.zero_grad(set_to_none=True)
                reason, message = "stopped", f"Stopped after step {step}. What was learned is kept."
                break
            if not processes.all_of(fits):
                optimizer.zero_grad(set_to_none=True)
                smaller = portions.shrink()
                if not smaller:
                    raise TrainingError(memory_report(config, step + 1, run.checkpoints))
                reference.forget()  # remembered errors are those of the larger portions
                yield Note(
                    step, f"Out of memory at step {step + 1}. It is made again, {smaller}, with the same result.", tone="warning"
                )
                continue

            metrics = _means(sums, processes)
            processes.sum_gradients(parameters)
            is_usable = scaler.unscale(parameters)
            metrics["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf).item()
            # A finite loss can have a gradient that is not, and one such step would be in every later checkpoint. Only where
            # float16 overflows is the step left out instead.
            for what, value in (("loss", metrics["loss"]), ("gradient", metrics["grad_norm"] if is_usable else 0.0)):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The {what} became {value} at step {step + 1} (beta={beta:g}, "
                        f"learning_rate={config.learning_rate}). Lower the learning rate and start again; "
                        f"the last checkpoint in {run.checkpoints} is as it was."
                    )
            metrics["learning_rate"] = learning_rate_at(config, step, num_steps)
            set_learning_rate(optimizer, metrics["learning_rate"])
            if is_usable:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update()
            if memory:
                memory.flush()
            step += 1
            if config.ref_model_sync_steps and step % config.ref_model_sync_steps == 0:
                adapter.sync_reference(config.ref_model_mixup_alpha)
            margins.add(metrics.get("rewards/margins", 0.0) / beta)
            rewards.add(metrics.get("rewards/all", 0.0))
            metrics |= {"beta": beta, "memory_bytes": memory_in_use(parameters[0].device)}
            yield StepEnd(step, time.perf_counter() - started, metrics)

            measured: dict[str, float] = {}
            if validates and (step % config.validate_every == 0 or step == num_steps):
                with average.in_place():
                    measured = processes.share(validation.measure() if validation else {})
                yield ValidationEnd(step, measured)
                judge.add(step, measured)
            match guard.add(metrics, measured):
                case "warn":
                    yield Note(step, guard.warning(), tone="warning")
                case "stop":
                    reason, message = "damaged", guard.report(step)
                    break
            if measured and judge.is_best and processes.is_main:
                yield CheckpointSaved(step, checkpoints.save_best(step), is_best=True)
            if step % config.save_every == 0 and step < num_steps and processes.is_main:
                yield CheckpointSaved(step, checkpoints.save(step))
            if strip and config.sample_every and step % config.sample_every == 0:
                with average.in_place():
                    yield from strip.sample(step)
            if measured and judge.exhausted:
                message = f"Stopped early after step {step}: {judge.exhausted}"
            if processes.agree(run.pause_requested()):
                yield from _pause(run, step, checkpoints, processes)
    except GeneratorExit:  # the caller stopped iterating: keep what was learned
        if processes.is_main:
            with suppress(CheckpointError):  # perhaps that is why the caller stopped: the checkpoint before is there
                checkpoints.save(step)
        raise
    if not processes.is_main:
        return
    if reason == "damaged":
        step_kept = checkpoints.roll_back(last_good=step - guard.window)
        message += (
            f" The adapter of step {step_kept} is kept." if step_kept else " There was no good step yet, so nothing is kept."
        )
    else:
        yield CheckpointSaved(step, checkpoints.save(step))
        message = message or f"Finished after {step} steps."
        step_kept = step
        if config.keep_best and judge.best_step not in (None, step):
            best = checkpoints.load_best("adapter", "average")
            step_kept = best or step
            whose = f"that of step {best}, the best validation" if best else f"the last one: {run.best} cannot be read"
            message += f" The adapter is {whose}."
    if step_kept:
        with average.in_place():
            adapter.save(run.adapter)
    yield RunEnded(step, reason, message)


def _accumulate(
    config: TrainConfig,
    recipe: Recipe,
    batch: Batch,
    draws: Draws,
    family: Family,
    reference: Reference,
    scaler: Scaler,
) -> dict[str, Tensor] | None:
    """One forward and backward. Returns, for every metric, (sum, count) of its values as a tensor (2,) on the device; None if
    memory ran out, and the gradients are not worth anything."""
    noised, keys = draws.draw(batch), draws.keys(batch)

    def losses(policy_error: Tensor, reference_error: Tensor | None, rejected_scale: Tensor | None = None) -> Losses:
        return preference_losses(
            policy_error, reference_error, batch.comparisons, batch.labels, recipe, rejected_scale=rejected_scale
        )

    def loss(policy_error: Tensor, reference_error: Tensor | None, rejected_scale: Tensor | None) -> Tensor:
        # Divided by the items of the whole step, so that the parts of a step add up to its mean, whoever computes them.
        return scaler.scale(losses(policy_error, reference_error, rejected_scale).total.sum() / config.step_size)

    try:
        policy_error, reference_error = backward(family, reference, noised, batch, keys, config, loss)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    found = losses(policy_error, reference_error)
    columns = reward_metrics(policy_error, reference_error, batch.comparisons, batch.labels, beta=recipe.beta)
    if "rewards/margins" in columns and len(batch.comparisons.chosen):
        quartiles = by_quartile(columns["rewards/margins"], noised.u[batch.comparisons.chosen])
        columns |= {f"margins/quartile_{number}": values for number, values in quartiles.items()}
    if len(batch.labels.rows) and reference_error is not None:
        columns["rewards/all"] = recipe.beta * logratios(policy_error, reference_error)[batch.labels.rows]
    sums = {name: torch.stack([values.sum(), values.new_tensor(len(values))]) for name, values in columns.items()}
    for name, values in (("loss", found.total), ("loss/preference", found.preference)):
        sums[name] = torch.stack([values.sum(), values.new_tensor(len(batch.numbers))])
    return sums


def _means(sums: dict[str, list[Tensor]], processes: Processes) -> dict[str, float]:
    """The mean of every metric over the whole step and all processes, with one wait for the device."""
    names = list(sums)
    read = torch.stack([torch.stack(sums[name]).sum(0) for name in names]).tolist()
    return {
        name: total / count if count else math.nan
        for name, (total, count) in processes.sum(dict(zip(names, map(tuple, read), strict=True))).items()
    }


def _pause(run: Run, step: int, checkpoints: Checkpoints, processes: Processes) -> Iterator[Event]:
    """Wait, with everything in memory, until the run is told to go on or to stop. A crash meanwhile costs nothing."""
    if processes.is_main:
        yield CheckpointSaved(step, checkpoints.save(step))
    yield Note(step, f"Paused after step {step}. The model stays in memory, so going on is quick.")
    while processes.agree(run.pause_requested() and not run.stop_requested()):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    yield Note(step, f"Going on after step {step}.")


def item_index(num_items: int, seed: int, number: int) -> int:
    """Which item is at position `number` of a run: every epoch is a fresh permutation of all items."""
    epoch, position = divmod(number, num_items)
    return _order(num_items, seed, epoch)[position]


@lru_cache(maxsize=2)
def _order(num_items: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(num_items, generator=pair_generator(f"epoch {seed}", epoch)).tolist()


def memory_in_use(device: torch.device) -> int:
    """Bytes: on a GPU the most that tensors held at once, elsewhere what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
