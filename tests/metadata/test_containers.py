"""Where texts stand in files, and what broken files do: through `read_image`, which is what everyone calls."""

import gc
import io
import random
import struct
import time
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageOps

from dpo.metadata import containers, read_image, read_texts
from dpo.metadata.containers import MAX_PARTS, MAX_TEXT, Container
from dpo.metadata.containers import read_container as read_open_container
from dpo.metadata.records import MetadataError
from tests.metadata.files import chunk, exif, exif_segment, gif, jpeg, png, text_chunk, user_comment, webp

TEXT = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 1x1"
XMP = (
    '<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/"><exif:UserComment><rdf:Alt><rdf:li>'
    f"{TEXT}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
).encode()


def raw_profile(kind: str, data: bytes) -> bytes:
    digits = data.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"Raw profile type {kind}\0\0".encode() + zlib.compress(f"\n{kind}\n{len(data):8}\n{lines}\n".encode())


def long_xmp(start: int, data: bytes) -> tuple[int, bytes]:
    return 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", len(XMP), start) + data


ITXT = b"parameters\0\0\0en\0Parameter\0" + TEXT.encode()
COMPRESSED_ITXT = b"parameters\0\1\0\0\0" + zlib.compress(TEXT.encode())
ZTXT = b"parameters\0\0" + zlib.compress(TEXT.encode())
COMMENT = user_comment(TEXT)

PLACES = {
    "png_text": (png(text_chunk("parameters", TEXT)), "PNG parameters"),
    "png_text_after_the_pixels": (png(after=text_chunk("parameters", TEXT)), "PNG parameters"),
    "png_text_with_wrong_checksum": (png(chunk(b"tEXt", b"parameters\0" + TEXT.encode(), crc=1)), "PNG parameters"),
    "png_international_text": (png(chunk(b"iTXt", ITXT)), "PNG parameters"),
    "png_compressed_international_text": (png(chunk(b"iTXt", COMPRESSED_ITXT)), "PNG parameters"),
    "png_compressed_text": (png(after=chunk(b"zTXt", ZTXT)), "PNG parameters"),
    "png_exif": (png(after=chunk(b"eXIf", COMMENT)), "EXIF UserComment"),
    "png_xmp": (png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)), "XMP UserComment"),
    "jpeg_exif": (jpeg(exif_segment(COMMENT)), "EXIF UserComment"),
    "jpeg_xmp": (jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), "XMP UserComment"),
    "jpeg_comment": (jpeg((0xFE, TEXT.encode())), "JPEG comment"),
    "jpeg_with_zeros_between_segments": (
        jpeg(exif_segment(COMMENT)).replace(b"\xff\xdb", b"\0\0\xff\xdb", 1),
        "EXIF UserComment",
    ),
    "webp_exif_after_the_pixels": (webp((b"EXIF", COMMENT)), "EXIF UserComment"),
    "webp_exif_with_jpeg_prefix": (webp((b"EXIF", b"Exif\0\0" + COMMENT)), "EXIF UserComment"),
    "webp_exif_after_an_odd_chunk": (webp((b"ICCP", b"odd"), (b"EXIF", COMMENT)), "EXIF UserComment"),
    "webp_xmp": (webp((b"XMP ", XMP)), "XMP UserComment"),
    "webp_exif_with_jpeg_prefix_twice": (webp((b"EXIF", b"Exif\0\0" * 2 + COMMENT)), "EXIF UserComment"),
    "png_exif_as_imagemagick_writes_it": (png(chunk(b"zTXt", raw_profile("exif", b"Exif\0\0" + COMMENT))), "EXIF UserComment"),
    "png_exif_as_imagemagick_copies_it": (png(chunk(b"zTXt", raw_profile("APP1", b"Exif\0\0" + COMMENT))), "EXIF UserComment"),
    "png_xmp_as_imagemagick_writes_it": (png(chunk(b"zTXt", raw_profile("xmp", XMP))), "XMP UserComment"),
    "jpeg_exif_in_two_segments": (jpeg(exif_segment(COMMENT[:50]), exif_segment(COMMENT[50:])), "EXIF UserComment"),
    "jpeg_exif_after_another": (jpeg(exif_segment(exif({0x0112: 1})), exif_segment(COMMENT)), "EXIF UserComment"),
    "jpeg_long_xmp": (jpeg(long_xmp(200, XMP[200:]), long_xmp(0, XMP[:200])), "XMP UserComment"),
    "jpeg_second_comment": (jpeg((0xFE, b"made with love"), (0xFE, TEXT.encode())), "JPEG comment"),
    "gif_comment": (gif(b"made with love", TEXT.encode()), "GIF comment"),
    "gif_long_comment": (gif((TEXT.replace("Seed", "Version: " + "a" * 600 + ", Seed")).encode()), "GIF comment"),
    "bare_comment_in_the_first_directory": (jpeg(exif_segment(exif({0x9286: TEXT.encode()}))), "EXIF UserComment"),
}


