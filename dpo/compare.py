"""Base beside adapters and checkpoints: the same prompt, seed and first noise, in a job that can be watched and stopped.

What is asked for and what came of it; `dpo/looks.py` paints it.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpo import StudioError
from dpo.adapter_files import check_adapter
from dpo.jobs import Job, JobRegistry
from dpo.metadata.writer import SUFFIXES
from dpo.models import resolve_model
from dpo.pixels import open_pixels
from dpo.runs import CHECKPOINT_SUFFIX, Run, adapter_name, run_of
from dpo.sample_settings import SampleSettings
from dpo.samplers import check_sampling

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


def start_look(project: Project, jobs: JobRegistry, request: LookRequest) -> Job:
    """Queue a look. `job.result` is a list of LookRow that grows as images are done; `job.request` is the request.

    Raises StudioError for what is wrong before a model loads.
    """
    base, folder = _prepare_look(project, request)

    def work(job: Job) -> list[LookRow]:
        from dpo.looks import paint_look

        place = place_images(request, folder)
        for row in paint_look(request, base, place, job.report, job.stop, lambda: _restart_clock(job)):
            job.result.append(row)
        return job.result

    return jobs.submit("compare", _title(request), str(folder), work, result=[], request=request)


def follow_look(
    project: Project, jobs: JobRegistry, request: LookRequest, paint: Callable[[LookRequest, dict, Path], Iterator[LookRow]]
) -> Iterator[LookRow]:
    """A look that is painted while the caller goes on asking for its rows; the same job to all who watch it. `paint` is told
    the request, what else `load_pipeline` is told, and the folder of the images.

    Raises StudioError for what is wrong before a model loads; what goes wrong later is the job's message.
    """
    base, folder = _prepare_look(project, request)
    rows = len(request.prompts) * len(request.seeds)

    def work(job: Job) -> Iterator[LookRow]:
        job.report(0, 0, f"waiting for a GPU and loading {request.model}")
        for row in paint(request, base, folder):
            job.result.append(row)
            job.report(len(job.result), rows, f"{len(job.result)} of {rows} rows")
            yield row

    yield from jobs.carry_out("compare", _title(request), str(folder), work, result=[], request=request)


def place_images(request: LookRequest, folder: Path) -> Callable[[int, int, int], Path]:
    """(row, seed, column) -> the image's file in the folder."""
    suffix = SUFFIXES[request.image_format]

    def place(row: int, seed: int, column: int) -> Path:
        return folder / f"{row:04d}-{seed}-{column}-{file_stem(request.variants[column].name)}{suffix}"

    return place


def _prepare_look(project: Project, request: LookRequest) -> tuple[dict[str, object], Path]:
    """(what else `load_pipeline` is told, a folder for the images). Raises StudioError."""
    check_look(request)
    if request.variants[:1] != (BASE,):
        raise CompareError("The first column of a look is the base. Put it there.")
    return base_settings(request), project.path / "compare" / datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def check_look(request: LookRequest) -> None:
    """Raises StudioError for what can be known to be wrong before a model loads."""
    settings = request.settings
    resolve_model(request.model)
    for variant in request.variants:
        if variant.adapter is not None and not variant.adapter.is_file():
            raise CompareError(f"{variant.adapter} is not a file. Train a run first, or choose an adapter file.")
        is_checkpoint = variant.adapter is not None and variant.adapter.suffix == CHECKPOINT_SUFFIX and run_of(variant.adapter)
        if variant.adapter is not None and not is_checkpoint:
            check_adapter(variant.adapter)
        if not (math.isfinite(variant.strength) and variant.strength >= 0):
            raise CompareError(f"strength={variant.strength} is too small. Set it to 0 or more.")
    names = [variant.name for variant in request.variants]
    for name in names:
        if names.count(name) > 1:
            raise CompareError(f"Two columns are called {name!r}. Leave one out, or call it otherwise.")
    if not request.prompts:
        raise CompareError("There is no prompt. Write at least one, a line each.")
    if not request.seeds:
        raise CompareError("There is no seed. Write at least one whole number, such as 1.")
    for seed in request.seeds:
        if not 0 <= seed < 2**63:
            raise CompareError(f"seed={seed} cannot be used. Write whole numbers from 0 on.")
    if settings.sampling_steps < 1:
        raise CompareError(f"sampling_steps={settings.sampling_steps} is too small. Set it to 1 or more.")
    if not math.isfinite(settings.guidance_scale):
        raise CompareError(f"guidance_scale={settings.guidance_scale} is not a number. Set it to one such as 3.")
    if min(settings.width, settings.height) < 0:
        raise CompareError(f"A size of {settings.width}x{settings.height} cannot be. Set both sides to 0 for the model's own.")
    if request.image_format not in SUFFIXES:
        raise CompareError(f"image_format={request.image_format!r} is unknown. Choose one of {', '.join(SUFFIXES)}.")
    check_sampling(request.model, settings.sampler, from_picture=request.picture is not None)
    if request.picture is not None:
        if not 0 < request.picture_strength <= 1:
            raise CompareError(f"picture_strength={request.picture_strength} is out of range. Set it above 0, and to 1 at most.")
        if int(settings.sampling_steps * request.picture_strength) < 1:
            raise CompareError(
                f"picture_strength={request.picture_strength} of {settings.sampling_steps} sampling steps is less than one step. "
                "Raise one of them."
            )
        open_pixels(request.picture)


