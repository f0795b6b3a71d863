"""Texts hidden in the lowest bits of pixels, as NovelAI and plugins of A1111, Forge and SwarmUI write them.

The bits run down the first column, then down the second: of the alpha channel, or of red, green and blue in turn. They begin
with one of MAGICS, then a length in bits (32 bits), then so many bits of text, which may be gzipped. What comes after is for
correcting errors and not read. This decodes the picture: a hundred times the work of reading the other texts.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.metadata.filewalk import MAX_TEXT, TextField
from dpo.metadata.records import parse_json

if TYPE_CHECKING:
    import numpy
    from PIL import Image

MAX_PIXELS = 64_000_000  # 8000 x 8000: above what generators make, below what fills the memory
MAGICS = {b"stealth_pngcomp": True, b"stealth_pnginfo": False, b"stealth_rgbcomp": True, b"stealth_rgbinfo": False}  # gzipped?
START = 15 + 4  # bytes: magic and length
WHERE = "stealth pixels"


def read_stealth(path: str | Path) -> list[TextField]:
    """Texts hidden in a PNG or WebP, named as they would be in a PNG's chunks; [] without any, or if it cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "WEBP")) as image:
            if image.mode not in ("RGB", "RGBA") or image.width * image.height > MAX_PIXELS:
                return []
            text = _find_text(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError, struct.error):
        return []  # a broken picture: what is wrong with it, read_container says
    return _to_fields(text)


def _find_text(image: Image.Image) -> str:
    import numpy

    pixels = numpy.asarray(image)
    if pixels.shape[2] == 4 and (text := _read_bits(pixels[:, :, 3:])):
        return text
    return _read_bits(pixels[:, :, :3])


def _read_bits(channels: numpy.ndarray) -> str:
    """The text in the lowest bits of (height, width, channels) uint8, or "" without one."""
    start = _take(channels, 0, START)
    is_compressed = MAGICS.get(start[:15])
    if is_compressed is None or len(start) < START:
        return ""
    length = int.from_bytes(start[15:]) // 8
    if length > min(MAX_TEXT, channels.size // 8 - START):
        return ""
    data = _take(channels, START, length)
    if is_compressed:
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_TEXT)
        except zlib.error:
            return ""
    return data.decode("utf-8", "replace")


def _take(channels: numpy.ndarray, start: int, length: int) -> bytes:
    """Bytes `start` to `start + length` of the bits, of no more columns than they stand in."""
    import numpy

    height, _, depth = channels.shape
    column = height * depth  # bits
    first, last = 8 * start // column, -(-8 * (start + length) // column)
    bits = (channels[:, first:last] & 1).swapaxes(0, 1).reshape(-1)
    skipped = 8 * start - first * column
    return numpy.packbits(bits[skipped : skipped + 8 * length]).tobytes()


def _to_fields(text: str) -> list[TextField]:
    """NovelAI hides all its chunks as one JSON object; everyone else the one text that would be in `parameters`."""
    found = parse_json(text)
    if isinstance(found, dict) and {"Comment", "Description"} & found.keys():
        return [TextField(name, value, WHERE) for name, value in found.items() if isinstance(value, str) and value.strip()]
    return [TextField("parameters", text, WHERE)] if text.strip() else []
