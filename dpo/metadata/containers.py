"""Where text hides in an image file, and how large the picture is. Knows nothing of generators.

    containers.py   what a file is; PNG, JPEG, WebP, GIF
    boxes.py        AVIF, HEIF, JPEG XL
    exif.py         EXIF, XMP and content credentials, which stand in all of them
    filewalk.py     reading in places, and the limits

Files are walked by seeking from chunk to chunk: no pixel is decoded and little is read, wherever the text stands (after
the pixels in every WebP). What a file is, its first bytes say, never its name. Checksums are not looked at: ComfyUI's own
example images have wrong ones.

`TextField.name` is the same for the same thing in every container, so that parsers need not know containers: a PNG
chunk's keyword ("parameters"), an EXIF tag ("UserComment", "Make"), an XMP property ("UserComment"), "comment" in JPEG and
GIF, "C2PA" for content credentials.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from dpo.metadata.boxes import JXL_BOX, JXL_START, walk_heif, walk_jxl
from dpo.metadata.exif import read_credentials, read_exif, read_xmp
from dpo.metadata.filewalk import MAX_PARTS, MAX_TEXT, FileWalk, TextField, decode
from dpo.metadata.records import MetadataError

__all__ = ["MAX_PARTS", "MAX_TEXT", "Container", "TextField", "read_container"]

PNG_CHUNK, WEBP_CHUNK = struct.Struct(">I4s"), struct.Struct("<4sI")
XMP_HEADER, LONG_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
JPEG_MARKER = re.compile(rb"\xff[\x01-\xfe]")
JPEG_BLOCK, JPEG_PIXELS = 1 << 20, 32 << 20  # bytes looked through for the end of a JPEG: at once, and in all


@dataclass(frozen=True)
class Container:
    """What a file holds besides pixels. `width` and `height` are pixels as shown: orientation is applied."""

    format: str  # "PNG", "JPEG", "WebP", "GIF", "AVIF", "HEIF" or "JPEG XL"
    width: int
    height: int
    fields: tuple[TextField, ...]
    warnings: tuple[str, ...] = ()


def read_container(file: BinaryIO, name: str) -> Container:
    """Walk an open file, from its start wherever it stands; best one without a buffer of its own.

    Raises MetadataError if it is no whole image of a format known here, OSError if it cannot be read. `name` is what
    messages call the file.
    """
    walk = FileWalk(file)
    start = walk.head
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            _walk_png(walk)
        elif start.startswith(b"\xff\xd8\xff"):
            _walk_jpeg(walk)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            _walk_webp(walk)
        elif start[4:8] == b"ftyp":
            walk_heif(walk)
        elif start.startswith((JXL_START, JXL_BOX)):
            walk_jxl(walk)
        elif start.startswith((b"GIF87a", b"GIF89a")):
            _walk_gif(walk)
    except (EOFError, struct.error, IndexError):  # it ends before what it says it has
        raise MetadataError(
            f"{name}: the image is cut short ({walk.size:,} bytes). Copy or save the file again.", "damaged"
        ) from None
    if not walk.format:
        found = f"starts with {start[:8]!r}" if start else "is empty"
        raise MetadataError(f"{name}: not a PNG, JPEG, WebP, AVIF, HEIF, JPEG XL or GIF image (the file {found}). Skip the file.")
    if 0 in walk.picture:
        raise MetadataError(f"{name}: a {walk.format} file without a picture size. Skip the file.", "damaged")
    width, height = reversed(walk.picture) if walk.is_turned else walk.picture
    return Container(walk.format, width, height, tuple(walk.fields), tuple(walk.warnings))


# --- PNG: length, type, data, checksum; the text chunks may stand before or after the pixels (IDAT)


def _walk_png(walk: FileWalk) -> None:
    walk.format = "PNG"
    offset = 8
    for _ in range(MAX_PARTS):
        length, kind = PNG_CHUNK.unpack(walk.read(offset, 8))
        if kind == b"IEND":
            return
        if kind == b"IHDR":
            walk.picture = struct.unpack(">II", walk.read(offset + 8, 8))
        elif kind == b"IDAT":
            offset, length = _skip_pixels(walk, offset, length)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _read_png_text(kind, walk.read_text(offset + 8, length), walk)
        elif kind == b"eXIf":
            walk.is_turned |= read_exif(walk.read_text(offset + 8, length), walk)
        elif kind == b"caBX":
            read_credentials(offset + 8, length, "PNG caBX", walk)
        offset += 12 + length
    walk.warn_of_parts()


def _skip_pixels(walk: FileWalk, offset: int, length: int) -> tuple[int, int]:
    """Place and length of the last of the IDAT chunks of one length that begin at `offset`, or of one on the way to it.

    Writers cut pixels into chunks of one size, dozens of them: instead of visiting each, look where the last one must be.
    """
    step = length + 12
    count = (walk.size - 8 - offset) // step
    while count > 1:
        place = offset + count * step
        last, kind = PNG_CHUNK.unpack(walk.read(place, 8))
        if kind == b"IDAT":
            return place, last
        count //= 2  # something stands behind the pixels
    return offset, length


def _read_png_text(kind: bytes, data: bytes, walk: FileWalk) -> None:
    keyword, _, data = data.partition(b"\0")
    name = keyword.decode("latin-1")
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        data = data[1:]  # the compression method: there is only one
    elif kind == b"iTXt":
        is_compressed = data[:1] == b"\1"
        data = b"".join(data[2:].split(b"\0", 2)[2:])  # after language and translated keyword
    if is_compressed:
        data = _inflate(data, name, walk)
    if name == "XML:com.adobe.xmp":
        read_xmp(data, walk)
    elif name.startswith("Raw profile type "):
        _read_raw_profile(data, name, walk)
    else:
        walk.add(name, decode(data), f"PNG {name}")


def _inflate(data: bytes, name: str, walk: FileWalk) -> bytes:
    try:
        text = zlib.decompressobj().decompress(data, walk.room + 1)  # one more, to know that it does not fit
    except zlib.error:
        walk.warn(f"PNG {name} is damaged and was not read.")
        walk.room -= min(walk.room, 1032 * len(data))  # the most that could come of it before the damage was met
        return b""
    if walk.take(len(text)):
        return text
    walk.room = 0  # it was spent on inflating: a file of many such texts shall not take long
    return b""


def _read_raw_profile(data: bytes, name: str, walk: FileWalk) -> None:
    """EXIF or XMP as ImageMagick puts them: a line with the name, one with the length, lines of hexadecimal digits."""
    try:
        profile = bytes.fromhex(decode(data.split(b"\n", 3)[3]))
    except (IndexError, ValueError):
        walk.warn(f"PNG {name} is damaged and was not read.")
        return
    if profile.startswith(XMP_HEADER) or name.endswith("xmp"):
        read_xmp(profile.removeprefix(XMP_HEADER), walk)
    else:
        read_exif(profile, walk)  # no browser turns a picture for it


# --- JPEG: segments up to the pixels (SOS), all of the text before them


def _walk_jpeg(walk: FileWalk) -> None:
    walk.format = "JPEG"
    exif, xmp, long_xmp = [], b"", []
    offset = 2
    for _ in range(MAX_PARTS):
        kind, offset = _next_marker(walk, offset)
        if kind == 0xD9:
            break
        (length,) = struct.unpack(">H", walk.read(offset, 2))
        if kind == 0xDA:
            _check_jpeg_end(walk, offset + length)
            break
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):  # SOF: the other three are tables
            height, width = struct.unpack(">HH", walk.read(offset + 3, 4))
            walk.picture = (width, height)
        elif kind == 0xE1:
            data = walk.read_text(offset + 2, max(length - 2, 0))
            if data.startswith(b"Exif\0\0"):
                if exif and data[6:8] not in (b"II", b"MM"):  # a block of more than 64 KB goes on in the next segment
                    exif[-1] += data[6:]
                else:
                    exif.append(data)
            elif data.startswith(XMP_HEADER):
                xmp = xmp or data.removeprefix(XMP_HEADER)
            elif data.startswith(LONG_XMP_HEADER):  # a checksum, the length in all, the place of this part, the part
                long_xmp.append(data.removeprefix(LONG_XMP_HEADER)[36:])
        elif kind == 0xEB and walk.read(offset + 2, min(8, max(length - 2, 0))).startswith(b"JP"):
            read_credentials(offset + 2, length - 2, "JPEG APP11", walk)
        elif kind == 0xFE:
            walk.add("comment", decode(walk.read_text(offset + 2, max(length - 2, 0))), "JPEG comment")
        offset += length
    else:
        walk.warn_of_parts()
    turned = [read_exif(block, walk) for block in exif]
    walk.is_turned = turned[:1] == [True]  # browsers and Pillow look at the first only
    if xmp:
        read_xmp(xmp, walk)
    if long_xmp:
        read_xmp(b"".join(data[4:] for data in sorted(long_xmp)), walk)


def _next_marker(walk: FileWalk, offset: int) -> tuple[int, int]:
    """A segment's kind, and the place after it. Skips padding, and bytes that some writers leave between segments."""
    marker = walk.read(offset, 2)
    if marker[0] == 0xFF and marker[1] >= 0xC0 and marker[1] != 0xFF:
        return marker[1], offset + 2
    while block := walk.read_text(offset, min(256, walk.size - offset)):
        if found := JPEG_MARKER.search(block):
            return found[0][1], offset + found.end()
        offset += max(1, len(block) - 1)  # its last byte may begin a marker
    raise EOFError