def base_settings(request: LookRequest) -> dict[str, object]:
    """What the run that made an adapter says of the model besides its name; nothing for another model, or for other files.

    Raises CompareError if two runs say different things: base and adapters share one model.
    """
    said = []
    for variant in request.variants:
        run = run_of(variant.adapter) if variant.adapter else None
        if run is not None and run.config.model == request.model and run.config.base not in said:
            said.append(run.config.base)
    if len(said) > 1:
        raise CompareError(
            "The runs of these adapters loaded the model differently (prediction type, components, base adapter, quantization or "
            "offload). Compare them one by one."
        )
    return said[0] if said else {}


def run_adapters(run: Run) -> list[tuple[str, Path]]:
    """(name, file) of all that a run offers to look at: its adapter file, and its checkpoints."""
    files = [run.adapter] if run.adapter.is_file() else []
    return [(adapter_name(file), file) for file in [*files, *run.checkpoint_files]]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line, without empty lines. Raises CompareError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CompareError(f"{path} cannot be read: {error}. Choose a text file in UTF-8 with a prompt a line.") from error
    return [line.strip() for line in lines if line.strip()]


def file_stem(name: str) -> str:
    """A name as part of a file's name on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "image"


def save_look(project: Project, request: LookRequest, rows: list[LookRow]) -> Path:
    """Copy the images, metadata and all, into the project's exports, with a grid of them; returns the folder."""
    from dpo.grids import draw_grid

    if not rows:
        raise CompareError("There is nothing to save yet. Compare first.")
    folder = project.exports / f"compare-{rows[0].images[0].parent.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            for path in row.images:
                shutil.copy2(path, folder)
        draw_grid(rows, request.variants, folder / "grid.png")
    except OSError as error:
        raise CompareError(f"{folder} cannot be written: {error.strerror}. Free some space and save again.") from error
    return folder


def _restart_clock(job: Job) -> None:
    job.started = time.monotonic()  # the pace is the sampling's, without the loading


def _title(request: LookRequest) -> str:
    names = [variant.name for variant in request.variants]
    return "comparing " + (" and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0])


def win_rate_interval(wins: np.ndarray, resamples: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """(win rate, low, high): 95% cluster bootstrap over prompts (Efron & Tibshirani 1993, ch. 8 and 13).

    wins: (prompts, seeds), 1 for a win of the adapter, 0.5 for a tie, 0 for a loss. Images of one prompt resemble each other,
    so whole prompts are drawn again, not images.
    """
    per_prompt = wins.mean(1)
    drawn = np.random.default_rng(seed).integers(0, len(per_prompt), (resamples, len(per_prompt)))
    low, high = np.quantile(per_prompt[drawn].mean(1), [0.025, 0.975])
    return float(per_prompt.mean()), float(low), float(high)
