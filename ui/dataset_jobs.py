"""Work on data sets that takes long, in threads: one import or export at a time, and the live folder, which follows the picks.

A page starts it and looks at it as it likes; closing the page stops nothing. What is read and written: `dpo.exchange`.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.exchange import ImportReport, LiveFolder, import_dataset, read_manifest
from dpo.exchange.live import stem_of
from dpo.exchange.unpacking import unpack
from dpo.intake import safe_name
from ui.words import count, duration, size_words

if TYPE_CHECKING:
    from dpo.project import Project


log = logging.getLogger(__name__)
LONGEST_NAME = 60  # bytes of what an upload is called


class Stopped(StudioError):
    """A person asked a task to stop. What it had read is kept in the index; nothing it had begun to write is."""


class BusyError(StudioError):
    """Something that cannot be begun now, or not with this folder."""


@dataclass
class Task:
    """An import, an export or a finalising. `done` of `total` is its progress, 0 where nobody can say."""

    kind: str  # "import", "export" or "finalise"
    title: str  # for people: "Exporting 128 pairs"
    done: int = 0
    total: int = 0
    sentence: str = ""  # what came of it
    left: tuple[tuple[str, str], ...] = ()  # (where, reason) of what an import did not take
    archive: str = ""  # name in exports/ of what can be downloaded
    error: str = ""
    begun: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def report(self, done: int, total: int) -> None:
        """Raises Stopped once somebody asked for it."""
        self.done, self.total = done, total
        if self.stop.is_set():
            raise Stopped(f"{self.title} was stopped. Nothing was left half-written, and what was read need not be read again.")

    @property
    def seconds_left(self) -> float | None:
        share = self.done / self.total if self.total else 0
        return (time.monotonic() - self.begun) * (1 - share) / share if share else None


class Tasks:
    """The last task of this process, running or done."""

    def __init__(self) -> None:
        self.current: Task | None = None
        self._lock = threading.Lock()

    def start(self, kind: str, title: str, work: Callable[[Task], None]) -> Task:
        """Do `work(task)` in a thread; a StudioError or an OSError becomes the task's error. Raises BusyError."""
        with self._lock:
            if self.current and not self.current.finished.is_set():
                raise BusyError(f"{self.current.title} is not done yet. Wait for it, then try again.")
            self.current = task = Task(kind, title)
        threading.Thread(target=_run, args=(task, work), name=kind, daemon=True).start()
        return task


def describe_task(task: Task, folder: Path, address: Callable[[str], str]) -> dict:
    """As tasks.js paints it. `folder` is where its archive is, `address` what a page fetches that by."""
    archive = folder / task.archive if task.archive else None
    is_there = archive is not None and archive.is_file()
    return {
        "title": task.title, "done": task.done, "total": task.total, "sentence": task.sentence, "error": task.error,
        "is_over": task.finished.is_set(), "left_words": duration(task.seconds_left) if task.seconds_left is not None else "",
        "download": address(task.archive) if is_there else "", "size": size_words(archive.stat().st_size) if is_there else "",
    }  # fmt: skip


