"""A run is a folder: what it was told, what it saw, what it learned. Only this module knows the names inside it.

config.json  pairs.json  held_out.json  events.jsonl  stop  pause  lock  tensorboard/  checkpoints/  reference/  samples/
adapter/

A run's folder appears under its name when it is whole, and every file in it is written aside and renamed: whenever a process
is killed, what is there can be resumed. One process at a time trains a run, and holds its lock while it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.config_files import load_config, save_config
from dpo.disk import Held, hold, is_held, remedy, sync_folder, write_text
from dpo.events import (
    Event,
    Note,
    RunEnded,
    RunStarted,
    SamplesSaved,
    StepEnd,
    ValidationEnd,
    append_event,
    read_events,
    read_new_events,
)
from dpo.pairs import Item, items_from_json, items_to_json

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
CHECKPOINT_SUFFIX = ".pt"
MINIMUM_PAIRS = 4
UNFINISHED = ".new-"  # begins the name of a run's folder while it is being made
SECONDS_TO_MAKE = 3600  # an unfinished folder this old was left by a process that was killed


class RunError(StudioError):
    """A run that cannot be made, found, continued or deleted."""


@dataclass(frozen=True)
class Run:
    """One training run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> TrainConfig:
        """Raises ConfigError if the file is damaged."""
        return load_config(self.path / "config.json")[0]

    @property
    def notes(self) -> list[str]:
        """What has changed since the run was made by an older version."""
        return load_config(self.path / "config.json")[1]

    @property
    def made(self) -> int:
        """When the run was made: with its path, what tells it from another of its name."""
        return (self.path / "config.json").stat().st_mtime_ns

    @property
    def items(self) -> list[Item]:
        """The run's own copy of what it trains on and is measured on. Raises RunError if the file is damaged."""
        path = self.path / "pairs.json"
        try:
            return items_from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error}. Delete the run, or bring the file back.") from error

    @property
    def problem(self) -> str:
        """Why this run cannot be shown or resumed, as a sentence; empty if it can."""
        try:
            _ = self.config, self.items
        except StudioError as error:
            return str(error)
        return ""

    @property
    def held_out(self) -> list[str]:
        """The prompts that are kept out of training; none before the run has started. Raises RunError if the file is damaged."""
        path = self.path / "held_out.json"
        try:
            return [str(prompt) for prompt in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error}. Resume the run, which writes it anew, or delete it.") from error

    def hold_out(self, prompts: Sequence[str]) -> None:
        write_text(self.path / "held_out.json", json.dumps(list(prompts), indent=1))

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation, if there was one."""
        return self.checkpoints / "best.pt"

    @property
    def checkpoint_files(self) -> list[Path]:
        """Those that are there, the best one first, then from the first to the newest."""
        return sorted(self.checkpoints.glob(f"*{CHECKPOINT_SUFFIX}"))

    @property
    def resume_step(self) -> int:
        """The step of the newest checkpoint, from which a resume goes on if it can be read; 0 if there is none."""
        steps = [path.stem.removeprefix("step-") for path in self.checkpoints.glob(f"step-*{CHECKPOINT_SUFFIX}")]
        return max((int(step) for step in steps if step.isdecimal()), default=0)

    @property
    def resume_words(self) -> str:
        """What a resume would do, as a sentence."""
        if self.resume_step:
            return f"Resume goes on from the checkpoint of step {self.resume_step:,}."
        return "Resume starts it again: there is no checkpoint yet."

    @property
    def reference(self) -> Path:
        return self.path / "reference" / ADAPTER_FILE

    @property
    def adapter(self) -> Path:
        """The adapter file for use elsewhere; exists once the run has ended with something learned."""
        return self.path / "adapter" / ADAPTER_FILE

    @property
    def samples(self) -> Path:
        """The folder of sample pictures: one folder within for the base, and one for each step that was sampled."""
        return self.path / "samples"

    @property
    def base_samples(self) -> Path:
        """What the reference paints from the same prompts and seeds: `NNN-SEED.png`, as in each step's folder."""
        return self.samples / "base"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def append(self, event: Event) -> None:
        append_event(self.path / "events.jsonl", event)

    def events(self) -> list[Event]:
        return list(read_events(self.path / "events.jsonl"))

    def events_since(self, place: int) -> tuple[list[Event], int]:
        """What was written from `place` on, and the place to ask from next; 0 is the beginning. For following a run."""
        return read_new_events(self.path / "events.jsonl", place)

    def last_metric(self, name: str) -> float | None:
        """The metric of the last training step that was recorded."""
        values = [event.metrics.get(name) for event in self.events() if isinstance(event, StepEnd)]
        return values[-1] if values else None

    def revision(self) -> int:
        """Changes whenever an event was added: cheap to ask, so that a plot redraws only then."""
        events = self.path / "events.jsonl"
        return events.stat().st_size if events.exists() else 0

    def request_stop(self) -> None:
        (self.path / "stop").touch()

    def clear_stop(self) -> None:
        (self.path / "stop").unlink(missing_ok=True)

    def stop_requested(self) -> bool:
        return (self.path / "stop").exists()

    def request_pause(self) -> None:
        """The run waits after its current step, with everything in memory, until the pause is cleared."""
        (self.path / "pause").touch()

    def clear_pause(self) -> None:
        (self.path / "pause").unlink(missing_ok=True)

    def pause_requested(self) -> bool:
        return (self.path / "pause").exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that trains this run, or deletes it. Raises RunError if another does."""
        with ExitStack() as stack:
            try:
                stack.enter_context(hold(self.path / "lock"))
            except Held as error:
                raise RunError(
                    f"{self.name} is being trained already, perhaps by another process. Stop it there first."
                ) from error
            except FileNotFoundError as error:
                raise RunError(f"{self.path} is not there any more. Choose another run.") from error
            yield

    @property
    def is_held(self) -> bool:
        """Whether some process on this machine trains the run now."""
        return is_held(self.path / "lock")

    def status(self) -> RunStatus:
        return _status(self.events(), is_paused=self.pause_requested())


@dataclass(frozen=True)
class RunStatus:
    """What a glance at a run says. `state` is "new", "running", "paused", "finished", "stopped", "damaged" or "failed"; a run
    whose process died still says "running": `Run.is_held` and the job registry know better."""

    state: str
    step: int
    total_steps: int
    num_pairs: int
    message: str
    seconds_per_step: float  # mean of the last 20 steps
    seconds_left: float
    accuracy: float | None  # of the last validation, else of the last training step
    samples: str  # the folder of the newest sample pictures; "" while there are none


def create_run(runs: Path, name: str, config: TrainConfig, items: Sequence[Item]) -> Run:
    """Make the folder of a new run, with its settings and a copy of its items.

    Raises RunError if the name is taken or no file name, if there are fewer than 4 items, or if the disk refuses.
    """
    if len(items) < MINIMUM_PAIRS:
        raise RunError(
            f"There are {len(items)} {config.data} and training needs at least {MINIMUM_PAIRS}. Pick a few more in Pairs."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}", name):
        raise RunError(f"{name!r} cannot be a run's name. Use letters, digits, spaces, dots, dashes, at most 80.")
    path = runs / name
    if path.exists():
        raise RunError(f"A run named {name!r} exists already. Choose another name, or resume that run.")
    unfinished = None
    try:
        runs.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(runs)
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=runs))
        for folder in ("checkpoints", "adapter", "tensorboard"):
            (unfinished / folder).mkdir()
        save_config(config, unfinished / "config.json")
        _make_newest(unfinished / "config.json", runs)
        write_text(unfinished / "pairs.json", json.dumps(items_to_json(items), indent=1))
        unfinished.chmod(0o755)  # mkdtemp keeps others out
        unfinished.rename(path)
        sync_folder(runs)
    except OSError as error:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        if path.exists():  # made meanwhile, by another process
            raise RunError(f"A run named {name!r} exists already. Choose another name, or resume that run.") from error
        raise RunError(
            f"The run's folder {path} cannot be written: {error.strerror}. {remedy(error)} or choose another project folder."
        ) from error
    return Run(path)


def clone_config(run: Run, **changes) -> TrainConfig:
    """The settings of a run, with changes: what a new run like it starts from. Raises ConfigError for bad values."""
    return load_config(run.path / "config.json", **changes)[0]


def delete_run(run: Run) -> None:
    """Delete a run's folder and all that it learned. Raises RunError if it is being trained, or the disk refuses."""
    with run.held():
        pass  # some systems rename no folder that holds an open file
    # Under another name first: a process killed half-way leaves no run behind that cannot be read.
    doomed = run.path.with_name(f"{UNFINISHED}{time.time_ns()}")
    try:
        run.path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise RunError(f"{run.path} cannot be deleted: {error.strerror}. Close what uses it, then try again.") from error


