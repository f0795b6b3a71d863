"""What a training run can report: eight dataclasses, and the JSON-lines file that carries them.

Only this module knows the line format. A resumed run appends `RunStarted(step=k)`, which supersedes every event after
step k; `read_events` leaves those out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunStarted:
    step: int  # optimizer steps already done: 0 for a new run
    total_steps: int
    num_pairs: int
    num_validation: int


@dataclass(frozen=True)
class StepEnd:
    step: int  # optimizer steps done, 1-based
    seconds: float  # wall time of this step
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationEnd:
    step: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeEnd:
    """What was measured before the first step, to choose beta by (dpo/probe.py)."""

    step: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    path: str
    is_best: bool = False  # of all validations so far


@dataclass(frozen=True)
class SamplesSaved:
    """Pictures of the policy at this step, in `folder` inside the run (dpo/strip.py)."""

    step: int
    folder: str


@dataclass(frozen=True)
class Note:
    """A sentence for a person: what is being prepared, that a run is paused, a warning."""

    step: int
    message: str
    done: int = 0  # progress of a preparation, if total > 0
    total: int = 0
    tone: str = ""  # "warning" for what a person should act on


@dataclass(frozen=True)
class RunEnded:
    step: int
    reason: str  # "finished", "stopped", "damaged" or "failed"
    message: str = ""


Event = RunStarted | ProbeEnd | StepEnd | ValidationEnd | CheckpointSaved | SamplesSaved | Note | RunEnded
_TYPES = {cls.__name__: cls for cls in Event.__args__}


def append_event(path: Path, event: Event) -> None:
    """Append one event as one line. A line torn by a crash is closed first, so that it costs only itself."""
    line = json.dumps({"type": type(event).__name__, **asdict(event)}) + "\n"
    with path.open("ab") as file:
        if file.tell() and _last_byte(path) != b"\n":
            line = "\n" + line
        file.write(line.encode("utf-8"))


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events that still hold, in order. Torn lines are skipped; a line still being written is left for later."""
    if not path.exists():
        return
    events: list[Event] = []
    for line in path.read_bytes().splitlines(keepends=True):
        event = _parse(line)
        if event is None:
            continue
        if isinstance(event, RunStarted):
            events = [earlier for earlier in events if earlier.step <= event.step and not isinstance(earlier, RunEnded)]
        events.append(event)
    yield from events


def read_new_events(path: Path, place: int) -> tuple[list[Event], int]:
    """The events written from byte `place` on, whether they still hold or not, and the place after them."""
    if not path.exists():
        return [], place
    with path.open("rb") as file:
        file.seek(place)
        lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # still being written
    return [event for event in map(_parse, lines) if event is not None], place + sum(map(len, lines))


def _parse(line: bytes) -> Event | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        return _TYPES[values.pop("type")](**values)
    except (ValueError, KeyError, TypeError, AttributeError):  # torn by a crash, or written by a newer version
        return None


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
