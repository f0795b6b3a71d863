"""AVIF, HEIF and JPEG XL: texts, sizes and limits, in files written here and, for AVIF, by Pillow."""

import io
import struct
from pathlib import Path

import brotli
import pytest
from PIL import Image, ImageOps

from dpo.metadata import boxes, read_image
from dpo.metadata.containers import Container, read_container
from dpo.metadata.filewalk import MAX_TEXT, FileWalk
from dpo.metadata.records import MetadataError
from tests.metadata.files import box, exif, full_box, heif, jxl, jxl_codestream, user_comment

TEXT = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 1x1"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    f'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:UserComment="{TEXT.replace(chr(10), "&#10;")}"/></rdf:RDF></x:xmpmeta>'
).encode()
COMMENT = user_comment(TEXT)
EXIF, XMP_ITEM = (b"Exif", b"\0\0\0\0" + COMMENT), (b"mime", XMP)
TURNED = exif({0x0112: 6, 0x0131: b"software"})


def jxl_text(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    return b"brob", kind + brotli.compress(data)


def to_the_end(data: bytes) -> bytes:
    """The file with a length of 0 in its last box: "as long as the file"."""
    place = data.rindex(b"mdat")
    return data[: place - 4] + bytes(4) + data[place:]


PLACES = {
    "avif_exif": (heif(EXIF), "AVIF", "EXIF UserComment"),
    "avif_exif_with_jpeg_prefix": (heif((b"Exif", b"\0\0\0\6Exif\0\0" + COMMENT)), "AVIF", "EXIF UserComment"),
    "avif_xmp": (heif(XMP_ITEM), "AVIF", "XMP UserComment"),
    "heif_exif": (heif(EXIF, brand=b"heic", picture=b"hvc1"), "HEIF", "EXIF UserComment"),
    "heif_of_tiles": (heif(EXIF, brand=b"heic", picture=b"grid"), "HEIF", "EXIF UserComment"),
    "avif_exif_inside_the_meta_box": (heif(EXIF, inside=True), "AVIF", "EXIF UserComment"),
    "avif_second_text_inside_the_meta_box": (heif((b"Exif", b"no"), XMP_ITEM, inside=True), "AVIF", "XMP UserComment"),
    "avif_wide_item_numbers": (heif(EXIF, wide=True), "AVIF", "EXIF UserComment"),
    "avif_large_boxes": (heif(EXIF, large=True), "AVIF", "EXIF UserComment"),
    "avif_box_to_the_end_of_the_file": (to_the_end(heif(EXIF)), "AVIF", "EXIF UserComment"),
    "jxl_exif": (jxl((b"Exif", b"\0\0\0\0" + COMMENT)), "JPEG XL", "EXIF UserComment"),
    "jxl_xmp": (jxl((b"xml ", XMP)), "JPEG XL", "XMP UserComment"),
    "jxl_compressed_exif": (jxl(jxl_text(b"Exif", b"\0\0\0\0" + COMMENT)), "JPEG XL", "EXIF UserComment"),
    "jxl_compressed_xmp": (jxl(jxl_text(b"xml ", XMP)), "JPEG XL", "XMP UserComment"),
    "jxl_in_pieces": (jxl((b"xml ", XMP), pieces=9), "JPEG XL", "XMP UserComment"),
}  # fmt: skip


def read(data: bytes) -> Container:
    return read_container(io.BytesIO(data), "image.bin")


@pytest.mark.parametrize("place", PLACES)
def test_text_is_found_wherever_it_stands(tmp_path: Path, place: str):
    data, file_format, where = PLACES[place]
    (tmp_path / "image").write_bytes(data)
    record = read_image(tmp_path / "image")
    assert (record.prompt, record.negative_prompt, record.seed, record.where) == ("a cat", "blurry", 5, where), record
    assert (read(data).format, record.width, record.height) == (file_format, 1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_that_pillow_wrote_is_read_as_pillow_shows_it(orientation: int):
    file = io.BytesIO()
    block = exif({0x0112: orientation}, {0x9286: b"ASCII\0\0\0" + TEXT.encode()})
    Image.new("RGB", (64, 48)).save(file, "AVIF", exif=block, xmp=XMP)
    container = read(file.getvalue())
    assert [(field.text, field.where) for field in container.fields] == [(TEXT, "EXIF UserComment"), (TEXT, "XMP UserComment")]
    assert (container.width, container.height) == ImageOps.exif_transpose(Image.open(file)).size


def test_the_size_of_an_avif_or_heif_is_cropped_then_turned_by_its_properties():
    crop = box(b"clap", struct.pack(">8I", 60, 1, 40, 1, 0, 1, 0, 1))
    turn, mirror = box(b"irot", b"\3"), box(b"imir", b"\1")
    for properties, size in ((b"", (64, 64)), (crop, (60, 40)), (crop + turn, (40, 60)), (crop + mirror, (60, 40))):
        container = read(heif(size=(64, 64), properties=properties))
        assert (container.width, container.height) == size


def test_orientation_in_exif_does_not_count_beside_that_of_the_picture():
    for data in (heif((b"Exif", bytes(4) + TURNED), size=(8, 16)), jxl((b"Exif", bytes(4) + TURNED), size=(8, 16))):
        container = read(data)
        assert (container.width, container.height) == (8, 16)
        assert container.fields[0].text == "software"


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (256, 256), (264, 8), (8, 264), (300, 270), (512, 513), (8192, 8193), (262144, 262145)]
)
def test_a_jpeg_xl_codestream_tells_its_size(size: tuple[int, int]):
    for data in (jxl_codestream(size), jxl(size=size), jxl(size=size, pieces=3)):
        assert (read(data).width, read(data).height) == size
    turned = read(jxl_codestream(size, orientation=6))
    assert (turned.height, turned.width) == size
    assert (read(jxl_codestream(size, orientation=5)).width, read(jxl_codestream(size, orientation=4)).width) == size[::-1]


