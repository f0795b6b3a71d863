"""A run is a folder: what it was told, what it saw, what it learned. Only this module knows the names inside it.

config.json  pairs.json  events.jsonl  stop  tensorboard/  checkpoints/  reference/  adapter/
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.events import Event, Note, RunEnded, RunStarted, StepEnd, ValidationEnd, append_event, read_events
from dpo.pairs import Pair

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
MINIMUM_PAIRS = 4


class RunError(StudioError):
    """A run that cannot be made, found or continued."""


@dataclass(frozen=True)
class Run:
    """One training run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> TrainConfig:
        return TrainConfig.load(self.path / "config.json")

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(**values) for values in json.loads((self.path / "pairs.json").read_text(encoding="utf-8"))]

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def reference(self) -> Path:
        return self.path / "reference" / ADAPTER_FILE

    @property
    def adapter(self) -> Path:
        """The adapter file for use elsewhere; exists once the run has ended with something learned."""
        return self.path / "adapter" / ADAPTER_FILE

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def append(self, event: Event) -> None:
        append_event(self.path / "events.jsonl", event)

    def events(self) -> list[Event]:
        return list(read_events(self.path / "events.jsonl"))

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

    def status(self) -> RunStatus:
        return _status(self.events())


@dataclass(frozen=True)
class RunStatus:
    """What a glance at a run says. `state` is "new", "running", "finished", "stopped", "damaged" or "failed"; a run whose
    process died still says "running": the job registry knows better."""

    state: str
    step: int
    total_steps: int
    num_pairs: int
    message: str
    seconds_per_step: float  # mean of the last 20 steps
    seconds_left: float
    accuracy: float | None  # of the last validation, else of the last training step


def create_run(runs: Path, name: str, config: TrainConfig, pairs: list[Pair]) -> Run:
    """Make the folder of a new run, with its settings and a copy of its pairs.

    Raises RunError if the name is taken or no file name, if there are fewer than 4 pairs, or if the disk refuses.
    """
    if len(pairs) < MINIMUM_PAIRS:
        raise RunError(f"There are {len(pairs)} pairs and training needs at least {MINIMUM_PAIRS}. Pick a few more in Pairs.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}", name):
        raise RunError(f"{name!r} cannot be a run's name. Use letters, digits, spaces, dots, dashes, at most 80.")
    path = runs / name
    if path.exists():
        raise RunError(f"A run named {name!r} exists already. Choose another name, or resume that run.")
    try:
        for folder in ("checkpoints", "adapter", "tensorboard"):
            (path / folder).mkdir(parents=True)
        config.save(path / "config.json")
        text = json.dumps([asdict(pair) for pair in pairs], indent=1)
        (path / "pairs.json").write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise RunError(
            f"The run's folder {path} cannot be written: {error.strerror}. Free some space or choose another project folder."
        ) from error
    return Run(path)


def find_run(runs: Path, name: str) -> Run:
    """The run of that name. Raises RunError if there is none."""
    for run in list_runs(runs):
        if run.name == name:
            return run
    raise RunError(
        f"There is no run named {name!r} in {runs}. There are: {', '.join(run.name for run in list_runs(runs)) or 'none'}."
    )


def list_runs(runs: Path) -> list[Run]:
    """All runs, newest first."""
    found = [path for path in runs.glob("*") if (path / "config.json").exists()] if runs.exists() else []
    return [Run(path) for path in sorted(found, key=lambda path: (path / "config.json").stat().st_mtime, reverse=True)]


def suggest_run_name(runs: Path, stem: str) -> str:
    """`stem-1`, or the next number that is free."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "run"
    number = 1
    while (runs / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def record(run: Run, events) -> RunEnded:
    """Iterate a run's events into its folder: `events.jsonl` and a TensorBoard file. Returns the last event.

    This is the whole difference between training in a thread, from the command line, and in a test.
    """
    from torch.utils.tensorboard import SummaryWriter

    end = RunEnded(0, "failed", "The run ended without saying why.")
    with SummaryWriter(str(run.tensorboard)) as writer:
        for event in events:
            run.append(event)
            if isinstance(event, StepEnd):
                for name, value in event.metrics.items():
                    writer.add_scalar(f"train/{name}", value, event.step)
            elif isinstance(event, ValidationEnd):
                for name, value in event.metrics.items():
                    writer.add_scalar(f"validation/{name}", value, event.step)
            elif isinstance(event, RunEnded):
                end = event
    return end


def _status(events: list[Event]) -> RunStatus:
    state, message, accuracy = "new", "", None
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
        elif isinstance(event, RunEnded):
            state, message = event.reason, event.message
    pace = sum(seconds[-20:]) / len(seconds[-20:]) if seconds else 0.0
    return RunStatus(
        state=state, step=step, total_steps=started.total_steps, num_pairs=started.num_pairs, message=message,
        seconds_per_step=pace, seconds_left=pace * max(0, started.total_steps - step), accuracy=accuracy,
    )  # fmt: skip
