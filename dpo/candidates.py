"""Candidates: several images of each prompt, made into the project to be picked from. Loads nothing heavy before it paints.

A set lies in PROJECT/rounds/NAME with plan.json, which says all it is made from. An image there is whole: it arrives by a rename.
So a set that was stopped, or a process that was killed, goes on where it was when the same set is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.adapter_files import check_adapter
from dpo.disk import Held, hold, write_text
from dpo.intake import safe_name
from dpo.jobs import Job, JobRegistry
from dpo.models import resolve_model
from dpo.runs import CHECKPOINT_SUFFIX, run_of
from dpo.sample_settings import SampleSettings

if TYPE_CHECKING:
    from dpo.project import Project
    from dpo.sampling import Sampler

PLAN = "plan.json"
UNFINISHED = ".unfinished"  # a hidden folder, which no scan looks into
LONGEST_NAME = 60  # bytes
SEEDS = 2**32  # as many as other programs know
MOST_PER_PROMPT = 1000

Report = Callable[[int, int, str], None]  # done, total, in words


class CandidatesError(StudioError):
    """Candidates that cannot be made."""


@dataclass(frozen=True)
class CandidatesRequest:
    """A set of candidates: `per_prompt` images of every prompt, by the base model, or by its adapter at `strength`; with `both`,
    so many by each.

    adapter: a file or a run's checkpoint. branch: the share of the steps, in (0, 1), that all images of a prompt have in common
    (dpo/branching.py); None: they differ in everything. base: what there is to say of the model besides its name (as
    `TrainConfig.base`), over what the run of the adapter says. width, height: 0 for the model's own.
    """

    name: str
    model: str = "demo"
    adapter: Path | None = None
    strength: float = 1.0
    both: bool = False
    prompts: tuple[str, ...] = ()
    per_prompt: int = 6
    sampling_steps: int = 20
    guidance_scale: float = 3.0
    width: int = 0
    height: int = 0
    negative_prompt: str = ""
    seed: int = 0
    branch: float | None = None
    base: dict[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> SampleSettings:
        return SampleSettings(self.sampling_steps, self.guidance_scale, self.width, self.height, self.negative_prompt)

    @property
    def total(self) -> int:
        return len(self.prompts) * self.per_prompt * (1 + self.both)


@dataclass(frozen=True)
class CandidateSet:
    """What there is of a set: `done` of `total` images. Of a plan that cannot be read `request` is None and `problem` says
    why."""

    name: str
    folder: Path
    request: CandidatesRequest | None
    done: int
    total: int
    problem: str = ""

    @property
    def is_unfinished(self) -> bool:
        return self.request is not None and self.done < self.total


@dataclass(frozen=True)
class Planned:
    """One image to make. `course`: the seed of what it has in common with the others of its prompt and model, if they branch."""

    path: Path
    prompt: str
    seed: int
    is_base: bool
    course: int


def start_candidates(project: Project, jobs: JobRegistry, request: CandidatesRequest) -> Job:
    """Queue a set, or what is missing of it. The job's result becomes the CandidateSet. Raises StudioError for what is wrong
    before a model loads."""
    open_set(project, request)

    def work(job: Job) -> CandidateSet:
        return make_candidates_of(project, request, reporting(job), job.stop)

    return jobs.submit("candidates", f"generating {request.name}", request.name, work)


def make_candidates_of(
    project: Project, request: CandidatesRequest, report: Report = lambda done, total, words: None,
    stop: threading.Event | None = None,
) -> CandidateSet:  # fmt: skip
    """Make what is missing of a set, and read it into the library. `report` is told how far it is, in steps of images.

    A stop keeps what is done. Raises StudioError.
    """
    stop = stop or threading.Event()
    folder = open_set(project, request)
    try:
        with hold(folder / ".lock"):
            missing = [image for image in plan_images(project, request) if not is_whole(image.path)]
            if missing and not stop.is_set():
                _paint_missing(request, missing, report, stop)
    except Held as error:
        raise CandidatesError(f"{request.name} is being made by another program. Wait for it, or choose another name.") from error
    if any(folder.glob("*.png")):
        project.library.scan(folder)
    return read_set(folder)


def list_candidates(project: Project) -> list[CandidateSet]:
    """All sets of the project, the newest first."""
    plans = sorted(project.rounds.glob(f"*/{PLAN}"), key=lambda plan: plan.stat().st_mtime, reverse=True)
    return [read_set(plan.parent) for plan in plans]


def open_set(project: Project, request: CandidatesRequest) -> Path:
    """The set's folder, with its plan. Raises CandidatesError for what cannot be made, or a name that another set has."""
    check_candidates(request)
    folder = project.rounds / request.name
    plan = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / PLAN).exists():
            write_text(folder / PLAN, json.dumps(plan, ensure_ascii=False, indent=1))
    except OSError as error:
        raise CandidatesError(
            f"{folder} cannot be written: {error.strerror}. Free some space, or choose another name."
        ) from error
    known = read_set(folder)
    if known.request != request:
        others = [name for name, value in asdict(request).items() if known.request and getattr(known.request, name) != value]
        raise CandidatesError(
            known.problem
            or f"There are candidates called {request.name} made otherwise ({', '.join(others)}). Choose another "
            "name; to go on with that set, ask for it as it was."
        )
    return folder


