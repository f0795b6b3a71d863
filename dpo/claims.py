"""What one process of a project has at a time: its job queue, as long as an app is open, and its device, as long as work runs.

The system takes a claim back when the process ends, however it ends. Beside each lock lies a note for people: who has it,
since when, for what. It is believed only while the lock is held.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from dpo import StudioError
from dpo.disk import Held, hold, is_held, write_text

QUEUE, DEVICE = "queue", "device"
SECONDS_BETWEEN_LOOKS = 0.5


class Claimed(StudioError):
    """Something that another process has."""


@dataclass(frozen=True)
class Claimant:
    """A process that has a claim. `since`: as the note says it; `doing`: what for. 0 and "" where the note cannot be read."""

    pid: int = 0
    since: str = ""
    doing: str = ""

    def __str__(self) -> str:
        """ "process 4711, since 14:02" """
        return f"process {self.pid}, since {self.since}" if self.pid else "another process"


class Claim:
    """The claim of that name on a project's folder, ours or not. Any thread may ask."""

    def __init__(self, folder: Path, name: str) -> None:
        self._lock_file, self._note = folder / f"{name}.lock", folder / f"{name}.json"
        self._held: ExitStack | None = None  # while it is ours
        self._asking = threading.Lock()

    def take(self, doing: str) -> bool:
        """Whether it is ours now, or was before. Raises OSError where the folder is gone or cannot be written."""
        with self._asking:
            if self._held is None:
                with ExitStack() as stack:
                    try:
                        stack.enter_context(hold(self._lock_file, patience=0.0))
                    except Held:
                        return False
                    write_text(self._note, json.dumps({"pid": os.getpid(), "since": f"{datetime.now():%H:%M}", "doing": doing}))
                    self._held = stack.pop_all()
            return True

    def give_up(self) -> None:
        with self._asking:
            if self._held is not None:
                self._held.close()
                self._held = None

    def other(self) -> Claimant | None:
        """Who else has it; None if nobody has, or we do."""
        with self._asking:
            if self._held is not None or not is_held(self._lock_file):
                return None
        try:
            values = json.loads(self._note.read_text(encoding="utf-8"))
            return Claimant(int(values["pid"]), str(values["since"]), str(values["doing"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Claimant()

    def wait(self, doing: str) -> Iterator[Claimant]:
        """Take it, however long that takes; yields who has it, time and again, meanwhile. A process that was started by whoever
        has it works for that one, and need not wait."""
        while not self.take(doing):
            other = self.other()
            if other is not None:
                if other.pid in (parent.pid for parent in psutil.Process().parents()):
                    return
                yield other
            time.sleep(SECONDS_BETWEEN_LOOKS)


def check_device(folder: Path) -> None:
    """For a command that is not to wait. Raises Claimed if another process has the device."""
    other = Claim(folder, DEVICE).other()
    if other is not None:
        doing = other.doing or "other work"
        raise Claimed(f"{doing.capitalize()} has the device ({other}). Try again later, or leave --no-wait away.")


@contextmanager
def device_turn(folder: Path, doing: str, waits: bool) -> Iterator[None]:
    """Have a project's device while this lasts, for a command, which says on stderr whom it waits for.

    Raises Claimed if another process has it and `waits` is false.
    """
    if not waits:
        check_device(folder)
    claim, is_told = Claim(folder, DEVICE), False
    for other in claim.wait(doing):
        if not is_told:
            print(f"Waiting: {other.doing or 'other work'} has the device ({other}).", file=sys.stderr, flush=True)
            is_told = True
    try:
        yield
    finally:
        claim.give_up()


def add_wait_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-wait", action="store_true", help="refuse, rather than wait, while the app or another command has the device"
    )
