"""Image files of one pixel, written byte by byte, so that a test can put a text where it wants and break what it wants."""

import io
import struct
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def text_chunk(keyword: str, text: str) -> bytes:
    return chunk(b"tEXt", keyword.encode() + b"\0" + text.encode())


def png(before: bytes = b"", after: bytes = b"", size: tuple[int, int] = (1, 1)) -> bytes:
    """A PNG with chunks before and after its pixels. `size` is what the header says; there is one pixel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    return SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(b"\0\0")) + after + chunk(b"IEND", b"")


def jpeg(*segments: tuple[int, bytes], size: tuple[int, int] = (1, 1)) -> bytes:
    """A JPEG with (marker, data) segments, 0xE1 for EXIF and XMP, 0xFE for a comment."""
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG")
    added = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments)
    return b"\xff\xd8" + added + file.getvalue()[2:]


def webp(*chunks: tuple[bytes, bytes], lossless: bool = False, size: tuple[int, int] = (1, 1)) -> bytes:
    """A WebP whose pixels are followed by (kind, data) chunks."""
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "WEBP", lossless=lossless)
    pixels = file.getvalue()[12:]
    if chunks:
        flags = struct.pack("<I", 0b1100)  # has EXIF and XMP
        canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
        pixels = b"VP8X" + struct.pack("<I", 10) + flags + canvas + pixels
    for kind, data in chunks:
        pixels += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(pixels) + 4) + b"WEBP" + pixels


def exif(ifd0: dict[int, bytes | int] | None = None, exif_ifd: dict[int, bytes] | None = None, order: str = ">") -> bytes:
    """A TIFF block: byte values are stored as undefined bytes, numbers as a short. `order` is ">" (MM) or "<" (II)."""
    ifd0 = dict(ifd0 or {})
    if exif_ifd:
        ifd0[0x8769] = 8 + _directory_size(ifd0 | {0x8769: 0})
    blocks = _directory(ifd0, 8, order) + (_directory(exif_ifd, ifd0[0x8769], order) if exif_ifd else b"")
    return (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8) + blocks


def user_comment(text: str, encoding: str = "utf-16-be", order: str = ">", code: bytes = b"UNICODE\0") -> bytes:
    return exif(exif_ifd={0x9286: code + text.encode(encoding)}, order=order)


def exif_segment(data: bytes) -> tuple[int, bytes]:
    return 0xE1, b"Exif\0\0" + data


def _directory_size(entries: dict) -> int:
    return 2 + 12 * len(entries) + 4 + sum(len(value) for value in entries.values() if isinstance(value, bytes))


def _directory(entries: dict, offset: int, order: str) -> bytes:
    place = offset + 2 + 12 * len(entries) + 4
    rows, values = b"", b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes) and len(value) <= 4:
            rows += struct.pack(order + "HHI4s", tag, 7, len(value), value)
        elif isinstance(value, bytes):
            rows += struct.pack(order + "HHII", tag, 7, len(value), place + len(values))
            values += value
        elif tag == 0x8769:
            rows += struct.pack(order + "HHII", tag, 4, 1, value)
        else:
            rows += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    return struct.pack(order + "H", len(entries)) + rows + b"\0\0\0\0" + values
