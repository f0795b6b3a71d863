"""What sudden ends and several processes ask of files: whole or not there at all, and held by one at a time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "nt":
    import msvcrt
else:
    import fcntl

SECONDS_TO_HOLD = 1.0  # somebody may be looking whether the file is held, which takes a moment
REMEDIES = {
    "Free some space": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "Make its folder writable": (errno.EROFS, errno.EACCES, errno.EPERM),
    "Bring its folder back": (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV),
}


class Held(OSError):
    """Another holder has the file, in this process or another."""


def remedy(error: OSError) -> str:
    """What to do about a disk that refuses, as the beginning of a sentence."""
    return next((words for words, numbers in REMEDIES.items() if error.errno in numbers), "Check the disk and its free space")


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary name and a rename. Raises OSError, and leaves what was there before."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder are on the disk. Nothing to do where a folder cannot be opened (Windows)."""
    if os.name != "nt":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def hold(path: Path, patience: float = SECONDS_TO_HOLD) -> Iterator[None]:
    """Be the one holder of a file, which is made if need be. The system lets go when the process ends, however it ends.

    Raises Held if another still has it after `patience` seconds.
    """
    with path.open("ab") as file:
        deadline = time.monotonic() + patience
        while not _lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise Held(f"{path} is held by another")
            time.sleep(0.02)
        yield  # closing the file lets go


def is_held(path: Path) -> bool:
    """Whether somebody holds the file. Any number may ask at a time, and do not take each other for holders (but on Windows)."""
    if not path.exists():
        return False
    with path.open("rb") as file:  # also on a disk that is read-only by now
        return not _lock(file.fileno(), shared=True)


def _lock(descriptor: int, shared: bool = False) -> bool:
    try:
        if os.name == "nt":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
