"""Previews on disk: drawn once, by whoever comes first, and bounded: what was looked at longest ago goes first.

    FOLDER/<first two digits of the key>/<key>-<kind>        kinds: see dpo/drawing.py

A file's time is when it was last used, so nothing has to be remembered between runs, and nothing is counted per request:
the folder is listed once after the first writing and again whenever about a tenth of the limit was written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.drawing import LONGEST_SIDE, draw, media_type
from dpo.maker import Maker
from dpo.metadata import content_key
from dpo.pixels import PixelError

if TYPE_CHECKING:
    from dpo.library import Library

LIMIT_BYTES = 4 << 30  # about 45,000 previews with their thumbs
KEPT_SHARE = 0.9  # of the limit, after a clearing
USE_SECONDS = 60  # a use is written down at most this often: it costs a write to the disk
LEFTOVER_SECONDS = 3600  # a half-written file this old is nobody's any more


class Previews:
    """The images of a library as the page gets them. Any thread may ask."""

    def __init__(self, folder: Path, library: Library, limit_bytes: int = LIMIT_BYTES) -> None:
        """Touches nothing: neither a file nor a thread is there before something is asked for."""
        self._folder, self._library, self.limit_bytes = folder, library, limit_bytes
        self._turns = threading.Condition()
        self._being_drawn: set[str] = set()
        self._space = threading.Lock()
        self._room: int | None = None  # bytes that may be written before the folder is listed again
        self._is_clearing = False
        self._maker = Maker(self, library)

    def get(self, key: str, kind: str) -> tuple[bytes, str]:
        """(bytes, media type) of an image of the library; drawn now if it was not yet.

        Raises PixelError for an image that is not in the index, gone, broken or too large.
        """
        found = self.cached(key, kind)
        if found is None:
            image = self._library.image(key)
            if image is None:
                raise PixelError("This image is not in the index. Scan its folder again.")
            found = self._draw(image.path, key, kind)
        return found

    def get_file(self, path: Path, kind: str) -> str:
        """The key under which a file that need not be in the library is kept, drawn in this kind. Raises PixelError."""
        try:
            key = content_key(path)
        except OSError as error:
            raise PixelError(f"{path} cannot be read: {error.strerror or error}.") from error
        if self.cached(key, kind) is None:
            self._draw(path, key, kind)
        return key

    def cached(self, key: str, kind: str) -> tuple[bytes, str] | None:
        """(bytes, media type) of what was drawn before, or None."""
        path = self._path(key, kind)
        try:
            with path.open("rb") as file:
                used = os.fstat(file.fileno()).st_mtime
                data = file.read()
            if time.time() - used > USE_SECONDS:
                os.utime(path)
        except OSError:
            return None
        return data, media_type(data)

    def has(self, key: str, kind: str) -> bool:
        return self._path(key, kind).exists()

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Wait until nobody draws this image, and draw it alone."""
        with self._turns:
            self._turns.wait_for(lambda: key not in self._being_drawn)
            self._being_drawn.add(key)
        try:
            yield
        finally:
            with self._turns:
                self._being_drawn.remove(key)
                self._turns.notify_all()

    def keep(self, key: str, kind: str, data: bytes) -> None:
        """Through a temporary file: nobody ever reads half an image. A full disk costs only the cache."""
        path = self._path(key, kind)
        unfinished = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            return
        with self._space:
            if self._room is not None:
                self._room -= len(data)
            if self._is_clearing or (self._room is not None and self._room >= 0):
                return
            self._is_clearing = True
        threading.Thread(target=self._clear, name="previews-clearing", daemon=True).start()

    def prepare(self, folder: str | Path) -> None:
        """Draw the folder's images in the background, in the order they will be picked from. Cheap to call again: it goes on
        with a folder it is at, leaves the folder it was at before, and looks for new images if the index has changed."""
        self._maker.aim(str(folder))

    @property
    def progress(self) -> tuple[int, int] | None:
        """(done, total) images of the folder being prepared; None if nothing is."""
        return self._maker.progress

    def stop(self) -> None:
        """End preparing, now. What was drawn is kept, and `get` still draws."""
        self._maker.stop()

    def _draw(self, path: str | Path, key: str, kind: str) -> tuple[bytes, str]:
        assert kind in LONGEST_SIDE, kind
        with self.turn(key):
            found = self.cached(key, kind)  # by the one who drew before us
            if found is None:
                data = draw(path, key, kind)
                self.keep(key, kind, data)
                found = data, media_type(data)
        return found

    def _clear(self) -> None:
        """List the folder; if it is over the limit, delete what was used longest ago."""
        with self._space:
            self._room = 0
        files = sorted(self._list())
        total = sum(size for _, size, _ in files)
        if total > self.limit_bytes:
            for _, size, path in files:
                if total <= KEPT_SHARE * self.limit_bytes:
                    break
                with suppress(OSError):  # gone already, or in use by a system that minds
                    os.unlink(path)
                    total -= size
        with self._space:
            # What was written meanwhile is counted twice, perhaps. A file that cannot be deleted must not keep us listing.
            self._room += max(self.limit_bytes - total, int(self.limit_bytes * (1 - KEPT_SHARE)))
            self._is_clearing = False

    def _list(self) -> Iterator[tuple[float, int, str]]:
        """(last used, bytes, path) of every file; those left half-written by a crash are deleted on the way."""
        for folder in _entries(self._folder):
            for entry in _entries(folder.path):
                with suppress(OSError):  # gone since it was listed
                    status = entry.stat()
                    if "." in entry.name and time.time() - status.st_mtime > LEFTOVER_SECONDS:
                        os.unlink(entry.path)
                    else:
                        yield status.st_mtime, status.st_size, entry.path

    def _path(self, key: str, kind: str) -> Path:
        return self._folder / key[:2] / f"{key}-{kind}"


def _entries(folder: str | Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not there yet, or a file
        return []
