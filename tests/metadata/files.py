"""Image files of one pixel, written byte by byte, so that a test can put a text where it wants and break what it wants."""

import gzip
import io
import struct
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GIF_PIXEL = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
NAMES = {b"mime": b"\0application/rdf+xml\0"}  # an item's name, empty, and what it is


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


def gif(*comments: bytes) -> bytes:
    """A GIF with comments between its header and its one pixel, in blocks of 255 bytes at most."""
    blocks = b""
    for comment in comments:
        parts = [comment[start : start + 255] for start in range(0, len(comment), 255)]
        blocks += b"!\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0" * 6 + blocks + GIF_PIXEL


def box(kind: bytes, data: bytes, large: bool = False) -> bytes:
    """A box, its length in 32 bits or, `large`, in 64."""
    if large:
        return struct.pack(">I4sQ", 1, kind, 16 + len(data)) + data
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full_box(kind: bytes, data: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]) + data)


def heif(
    *texts: tuple[bytes, bytes],
    size: tuple[int, int] = (1, 1),
    brand: bytes = b"avif",
    picture: bytes = b"av01",
    properties: bytes = b"",
    inside: bool = False,
    wide: bool = False,
    large: bool = False,
) -> bytes:
    """An AVIF or HEIF whose pixels are no pixels, with (b"Exif" or b"mime", data) items of text.

    `properties` are boxes that follow the size. Texts lie in `idat` with `inside`. `wide`: item numbers of 32 bits, and
    the versions of boxes that have them. `large`: lengths of boxes of 64 bits.
    """
    items = [(picture, b"pixels"), *texts]
    number = ">I" if wide else ">H"
    information = b"".join(
        full_box(b"infe", struct.pack(number + "H4s", item, 0, kind) + NAMES.get(kind, b"\0"), 3 if wide else 2)
        for item, (kind, _) in enumerate(items, 1)
    )
    count = 1 + len(split_boxes(properties))
    associations = struct.pack(">I", 1) + struct.pack(number + "B", 1, count) + bytes(range(1, count + 1))

    def meta(start: int) -> bytes:
        rows, inner = b"", b""
        for item, (_, data) in enumerate(items, 1):
            is_inside = inside and item > 1
            place = len(inner) if is_inside else start
            rows += struct.pack(number + "HHHII", item, is_inside, 0, 1, place, len(data))
            inner, start = (inner + data, start) if is_inside else (inner, start + len(data))
        return full_box(
            b"meta",
            full_box(b"hdlr", b"\0\0\0\0pict" + bytes(13))
            + full_box(b"pitm", struct.pack(number, 1), wide)
            + full_box(b"iloc", b"\x44\0" + struct.pack(number, len(items)) + rows, 2 if wide else 1)
            + full_box(b"iinf", struct.pack(number, len(items)) + information, wide)
            + box(
                b"iprp",
                box(b"ipco", full_box(b"ispe", struct.pack(">II", *size)) + properties, large)
                + full_box(b"ipma", associations, wide),
            )
            + box(b"idat", inner, large),
        )

    header = box(b"ftyp", brand + b"\0\0\0\0" + b"mif1" + brand)
    start = len(header) + len(meta(0)) + (16 if large else 8)
    pixels = b"".join(data for item, (_, data) in enumerate(items, 1) if not (inside and item > 1))
    return header + meta(start) + box(b"mdat", pixels, large)


def split_boxes(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found, data = [*found, data[:length]], data[length:]
    return found


def jxl(*boxes: tuple[bytes, bytes], size: tuple[int, int] = (1, 1), pieces: int = 1) -> bytes:
    """A JPEG XL file with (kind, data) boxes before its codestream, which may stand in `pieces`."""
    codestream = jxl_codestream(size)
    file = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + b"".join(box(*item) for item in boxes)
    if pieces == 1:
        return file + box(b"jxlc", codestream)
    step = -(-len(codestream) // pieces)
    return file + b"".join(
        box(b"jxlp", struct.pack(">I", number) + codestream[number * step : (number + 1) * step]) for number in range(pieces)
    )


def jxl_codestream(size: tuple[int, int] = (1, 1), ratio: int = 0, orientation: int = 1) -> bytes:
    """The start of a codestream, then ones. With a `ratio` the width is left out; heights of 8, 16, .. 256 have a short form."""
    width, height = size
    is_small = height % 8 == 0 and height <= 256 and (ratio > 0 or (width % 8 == 0 and width <= 256))

    def length(value: int) -> list[tuple[int, int]]:
        if is_small:
            return [(value // 8 - 1, 5)]
        choice = next(index for index, bits in enumerate((9, 13, 18, 30)) if value - 1 < 1 << bits)
        return [(choice, 2), (value - 1, (9, 13, 18, 30)[choice])]

    numbers = [(is_small, 1), *length(height), (ratio, 3), *([] if ratio else length(width))]
    numbers += [(0, 1), (1, 1), (orientation - 1, 3)] if orientation > 1 else [(1, 1)]
    value = place = 0
    for number, bits in numbers:
        value, place = value | number << place, place + bits
    return b"\xff\x0a" + (value | (1 << 240) - (1 << place)).to_bytes(30, "little")


def hide(text: str, magic: str, mode: str = "RGBA", size: tuple[int, int] = (40, 90), claim: int | None = None) -> Image.Image:
    """A picture with the text in it. `claim` is a length to write in place of the true one."""
    data = gzip.compress(text.encode()) if magic.endswith("comp") else text.encode()
    length = 8 * len(data) if claim is None else claim
    bits = [int(bit) for byte in magic.encode() + length.to_bytes(4, "big") + data for bit in f"{byte:08b}"]
    image = Image.new(mode, size, (100, 150, 200, 254)[: len(mode)])
    channels = (0, 1, 2) if "rgb" in magic else (3,)
    places = ((x, y, channel) for x in range(size[0]) for y in range(size[1]) for channel in channels)
    for bit, (x, y, channel) in zip(bits, places, strict=False):
        pixel = list(image.getpixel((x, y)))
        pixel[channel] = pixel[channel] & ~1 | bit
        image.putpixel((x, y), tuple(pixel))
    return image


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
