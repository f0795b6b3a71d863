"""Where text hides in a PNG, JPEG or WebP, and how large the picture is. Knows nothing of generators.

Files are walked by seeking from chunk to chunk: no pixel is decoded and little is read, wherever the text stands (after
the pixels in every WebP). What a file is, its first bytes say, never its name. Checksums are not looked at: ComfyUI's own
example images have wrong ones.

`TextField.name` is the same for the same thing in every container, so that parsers need not know containers: a PNG
chunk's keyword ("parameters"), an EXIF tag ("UserComment", "Make"), an XMP property ("UserComment"), "comment" in JPEG.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree import ElementTree

from dpo.metadata.records import MetadataError

MAX_TEXT = 4 << 20  # bytes in one file: above the largest graph seen (1.6 MB), below what a crafted file could inflate to

EXIF_TEXT_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x8298: "Copyright",
    0x9286: "UserComment",
}
ORIENTATION, EXIF_IFD = 0x0112, 0x8769
CHARACTER_CODES = (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8)
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class TextField:
    """A text found in a file. `where` says where to a person: "PNG parameters", "EXIF UserComment"."""

    name: str
    text: str
    where: str


@dataclass(frozen=True)
class Container:
    """What a file holds besides pixels. `width` and `height` are pixels as shown: orientation is applied."""

    format: str  # "PNG", "JPEG" or "WebP"
    width: int
    height: int
    fields: tuple[TextField, ...]
    warnings: tuple[str, ...] = ()


def read_container(file: BinaryIO, name: str) -> Container:
    """Walk an open file. Raises MetadataError if it is no whole PNG, JPEG or WebP, OSError if it cannot be read.

    `name` is what messages call the file.
    """
    file.seek(0)
    start = file.read(12)
    contents = _Contents()
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            _walk_png(file, contents)
        elif start.startswith(b"\xff\xd8\xff"):
            _walk_jpeg(file, contents)
        elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
            _walk_webp(file, contents)
        else:
            found = f"starts with {start[:8]!r}" if start else "is empty"
            raise MetadataError(f"{name}: not a PNG, JPEG or WebP image (the file {found}). Skip the file.")
    except (EOFError, struct.error):
        size = file.seek(0, 2)
        raise MetadataError(f"{name}: the image is cut short ({size:,} bytes). Copy or save the file again.", "damaged") from None
    return contents.container(name)


class _Contents:
    """Collects what a walk finds."""

    def __init__(self):
        self.format = ""
        self.size = (0, 0)
        self.is_turned = False
        self.fields: list[TextField] = []
        self.warnings: list[str] = []
        self.room = MAX_TEXT

    def add(self, name: str, text: str, where: str) -> None:
        self.room -= len(text)
        if text.strip():
            self.fields.append(TextField(name, text, where))

    def has_room(self, size: int) -> bool:
        if size > self.room:
            self.warn(f"Texts past {MAX_TEXT >> 20} MB were not read.")
        return size <= self.room

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def container(self, name: str) -> Container:
        if 0 in self.size:
            raise MetadataError(f"{name}: a {self.format} file without a picture size. Skip the file.")
        width, height = reversed(self.size) if self.is_turned else self.size
        return Container(self.format, width, height, tuple(self.fields), tuple(self.warnings))


# --- PNG: length, type, data, checksum; the text chunks may stand before or after the pixels (IDAT)


def _walk_png(file: BinaryIO, contents: _Contents) -> None:
    contents.format = "PNG"
    file.seek(8)
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        end = file.tell() + length + 4
        if kind == b"IEND":
            return
        if kind == b"IHDR":
            contents.size = struct.unpack(">II", file.read(8))
        elif kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") and contents.has_room(length):
            data = _read(file, length)
            if kind == b"eXIf":
                _read_exif(data, contents)
            else:
                _read_png_text(kind, data, contents)
        file.seek(end)


def _read_png_text(kind: bytes, data: bytes, contents: _Contents) -> None:
    keyword, _, data = data.partition(b"\0")
    name = keyword.decode("latin-1")
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        data = data[1:]  # the compression method: there is only one
    elif kind == b"iTXt":
        is_compressed = data[:1] == b"\1"
        data = b"".join(data[2:].split(b"\0", 2)[2:])  # after language and translated keyword
    if is_compressed:
        data = _inflate(data, name, contents)
    if name == "XML:com.adobe.xmp":
        _read_xmp(data, contents)
    else:
        contents.add(name, _decode(data), f"PNG {name}")


def _inflate(data: bytes, name: str, contents: _Contents) -> bytes:
    try:
        text = zlib.decompressobj().decompress(data, contents.room + 1)  # one more, to know that it does not fit
    except zlib.error:
        contents.warn(f"PNG {name} is damaged and was not read.")
        return b""
    if contents.has_room(len(text)):
        return text
    contents.room = 0  # it was spent on inflating: a file of many such texts shall not take long
    return b""


# --- JPEG: segments up to the pixels (SOS), all of the text before them


def _walk_jpeg(file: BinaryIO, contents: _Contents) -> None:
    contents.format = "JPEG"
    file.seek(2)
    while True:
        marker = _read(file, 1)
        while marker in (b"\xff", b"\0"):  # padding, and bytes that some writers leave between segments
            marker = _read(file, 1)
        kind = marker[0]
        if kind == 0xD9:
            return
        (length,) = struct.unpack(">H", file.read(2))
        end = file.tell() + length - 2
        if kind == 0xDA:
            _check_jpeg_end(file, end)
            return
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):  # SOF: the other three are tables
            height, width = struct.unpack(">xHH", file.read(5))
            contents.size = (width, height)
        elif kind == 0xE1:
            data = _read(file, length - 2)
            if data.startswith(b"Exif\0\0"):
                _read_exif(data, contents)
            elif data.startswith(XMP_HEADER):
                _read_xmp(data.removeprefix(XMP_HEADER), contents)
        elif kind == 0xFE:
            contents.add("comment", _decode(_read(file, length - 2)), "JPEG comment")
        file.seek(end)


def _check_jpeg_end(file: BinaryIO, pixels: int) -> None:
    """Raises EOFError where the end marker is missing after `pixels`. Inside pixels its two bytes cannot occur."""
    tail = max(pixels, file.seek(0, 2) - 64)
    for start in (tail, pixels):
        file.seek(start)
        if b"\xff\xd9" in file.read():
            return
    raise EOFError


# --- WebP: RIFF chunks; EXIF and XMP stand after the pixels


def _walk_webp(file: BinaryIO, contents: _Contents) -> None:
    contents.format = "WebP"
    file_size = file.seek(0, 2)
    file.seek(12)
    while len(header := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", header)
        start = file.tell()
        if kind in (b"VP8 ", b"VP8L", b"ANMF") and start + length > file_size:
            raise EOFError
        if kind == b"VP8X":
            data = _read(file, 10)
            contents.size = (1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))
        elif kind == b"VP8 " and contents.size == (0, 0):
            width, height = struct.unpack("<6xHH", _read(file, 10))
            contents.size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and contents.size == (0, 0):
            (bits,) = struct.unpack("<xI", _read(file, 5))
            contents.size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind in (b"EXIF", b"XMP ") and contents.has_room(length):
            # An edited file may end early here: its pixels are whole, and part of the text may be too.
            (_read_exif if kind == b"EXIF" else _read_xmp)(file.read(length), contents)
        file.seek(start + length + length % 2)


# --- EXIF: a TIFF file in a chunk


def _read_exif(data: bytes, contents: _Contents) -> None:
    data = data.removeprefix(b"Exif\0\0")  # JPEG requires it; some WebP and PNG writers add it
    if data[:2] not in (b"II", b"MM"):
        return
    order = "<" if data[:2] == b"II" else ">"
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        if exif_offset := _read_directory(data, offset, order, contents):
            _read_directory(data, exif_offset, order, contents)
    except struct.error:
        contents.warn("The EXIF data is damaged; what could be read was.")


def _read_directory(data: bytes, offset: int, order: str, contents: _Contents) -> int:
    """Collect the texts of one directory. Returns where the Exif directory below it starts, or 0."""
    exif_offset = 0
    (count,) = struct.unpack_from(order + "H", data, offset)
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, length, value = struct.unpack_from(order + "HHII", data, entry)
        if tag == ORIENTATION:
            contents.is_turned = struct.unpack_from(order + "H", data, entry + 8)[0] in (5, 6, 7, 8)
        elif tag == EXIF_IFD:
            exif_offset = value
        elif tag in EXIF_TEXT_TAGS and kind in (1, 2, 7) and contents.has_room(length):  # bytes, text, undefined
            start = entry + 8 if length <= 4 else value
            raw = data[start : start + length]
            name = EXIF_TEXT_TAGS[tag]
            contents.add(name, _decode_user_comment(raw) if tag == 0x9286 else _decode(raw), f"EXIF {name}")
    return exif_offset


def _decode_user_comment(raw: bytes) -> str:
    """The text of a UserComment. What its first 8 bytes declare is not believed, only skipped: "UNICODE" stands before
    UTF-16 of either byte order, whatever that of the TIFF around it, and before UTF-8."""
    if raw[:8] in CHARACTER_CODES:
        raw = raw[8:]
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace").rstrip("\0")
    utf8 = raw.rstrip(b"\0")
    if b"\0" not in utf8 and _is_utf8(utf8):
        return utf8.decode()
    # Prompts hold ASCII, whose zero byte comes first in big-endian UTF-16 and second in little-endian.
    big, little = raw[0::2].count(0), raw[1::2].count(0)
    return raw.decode("utf-16-be" if big > little else "utf-16-le", "replace").rstrip("\0")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode(raw: bytes) -> str:
    """UTF-8, which some tools write where Latin-1 is due, or else Latin-1."""
    raw = raw.rstrip(b"\0")
    return raw.decode("utf-8" if _is_utf8(raw) else "latin-1")


# --- XMP: properties as attributes or elements of rdf:Description


def _read_xmp(data: bytes, contents: _Contents) -> None:
    if b"<!DOCTYPE" in data:  # it could define entities that expand without end; XMP has none
        return
    try:
        root = ElementTree.fromstring(_decode(data).strip())
    except ElementTree.ParseError:
        contents.warn("The XMP data is damaged and was not read.")
        return
    for description in root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"):
        properties = list(description.attrib.items())
        properties += [(child.tag, "".join(child.itertext()).strip()) for child in description]
        for tag, text in properties:
            name = tag.rpartition("}")[2]
            contents.add(name, text, f"XMP {name}")


def _read(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data