def find_run(runs: Path, name: str) -> Run:
    """The run of that name. Raises RunError if there is none."""
    for run in list_runs(runs):
        if run.name == name:
            return run
    raise RunError(
        f"There is no run named {name!r} in {runs}. There are: {', '.join(run.name for run in list_runs(runs)) or 'none'}."
    )


def list_runs(runs: Path) -> list[Run]:
    """All runs, newest first; those too whose files are damaged: see `Run.problem`."""
    found = [path for path in runs.glob("*") if not path.name.startswith(".") and (path / "config.json").exists()]
    return [Run(path) for path in sorted(found, key=lambda path: (path / "config.json").stat().st_mtime, reverse=True)]


def run_of(path: Path) -> Run | None:
    """The run that an adapter file or a checkpoint is of; None for a file that lies in no run."""
    run = Run(Path(path).resolve().parent.parent)
    return (
        run if (run.path / "config.json").exists() and (path.name == ADAPTER_FILE or path.suffix == CHECKPOINT_SUFFIX) else None
    )


def adapter_name(path: Path) -> str:
    """What to call an adapter file or a checkpoint. A run's has the same name in every run, so the run names it."""
    run = path.parent.parent.name
    if path.suffix == CHECKPOINT_SUFFIX:
        return f"{run} best" if path.stem == "best" else f"{run} step {int(path.stem.removeprefix('step-'))}"
    return run if path.name == ADAPTER_FILE else path.stem