def read_set(folder: Path) -> CandidateSet:
    """What there is of the set in a folder."""
    done = sum(1 for _ in folder.glob("*.png"))
    try:
        values = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        adapter = values.pop("adapter")
        prompts = tuple(values.pop("prompts"))
        request = CandidatesRequest(**values, adapter=Path(adapter) if adapter else None, prompts=prompts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{folder / PLAN} cannot be read: {error}. Delete the folder, or give the new set another name."
        return CandidateSet(folder.name, folder, None, done, done, problem)
    return CandidateSet(folder.name, folder, request, done, request.total)


def check_candidates(request: CandidatesRequest) -> None:
    """Raises StudioError for what can be known to be wrong before a model loads."""
    resolve_model(request.model)
    name = request.name
    if not name or name != safe_name(name, LONGEST_NAME) or "/" in name or "\\" in name:
        raise CandidatesError(f"name={name!r} cannot be a folder's name. Use letters, digits, spaces and dashes.")
    if request.adapter is None and request.both:
        raise CandidatesError("both=True needs an adapter besides the base model. Choose one.")
    if request.adapter is not None:
        if not request.adapter.is_file():
            raise CandidatesError(f"{request.adapter} is not a file. Train a run first, or choose an adapter file.")
        if request.adapter.suffix != CHECKPOINT_SUFFIX or run_of(request.adapter) is None:
            check_adapter(request.adapter)
    if not (math.isfinite(request.strength) and request.strength >= 0):
        raise CandidatesError(f"strength={request.strength} is too small. Set it to 0 or more.")
    if not request.prompts or not all(prompt.strip() for prompt in request.prompts):
        raise CandidatesError("There is no prompt, or an empty one. Write at least one, a line each.")
    twice = next((prompt for prompt in request.prompts if request.prompts.count(prompt) > 1), None)
    if twice is not None:
        raise CandidatesError(f"The prompt {twice!r} is there twice. Its images would be the same: ask for more of each instead.")
    if not 1 <= request.per_prompt <= MOST_PER_PROMPT:
        raise CandidatesError(f"per_prompt={request.per_prompt} is out of range. Set it to 1 to {MOST_PER_PROMPT}.")
    if request.per_prompt * (1 + request.both) < 2:
        raise CandidatesError("One image of a prompt has nothing to be compared with. Set per_prompt to 2 or more.")
    if request.branch is not None and not 0 < request.branch < 1:
        raise CandidatesError(f"branch={request.branch} is out of range. Set it above 0 and below 1.")
    if request.branch is not None and request.sampling_steps < 2:
        raise CandidatesError("sampling_steps=1 leaves no step to branch at. Set it to 2 or more.")
    if min(request.width, request.height) < 0:
        raise CandidatesError(f"A size of {request.width}x{request.height} cannot be. Set both sides to 0 for the model's own.")
    check_numbers(request.sampling_steps, request.guidance_scale, request.seed)


def plan_images(project: Project, request: CandidatesRequest) -> Iterator[Planned]:
    """All images of a set, prompt by prompt. Seeds follow from (seed of the set, prompt) and count on from there, the base's
    after the adapter's, so that no two images of a prompt have the same."""
    folder = project.rounds / request.name
    sides = [request.adapter is None, True][: 1 + request.both]
    for number, prompt in enumerate(request.prompts):
        first = seed_of(request.seed, prompt)
        for side, is_base in enumerate(sides):
            course = seed_of(request.seed, prompt, request.name, str(side))
            for place in range(side * request.per_prompt, (side + 1) * request.per_prompt):
                path = folder / f"{number:05d}-{place:03d}.png"
                yield Planned(path, prompt, (first + place) % SEEDS, is_base, course)


def paint_files(
    sampler: Sampler, images: Sequence[Planned], settings: SampleSettings, *, strength: float = 1.0, branch: float | None = None,
    report: Callable[[int], None] = lambda steps: None, stop: threading.Event | None = None,
) -> Iterator[list[Planned]]:  # fmt: skip
    """Paint and save images, batch by batch; yields what is on disk now. `report` is told how many steps of images are done.

    Adapter's and base's images make batches of their own, and so do prompts whose images branch. A stop ends it after a step.
    """
    from dpo.branching import Branch
    from dpo.looks import in_batches

    stop, done, fits = stop or threading.Event(), 0, sampler.batch_size(settings)
    for batch_of in _alike(images, with_prompt=branch is not None, count=fits):
        side = None if batch_of[0].is_base else strength
        places: list[float] = []
        shared = Branch(branch, batch_of[0].course, places.append) if branch else None

        def paint(first: int, rows: list, side=side, shared=shared, before: int = done) -> list:
            def on_step(step: int) -> None:
                report((before + first) * settings.sampling_steps + step * len(rows))

            return sampler.sample(rows, settings, strength=side, branch=shared, on_step=on_step, stop=stop)

        rows = [(image.prompt, image.seed) for image in batch_of]
        for first, batch, painted in in_batches(rows, fits, paint, begin=fits):
            if not painted:
                return
            if len(batch) < min(fits, len(rows) - first):
                fits = len(batch)  # more did not fit the memory
            course = {"branch": f"{places[-1]:g}", "branch_seed": batch_of[0].course} if shared else {}
            made = batch_of[first : first + len(batch)]
            for image, picture in zip(made, painted, strict=True):
                unfinished = image.path.parent / UNFINISHED / image.path.name
                sampler.save(picture, unfinished, image.prompt, image.seed, settings, side, **course)
                unfinished.replace(image.path)
            yield made
        done += len(batch_of)


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end: one that a crash of the whole machine left empty is made again."""
    try:
        with path.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read(4) == b"IEND"
    except OSError:
        return False


def seed_of(seed: int, *words: str) -> int:
    """A seed that follows from these."""
    digest = hashlib.blake2b("\0".join((str(seed), *words)).encode("utf-8", "surrogatepass"), digest_size=4)
    return int.from_bytes(digest.digest())


def check_numbers(steps: int, guidance_scale: float, seed: int) -> None:
    """Raises CandidatesError."""
    if steps < 1:
        raise CandidatesError(f"sampling_steps={steps} is too small. Set it to 1 or more.")
    if not math.isfinite(guidance_scale):
        raise CandidatesError(f"guidance_scale={guidance_scale} is not a number. Set it to one such as 3.")
    if not 0 <= seed < SEEDS:
        raise CandidatesError(f"seed={seed} is out of range. Set it to a whole number from 0 to {SEEDS - 1}.")


def reporting(job: Job) -> Report:
    """What tells a job how far it is."""

    def report(done: int, total: int, words: str) -> None:
        if not job.total and total:
            job.started = time.monotonic()  # the pace is the sampling's, without the loading
        job.report(done, total, words)

    return report


def _paint_missing(request: CandidatesRequest, missing: Sequence[Planned], report: Report, stop: threading.Event) -> None:
    report(0, 0, f"loading {request.model}")
    from dpo.branching import branching_scheduler
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler

    pipeline = load_pipeline(request.model, "auto", **(_base_of(request) | request.base))
    if request.branch is not None:
        pipeline.scheduler = branching_scheduler(pipeline.scheduler)
    sampler = Sampler(pipeline, request.model, request.adapter)
    steps, before, saved = request.sampling_steps, request.total - len(missing), 0

    def tell(done: int) -> None:
        report(done, len(missing) * steps, f"{before + saved} of {request.total} images")

    tell(0)
    for made in paint_files(
        sampler, missing, request.settings, strength=request.strength, branch=request.branch, report=tell, stop=stop
    ):
        saved += len(made)
        tell(saved * steps)


def _alike(images: Iterable[Planned], *, with_prompt: bool, count: int) -> list[list[Planned]]:
    """Images that may be painted together, in an order in which prompts are finished one after the other: of one side, and of one
    prompt or of as many as fill a batch."""
    blocks: list[list[Planned]] = []
    by_prompt: dict[str, list[Planned]] = {}
    for image in images:
        by_prompt.setdefault(image.prompt, []).append(image)
    for group in by_prompt.values():
        if blocks and not with_prompt and len(blocks[-1]) + len(group) <= max(count, len(group)):
            blocks[-1] += group
        else:
            blocks.append(group)
    sides = [[image for image in block if image.is_base is is_base] for block in blocks for is_base in (False, True)]
    return [side for side in sides if side]


def _base_of(request: CandidatesRequest) -> dict[str, object]:
    run = run_of(request.adapter) if request.adapter else None
    return run.config.base if run is not None and run.config.model == request.model else {}
