"""Digests of files' contents, remembered: reading every image again at every start would take longer than loading the model."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

SETTLED = 2.0  # seconds; a file changed less than this ago may change once more within the same tick of the disk's clock


class Contents:
    """Digests by path, for as long as size, times and inode of the file stay. `file` may be deleted at any moment. `read`: what
    digests a file, other than `read_digest`.

    It holds a line per digest and is only ever appended to, so several processes may. A line that is none is skipped.
    """

    def __init__(self, file: Path, read: Callable[[str], str] | None = None):
        self._file, self._read = file, read or read_digest
        self._known: dict[str, tuple[list[int], str]] = {}
        self._unwritten: list[str] = []
        try:
            lines = file.read_bytes().splitlines()
        except OSError:  # not there, or as good as not there
            lines = []
        for line in lines:
            try:
                path, state, digest = json.loads(line)
            except ValueError:
                continue
            self._known[path] = state, digest

    def digest(self, path: str) -> str:
        """32 hex characters, or what `read` says. Raises OSError for a file that cannot be read."""
        state, newest = _state(path)
        known = self._known.get(path)
        if known and known[0] == state:
            return known[1]
        digest = self._read(path)
        if newest < time.time() - SETTLED and _state(path)[0] == state:
            self._known[path] = state, digest
            self._unwritten.append(json.dumps([path, state, digest]))
        return digest

    def flush(self) -> None:
        """Write down what is new. Raises OSError."""
        if self._unwritten:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "ab") as file:
                file.write("".join(f"\n{line}" for line in self._unwritten).encode())
            self._unwritten = []


def read_digest(path: str) -> str:
    """Of the file's bytes as they are now: 32 hex characters. Raises OSError."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def _state(path: str) -> tuple[list[int], float]:
    """(what changes when the file does, when it last did in seconds since 1970)"""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino], max(found.st_mtime, found.st_ctime)