def _check_jpeg_end(walk: FileWalk, pixels: int) -> None:
    """Raises EOFError where the end marker is missing after `pixels`. Inside pixels its two bytes cannot occur."""
    tail = max(pixels, walk.size - 64)
    if b"\xff\xd9" in walk.read(tail, max(walk.size - tail, 0)):
        return
    last = b""
    for start in range(pixels, min(walk.size, pixels + JPEG_PIXELS), JPEG_BLOCK):
        block = walk.read(start, min(JPEG_BLOCK, walk.size - start))
        if b"\xff\xd9" in last + block:
            return
        last = block[-1:]
    if walk.size <= pixels + JPEG_PIXELS:
        raise EOFError


# --- WebP: RIFF chunks; EXIF and XMP stand after the pixels


def _walk_webp(walk: FileWalk) -> None:
    walk.format = "WebP"
    offset, has_pixels = 12, False
    for _ in range(MAX_PARTS):
        if offset + 8 > walk.size:
            break
        kind, length = WEBP_CHUNK.unpack(walk.read(offset, 8))
        offset += 8
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            has_pixels = True
            if offset + length > walk.size:
                raise EOFError
        if kind == b"VP8X":
            data = walk.read(offset, 10)
            walk.picture = (1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))
        elif kind == b"VP8 " and walk.picture == (0, 0):
            width, height = struct.unpack("<6xHH", walk.read(offset, 10))
            walk.picture = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and walk.picture == (0, 0):
            (bits,) = struct.unpack("<xI", walk.read(offset, 5))
            walk.picture = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind in (b"EXIF", b"XMP "):
            # An edited file may end early here: its pixels are whole, and part of the text may be too.
            data = walk.read_text(offset, min(length, walk.size - offset))
            if kind == b"EXIF":
                walk.is_turned |= read_exif(data, walk)
            else:
                read_xmp(data, walk)
        elif kind == b"C2PA":
            read_credentials(offset, length, "WebP C2PA", walk)
        offset += length + length % 2
    else:
        walk.warn_of_parts()
    if walk.picture != (0, 0) and not has_pixels:
        raise EOFError


# --- GIF: comments before the first picture, where writers put them; after it stand its thousands of small blocks


def _walk_gif(walk: FileWalk) -> None:
    walk.format = "GIF"
    *size, flags = struct.unpack("<HHB", walk.read(6, 5))
    walk.picture = tuple(size)
    offset = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    parts = iter(range(MAX_PARTS))
    while walk.read(offset, 1) == b"!":
        label, data = walk.read(offset + 1, 1), []
        offset += 2
        for _ in parts:
            (length,) = walk.read(offset, 1)
            data.append(walk.read_text(offset + 1, length))
            offset += 1 + length
            if length == 0:
                break
        else:
            walk.warn_of_parts()
            return
        if label == b"\xfe":
            walk.add("comment", decode(b"".join(data)), "GIF comment")
