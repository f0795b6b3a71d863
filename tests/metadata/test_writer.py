import piexif
import pytest
from PIL import Image

from dpo.metadata import Lora, MetadataError, format_parameters, read_image
from dpo.metadata.writer import SUFFIXES, write_image

FORMATS = list(SUFFIXES)
PROMPTS = {
    "plain": 'a cat, sitting: on "a" sofa',
    "lines": "a cat\n(in the rain:1.2)",
    "dollars": "costs $5, ${value} and $x^2$",
    "chinese": "一只猫坐在沙发上",
    "emoji": "кошка 🐈‍⬛ und ein Stück Käse",
}
EMPTY = Image.new("RGB", (16, 8), "red")


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_is_written_is_read_back(prompt, image_format, tmp_path):
    settings = {
        "steps": 20, "sampler": "DPM++ 2M Karras", "guidance": "3.5", "seed": 2**32 - 1, "size": "16x8", "model": "demo",
        "adapter": "cats-2 step 40", "adapter_strength": "0.75", "version": "Image DPO Studio",
    }  # fmt: skip
    path = tmp_path / f"image{SUFFIXES[image_format]}"
    write_image(EMPTY, path, format_parameters(PROMPTS[prompt], "низкое качество", **settings), image_format)
    record = read_image(path)
    assert (record.prompt, record.negative_prompt, record.error) == (PROMPTS[prompt], "низкое качество", None)
    assert (record.steps, record.sampler, record.guidance, record.seed) == (20, "DPM++ 2M Karras", 3.5, 2**32 - 1)
    assert (record.model, record.written_size, record.width, record.height) == ("demo", (16, 8), 16, 8)
    assert record.loras == (Lora("cats-2 step 40", 0.75),)
    assert Image.open(path).format == image_format.upper()


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_exif_holds_the_text_as_others_write_it(image_format, tmp_path):
    """`UNICODE`, a zero, and UTF-16, the high byte first: what A1111 writes."""
    path = tmp_path / f"image{SUFFIXES[image_format]}"
    write_image(EMPTY, path, "猫", image_format)
    assert piexif.load(Image.open(path).info["exif"])["Exif"][piexif.ExifIFD.UserComment] == b"UNICODE\0\x73\x2b"


def test_a_text_too_long_for_a_jpeg_is_refused_and_fits_the_others(tmp_path):
    text = format_parameters("a" * 40_000, steps=1, sampler="x", seed=1)
    for image_format in ("png", "webp"):
        path = tmp_path / f"image{SUFFIXES[image_format]}"
        write_image(EMPTY, path, text, image_format)
        assert len(read_image(path).prompt) == 40_000
    with pytest.raises(
        MetadataError, match=r"image.jpg: a JPEG cannot hold a prompt of 40,0\d\d letters. Save it as PNG or WebP"
    ):
        write_image(EMPTY, tmp_path / "image.jpg", text, "jpeg")
    assert not (tmp_path / "image.jpg").exists()
