"""Images as the page gets them: decoded, scaled and encoded anew, here or in a process of its own.

    thumb    long side at most 256     WebP
    preview  long side at most 1280    WebP, about 120 KB at most where that can be had without harm
    full     long side at most 4096    JPEG without chroma subsampling

Images up to 256 pixels are WebP without loss in every kind: they are shown enlarged, where compression would be seen.

A drawing process is `python -m dpo.drawing`: it takes a JSON line of path, key and kinds on its standard input and answers
with a JSON line and the images' bytes. It works at low priority, and ends when its input does: at `close`, or when the app
is gone, however that ended.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpo import StudioError
from dpo.metadata import content_key
from dpo.pixels import PixelError, difference_hash, open_pixels, pixel_digest

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = {"thumb": 256, "preview": 1280, "full": 4096}  # pixels
LOSSLESS_SIDE = 256
PREVIEW_BYTES = 120_000
# WebP at 85 is about as true to the image as JPEG at 85 and half its size; below 75 one would judge the compression.
QUALITIES = (85, 75)
FULL_QUALITY = 90
DRAWER_NICENESS = 10


class AbsentError(PixelError):
    """An image whose file is gone or has become another one. A scan may find it again."""


class DrawerError(StudioError):
    """A drawing process that ended instead of answering."""


class Drawn(NamedTuple):
    """An image in the kinds asked for, as encoded bytes, and what its pixels are known by (see `dpo.pixels`)."""

    images: dict[str, bytes]
    digest: str
    difference: str


def draw(path: str | Path, key: str, kind: str) -> bytes:
    """One kind of the image with this content key. Raises PixelError; AbsentError if the path holds no such content."""
    _check_content(path, key)
    # A thumb starts from more than its size: else an image that was always that small could not be told apart.
    return encode(open_pixels(path, max(LONGEST_SIDE[kind], 2 * LOSSLESS_SIDE)), kind)


def draw_all(path: str | Path, key: str, kinds: Sequence[str]) -> Drawn:
    """Several kinds out of one decoding, which is of every pixel: the digest is of them. Raises as `draw`."""
    _check_content(path, key)
    image = open_pixels(path)
    return Drawn({kind: encode(image, kind) for kind in kinds}, pixel_digest(image), difference_hash(image))


def encode(image: Image.Image, kind: str) -> bytes:
    """An RGB image in one kind, without any metadata."""
    if max(image.size) <= LOSSLESS_SIDE:
        return _save(image, "WEBP", lossless=True, quality=50, method=2)
    if max(image.size) > LONGEST_SIDE[kind]:
        image = image.copy()
        image.thumbnail((LONGEST_SIDE[kind],) * 2)
    if kind == "full":
        return _save(image, "JPEG", quality=FULL_QUALITY, subsampling=0)
    for quality in QUALITIES:
        data = _save(image, "WEBP", quality=quality, method=2)
        if len(data) <= PREVIEW_BYTES:
            break
    return data


def media_type(data: bytes) -> str:
    """Of bytes that `encode` made."""
    return "image/webp" if data[8:12] == b"WEBP" else "image/jpeg"


class Drawer:
    """A drawing process. One thread asks; any may `kill`."""

    def __init__(self) -> None:
        """Start it and wait until it is there. Raises DrawerError if it does not come up."""
        root = str(Path(__file__).resolve().parent.parent)
        places = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dpo.drawing"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places},
            )  # fmt: skip
        except OSError as error:
            raise DrawerError(
                f"No process to draw previews in could be started: {error}. They are drawn when looked at."
            ) from error
        try:
            self._read_line()
        except DrawerError:
            self.close()
            raise

    def ask(self, path: str, key: str, kinds: Sequence[str]) -> Drawn:
        """`draw_all` over there. Raises as it does, and DrawerError if the process ends over it."""
        with suppress(BrokenPipeError):  # the missing answer tells
            self._process.stdin.write(json.dumps([path, key, list(kinds)]).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._read_line()
        if "error" in answer:
            raise (AbsentError if answer["is_absent"] else PixelError)(answer["error"])
        images = {kind: self._process.stdout.read(size) for kind, size in answer["sizes"].items()}
        if any(len(images[kind]) < size for kind, size in answer["sizes"].items()):
            raise self._ended()
        return Drawn(images, answer["digest"], answer["difference"])

    def kill(self) -> None:
        """End it at once, whatever it is doing; whoever waits for an answer gets a DrawerError."""
        self._process.kill()

    def close(self) -> None:
        """Kill it and wait for it. For the thread that asks."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what could not be written any more
                stream.close()

    def _read_line(self) -> dict:
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> DrawerError:
        return DrawerError(f"The process that draws previews ended (exit status {self._process.wait()}).")


def main() -> None:
    """Answer lines on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal ends the app, and that ends the input
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints by mistake must not break a line of ours
    if hasattr(os, "nice"):
        os.nice(DRAWER_NICENESS)
    with suppress(BrokenPipeError):  # the app is gone
        _answer(answers, {"ready": True})
        for line in sys.stdin.buffer:
            path, key, kinds = json.loads(line)
            try:
                drawn = draw_all(path, key, kinds)
            except PixelError as error:
                _answer(answers, {"error": str(error), "is_absent": isinstance(error, AbsentError)})
                continue
            sizes = {kind: len(data) for kind, data in drawn.images.items()}
            answer = {"sizes": sizes, "digest": drawn.digest, "difference": drawn.difference}
            _answer(answers, answer, *drawn.images.values())


def _answer(answers: io.BufferedWriter, answer: dict, *images: bytes) -> None:
    answers.write(b"".join([json.dumps(answer).encode(), b"\n", *images]))
    answers.flush()


def _check_content(path: str | Path, key: str) -> None:
    """What is drawn is kept under its key for ever, so it had better be of that key."""
    name = Path(path).name
    try:
        found = content_key(path)
    except OSError as error:
        raise AbsentError(f"{name} cannot be opened: {error.strerror or error}. Scan its folder again.") from error
    if found != key:
        raise AbsentError(f"{name} is another image than when it was scanned. Scan its folder again.")


def _save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
