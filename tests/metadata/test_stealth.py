"""Texts hidden in pixels: written here bit by bit as the plugins do, in every mode, and read back."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dpo.metadata import read_image, stealth
from dpo.metadata.stealth import read_stealth
from tests.metadata.files import hide

TEXT = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 1x1"


@pytest.fixture
def save(tmp_path: Path):
    def save_image(image: Image.Image, file_format: str = "PNG") -> Path:
        image.save(tmp_path / "image", file_format, **({"lossless": True, "exact": True} if file_format == "WEBP" else {}))
        return tmp_path / "image"

    return save_image


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    ("magic", "mode"),
    [
        ("stealth_pngcomp", "RGBA"),
        ("stealth_pnginfo", "RGBA"),
        ("stealth_rgbcomp", "RGBA"),
        ("stealth_rgbinfo", "RGBA"),
        ("stealth_rgbcomp", "RGB"),
        ("stealth_rgbinfo", "RGB"),
    ],
)
def test_text_is_found_in_every_way_it_is_hidden(save, magic, mode, file_format):
    (field,) = read_stealth(save(hide(TEXT, magic, mode), file_format))
    assert (field.name, field.text, field.where) == ("parameters", TEXT, "stealth pixels")


@pytest.mark.parametrize("size", [(400, 3), (3, 700), (200, 8), (61, 67)])
def test_bits_run_down_columns_of_any_height(save, size):
    (field,) = read_stealth(save(hide(TEXT, "stealth_pngcomp", size=size)))
    assert field.text == TEXT


def test_the_chunks_that_novelai_hides_have_the_names_they_have_in_a_png(save):
    chunks = {"Description": "a cat", "Software": "NovelAI", "Generation time": 1.5, "Comment": json.dumps({"prompt": "a cat"})}
    fields = read_stealth(save(hide(json.dumps(chunks), "stealth_pngcomp", size=(90, 90))))
    assert {field.name: field.text for field in fields} == {name: text for name, text in chunks.items() if isinstance(text, str)}


def test_other_json_is_what_would_be_in_parameters(save):
    text = json.dumps({"sui_image_params": {"prompt": "a swarm"}})
    assert [field.name for field in read_stealth(save(hide(text, "stealth_pnginfo")))] == ["parameters"]


def test_a_hidden_prompt_is_read_only_when_it_is_asked_for(save):
    path = save(hide(TEXT, "stealth_pngcomp"))
    assert read_image(path).prompt is None
    record = read_image(path, stealth=True)
    assert (record.prompt, record.seed, record.where) == ("a cat", 5, "stealth pixels")


@pytest.mark.parametrize("magic", ["stealth_pngcomp", "stealth_pnginfo"])
@pytest.mark.parametrize("claim", [0, 0xFFFFFFFF, 8 * 40 * 90])
def test_a_length_that_does_not_fit_is_no_text(save, magic, claim):
    assert read_stealth(save(hide(TEXT, magic, claim=claim))) == []


def test_pictures_without_a_hidden_text_have_none(save, tmp_path):
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        assert read_stealth(save(Image.new(mode, (50, 50)))) == []
    assert read_stealth(save(Image.new("RGBA", (1, 1)))) == []
    (tmp_path / "broken").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nothing")
    assert read_stealth(tmp_path / "broken") == []
    assert read_stealth(tmp_path / "absent") == []


def test_damaged_text_is_no_text(save):
    image = hide(TEXT, "stealth_pngcomp")
    for y in range(20, 90):
        image.putpixel((1, y), (0, 0, 0, 255))
        image.putpixel((2, y), (0, 0, 0, 255))
    assert read_stealth(save(image)) == []


def test_a_picture_cut_short_has_no_hidden_text(save):
    path = save(hide(TEXT, "stealth_pngcomp"))
    path.write_bytes(path.read_bytes()[:120])
    assert read_stealth(path) == []


def test_a_compressed_text_is_inflated_to_four_megabytes_at_most(save):
    (field,) = read_stealth(save(hide("a" * (16 << 20), "stealth_pngcomp", size=(400, 400))))
    assert len(field.text) == 4 << 20


def test_a_huge_picture_is_not_decoded(save, monkeypatch):
    path = save(hide(TEXT, "stealth_pngcomp"))
    monkeypatch.setattr(stealth, "MAX_PIXELS", 40 * 90)
    assert len(read_stealth(path)) == 1
    monkeypatch.setattr(stealth, "MAX_PIXELS", 40 * 90 - 1)
    assert read_stealth(path) == []
