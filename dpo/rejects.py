"""Rejected images for pairs that have only a chosen one: the base model paints the same prompt. Loads nothing heavy before.

Such pairs teach the difference between where the chosen images came from and the model's own images, more than taste: they are
marked by their source, `BASE_REJECT`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.buckets import choose_bucket
from dpo.candidates import CandidatesError, Planned, Report, check_numbers, paint_files, reporting, seed_of
from dpo.jobs import Job, JobRegistry
from dpo.judging import BASE_REJECT
from dpo.models import resolve_model
from dpo.picks import ImportedPair
from dpo.pixels import image_size
from dpo.sample_settings import SampleSettings

if TYPE_CHECKING:
    from dpo.picked import PickedPair
    from dpo.project import Project


@dataclass(frozen=True)
class RejectsRequest:
    """How the base model makes rejected images; fields as of a CandidatesRequest. Their sizes follow the chosen images."""

    model: str = "demo"
    sampling_steps: int = 20
    guidance_scale: float = 3.0
    negative_prompt: str = ""
    seed: int = 0
    base: dict[str, object] = field(default_factory=dict)


def pairs_in_need(project: Project) -> list[PickedPair]:
    """Pairs that have only a chosen image yet, and it is there."""
    return [picked for picked in project.picks.picked_pairs() if picked.state == "needs_reject" and not picked.missing]


def start_rejects(project: Project, jobs: JobRegistry, request: RejectsRequest) -> Job:
    """Queue rejected images for all pairs that need one; the job's result becomes the number of pairs made. Raises StudioError
    before a model loads."""
    check_rejects(project, request)

    def work(job: Job) -> int:
        return make_rejects_of(project, request, reporting(job), job.stop)

    return jobs.submit("candidates", "generating rejected images", "rejected images", work)


def check_rejects(project: Project, request: RejectsRequest) -> None:
    """Raises StudioError."""
    resolve_model(request.model)
    check_numbers(request.sampling_steps, request.guidance_scale, request.seed)
    if not pairs_in_need(project):
        raise CandidatesError("No pair needs a rejected image. Import a data set that has only chosen images first.")


def make_rejects_of(
    project: Project, request: RejectsRequest, report: Report = lambda done, total, words: None,
    stop: threading.Event | None = None,
) -> int:  # fmt: skip
    """The same, here and now. Returns how many pairs were made; a stop keeps them. Raises StudioError."""
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler

    check_rejects(project, request)
    stop = stop or threading.Event()
    report(0, 0, f"loading {request.model}")
    sampler = Sampler(load_pipeline(request.model, "auto", **request.base), request.model)
    family = sampler.family
    by_size: dict[tuple[int, int], dict[Path, PickedPair]] = {}
    for picked in pairs_in_need(project):
        size = choose_bucket(*image_size(picked.pair.chosen), family.image_side, family.pixel_multiple)
        seed = seed_of(request.seed, picked.chosen, picked.pair.prompt)
        by_size.setdefault(size, {})[project.path / "rejects" / f"{picked.chosen[:24]}-{seed}.png"] = picked
    total, saved, made, steps = sum(map(len, by_size.values())), 0, 0, request.sampling_steps

    def tell(before: int, done: int) -> None:
        report(before * steps + done, total * steps, f"{saved} of {total} images")

    for (width, height), wanted in by_size.items():
        settings = SampleSettings(steps, request.guidance_scale, width, height, request.negative_prompt)
        images = [Planned(path, picked.pair.prompt, int(path.stem.split("-")[1]), True, 0) for path, picked in wanted.items()]
        since = partial(tell, saved)
        for batch in paint_files(sampler, images, settings, report=since, stop=stop):
            saved += len(batch)
            keys = project.library.add_files([image.path for image in batch])
            made += project.picks.import_pairs([
                ImportedPair(
                    image.prompt, wanted[image.path].chosen, keys[str(image.path)],
                    (wanted[image.path].pair.chosen, str(image.path)), wanted[image.path].pair.confidence, BASE_REJECT,
                    str(project.path / "rejects"),
                )
                for image in batch
            ])  # fmt: skip
            tell(saved, 0)
        if stop.is_set():
            break
    return made
