import io
import random
import struct
import zlib

import pytest
from PIL import Image, ImageFile

from dpo.pixels import GROUND, MOST_PIXELS, PixelError, difference_hash, image_size, open_pixels, pixel_digest
from tests.metadata.files import SIGNATURE, chunk, exif, png
from tests.pictures import plain

WRONG = 0x12345678
TURNED = exif({0x0112: 6})  # shown turned by 90 degrees


def noise(size=(24, 16)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_chunks(before: bytes = b"", after: bytes = b"", image: Image.Image | None = None) -> bytes:
    """The noise as a PNG with chunks before and after its pixels."""
    data = encoded(image or noise())
    return data[:33] + before + data[33:-12] + after + data[-12:]


@pytest.fixture
def write(tmp_path):
    def write(data: bytes, name: str = "a.png"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


# ------------------------------------------------------------------------------------------------ what browsers show


BIG = b"workflow\0" + b"x" * 3_000_000
REFUSED = {
    "a text with a wrong checksum": with_chunks(chunk(b"tEXt", b"workflow\0{}", WRONG)),
    "a compressed text of 5 MB": with_chunks(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 5_000_000))),
    "that text after the pixels": with_chunks(after=chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 5_000_000))),
    "texts of 72 MB": with_chunks(chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"x" * 3_000_000) * 24),
    "a header with a wrong checksum": with_chunks()[:29] + b"\0\0\0\0" + with_chunks()[33:],
    "a wrong text and no end": with_chunks(chunk(b"tEXt", b"workflow\0{}", WRONG))[:-12],
    "a wrong text and another cut short": with_chunks(chunk(b"tEXt", b"a\0b", WRONG), chunk(b"tEXt", BIG))[:-200],
    "a wrong text and EXIF cut short": with_chunks(chunk(b"tEXt", b"a\0b", WRONG), chunk(b"eXIf", TURNED))[:-20],
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_png_that_only_pillow_refuses_has_the_pixels_it_was_made_with(write, data):
    path = write(data)
    with pytest.raises(Exception), Image.open(path) as image:  # noqa: B017  otherwise this tests nothing
        image.load()
    assert open_pixels(path).tobytes() == noise().tobytes()
    assert image_size(path) == (24, 16)


def test_mending_keeps_palette_transparency_and_orientation(write):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    data = encoded(image, transparency=1)
    path = write(data[:33] + chunk(b"tEXt", b"a\0b", WRONG) + chunk(b"eXIf", TURNED) + data[33:])
    mended = open_pixels(path)
    assert mended.size == image_size(path) == (2, 4)
    assert mended.getpixel((1, 0)) == (255, 0, 0) and mended.getpixel((0, 0)) == GROUND[:3]


def test_wrong_pixels_under_a_wrong_checksum_are_an_error_and_never_shown(write):
    """The checksum inside the compressed stream still tells: one bit of it is flipped."""
    pixels = bytearray(zlib.compress(b"".join(b"\0" + bytes(72) for _ in range(16))))
    pixels[-1] ^= 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 8, 2, 0, 0, 0))
    path = write(SIGNATURE + header + chunk(b"tEXt", b"a\0b", WRONG) + chunk(b"IDAT", bytes(pixels)) + chunk(b"IEND", b""))
    with pytest.raises(PixelError, match=r"a\.png cannot be decoded.*damaged"):
        open_pixels(path)


