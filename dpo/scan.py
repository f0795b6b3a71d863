"""Scanning: list a folder, and read files in processes of their own, so that neither blocks the page.

A reading process is `python -m dpo.scan`: it takes a JSON line of files on its standard input and answers with a line of
rows (`rows.py`). It is started bare, without the app's modules, works at low priority, and ends when its input does: when
the scan is over, or when the app is gone, however that ended.
"""

from __future__ import annotations

import json
import os
import queue
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from dpo import StudioError
from dpo.groups import identify
from dpo.metadata import ImageRecord, read_file
from dpo.rows import Batch, batch_from_json, batch_to_json, make_batch

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".heic", ".heif", ".jxl", ".gif")
# Raise it when dpo.metadata reads files differently: then every file is read again at its next scan.
READER_VERSION = 3
BATCH = 64  # files a process reads at a time
SEARCHED = ":pixels"  # ends the fingerprint of a file whose pixels were searched, too
FEW = 200  # changed files; up to that many are read before further processes would have started
_READER = f"{READER_VERSION}.{identify(' '.join(entry.name for entry in fields(ImageRecord))) & 0xFFFF:x}"


class LibraryError(StudioError):
    """A folder that cannot be scanned, or holds nothing to use."""


@dataclass(frozen=True)
class ScanReport:
    """What a scan did, in files. `moved` were known already at a path that is gone; `gone` were not found anywhere else.
    `stopped`: it was asked to stop, and what it had read is kept."""

    total: int
    read: int
    unchanged: int
    gone: int
    stopped: bool
    moved: int


