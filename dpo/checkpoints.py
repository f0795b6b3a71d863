"""Checkpoints of a run: all that resuming needs, written so that no crash leaves half of one.

A checkpoint is one file: the step, and the state of every part of the run that has one. It appears under its name only when
it is whole and on the disk (temporary name, fsync, rename). A disk may damage it later: it is a zip, whose sums are checked
before anything in it is believed.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from dpo import StudioError
from dpo.disk import remedy
from dpo.runs import Run

UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)


class CheckpointError(StudioError):
    """A checkpoint that cannot be written. What was saved before is as it was."""


class Stateful(Protocol):
    """A part of a run that a checkpoint keeps: optimizer, adapter, what validations said so far."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, to resume, and the best one, to go back to and to export."""

    def __init__(self, run: Run, keep: int, parts: Mapping[str, Stateful]):
        self._run, self._keep, self._parts = run, keep, dict(parts)

    def save(self, step: int) -> str:
        """Keep the state after `step`; returns the file. Raises CheckpointError if the disk refuses."""
        path = self._write(self._run.checkpoints / f"step-{step:06d}.pt", step)
        for old in self._newest_first()[self._keep :]:
            old.unlink()
        return path

    def save_best(self, step: int) -> str:
        """As `save`, in the place of the best so far, and not counted among the newest."""
        return self._write(self._run.best, step)

    def load_newest(self) -> tuple[int, list[str]]:
        """(steps done, what went wrong): the newest checkpoint that can be read, or 0 where there is none."""
        problems = []
        paths = self._newest_first()
        for number, path in enumerate(paths, 1):
            try:
                return self._load(path, self._parts), problems
            except UNREADABLE as error:
                before = paths[number:]
                instead = f"{before[0].name}, the checkpoint before it, is used" if before else "the run begins anew"
                problems.append(f"{path.name} cannot be read ({error or type(error).__name__}): {instead}.")
        return 0, problems

    def load_best(self, *names: str) -> int:
        """Load the parts of these names from the best checkpoint; returns its step, 0 if there is none that can be read."""
        try:
            return self._load(self._run.best, {name: self._parts[name] for name in names})
        except UNREADABLE:
            return 0

    def roll_back(self, last_good: int) -> int:
        """Go back to the best checkpoint, else to the newest of at most `last_good` steps; later ones are deleted.

        Returns the step gone back to; 0 if there was none, and then nothing is loaded.
        """
        best = self.load_best(*self._parts)
        limit = best or last_good
        for path in self._newest_first():
            if _step_of(path) > limit:
                path.unlink()
        if best:
            self.save(best)
            return best
        return self.load_newest()[0]

    def _newest_first(self) -> list[Path]:
        return sorted(self._run.checkpoints.glob("step-*.pt"), reverse=True)

    def _write(self, path: Path, step: int) -> str:
        partial = path.with_suffix(".partial")  # cleared away when the project is opened next, if it is left behind
        state = {"step": step, **{name: part.state_dict() for name, part in self._parts.items()}}
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as either
            with suppress(OSError):
                partial.unlink()
            advice = remedy(error) if isinstance(error, OSError) else "Free some space"
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written to {self._run.checkpoints}: {error}. {advice} and resume: "
                "the checkpoints before it are as they were."
            ) from error
        return str(path)

    @staticmethod
    def _load(path: Path, parts: Mapping[str, Stateful]) -> int:
        """All of it, or none: nothing is loaded into a part before everything was read."""
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} in it is damaged")
        state = torch.load(path, weights_only=True, map_location="cpu")
        step, states = state["step"], [state[name] for name in parts]
        for part, own in zip(parts.values(), states, strict=True):
            part.load_state_dict(own)
        return step


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