def suggest_run_name(runs: Path, stem: str) -> str:
    """`stem-1`, or the next number that is free."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "run"
    number = 1
    while (runs / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def unwritable(run: Run, error: OSError) -> str:
    """Why a run cannot go on where the disk refuses, and what to do."""
    reason = f"{error.filename or run.path}: {error.strerror or error}"
    return f"{run.name} cannot be written ({reason}). {remedy(error)}. {run.resume_words}"


def unfinished_parts(runs: Path) -> list[Path]:
    """What was being written in runs that nobody trains now: left behind by a process that was killed."""
    patterns = ("*.partial", "checkpoints/*.partial", "reference/*.partial", "adapter/partial-*", "samples/partial-*")
    return [path for run in list_runs(runs) if not run.is_held for pattern in patterns for path in run.path.glob(pattern)]


def _make_newest(config: Path, runs: Path) -> None:
    """Runs are listed by the time of this file. Where the clock was put back, one later than that of every other run."""
    newest = max((run.made for run in list_runs(runs)), default=0)
    if config.stat().st_mtime_ns <= newest:
        os.utime(config, ns=(newest + 1_000_000, newest + 1_000_000))


def _clear_unfinished(runs: Path) -> None:
    for path in runs.glob(f"{UNFINISHED}*"):
        if time.time() - path.stat().st_mtime > SECONDS_TO_MAKE:
            shutil.rmtree(path, ignore_errors=True)


def _status(events: list[Event], is_paused: bool) -> RunStatus:
    state, message, accuracy, samples = "new", "", None, ""
    started = RunStarted(0, 0, 0, 0)
    seconds, step = [], 0
    for event in events:
        step = event.step
        if isinstance(event, RunStarted):
            started, state = event, "running"
        elif isinstance(event, Note):
            message = event.message
        elif isinstance(event, StepEnd):
            seconds.append(event.seconds)
            if started.num_validation == 0:
                accuracy = event.metrics.get("rewards/accuracies")
        elif isinstance(event, ValidationEnd):
            accuracy = event.metrics.get("rewards/accuracies")
        elif isinstance(event, SamplesSaved):
            samples = event.folder
        elif isinstance(event, RunEnded):
            state, message = event.reason, event.message
    if state == "running" and is_paused:
        state = "paused"
    pace = sum(seconds[-20:]) / len(seconds[-20:]) if seconds else 0.0
    return RunStatus(
        state=state, step=step, total_steps=started.total_steps, num_pairs=started.num_pairs, message=message,
        seconds_per_step=pace, seconds_left=pace * max(0, started.total_steps - step), accuracy=accuracy, samples=samples,
    )  # fmt: skip
