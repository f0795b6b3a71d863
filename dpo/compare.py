"""Base beside adapter: the same prompt, the same seed, the same first noise, in a job that can be watched and stopped."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpo import StudioError
from dpo.jobs import Job, JobRegistry
from dpo.models import resolve_model
from dpo.runs import list_runs
from dpo.sample_settings import SampleSettings

if TYPE_CHECKING:
    from dpo.project import Project


class CompareError(StudioError):
    """A comparison that cannot be made."""


@dataclass(frozen=True)
class Variant:
    """One column of a look: an adapter file, or a run's checkpoint, at a strength. The base is `BASE`."""

    name: str  # for people, each once in a look
    adapter: Path | None
    strength: float


BASE = Variant("base", None, 0.0)


@dataclass(frozen=True)
class LookRequest:
    """What to paint: every prompt with every seed, by every variant. The first variant is `BASE`.

    picture: where the images start from (image-to-image), for the share `picture_strength` in (0, 1] of the steps; None: noise.
    """

    model: str
    variants: tuple[Variant, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: SampleSettings
    picture: Path | None = None
    picture_strength: float = 0.6
    image_format: str = "png"  # or "jpeg" or "webp"


@dataclass(frozen=True)
class LookRow:
    """One prompt and seed: an image file for each variant, in their order, with A1111 metadata inside."""

    prompt: str
    seed: int
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Comparison:
    """One prompt and seed, seen by both: PNG files with A1111 metadata."""

    prompt: str
    seed: int
    strength: float
    base: Path
    adapter: Path


def start_compare(
    project: Project,
    jobs: JobRegistry,
    *,
    model: str,
    adapter: Path,
    strength: float,
    prompts: list[str],
    seeds: list[int],
    sampling_steps: int,
    guidance_scale: float,
    width: int = 0,
    height: int = 0,
) -> Job:
    """Queue a comparison. `job.result` is a list of Comparison that grows as images are done.

    Raises StudioError for what is wrong before a model loads.
    """
    resolve_model(model)
    if not Path(adapter).is_file():
        raise CompareError(f"{adapter} is not a file. Train a run first, or choose an adapter file.")
    if not prompts:
        raise CompareError("There is no prompt. Write at least one, a line each.")
    if not seeds:
        raise CompareError("There is no seed. Write at least one whole number, such as 1.")
    if sampling_steps < 1:
        raise CompareError(f"sampling_steps={sampling_steps} is too small. Set it to 1 or more.")
    if strength < 0:
        raise CompareError(f"strength={strength} is too small. Set it to 0 or more.")
    base = _base(project, model, Path(adapter))
    folder = project.path / "compare" / datetime.now().strftime("%Y%m%d-%H%M%S")

    def work(job: Job) -> list[Comparison]:
        from dpo.models import load_pipeline
        from dpo.sampling import Sampler, SampleSettings

        settings = SampleSettings(sampling_steps, guidance_scale, width, height)
        job.report(0, 0, f"loading {model}")
        sampler = Sampler(load_pipeline(model, "auto", **base), model, Path(adapter))
        rows = [(prompt, seed) for prompt in prompts for seed in seeds]
        job.started = time.monotonic()  # the pace is the sampling's, without the loading
        for start, batch in sampler.batches(rows, settings):
            images = []
            for side in (None, strength):
                passes = 2 * start + (side is not None) * len(batch)

                def report(step: int, passes=passes, size=len(batch)) -> None:  # noqa: B008
                    job.report(passes * sampling_steps + step * size, 2 * len(rows) * sampling_steps, "sampling")

                images.append(sampler.sample(batch, settings, strength=side, on_step=report, stop=job.stop))
            if job.stop.is_set():
                break
            for offset, (prompt, seed) in enumerate(batch):
                paths = [folder / f"{start + offset:04d}-{seed}-{name}.png" for name in ("base", "adapter")]
                for path, side, side_images in zip(paths, (None, strength), images, strict=True):
                    sampler.save(side_images[offset], path, prompt, seed, settings, side)
                job.result.append(Comparison(prompt, seed, strength, *paths))
        return job.result

    return jobs.submit("compare", "comparing base and adapter", str(folder), work, result=[])


def _base(project: Project, model: str, adapter: Path) -> dict[str, object]:
    """What the run that made the adapter says of the model besides its name; nothing for another model or another file."""
    for run in list_runs(project.runs):
        if run.adapter.resolve() == adapter.resolve() and run.config.model == model:
            return run.config.base
    return {}


def win_rate_interval(wins: np.ndarray, resamples: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """(win rate, low, high): 95% cluster bootstrap over prompts (Efron & Tibshirani 1993, ch. 8 and 13).

    wins: (prompts, seeds), 1 for a win of the adapter, 0.5 for a tie, 0 for a loss. Images of one prompt resemble each other,
    so whole prompts are drawn again, not images.
    """
    per_prompt = wins.mean(1)
    drawn = np.random.default_rng(seed).integers(0, len(per_prompt), (resamples, len(per_prompt)))
    low, high = np.quantile(per_prompt[drawn].mean(1), [0.025, 0.975])
    return float(per_prompt.mean()), float(low), float(high)


def save_comparisons(project: Project, comparisons: list[Comparison]) -> Path:
    """Copy the images, metadata and all, into the project's exports; returns the folder."""
    if not comparisons:
        raise CompareError("There is nothing to save yet. Compare first.")
    folder = project.exports / f"compare-{comparisons[0].base.parent.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for comparison in comparisons:
            for path in (comparison.base, comparison.adapter):
                shutil.copy2(path, folder)
    except OSError as error:
        raise CompareError(f"{folder} cannot be written: {error.strerror}. Free some space and save again.") from error
    return folder
