"""An image file as plain pixels, for everything that shows or learns them: the page, its previews, the training cache.

What comes out is always RGB, turned as its orientation says; what is transparent shows the dark ground that images lie on.
A file that browsers show is usable here too, also where Pillow alone refuses it (a wrong checksum in a PNG, texts of
megabytes). Pillow is imported inside the functions: who only needs to know `PixelError` does not load it.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dpo import StudioError
from dpo.metadata import MetadataError
from dpo.metadata.containers import read_container

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 100_000_000  # of a file; more is not decoded
LARGEST_MENDED = 512 << 20  # bytes of pixels, compressed, that a PNG with a wrong checksum is copied for
GROUND = (13, 13, 12, 255)
# The formats of the library, and no other of the forty that Pillow knows: some of them start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF")
HASH_WIDTH, HASH_HEIGHT = 8, 8  # bits of a difference hash
_ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class PixelError(StudioError):
    """An image that cannot be decoded, or is refused before it is. The message names the file and says what to do."""


def open_pixels(path: str | Path, largest: int | None = None) -> Image.Image:
    """The decoded image, RGB, as it is shown; of an animation the first frame.

    With `largest`, an image whose long side is longer is scaled down to it (pixels), which for a JPEG costs far less than
    decoding all of it. Raises PixelError for a file that is gone, no image, cut short or damaged, or has more than
    MOST_PIXELS.
    """
    name = Path(path).name
    try:
        with open(path, "rb") as file:
            return _decode_whatever_it_takes(file, name, largest)
    except OSError as error:  # while opening: what decoding raises is a PixelError by now
        raise PixelError(f"{name} cannot be opened: {error.strerror or error}. Check that the file is still there.") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels as shown, from the file's header where it has one we know. Raises PixelError."""
    try:
        with open(path, "rb") as file:
            container = read_container(file, Path(path).name)
    except (MetadataError, OSError):
        return open_pixels(path).size  # or the sentence that says what is wrong
    return container.width, container.height


def pixel_digest(image: Image.Image) -> str:
    """32 hex characters, the same for images with the same size and the same RGB values, whatever file they came from."""
    digest = hashlib.blake2b(f"{image.width}x{image.height} ".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def mean_difference(first: str | Path, second: str | Path) -> float:
    """How far two image files are apart: the mean over pixels and channels of |a - b|, 0 to 255. Raises PixelError, also where
    they differ in size."""
    import numpy as np

    images = [np.asarray(open_pixels(path), np.int16) for path in (first, second)]
    if images[0].shape != images[1].shape:
        raise PixelError(f"{Path(first).name} and {Path(second).name} differ in size, and cannot be laid over each other.")
    return float(np.abs(images[0] - images[1]).mean())


def difference_hash(image: Image.Image) -> str:
    """16 hex characters (64 bits): does the brightness fall from one of 9 x 8 fields to its right neighbour? Row by row.

    Images that look alike differ in few bits, however they are scaled or compressed (dHash, Krawetz 2013).
    """
    from PIL import Image

    fields = image.convert("L").resize((HASH_WIDTH + 1, HASH_HEIGHT), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(HASH_HEIGHT):
        for left in range(row * (HASH_WIDTH + 1), row * (HASH_WIDTH + 1) + HASH_WIDTH):
            bits = bits << 1 | (fields[left] > fields[left + 1])
    return f"{bits:016x}"


def _decode_whatever_it_takes(file: BinaryIO, name: str, largest: int | None) -> Image.Image:
    start = file.read(32)
    try:
        file.seek(0)
        return _decode(file, name, largest)
    except PixelError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on broken files
        mended = _mend_png(file) if start.startswith(_PNG_START) else None
        if mended is None:
            raise PixelError(_explain(start, name)) from error
    try:
        return _decode(io.BytesIO(mended), name, largest)
    except PixelError:
        raise
    except Exception as error:  # as above
        raise PixelError(_explain(start, name)) from error


def _decode(file: BinaryIO, name: str, largest: int | None) -> Image.Image:
    from PIL import Image

    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PixelError(_too_many(name, f"over {2 * Image.MAX_IMAGE_PIXELS:,}")) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise PixelError(_too_many(name, f"{image.width} x {image.height}"))
        if largest is not None and max(image.size) > largest:
            image.draft("RGB", tuple(max(1, side * largest // max(image.size)) for side in image.size))
        image.load()
        plain = _turn(_flatten(image), image.info.get("exif"))
    if largest is not None:
        plain.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return plain


def _flatten(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey: converting would clip them at 255, so scale them first
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, GROUND), image).convert("RGB")
    return image.convert("RGB")


def _turn(image: Image.Image, exif: bytes | None) -> Image.Image:
    """As EXIF says. Only EXIF, as browsers do it and as `dpo.metadata` measures: not a tag in XMP."""
    from PIL import Image

    ways = Image.Transpose
    turns = {
        2: ways.FLIP_LEFT_RIGHT, 3: ways.ROTATE_180, 4: ways.FLIP_TOP_BOTTOM, 5: ways.TRANSPOSE,
        6: ways.ROTATE_270, 7: ways.TRANSVERSE, 8: ways.ROTATE_90,
    }  # fmt: skip
    if not exif:
        return image
    tags = Image.Exif()
    try:
        tags.load(exif)
        turn = turns.get(tags.get(_ORIENTATION))
    except Exception:  # garbage where EXIF should be (Pillow raises anything): the pixels are as good as they were
        turn = None
    return image if turn is None else image.transpose(turn)


def _mend_png(file: BinaryIO) -> bytes | None:
    """The PNG with only what pixels need, and right checksums; None if it has none.

    That a checksum is wrong says little: ComfyUI's own example images have such texts, and whether the pixels are whole, the
    checksum inside their compressed stream still says.
    """
    file.seek(len(_PNG_START))
    parts, room, has_pixels = [_PNG_START], LARGEST_MENDED, False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf"):
            body = file.read(min(length, room))
            if len(body) < length:  # if these were pixels, decoding what is left of them will say so
                break
            parts.append(_chunk(kind, body))
            room -= length
            has_pixels = has_pixels or kind == b"IDAT"
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return b"".join([*parts, _chunk(b"IEND", b"")]) if has_pixels else None


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _too_many(name: str, pixels: str) -> str:
    return (
        f"{name} has too many pixels to decode ({pixels}; the limit is {MOST_PIXELS:,} in all). "
        "Save it smaller, or take it out of the folder."
    )


def _explain(start: bytes, name: str) -> str:
    """Why a file that begins with these bytes could not be decoded, and what to do."""
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return _no_decoder(name, "a JPEG XL", "pillow-jxl-plugin")
    if brand in _HEIF_BRANDS:
        return _no_decoder(name, "an HEIF", "pillow-heif")
    known = start.startswith((_PNG_START, b"\xff\xd8\xff", b"GIF8")) or start[8:12] == b"WEBP" or brand in (b"avif", b"avis")
    if not known:
        return f"{name} is not an image (it starts with {start[:8]!r}). Take it out of the folder."
    return f"{name} cannot be decoded: the file is cut short or damaged. Copy or save it again, or take it out of the folder."


def _no_decoder(name: str, kind: str, package: str) -> str:
    return (
        f"{name} is {kind} image, which Pillow cannot decode without the package {package}. "
        "Save it as PNG, WebP or AVIF and scan again."
    )
