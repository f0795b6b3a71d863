"""Blind tests: images of base and adapter, from the same prompts, seeds and noise, for people who are not told which is which.

    PROJECT/tests/NAME/test.json               what is compared, on which prompts and seeds
                       0000-base.png ...       images with A1111 metadata, each there when it is whole

The prompts are ones that the adapter, and those it was started from, never trained on. Seeds are fresh for every test, so that
nobody has seen its images before, labelled, beside each other. What people say is kept with the picks (`dpo.votes`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.adapter_files import check_adapter
from dpo.demo.candidates import demo_prompts
from dpo.disk import write_text
from dpo.jobs import Job, JobRegistry
from dpo.models import resolve_model
from dpo.pairs import same_words
from dpo.rounds import line_of
from dpo.runs import CHECKPOINT_SUFFIX, Run, adapter_name, list_runs, run_of, suggest_run_name
from dpo.sample_settings import SampleSettings
from dpo.votes import SIDES

if TYPE_CHECKING:
    from PIL.Image import Image

    from dpo.project import Project

QUESTIONS = {
    "overall": "Which do you prefer?",
    "appeal": "Which looks better?",
    "prompt": "Which follows the prompt better?",
}
SOURCE = "blind test "  # begins the name of what pairs of votes are imported from
DEFAULT_DEMO_PROMPTS, MOST_DEMO_PROMPTS, DEMO_SEED = 40, 200, 300
MOST_COMPARISONS = 2000
_FILE = "test.json"


class BlindError(StudioError):
    """A blind test that cannot be made, found or read."""


@dataclass(frozen=True)
class BlindRequest:
    """What to compare. No `prompts`: those of `default_prompts`. `comparisons` 0: one a prompt; more give a prompt more seeds."""

    model: str
    adapter: Path
    strength: float = 1.0
    prompts: tuple[str, ...] = ()
    comparisons: int = 0
    questions: tuple[str, ...] = ("overall",)
    sampling_steps: int = 20
    guidance_scale: float = 3.0
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class BlindItem:
    """One pair of images to judge; its number is its place in the test."""

    number: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class BlindTest:
    """A test as its folder says it. `run` is the name of the run that made the adapter, `run_made` tells that run from another of
    its name, `pairs` and `steps` are what it learned from, all empty for a file from elsewhere. `made`: seconds since 1970."""

    path: Path
    model: str
    adapter: str
    strength: float
    sampling_steps: int
    guidance_scale: float
    width: int
    height: int
    questions: tuple[str, ...]
    items: tuple[BlindItem, ...]
    made: float
    run: str = ""
    run_made: int = 0
    pairs: int = 0
    steps: int = 0
    base: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def image(self, item: BlindItem, side: str) -> Path:
        """The file of one of SIDES; not there before it is made."""
        return self.path / f"{item.number:04d}-{side}.png"

    def is_ready(self, item: BlindItem) -> bool:
        return all(self.image(item, side).exists() for side in SIDES)

    def ready(self) -> list[BlindItem]:
        """Those whose images are both there."""
        there = {path.name for path in self.path.glob("*.png")}
        return [item for item in self.items if {self.image(item, side).name for side in SIDES} <= there]


def start_test(project: Project, jobs: JobRegistry, request: BlindRequest) -> Job:
    """Write down a new test and queue the making of its images. The job's key is the test's name.

    Raises StudioError for what is wrong before a model loads: prompts that the adapter was trained on are refused.
    """
    resolve_model(request.model)
    adapter = Path(request.adapter)
    if not adapter.is_file():
        raise BlindError(f"{adapter} is not a file. Train a run first, or choose an adapter file.")
    if request.strength <= 0:
        raise BlindError(f"strength={request.strength:g} is the base model itself, or its opposite. Set it above 0.")
    if request.sampling_steps < 1:
        raise BlindError(f"sampling_steps={request.sampling_steps} is too small. Set it to 1 or more.")
    if not request.questions or not set(request.questions) <= QUESTIONS.keys():
        raise BlindError(f"A test asks one or more of {', '.join(QUESTIONS)}, not {', '.join(request.questions) or 'nothing'}.")
    run = run_of(adapter)
    if adapter.suffix != CHECKPOINT_SUFFIX or run is None:
        check_adapter(adapter)
    items = _make_items(project, run, request)
    taken = ("model", "strength", "sampling_steps", "guidance_scale", "width", "height", "questions")
    said = {name: getattr(request, name) for name in taken}
    if run is not None:
        status = run.status()
        base = run.config.base if run.config.model == request.model else {}
        said |= {"run": run.name, "run_made": run.made, "pairs": status.num_pairs, "steps": status.step, "base": base}
    path = project.path / "tests" / suggest_run_name(project.path / "tests", adapter_name(adapter))
    test = BlindTest(path, adapter=str(adapter), items=items, made=time.time(), **said)
    write_test(test)
    return resume_test(project, jobs, test)


def write_test(test: BlindTest) -> None:
    """Make the folder of a new test, without its images. Raises BlindError if the disk refuses."""
    record = {name: value for name, value in asdict(test).items() if name != "path"}
    try:
        test.path.mkdir(parents=True)
        write_text(test.path / _FILE, json.dumps(record, indent=1))
    except OSError as error:
        raise BlindError(f"{test.path} cannot be written: {error.strerror}. Free some space, then start again.") from error


def resume_test(project: Project, jobs: JobRegistry, test: BlindTest) -> Job:
    """Queue the making of those images of a test that are not there. Raises StudioError as `start_test`, also if it is at it."""
    resolve_model(test.model)
    if not Path(test.adapter).is_file():
        raise BlindError(f"{test.adapter} is not there any more. Bring it back, or vote on the images that are there.")
    title = f"making the blind test {test.name}"
    return jobs.submit("test", title, test.name, lambda job: _make_images(project, test, job), result=test.name)


def list_tests(project: Project) -> list[BlindTest]:
    """All tests that can be read, newest first."""
    found = []
    for path in (project.path / "tests").glob(f"*/{_FILE}"):
        try:
            found.append(_read(path))
        except (OSError, ValueError, TypeError, KeyError):  # `find_test` says what is wrong with it
            continue
    return sorted(found, key=lambda test: test.made, reverse=True)


def find_test(project: Project, name: str) -> BlindTest:
    """The test of that name. Raises BlindError if there is none, or it cannot be read."""
    path = project.path / "tests" / name / _FILE
    if path.parent.parent != project.path / "tests" or not path.is_file():
        raise BlindError(f"There is no blind test named {name!r}. Choose another, or start a new one.")
    try:
        return _read(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BlindError(f"{path} cannot be read: {error}. Delete its folder, and start the test again.") from error


def trained_prompts(run: Run) -> set[str]:
    """The prompts, as `same_words` has them, that this run trained on, or one whose adapter it was started from.

    Raises RunError for a run whose items cannot be read.
    """
    found: set[str] = set()
    for link in line_of(list_runs(run.path.parent), run):
        held_out = {same_words(prompt) for prompt in link.run.held_out}
        found |= {same_words(item.prompt) for item in link.run.items} - held_out
        if link.run == run:
            break
    return found


def voted_prompts(project: Project) -> set[str]:
    """The prompts, as `same_words` has them, whose votes became pairs: whoever trains on those has seen them."""
    pairs = [picked.pair for picked in project.picks.picked_pairs()]
    return {same_words(pair.prompt) for pair in pairs if pair.source.removeprefix("import: ").startswith(SOURCE)}


def default_prompts(project: Project, run: Run, count: int = 0) -> list[str]:
    """Prompts to test a run on: those it held out, or fresh ones for the demo model; none that became pairs of votes.

    `count`: how many comparisons are wanted, for as many fresh prompts as that.
    """
    seen = trained_prompts(run) | voted_prompts(project)
    if run.config.model == "demo":
        wanted = min(count or DEFAULT_DEMO_PROMPTS, MOST_DEMO_PROMPTS)
        offered = demo_prompts(MOST_DEMO_PROMPTS, DEMO_SEED)
        return [prompt for prompt in offered if same_words(prompt) not in seen][:wanted]
    return [prompt for prompt in run.held_out if same_words(prompt) not in seen]


def _make_items(project: Project, run: Run | None, request: BlindRequest) -> tuple[BlindItem, ...]:
    prompts = list(dict.fromkeys(filter(None, (prompt.strip() for prompt in request.prompts))))
    if request.comparisons < 0 or request.comparisons > MOST_COMPARISONS:
        raise BlindError(f"comparisons={request.comparisons} is not from 0 to {MOST_COMPARISONS:,}.")
    if prompts and run is not None:
        _refuse_trained(prompts, trained_prompts(run), run)
    elif run is not None:
        prompts = default_prompts(project, run, request.comparisons)
    if not prompts:
        whose = f"{run.name} held out no prompt that is still unused" if run else "This adapter is not of a run in this project"
        raise BlindError(f"{whose}. Type prompts that it was not trained on, one a line.")
    total = request.comparisons or min(len(prompts), MOST_COMPARISONS)
    return tuple(BlindItem(number, prompts[number % len(prompts)], secrets.randbelow(2**32)) for number in range(total))


def _refuse_trained(prompts: Iterable[str], trained: set[str], run: Run) -> None:
    known = [prompt for prompt in prompts if same_words(prompt) in trained]
    if known:
        shown = "; ".join(prompt[:60] for prompt in known[:3])
        raise BlindError(
            f"{len(known)} of these prompts {run.name} was trained on: {shown}. Take {'it' if len(known) == 1 else 'them'} out: "
            "how it does on what it has seen says nothing of new prompts."
        )


def _make_images(project: Project, test: BlindTest, job: Job) -> str:
    from dpo.looks import in_batches
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler

    todo = [item for item in test.items if not test.is_ready(item)]
    if not todo:
        return test.name
    settings = SampleSettings(test.sampling_steps, test.guidance_scale, test.width, test.height)
    strengths = dict(zip(SIDES, (None, test.strength), strict=True))
    job.report(0, 0, f"loading {test.model}")
    sampler = Sampler(load_pipeline(test.model, "auto", **test.base), test.model, Path(test.adapter))
    job.started = time.monotonic()  # the pace is the sampling's, without the loading

    def paint(first: int, batch: list[tuple[str, int]]) -> list[list[Image]]:
        """By side; empty if it was stopped."""
        sides = []
        for number, strength in enumerate(strengths.values()):
            before = (2 * first + number * len(batch)) * settings.sampling_steps

            def report(step: int, before: int = before) -> None:
                job.report(before + step * len(batch), 2 * len(todo) * settings.sampling_steps, "sampling")

            sides.append(sampler.sample(batch, settings, strength=strength, on_step=report, stop=job.stop))
        return [] if job.stop.is_set() else sides

    for first, batch, sides in in_batches([(item.prompt, item.seed) for item in todo], sampler.batch_size(settings), paint):
        if not sides:
            break
        for item, *images in zip(todo[first : first + len(batch)], *sides, strict=True):
            for (side, strength), image in zip(strengths.items(), images, strict=True):
                path = test.image(item, side)
                unfinished = path.with_name(f"unfinished-{side}.png")
                try:
                    sampler.save(image, unfinished, item.prompt, item.seed, settings, strength)
                    unfinished.replace(path)
                except OSError as error:
                    raise BlindError(f"{path} cannot be written: {error.strerror}. Free some space, then go on.") from error
                project.previews.get_file(path, "full")  # drawn now, so that nobody waits for it while voting
    return test.name


def _read(path: Path) -> BlindTest:
    record = json.loads(path.read_text(encoding="utf-8"))
    known = {entry.name for entry in fields(BlindTest)} - {"path"}
    values = {name: value for name, value in record.items() if name in known}
    values |= {"questions": tuple(record["questions"]), "items": tuple(BlindItem(**item) for item in record["items"])}
    return BlindTest(path.parent, **values)