@pytest.mark.parametrize(("ratio", "width"), [(1, 120), (2, 144), (3, 160), (4, 180), (5, 213), (6, 150), (7, 240)])
def test_a_jpeg_xl_codestream_may_tell_its_shape_instead_of_its_width(ratio: int, width: int):
    assert (read(jxl_codestream((0, 120), ratio)).width, read(jxl_codestream((0, 120), ratio)).height) == (width, 120)


def test_a_jpeg_xl_that_libjxl_wrote_is_read():
    """The first bytes of a picture of 300 x 270 pixels, as libjxl writes them."""
    container = read(bytes.fromhex("ff0a6808560e001388020034"))
    assert (container.format, container.width, container.height) == ("JPEG XL", 300, 270)


CUT_SHORT = {
    "avif": heif(EXIF)[:-1],
    "avif with large boxes": heif(EXIF, large=True)[:-1],
    "avif whose tiles lie in a second box": heif(EXIF) + box(b"mdat", b"tiles")[:-1],
    "avif to the end of the file": to_the_end(heif())[:-1],
    "avif with an item of which nothing is said": box(b"ftyp", b"avif\0\0\0\0")
    + full_box(b"meta", full_box(b"iinf", b"\0\1" + box(b"infe", b""))),
    "jxl": jxl((b"xml ", XMP))[:-1],
    "jxl after its header": jxl()[:32] + box(b"jxlc", jxl_codestream() + bytes(100))[:-1],
    "jxl codestream": jxl_codestream()[:8],
}  # fmt: skip


@pytest.mark.parametrize("name", CUT_SHORT)
def test_file_cut_short_is_damaged(tmp_path: Path, name: str):
    (tmp_path / "image").write_bytes(CUT_SHORT[name])
    record = read_image(tmp_path / "image")
    assert (record.reason, record.prompt) == ("damaged", None)
    assert "cut short" in record.error


def test_what_was_put_after_the_last_box_is_no_box():
    assert len(read(heif(EXIF) + b"\0\0\0\2\x7f\xffmdat junk").fields) == 1