def read_container(path: Path) -> Container:
    with open(path, "rb") as file:
        return read_open_container(file, path.name)


def read_bytes(data: bytes) -> Container:
    return read_open_container(io.BytesIO(data), "image.bin")


def xmp(properties: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        f'rdf:about="here" xmlns:dc="http://purl.org/dc/elements/1.1/">{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.fixture
def read(tmp_path):
    def read_file(data: bytes, name: str = "image.bin"):
        (tmp_path / name).write_bytes(data)
        return read_image(tmp_path / name)

    return read_file


@pytest.mark.parametrize("place", PLACES)
def test_text_is_found_wherever_it_stands(read, place):
    data, where = PLACES[place]
    record = read(data)
    assert (record.prompt, record.negative_prompt, record.seed, record.where) == ("a cat", "blurry", 5, where), record


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16", "utf-8"])
@pytest.mark.parametrize("prompt", ["a cat", "猫の写真、最高品質、" * 9, "Kätzchen – «süß» 😀"])
def test_user_comment_is_decoded_whatever_byte_order_the_tiff_has(read, order, encoding, prompt):
    text = TEXT.replace("a cat", prompt)
    assert read(jpeg(exif_segment(user_comment(text, encoding, order)))).prompt == prompt
    assert read(webp((b"EXIF", user_comment(text + "\0", encoding, order)))).prompt == prompt


def test_user_comment_is_decoded_behind_any_character_code(read):
    assert read(jpeg(exif_segment(user_comment(TEXT, "ascii", code=b"ASCII\0\0\0")))).prompt == "a cat"
    assert read(jpeg(exif_segment(user_comment(TEXT, "utf-8", code=b"\0" * 8)))).prompt == "a cat"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("prompt", ["猫の写真", "최고 품질의 고양이", "一只猫坐在窗台上看着外面的雨", "Кот", "真"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_user_comment_without_a_latin_letter_is_decoded(order, encoding, prompt):
    (field,) = read_bytes(jpeg(exif_segment(user_comment(prompt.replace(" ", ""), encoding, order)))).fields
    assert field.text == prompt.replace(" ", "")


def test_exif_texts_have_the_names_of_their_tags():
    tags = {0x010D: "DocumentName", 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
    tags |= {0x013B: "Artist", 0x8298: "Copyright", 0x927C: "MakerNote", 0x9286: "UserComment"}
    block = exif(
        {tag: b"text of %d\0\0" % tag for tag in tags} | {0x9C9C: "コメント\0".encode("utf-16-le")}, {0x927C: b"a scheme"}
    )
    fields = {(field.name, field.text) for field in read_bytes(webp((b"EXIF", block))).fields}
    assert fields == {(name, f"text of {tag}") for tag, name in tags.items()} | {
        ("XPComment", "コメント"),
        ("MakerNote", "a scheme"),
    }


def test_what_a_camera_writes_as_maker_note_is_no_text():
    assert read_bytes(jpeg(exif_segment(exif({0x927C: b"Nikon\0\2\x10\0\0MM\0*"})))).fields == ()


def test_exif_values_that_are_not_there_do_not_hide_the_others():
    """An editor moved things: the offset of one value is stale, another's text is cut."""
    block = bytearray(exif({0x010E: b"a description", 0x010F: b"prompt:{}", 0x0110: b"workflow:{}"}))
    block[18:22] = (9999).to_bytes(4, "big")
    container = read_bytes(webp((b"EXIF", bytes(block[:-3]))))
    assert [(field.name, field.text) for field in container.fields] == [("Make", "prompt:{}"), ("Model", "workflow")]
    assert container.warnings == ("The EXIF data is damaged; what could be read was.",)


def test_exif_values_that_overlap_are_given_up_soon():
    """Each of 1,000 entries claims the whole block."""
    block = bytearray(exif({0x010E: bytes(range(1, 200))} | {tag: b"12345" for tag in range(0x8000, 0x8000 + 999)}))
    entry = struct.pack(">HHII", 0x010E, 2, 20_000, 0)
    block[10 : 10 + 12 * 1000] = entry * 1000
    container = read_bytes(webp((b"EXIF", bytes(block))))
    assert sum(len(field.text) for field in container.fields) <= 2 * len(block)
    assert container.warnings


def test_xmp_lists_are_lines_and_of_several_languages_the_first_counts():
    inner = "<dc:creator><rdf:Seq><rdf:li>one</rdf:li><rdf:li>two</rdf:li></rdf:Seq></dc:creator><dc:title> plain </dc:title>"
    inner += (
        '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">mine</rdf:li><rdf:li xml:lang="de">meins</rdf:li></rdf:Alt></dc:rights>'
    )
    container = read_bytes(webp((b"XMP ", xmp(inner))))
    texts = {field.name: field.text for field in container.fields}
    assert texts == {"about": "here", "creator": "one\ntwo", "title": "plain", "rights": "mine"}


def test_xmp_with_characters_that_xml_forbids_is_read():
    assert read_bytes(webp((b"XMP ", xmp("<dc:title>a\x02b</dc:title>")))).fields[-1].text == "ab"


def test_deep_xmp_is_read_soon():
    deep = "<rdf:Description><a>" * 100_000 + "</a></rdf:Description>" * 100_000
    start = time.perf_counter()
    read_bytes(webp((b"XMP ", xmp(deep))))
    assert time.perf_counter() - start < 20


def test_content_credentials_are_named_with_their_program():
    claim = b"\0\0\1\0jumb" + bytes(40) + b"oclaim_generatorx\x1fOpenAI Image Generator 1.0 beta"
    segment = 0xEB, b"JP\0\1\0\0\0\1" + claim
    text = "content credentials of OpenAI Image Generator 1.0 beta, {} bytes"
    for data, where, length in (
        (png(chunk(b"caBX", claim)), "PNG caBX", len(claim)),
        (webp((b"C2PA", claim)), "WebP C2PA", len(claim)),
        (jpeg(segment, segment), "JPEG APP11", len(segment[1])),
    ):
        (field,) = read_bytes(data).fields
        assert (field.name, field.text, field.where) == ("C2PA", text.format(length), where)


def test_short_exif_text_stands_in_its_entry(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(exif_segment(exif({0x0131: b"abc"}))))
    assert [field.text for field in read_container(tmp_path / "a.jpg").fields] == ["abc"]


def test_png_text_is_utf8_where_it_can_be_and_latin1_where_it_cannot(read):
    text = TEXT.replace("a cat", "Kätzchen")
    assert read(png(chunk(b"tEXt", b"parameters\0" + text.encode("utf-8")))).prompt == "Kätzchen"
    assert read(png(chunk(b"tEXt", b"parameters\0" + text.encode("latin-1")))).prompt == "Kätzchen"


def test_format_is_known_by_content_not_by_name(read):
    assert read(PLACES["jpeg_exif"][0], "image.png").prompt == "a cat"
    assert read(PLACES["png_text"][0], "image.webp").prompt == "a cat"
    assert read(PLACES["webp_exif_after_the_pixels"][0], "image.jpg").prompt == "a cat"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_picture_as_pillow_shows_it(tmp_path, orientation):
    turned = exif({0x0112: orientation, 0x0131: b"software"}, order="<>"[orientation % 2])
    files = {
        "png": png(chunk(b"eXIf", turned), size=(7, 4)),
        "jpeg": jpeg(exif_segment(turned), size=(7, 4)),
        "webp": webp((b"EXIF", turned), size=(7, 4)),
        "lossless": webp((b"EXIF", turned), size=(7, 4), lossless=True),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        container = read_container(tmp_path / name)
        expected = (4, 7) if orientation > 4 else (7, 4)
        assert (container.width, container.height) == expected, name
        if name != "png":  # whose header lies about its one pixel
            assert ImageOps.exif_transpose(Image.open(tmp_path / name)).size == expected


def test_only_what_browsers_heed_turns_a_picture():
    turned, upright = exif({0x0112: 6, 0x0131: b"software"}), exif({0x0131: b"software"})
    for data, size in (
        (jpeg(exif_segment(turned), exif_segment(upright), size=(7, 4)), (4, 7)),
        (jpeg(exif_segment(upright), exif_segment(turned), size=(7, 4)), (7, 4)),
        (png(chunk(b"zTXt", raw_profile("exif", b"Exif\0\0" + turned)), size=(7, 4)), (7, 4)),
        (png(after=chunk(b"eXIf", turned), size=(7, 4)), (4, 7)),
    ):
        container = read_bytes(data)
        assert (container.width, container.height) == size


@pytest.mark.parametrize("lossless", [False, True])
def test_size_of_a_simple_webp_is_read_from_its_pixels(read, lossless):
    record = read(webp(lossless=lossless, size=(300, 270)))
    assert (record.width, record.height) == (300, 270)


def test_compression_bombs_are_given_up_soon(read):
    bomb = b"parameters\0\0" + zlib.compress(b"a" * (64 << 20))
    data = png(chunk(b"zTXt", bomb) * 100)
    start = time.perf_counter()
    record = read(data)
    assert record.prompt is None
    assert record.warnings == ("Texts past 4 MB were not read.",)
    assert time.perf_counter() - start < 10


def test_damaged_compression_counts_as_inflated(monkeypatch):
    """Otherwise a file of many bombs that break at their end would be inflated whole."""
    asked = []

    class Counted:
        def decompress(self, data: bytes, limit: int) -> bytes:
            asked.append(limit)
            return zlib.decompressobj().decompress(data, limit)

    counted = SimpleNamespace(decompressobj=Counted, error=zlib.error)
    monkeypatch.setattr(containers, "zlib", counted)
    broken = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (1 << 20))[:-1] + b"x")
    read_bytes(png(broken * 100))
    assert len([limit for limit in asked if limit > 1 << 20]) <= 4


def test_a_file_of_very_many_parts_is_left_with_a_warning():
    many = chunk(b"aaAa", b"") * (MAX_PARTS + 1)
    container = read_bytes(png(text_chunk("parameters", TEXT) + many))
    assert [field.name for field in container.fields] == ["parameters"]
    assert container.warnings == ("Only the first 65,536 parts of the file were looked at.",)
    blocks = b"!\xfe" + b"\1a" * (MAX_PARTS + 1) + b"\0"
    for data in (
        jpeg().replace(b"\xff\xda", b"\xff\xe2\0\2" * MAX_PARTS + b"\xff\xda", 1),
        webp(*[(b"aaaa", b"")] * (MAX_PARTS + 1)),
        gif()[:19] + blocks + gif()[19:],
    ):
        assert read_bytes(data).warnings == container.warnings


def test_every_file_is_closed(read, tmp_path):
    """An unclosed file would be a ResourceWarning when it is collected, wherever reading stopped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data, _ in PLACES.values():
            read(data)
            read(data[: len(data) // 2])
            read_texts(tmp_path / "image.bin")
        read(b"no image")
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []


def test_texts_of_one_file_are_limited_together(tmp_path):
    (tmp_path / "a.png").write_bytes(png(text_chunk("parameters", "a" * (MAX_TEXT // 2 + 1)) * 2))
    assert len(read_container(tmp_path / "a.png").fields) == 1


@pytest.mark.parametrize("keep", [0, 1, 7, 9, 20, 40])
@pytest.mark.parametrize("place", ["png_text", "jpeg_exif", "webp_exif_after_the_pixels"])
def test_file_cut_short_is_a_record_with_an_error(read, place, keep):
    record = read(PLACES[place][0][:keep])
    assert record.prompt is None
    assert record.error.startswith("image.bin: ")


def test_picture_cut_short_is_an_error_even_when_its_prompt_is_whole(read):
    assert "cut short" in read(png(text_chunk("parameters", TEXT))[:-20]).error
    assert "cut short" in read(jpeg(exif_segment(COMMENT))[:-2]).error
    assert "cut short" in read(webp((b"EXIF", COMMENT))[:45]).error
    assert "cut short" in read(webp((b"EXIF", COMMENT))[:34]).error  # where the picture would begin
    assert "cut short" in read(gif(TEXT.encode())[:60]).error
    assert read(jpeg(exif_segment(COMMENT))[:-2]).reason == "damaged"


def test_a_jpeg_with_a_film_behind_it_is_whole(read):
    assert read(jpeg(exif_segment(COMMENT)) + bytes(3 << 20)).prompt == "a cat"
    assert "cut short" in read(jpeg(exif_segment(COMMENT))[:-2] + bytes(3 << 20)).error


def test_empty_file_says_that_it_is_empty(read):
    assert (
        read(b"").error
        == "image.bin: not a PNG, JPEG, WebP, AVIF, HEIF, JPEG XL or GIF image (the file is empty). Skip the file."
    )


def test_text_file_is_no_image(read):
    assert "starts with b'# Notes'" in read(b"# Notes").error


def test_missing_file_and_folder_are_records_with_an_error(tmp_path):
    assert "cannot be read" in read_image(tmp_path / "absent.png").error
    assert "cannot be read" in read_image(tmp_path).error


def test_container_without_picture_size_is_an_error(tmp_path):
    (tmp_path / "a.webp").write_bytes(b"RIFF\4\0\0\0WEBP")
    with pytest.raises(MetadataError, match=r"a\.webp: a WebP file without a picture size"):
        read_container(tmp_path / "a.webp")


def test_xmp_entities_are_not_expanded(read):
    hostile = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + XMP.replace(b"a cat", b"&a;")
    assert read(webp((b"XMP ", hostile))).prompt is None


def test_damaged_blocks_are_warned_of_and_do_not_hide_the_others(read):
    broken_exif = struct.pack(">2sHIH", b"MM", 42, 8, 500)
    record = read(png(chunk(b"eXIf", broken_exif) + chunk(b"zTXt", b"Comment\0\0nothing") + text_chunk("parameters", TEXT)))
    assert record.prompt == "a cat"
    assert len(record.warnings) == 2


def test_no_damage_to_a_file_raises(tmp_path):
    randomness = random.Random(0)
    path = tmp_path / "damaged"
    for data, _ in PLACES.values():
        for _ in range(25):
            damaged = bytearray(data)
            for _ in range(randomness.randint(1, 6)):
                damaged[randomness.randrange(12, len(damaged))] = randomness.randrange(256)
            path.write_bytes(damaged[: randomness.choice([None, randomness.randrange(len(damaged))])])
            record = read_image(path)
            assert (record.prompt is None) == (record.error is not None)


def test_a_png_that_pillow_wrote_is_read(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    container = read_container(tmp_path / "a.png")
    assert (container.format, container.width, container.height, container.fields) == ("PNG", 300, 200, ())