def test_other_threads_never_see_pillows_global_switch(write, monkeypatch):
    path = write(REFUSED["a text with a wrong checksum"])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    open_pixels(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    source = open_pixels.__globals__["__file__"]
    with open(source, encoding="utf-8") as file:
        assert "LOAD_TRUNCATED" not in file.read()


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("kind, name", [("PNG", "a.png"), ("JPEG", "a.jpg"), ("WEBP", "a.webp"), ("AVIF", "a.avif")])
@pytest.mark.parametrize("wrong", [b"", chunk(b"tEXt", b"a\0b", WRONG)], ids=["", "also a wrong checksum"])
def test_a_file_that_is_cut_short_says_what_to_do(write, kind, name, wrong):
    data = encoded(noise((200, 200)), kind)
    path = write(data[:33] + wrong * (kind == "PNG") + data[33 : len(data) // 2], name)
    with pytest.raises(PixelError, match=rf"{name} cannot be decoded: the file is cut short or damaged\. Copy or save it again"):
        open_pixels(path)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"], ids=["empty", "page", "EPS"]
)
def test_a_file_that_is_no_image_says_how_it_starts(write, data):
    with pytest.raises(PixelError, match=r"a\.png is not an image \(it starts with b'"):
        open_pixels(write(data))


def test_formats_that_start_other_programs_or_that_nobody_generates_are_not_opened(write):
    with pytest.raises(PixelError, match="not an image"):
        open_pixels(write(encoded(noise(), "TIFF")))


@pytest.mark.parametrize(
    "start, kind, package",
    [
        (b"\xff\x0a" + bytes(30), "JPEG XL", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "pillow-jxl-plugin"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF", "pillow-heif"),
    ],
)
def test_a_format_without_a_decoder_names_the_package_and_another_way(write, start, kind, package):
    with pytest.raises(
        PixelError, match=rf"{kind} image, which Pillow cannot decode without the package {package}\. Save it as PNG"
    ):
        open_pixels(write(start))


def test_a_file_that_is_gone_is_an_error_of_ours(tmp_path):
    for read in (open_pixels, image_size):
        with pytest.raises(PixelError, match=r"gone\.png cannot be opened: No such file"):
            read(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(write, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    assert 10_001 * 10_000 > MOST_PIXELS > 9_000 * 9_000
    with pytest.raises(PixelError, match=r"a\.png has too many pixels to decode \(10001 x 10000; the limit is 100,000,000"):
        open_pixels(write(png(size=(10_001, 10_000))))
    for before in (b"", chunk(b"tEXt", b"a\0b", WRONG)):  # Pillow refuses this one before we can, mended or not
        with pytest.raises(PixelError, match=r"a\.png has too many pixels to decode \(over 178,956,970"):
            open_pixels(write(png(before, size=(60_000, 60_000))))


# ------------------------------------------------------------------------------------------------ every kind of pixels


def test_orientation_is_applied_in_each_of_its_eight_ways(write):
    """Red in the corner of what is shown, wherever it is stored: the corner's place for each orientation, by the EXIF table."""
    stored = {1: (0, 0), 2: (2, 0), 3: (2, 1), 4: (0, 1), 5: (0, 0), 6: (0, 1), 7: (2, 1), 8: (2, 0)}
    for orientation, corner in stored.items():
        image = plain("blue", (3, 2))
        image.putpixel(corner, (255, 0, 0))
        path = write(encoded(image, "WEBP", lossless=True, exif=exif({0x0112: orientation})), "a.webp")
        shown = open_pixels(path)
        assert shown.size == image_size(path) == ((3, 2) if orientation < 5 else (2, 3)), orientation
        assert shown.getpixel((0, 0)) == (255, 0, 0), orientation


def test_garbage_where_exif_should_be_costs_nothing(write):
    path = write(with_chunks(chunk(b"eXIf", b"no TIFF at all")))
    assert open_pixels(path).tobytes() == noise().tobytes()


def test_a_cmyk_jpeg_has_its_colours(write):
    path = write(encoded(plain("red", (16, 16)).convert("CMYK"), "JPEG", quality=100), "a.jpg")
    red, green, blue = open_pixels(path).getpixel((8, 8))
    assert red > 250 and green < 5 and blue < 5


def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(write):
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 30_000, 65_535)):
        image.putpixel((x, 0), value)
    shown = open_pixels(write(encoded(image)))
    assert [shown.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (117, 117, 117), (255, 255, 255)]


def test_sixteen_bits_of_colour_keep_the_upper_eight(write):
    pixels = zlib.compress(b"\0" + struct.pack(">6H", 0x1234, 0x8000, 0xFFFF, 0, 0x0100, 0x7FFF))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    shown = open_pixels(write(SIGNATURE + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")))
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(0x12, 0x80, 0xFF), (0, 1, 0x7F)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L"])
def test_what_is_transparent_shows_the_dark_ground_and_the_rest_its_colour(write, mode):
    image = Image.new("RGBA", (2, 1), "white")
    image.putpixel((0, 0), (255, 255, 255, 0))
    path = write(encoded(image.convert(mode)))
    shown = open_pixels(path)
    assert shown.mode == "RGB" and shown.getpixel((1, 0)) == (255, 255, 255)
    if mode in ("RGBA", "LA", "P"):
        assert shown.getpixel((0, 0)) == GROUND[:3]


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF", "AVIF"])
def test_an_animation_shows_its_first_frame(write, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(plain("red"), kind, save_all=True, append_images=[plain("blue"), plain("green")], **options)
    red, green, blue = open_pixels(write(data)).getpixel((9, 9))
    assert red > 250 and green < 5 and blue < 5


def test_an_avif_is_an_image_like_any_other(write):
    path = write(encoded(plain("green", (40, 30)), "AVIF"), "a.avif")
    assert open_pixels(path).size == image_size(path) == (40, 30)


def test_largest_bounds_the_long_side_and_keeps_the_shape(write):
    path = write(encoded(plain("blue", (900, 300))))
    assert open_pixels(path, 300).size == (300, 100)
    assert open_pixels(path, 900).size == open_pixels(path, 5000).size == open_pixels(path).size == (900, 300)


def test_a_large_jpeg_is_decoded_no_larger_than_needed(write, monkeypatch):
    sizes = []
    whole = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: sizes.append(image.size) or whole(image))
    path = write(encoded(plain("blue", (2048, 1024)), "JPEG"), "a.jpg")
    assert open_pixels(path, 256).size == (256, 128)
    assert max(sizes)[0] <= 512


# ------------------------------------------------------------------------------------------------ what tells images apart


def test_the_same_pixels_in_other_files_have_the_same_digest(write):
    files = {
        "a.png": encoded(noise()),
        "b.png": encoded(noise(), compress_level=0),
        "c.webp": encoded(noise(), "WEBP", lossless=True),
        "d.png": REFUSED["a text with a wrong checksum"],
    }
    digests = {pixel_digest(open_pixels(write(data, name))) for name, data in files.items()}
    assert len(digests) == 1 and len(digests.pop()) == 32


def test_one_value_of_one_pixel_or_another_shape_is_another_digest():
    image = noise()
    other = image.copy()
    red, green, blue = image.getpixel((5, 5))
    other.putpixel((5, 5), (red, green, blue ^ 1))
    turned = Image.frombytes("RGB", (16, 24), image.tobytes())
    assert len({pixel_digest(each) for each in (image, other, turned)}) == 3


def test_the_difference_hash_says_where_brightness_falls():
    """9 x 8 fields. Falling from left to right everywhere: all ones. One row that rises: its eight bits are zero."""
    falling = Image.new("L", (9, 8))
    falling.putdata([255 - 20 * x for _ in range(8) for x in range(9)])
    assert difference_hash(falling.convert("RGB")) == "f" * 16
    for x in range(9):
        falling.putpixel((x, 1), 20 * x)
    assert difference_hash(falling.convert("RGB")) == "ff00ffffffffffff"
    assert difference_hash(plain("grey")) == "0" * 16


def test_a_smaller_or_recompressed_image_has_nearly_the_same_difference_hash(tmp_path):
    picture = noise((9, 8)).resize((600, 400), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=60)
    hashes = [difference_hash(image) for image in (picture, picture.resize((150, 100)), open_pixels(tmp_path / "a.jpg"))]
    apart = [bin(int(hashes[0], 16) ^ int(each, 16)).count("1") for each in hashes]
    assert max(apart) <= 4
    other = difference_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert bin(int(hashes[0], 16) ^ int(other, 16)).count("1") > 16