def test_reading_backwards_is_reading_past_the_end():
    """A box may be shorter than what its kind begins with."""
    walk = FileWalk(io.BytesIO(bytes(50_000)))
    for start in (10, 40_000):
        with pytest.raises(EOFError):
            walk.read(start, -5)


def test_an_item_without_a_length_goes_on_to_the_end_of_the_file():
    data, length = heif(EXIF), len(EXIF[1])
    place = len(data) - length
    data = data.replace(struct.pack(">II", place, length), struct.pack(">II", place, 0))
    assert read(data).fields[0].where == "EXIF UserComment"


def test_a_video_is_not_an_image(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(box(b"ftyp", b"isom\0\0\2\0isommp41") + box(b"moov", b""))
    assert read_image(tmp_path / "a.mp4").reason == "not_image"


def test_content_credentials_are_named_with_their_program():
    claim = b"jumb" + bytes(40) + b"tclaim_generator_info\xa2dnamejMaker Tool"
    uuid = box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + claim)
    for data in (heif() + uuid, jxl((b"jumb", claim))):
        (field,) = read(data).fields
        assert field.name == "C2PA"
        assert field.text.startswith("content credentials of Maker Tool, ")


def test_compressed_texts_of_a_jpeg_xl_are_inflated_to_four_megabytes_in_all(monkeypatch):
    inflated, decompressor = [], brotli.Decompressor

    class Counted:
        def __init__(self):
            self.stream = decompressor()
            self.is_finished = self.stream.is_finished

        def process(self, *args, **limits) -> bytes:
            inflated.append(len(part := self.stream.process(*args, **limits)))
            return part

    monkeypatch.setattr(boxes.brotli, "Decompressor", Counted)
    bomb = jxl_text(b"xml ", b"a" * (64 << 20))
    cut = bomb[0], bomb[1][: len(bomb[1]) // 2]
    container = read(jxl(bomb, bomb, cut, cut))
    assert container.warnings == ("Texts past 4 MB were not read.",)
    assert 0 < sum(inflated) <= MAX_TEXT + boxes.INFLATE_BLOCK


def test_damaged_compression_keeps_what_came_before_the_damage():
    data = brotli.compress(bytes(4) + COMMENT, quality=0)
    container = read(jxl((b"brob", b"Exif" + data[:-1])))
    assert container.fields[0].text.startswith("a cat")
    assert read(jxl((b"brob", b"Exif\xff\xff\xff"))).warnings == (
        "A compressed JPEG XL text is damaged; what could be read was.",
    )


def test_damaged_compressed_texts_count_as_inflated(monkeypatch):
    """How much was inflated before the damage was met, is not known."""
    tried = []

    class Broken:
        def is_finished(self) -> bool:
            return False

        def process(self, data: bytes, output_buffer_limit: int) -> bytes:
            tried.append(len(data))
            raise brotli.error

    monkeypatch.setattr(boxes.brotli, "Decompressor", Broken)
    read(jxl(*[(b"brob", b"xml " + b"x" * 10)] * 500))
    assert 60 <= len([length for length in tried if length]) <= MAX_TEXT // boxes.INFLATE_BLOCK


def test_an_item_in_many_pieces_is_not_followed_far():
    """A piece is eight bytes in a table, and a seek and a read for us."""
    table = b"\x44\0" + struct.pack(">HHHHH", 1, 2, 0, 0, 0xFFFF) + struct.pack(">II", 600_000, 1) * 0xFFFF
    meta = full_box(b"pitm", b"\0\1") + full_box(b"iinf", struct.pack(">H", 1) + full_box(b"infe", b"\0\2\0\0Exif\0", 2))
    meta += full_box(b"iloc", table, 1) + box(b"iprp", box(b"ipco", b""))
    data = box(b"ftyp", b"avif\0\0\0\0avif") + full_box(b"meta", meta) + box(b"free", bytes(100_000))
    reads = []

    class Counted(io.BytesIO):
        def read(self, length=-1):
            reads.append(length)
            return super().read(length)

    with pytest.raises(MetadataError, match="without a picture size"):
        read_container(Counted(data), "a.avif")
    assert 1000 <= len(reads) <= 1100
