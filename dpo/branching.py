"""Images that share their course up to a step, and differ in details only from there on.

All rows of a batch follow one course: one first noise, and after every step the latents of the first row. At the branch each row
gets fresh noise of its own. A step of a deterministic sampler of the first order goes from x = a x0 + s n to x' = a' x0 + s' n,
where x0 is what the denoiser takes for the clean latents and n for their noise (DDIM: Song et al. 2021, Eq. 12; Euler on the
straight path: a = 1 - sigma, s = sigma). There n is replaced: x'_i = a' x0 + s' n_i, which is as noisy as x' and has the same
x0. It goes element by element, so how a pipeline packs its latents does not matter. It is done inside the scheduler's step,
where x0 follows from the denoiser's very answer: solved for from two latents that lie close, in bfloat16, it would be noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dpo import StudioError
from dpo.families import Family

PLACES = 10_000  # to which a place in the schedule is told


class BranchError(StudioError):
    """A course that cannot branch."""


@dataclass(frozen=True)
class Branch:
    """`share` of the steps, in (0, 1), is common to all rows; `seed`: of its first noise. `tell` is called at the branch with the
    place u in the schedule that all noise lies below from there on (0: the clean image, 1: pure noise)."""

    share: float
    seed: int
    tell: Callable[[float], None] = lambda place: None

    def shared_steps(self, steps: int) -> int:
        """How many of the steps are common: one at least, and one at least is not. Raises BranchError for a single step."""
        if steps < 2:
            raise BranchError(f"sampling_steps={steps} is too few to branch between two of them. Set it to 2 or more.")
        return min(max(1, round(self.share * steps)), steps - 1)


def branching_scheduler(scheduler):
    """The deterministic sampler of the first order for the schedule of a pipeline's scheduler: what can be branched in.

    Raises BranchError for a schedule of another kind.
    """
    config = scheduler.config
    if config.get("use_flow_sigmas"):
        return FlowMatchEulerDiscreteScheduler(config["num_train_timesteps"], shift=config["flow_shift"])
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return FlowMatchEulerDiscreteScheduler.from_config(config, stochastic_sampling=False)
    if "beta_start" in config:
        return DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)
    raise BranchError(
        f"{type(scheduler).__name__} has no schedule that candidates could branch in. Let them differ in everything, or use a "
        "model of Stable Diffusion or of a flow family."
    )


@contextmanager
def branching(family: Family, branch: Branch, seeds: Sequence[int], steps: int) -> Iterator[None]:
    """Within it, the pipeline's next call of so many steps branches. seeds: of each row's own noise.

    All rows must have the same prompt. The pipeline's scheduler is one that `branching_scheduler` made.
    """
    scheduler, shared = family.pipeline.scheduler, branch.shared_steps(steps)
    plain, done = scheduler.step, 0

    @wraps(plain)  # pipelines look at what it takes
    def step(model_output: Tensor, timestep, sample: Tensor, **options) -> tuple[Tensor]:
        nonlocal done
        options.pop("return_dict", None)
        outcome = plain(model_output, timestep, sample, **options)
        done += 1
        if done > shared:
            return (outcome.prev_sample,)
        if done < shared:
            return (_all_as_first(outcome.prev_sample),)
        clean, signal, noise, later = _levels(scheduler, outcome, model_output, timestep, sample)
        fresh = [torch.randn(sample.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        branch.tell(place_of(family, later))
        branched = signal * _all_as_first(clean) + noise * torch.stack(fresh).to(sample.device)
        return (branched.to(outcome.prev_sample.dtype),)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step  # the class's own is there again


def place_of(family: Family, timestep: float) -> float:
    """The place u in the schedule below which every timestep is at most this one: the way back of `family.timesteps`."""
    timesteps = family.timesteps(torch.arange(PLACES, dtype=torch.float64) / PLACES)
    return int((timesteps <= timestep).sum()) / PLACES


def _levels(scheduler, outcome, model_output: Tensor, timestep, sample: Tensor) -> tuple[Tensor, float, float, float]:
    """x0 (B, ...), and a', s' and the timestep after the step, whose outcome is given."""
    if isinstance(scheduler, DDIMScheduler):
        later = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        power = float(scheduler.alphas_cumprod[later])
        return outcome.pred_original_sample.float(), power**0.5, (1 - power) ** 0.5, later
    before, after = scheduler.sigmas[scheduler.step_index - 1 : scheduler.step_index + 1].tolist()
    clean = sample.float() - before * model_output.float()
    return clean, 1 - after, after, after * scheduler.config.num_train_timesteps


def _all_as_first(rows: Tensor) -> Tensor:
    """The same row of a batch may differ in its last bits from row to row."""
    return rows[:1].expand_as(rows).clone()