class LiveKeeper:
    """Brings the live folder up to date with the picks, in a thread that lives only as long as there is something to do."""

    def __init__(self, project: Project) -> None:
        self.error = ""
        self.pairs = 0  # in the folder
        self.left: tuple[str, ...] = ()  # why pairs could not be copied
        self.done: tuple | None = None  # (revision of picks, of files, folder) that the folder was last brought up to
        self._project = project
        self._lock = threading.Lock()
        self._is_running = False

    def wake(self) -> None:
        """Look whether something changed, and return at once. Cheap, for every look of every page."""
        wanted = self._wanted()
        with self._lock:
            if wanted is None or self._is_running or wanted == self.done:
                return
            self._is_running = True
        threading.Thread(target=self._follow, name="live folder", daemon=True).start()

    def retry(self) -> None:
        """After an error, or when a person asks: whatever was done is looked at again."""
        self.done = None
        self.wake()

    @property
    def is_up_to_date(self) -> bool:
        return self.done == self._wanted() and not self.error

    def _wanted(self) -> tuple | None:
        folder = self._project.picks.rules().live_folder
        return (self._project.picks.revision(), self._project.library.revision(), folder) if folder else None

    def _follow(self) -> None:
        while True:
            wanted = self._wanted()
            with self._lock:
                if wanted is None or wanted == self.done:
                    self._is_running = False
                    return
            try:
                change = LiveFolder(wanted[-1]).bring_up_to_date(self._project.picks.picked_pairs())
                self.pairs = len(read_manifest(Path(wanted[-1])))
                self.left = tuple(pair.reason for pair in change.left)
                self.error = ""
            except (StudioError, OSError) as error:  # the next pick tries again
                self.error = _sentence(error, "live folder")
            except Exception as error:  # the page must hear of it: nobody else watches this thread
                log.exception("the live folder could not be brought up to date")
                self.error = f"The live folder could not be brought up to date: {error!r}. Choose it again."
            self.done = wanted


def keep_upload(project: Project, sent: Path) -> tuple[Path, list[tuple[str, str]]]:
    """Move a data set that a page sent into the project. Returns the folder or file to read, and (name, reason) of what was
    not taken out of a zip. Raises ExchangeError for a zip with nothing in it."""
    folder = project.path / "imports" / f"{datetime.now():%Y-%m-%d %H.%M.%S}"
    try:
        if sent.suffix.lower() == ".zip":
            place, left = unpack(sent, folder / safe_name(sent.stem, LONGEST_NAME))
            return place, [(entry.where, entry.reason) for entry in left]
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(sent, folder / sent.name)), []
    finally:
        sent.unlink(missing_ok=True)


def adopt(
    project: Project, folder: Path, report: Callable[[int, int], None], check: Callable[[str], None]
) -> ImportReport | None:
    """Import what a live folder's manifest names, so that done groups stay done; None if there is nothing. `check` refuses
    places that the page may not reach.

    Raises BusyError for a folder with pairs that would be lost: not pairs of this project, and their originals are gone.
    """
    entries = read_manifest(folder)
    if not entries:
        return None
    taken = import_dataset(project, folder, kind="live", report=report, check=check)
    known = {stem_of(*keys) for picked in project.picks.picked_pairs() for keys in permutations((picked.chosen, picked.rejected))}
    lost = [
        entry for entry in entries
        if entry["stem"] not in known and not all(Path(entry[f"{side}_source"]).is_file() for side in ("chosen", "rejected"))
    ]  # fmt: skip
    if lost:
        raise BusyError(
            f"{folder} has {count(len(lost), 'pair')} that this project cannot take, with no originals on this machine: it would "
            "remove them. Choose an empty folder; what could be imported from this one is in the review."
        )
    return taken


def pack(folder: Path) -> Path:
    """The folder as a zip beside it, which has its name when it is whole."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    return Path(shutil.make_archive(str(unfinished), "zip", folder)).replace(folder.with_name(f"{folder.name}.zip"))


def _run(task: Task, work: Callable[[Task], None]) -> None:
    log.info("%s begins", task.kind)
    try:
        work(task)
        log.info("%s is done", task.kind)
    except (StudioError, OSError) as error:
        task.error = _sentence(error, task.kind)
        log.warning("%s: %s", task.kind, task.error)
    except Exception as error:  # the page must hear of it: nobody else watches this thread
        log.exception("%s ended unexpectedly", task.kind)
        task.error = f"The {task.kind} ended unexpectedly: {error!r}. Try it again."
    finally:
        task.finished.set()


def _sentence(error: Exception, what: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, StudioError):
        return f"The {what} failed at {error.filename or 'a file'}: {error.strerror or error}. Free some space, then try again."
    return str(error)