@dataclass
class Scan:
    """A scan in its thread. Pages read it as they like; closing a page changes nothing."""

    folder: str
    done: int = 0
    total: int = 0
    unchanged: int = 0  # of those done: nothing had to be read
    begun: float = field(default_factory=time.monotonic)  # when it was asked for: no two scans have the same
    started: float = field(default_factory=time.monotonic)  # when the folder was listed and reading began
    report: ScanReport | None = None
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def rate(self) -> float:
        """Files read a second so far."""
        return (self.done - self.unchanged) / max(time.monotonic() - self.started, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while there is no pace."""
        return (self.total - self.done) / self.rate if self.done > self.unchanged else None


class Found(NamedTuple):
    """An image file, or something that stands where one could be and cannot be read: then `problem` says why.

    `fingerprint` changes when the file does, or when files are read differently; `made` is the file's unix time. With
    `stealth` it is searched for a prompt hidden in its pixels, if it says none otherwise.
    """

    path: str
    fingerprint: str
    made: float
    problem: str
    stealth: bool = False


def list_folder(folder: str) -> Iterator[Found]:
    """The image files of a folder and the folders in it, hidden ones left out; nothing is opened.

    Links to folders are not followed. Raises LibraryError if the folder itself cannot be listed.
    """
    pending = [folder]
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as entries:
                found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            if place == folder:
                raise LibraryError(f"{folder} cannot be listed: {error.strerror}. Check who may read it.") from error
            yield _odd(
                place, f"{os.path.basename(place)}: this folder cannot be listed ({error.strerror}). Check who may read it."
            )
            continue
        folders = []
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(IMAGE_ENDINGS):
                    yield from _list_file(entry)
                elif entry.is_symlink() and entry.is_dir():
                    yield _linked(entry)
            except OSError as error:  # a link that leads in circles, or to where nobody may look
                yield _odd(entry.path, f"{entry.name}: cannot be looked at ({error.strerror}). Check it, or remove it.")
        pending += reversed(folders)


def _list_file(entry: os.DirEntry) -> Iterator[Found]:
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        yield _odd(shown, f"{os.path.basename(shown)}: its name is no valid text. Rename the file, then scan again.")
        return
    if entry.is_file():
        status = entry.stat()
        yield Found(entry.path, f"{_READER}:{status.st_size}:{status.st_mtime_ns}", status.st_mtime, "")
    elif entry.is_dir():
        yield _linked(entry)
    elif not os.path.exists(entry.path):
        if entry.is_symlink():  # else it was removed just now
            yield _odd(entry.path, f"{entry.name}: a link to a file that is not there. Restore the file, or remove the link.")
    else:
        yield _odd(entry.path, f"{entry.name}: a pipe, socket or device, not an image. Remove it, or leave it.")


def _linked(entry: os.DirEntry) -> Found:
    return _odd(
        entry.path,
        f"{entry.name}: a link to a folder, which is not followed, as it could lead in circles. "
        f"To use its images, scan {os.path.realpath(entry.path)}.",
    )


def _odd(path: str, problem: str) -> Found:
    path, problem = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (path, problem))
    return Found(path, problem, 0.0, problem)


def look_at(path: str) -> Found:
    """One file, by its absolute path, as `list_folder` would give it. What is not there, or no file, has a problem."""
    name = os.path.basename(path)
    try:
        path.encode()
        status = os.stat(path)
    except UnicodeEncodeError:
        return _odd(path, f"{name}: its name is no valid text. Rename the file, then try again.")
    except OSError as error:
        return _odd(path, f"{name}: cannot be looked at ({error.strerror}). Check it, or leave it out.")
    if not stat.S_ISREG(status.st_mode):
        return _odd(path, f"{name}: a folder, pipe, socket or device, not an image. Name the file itself.")
    return Found(path, f"{_READER}:{status.st_size}:{status.st_mtime_ns}", status.st_mtime, "")


def to_search(found: Found) -> Found:
    """The file, to be searched for a prompt in its pixels; once it was, the index knows it by this fingerprint."""
    return found if found.problem else found._replace(fingerprint=found.fingerprint + SEARCHED, stealth=True)


def is_known(found: Found, fingerprint: str, has_own: bool) -> bool:
    """Whether a file that the index has by this fingerprint need not be read again; `has_own`: it says its prompt itself."""
    plain = found.fingerprint.removesuffix(SEARCHED)
    return fingerprint == plain + SEARCHED or (fingerprint == plain and (has_own or not found.stealth))


def read_found(found: Found) -> tuple[str, ImageRecord]:
    """As `read_file`; of what cannot be opened, a record that says why."""
    if found.problem:
        return "", ImageRecord(path=found.path, reason="unreadable", error=found.problem)
    return read_file(found.path, found.stealth)


def _read_batch(found: Iterable[Found]) -> Batch:
    return make_batch((item.path, item.fingerprint, item.made, *read_found(item)) for item in found)


def read_all(found: list[Found], processes: int, stop: threading.Event) -> Iterator[Batch]:
    """Batches in the order of `found`, until told to stop; with no processes, one file at a time in this thread.

    Raises LibraryError when a reading process dies. Few batches are under way at any time, so memory does not grow with
    the number of files.
    """
    if not processes:
        for item in found:
            if stop.is_set():
                return
            yield _read_batch([item])
            time.sleep(0.0005)  # parsing is pure Python: give way, or every answer to a page waits for the interpreter's lock
        return
    with _start_readers(processes) as readers, ThreadPoolExecutor(processes, "scan-reader") as threads:
        under_way: deque = deque()
        for start in range(0, len(found), BATCH):
            if stop.is_set():
                break
            under_way.append(threads.submit(_ask, readers, found[start : start + BATCH]))
            if len(under_way) > 2 * processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@contextmanager
def _start_readers(count: int) -> Iterator[queue.SimpleQueue]:
    root = str(Path(__file__).resolve().parent.parent)
    places = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command, environment = [sys.executable, "-m", "dpo.scan"], {**os.environ, "PYTHONPATH": places}
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(count)]
    idle = queue.SimpleQueue()
    for reader in started:
        idle.put(reader)
    try:
        yield idle
    finally:
        for reader in started:
            with suppress(OSError):  # one that died has no input to close
                reader.stdin.close()
        for reader in started:
            reader.wait()
            reader.stdout.close()


def _ask(readers: queue.SimpleQueue, batch: list[Found]) -> Batch:
    reader = readers.get()
    answer = b""
    with suppress(BrokenPipeError):
        reader.stdin.write(json.dumps(batch).encode() + b"\n")
        reader.stdin.flush()
        answer = reader.stdout.readline()
    readers.put(reader)
    if not answer.endswith(b"\n"):
        raise LibraryError(
            f"A process that reads files ended (exit status {reader.wait()}) at one of {len(batch)} files from "
            f"{batch[0].path} to {batch[-1].path}. What was read is kept. Scan again; if it ends here again, move them away."
        )
    return batch_from_json(answer)


def main() -> None:
    """Answer lines on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints by mistake must not break a line of ours
    if hasattr(os, "nice"):
        os.nice(10)
    for line in sys.stdin.buffer:
        batch = _read_batch(Found(*item) for item in json.loads(line))
        with suppress(BrokenPipeError):  # the app is gone: the input ends next
            answers.write(batch_to_json(batch).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    main()
