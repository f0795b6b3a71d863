"""The maker of previews: goes through a folder in the background and draws every image before somebody asks for it.

Decoding happens in processes of their own (dpo/drawing.py), so the page never waits for it. What one decoding finds out is
all that is ever needed of the pixels: preview, thumb, digest and difference hash.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dpo.drawing import AbsentError, Drawer, DrawerError, Drawn
from dpo.pixels import PixelError

if TYPE_CHECKING:
    from dpo.library import Library
    from dpo.previews import Previews

KINDS = ("preview", "thumb")
MOST_DRAWERS = 4
SHARE = 0.8  # of the cache, for what one folder may be given in advance
NOTE_SECONDS, NOTE_IMAGES = 2.0, 256  # what is found out is told to the library in heaps: each makes it group anew
ATTEMPTS = 2  # a process may be killed for what it has nothing to do with
ENDED = "Decoding this image ended the program that did it. Skip the file, or save the image again."
WAIT_SECONDS = 5
ALL = 10_000_000


class Maker:
    """Works on one folder at a time. `aim`, `stop` and `progress` are for any thread."""

    def __init__(self, previews: Previews, library: Library) -> None:
        self._previews, self._library = previews, library
        self._lock = threading.Lock()
        self._work: _Work | None = None

    def aim(self, folder: str) -> None:
        """Work on this folder, unless that is going on or was done and the index is as it was then."""
        with self._lock:
            work = self._work
            if work is not None and work.folder == folder:
                if not work.is_over:
                    return
                if work.revision == self._library.revision():
                    return
            if work is not None:
                work.stop()
            self._work = _Work(folder, self._previews, self._library)
            self._work.start()

    @property
    def progress(self) -> tuple[int, int] | None:
        work = self._work
        return None if work is None or work.is_over or not work.total else (work.done, work.total)

    def stop(self) -> None:
        with self._lock:
            work, self._work = self._work, None
        if work is not None:
            work.stop()
            work.wait()


class _Work:
    """One folder's images, from the first to the last that is not prepared, and once more for those that came meanwhile."""

    def __init__(self, folder: str, previews: Previews, library: Library) -> None:
        self.folder, self.done, self.total = folder, 0, 0
        self.revision: int | None = None  # of the index when it was last asked
        self._previews, self._library = previews, library
        self._room = SHARE * previews.limit_bytes
        self._tried: set[str] = set()  # keys: what cannot be prepared now is not tried again and again
        self._notes: list[tuple[str, str, str]] = []
        self._broken: list[tuple[str, str]] = []
        self._told = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._drawers: set[Drawer] = set()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """At once: an image that is being drawn is left."""
        self._stopped.set()
        with self._lock:
            for drawer in self._drawers:
                drawer.kill()

    def wait(self) -> None:
        """Until it is over, which after `stop` is a matter of milliseconds."""
        self._thread.join(WAIT_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.revision = self._library.revision()  # before asking, so that what comes later is another revision
            found = [row for row in self._library.unprepared(self.folder, ALL) if row[0] not in self._tried]
            if not found:
                return
            self.total = self.done + len(found)
            rows = iter(found)
            count = min(MOST_DRAWERS, max(1, (os.cpu_count() or 2) // 2), len(found))
            helpers = [
                threading.Thread(target=self._help, args=(rows,), name="previews-helper", daemon=True) for _ in range(count)
            ]
            for helper in helpers:
                helper.start()
            for helper in helpers:
                helper.join()
            self._tell()

    def _help(self, rows: Iterator[tuple[str, str]]) -> None:
        try:
            self._draw(rows)
        except Exception:
            if not self._stopped.is_set():  # else a killed process is what was asked for
                traceback.print_exc()  # nobody else watches this thread; images are still drawn when they are looked at
                self._stopped.set()

    def _draw(self, rows: Iterator[tuple[str, str]]) -> None:
        """Draw images with one process, and with another one if it ends, until there are no more."""
        drawer = self._start_drawer()
        try:
            while (row := self._take(rows)) is not None:
                key, path = row
                with self._previews.turn(key):
                    drawer, drawn = self._ask(drawer, path, key)
                    self._take_in(key, drawn)
        finally:
            self._end_drawer(drawer)

    def _ask(self, drawer: Drawer, path: str, key: str) -> tuple[Drawer, Drawn | PixelError | None]:
        """What became of the image, None if processes end at it; and the process to go on with."""
        kinds = [kind for kind in KINDS if self._room > 0 and not self._previews.has(key, kind)]
        for _ in range(ATTEMPTS):
            try:
                return drawer, drawer.ask(path, key, kinds)
            except PixelError as error:
                return drawer, error
            except DrawerError:
                self._end_drawer(drawer)
                drawer = self._start_drawer()
        return drawer, None

    def _take(self, rows: Iterator[tuple[str, str]]) -> tuple[str, str] | None:
        with self._lock:
            return None if self._stopped.is_set() else next(rows, None)

    def _take_in(self, key: str, drawn: Drawn | PixelError | None) -> None:
        """Keep what was drawn. An image that is broken, or that ended every process at it, is noted with the reason, so that it
        leaves its group; one whose file is not there now may come back."""
        if isinstance(drawn, Drawn):
            for kind, data in drawn.images.items():
                self._previews.keep(key, kind, data)
        with self._lock:
            self.done += 1
            self._tried.add(key)
            if isinstance(drawn, Drawn):
                self._room -= sum(len(data) for data in drawn.images.values())
                self._notes.append((key, drawn.digest, drawn.difference))
            elif not isinstance(drawn, AbsentError):
                self._broken.append((key, str(drawn or ENDED)))
            is_due = len(self._notes) >= NOTE_IMAGES or time.monotonic() - self._told > NOTE_SECONDS
        if is_due:
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            notes, self._notes = self._notes, []
            broken, self._broken = self._broken, []
            self._told = time.monotonic()
        if notes:
            self._library.note_pixels(notes)
        if broken:
            self._library.note_broken(broken)

    def _start_drawer(self) -> Drawer:
        """Raises DrawerError, also if there is to be no more drawing."""
        drawer = Drawer()
        with self._lock:
            self._drawers.add(drawer)
        if self._stopped.is_set():
            self._end_drawer(drawer)
            raise DrawerError("Preparing was stopped.")
        return drawer

    def _end_drawer(self, drawer: Drawer) -> None:
        with self._lock:
            self._drawers.discard(drawer)
        drawer.close()
