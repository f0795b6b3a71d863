"""A library small enough to look through, for tests of what is drawn of it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from dpo.groups import IndexedImage
from dpo.metadata import ImageRecord, content_key
from dpo.previews import Previews


class Shelf:
    """What Previews ask of a library: images by key, which of them were not decoded yet, and a place for what decoding found."""

    def __init__(self, *paths: Path):
        self.paths = {content_key(path): str(path) for path in paths}
        self.notes: dict[str, tuple[str, str]] = {}
        self.broken: dict[str, str] = {}
        self.changes = 0

    def image(self, key):
        return IndexedImage(key, self.paths[key], ImageRecord(self.paths[key])) if key in self.paths else None

    def revision(self):
        return self.changes

    def unprepared(self, folder, count):
        rows = [
            (key, path) for key, path in self.paths.items() if path.startswith(folder) and key not in self.notes | self.broken
        ]
        return rows[:count]

    def note_pixels(self, rows):
        self.notes |= {key: (digest, difference) for key, digest, difference in rows}

    def note_broken(self, rows):
        self.broken |= dict(rows)

    def key(self, path) -> str:
        return next(key for key, known in self.paths.items() if known == str(path))


def making_previews(folder: Path) -> Iterator[Callable[..., Previews]]:
    """For a fixture: makes Previews of a shelf; whatever they started is stopped after the test."""
    made = []

    def make(shelf: Shelf, limit_bytes: int = 1 << 30) -> Previews:
        made.append(Previews(folder, shelf, limit_bytes))
        return made[-1]

    yield make
    for previews in made:
        previews.stop()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def paint(folder: Path, count: int, size=(320, 240)) -> list[Path]:
    """Images of noise, no two alike, and each too large to be kept without loss."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for path in paths:
        Image.frombytes("RGB", size, os.urandom(3 * size[0] * size[1])).save(path, compress_level=0)
    return paths


def wait_until(is_true, seconds=20.0):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def wait_for(previews: Previews):
    wait_until(lambda: previews._maker._work is not None and previews._maker._work.is_over)


def kept(tmp_path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (tmp_path / "previews").glob("*/*")}
