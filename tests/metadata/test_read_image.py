"""Which source counts, what is said when there is none, and how well all of it does on real files."""

import hashlib
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from dpo.metadata import Lora, TextField, content_key, read_file, read_image, read_texts
from dpo.metadata.a1111 import parse
from tests.metadata.files import chunk, exif, exif_segment, jpeg, png, text_chunk, user_comment, webp

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"

TEXT = "a text\nSteps: 20, Sampler: x, Seed: 1"
UNKNOWN = TEXT.replace("a text", "unknown")
GRAPH = json.dumps(
    {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a graph"}},
        "2": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "steps": 20}},
    }
)
SWARM = json.dumps({"sui_image_params": {"prompt": "a swarm"}})


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes, name: str):
        (tmp_path / name).write_bytes(data)
        return read_image(tmp_path / name)

    return read_bytes


@pytest.mark.parametrize(
    ("texts", "prompt"),
    [
        ({"prompt": GRAPH, "parameters": SWARM}, "a swarm"),
        ({"prompt": GRAPH, "parameters": TEXT}, "a text"),
        ({"prompt": GRAPH, "parameters": UNKNOWN}, "a graph"),
        ({"prompt": GRAPH, "parameters": TEXT.removeprefix("a text\n")}, "a graph"),
        ({"prompt": GRAPH}, "a graph"),
    ],
)
def test_the_most_trusted_source_with_a_prompt_counts(read, texts, prompt):
    assert read(png(b"".join(text_chunk(*item) for item in texts.items())), "a.png").prompt == prompt


def test_file_without_metadata_says_where_was_looked_and_what_to_do(read):
    remedy = "Put the prompt into cat_0012.txt beside it, type it in the Pairs tab, or save the image again with its metadata."
    assert read(webp(), "cat_0012.webp").error == f"cat_0012.webp: no generation metadata (looked in EXIF and XMP). {remedy}"
    assert "(looked in EXIF, XMP and the comment)" in read(jpeg(), "a.jpg").error
    assert "(looked in its text chunks, EXIF and XMP)" in read(png(), "a.png").error


def test_file_with_foreign_texts_names_them(read):
    record = read(png(text_chunk("Comment", "ready for print")), "a.png")
    assert "found only PNG Comment, of no known generator" in record.error
    assert record.reason == "unknown_metadata"


def test_metadata_with_an_empty_prompt_says_so_and_keeps_the_rest(read):
    record = read(jpeg(exif_segment(user_comment("Steps: 20, Sampler: x, Seed: 5"))), "a.jpg")
    assert record.prompt is None
    assert record.seed == 5
    assert record.error.startswith("a.jpg: its a1111 metadata (EXIF UserComment) has no prompt.")


def test_record_holds_the_path_as_it_was_given(tmp_path):
    assert read_image(str(tmp_path / "a.png")).path == str(tmp_path / "a.png")


def test_reading_loads_neither_pillow_nor_torch():
    code = "import sys, dpo.metadata; print({'PIL', 'torch', 'numpy'} & sys.modules.keys())"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert loaded.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (png(), "no_metadata", "no generation metadata (looked in its text chunks, EXIF and XMP)."),
        (png(text_chunk("date:create", "2026-01-01")), "no_metadata", "the times ImageMagick wrote"),
        (png(text_chunk("Comment", "Created with GIMP")), "no_metadata", "a comment by GIMP"),
        (jpeg(exif_segment(exif({0x010E: b"a cat", 0x0131: b"GIMP 3.0"}))), "no_metadata", "the mark of GIMP"),
        (jpeg(exif_segment(exif({0x010F: b"ACME", 0x0110: b"Camera 5", 0x010E: b"a cat"}))), "no_metadata", "a camera writes"),
        (png(text_chunk("Comment", '{"req_type": "lineart"}')), "no_prompt", "NovelAI's director tools"),
        (png(chunk(b"caBX", b"jumb")), "no_prompt", "content credentials (C2PA"),
        (jpeg(exif_segment(user_comment('{"aigc_info": {"source_info": "dreamina"}}'))), "no_prompt", "Dreamina"),
        (png(text_chunk("parameters", UNKNOWN)), "no_prompt", "its a1111 metadata (PNG parameters) has no prompt"),
        (png(text_chunk("prompt", '{"1": {"class_type": "LoadImage", "inputs": {}}}')), "no_prompt", "its comfyui metadata"),
        (png(text_chunk("Description", "a cat")), "unknown_metadata", "found only PNG Description, of no known generator"),
        (png(text_chunk("parameters", '{"x": "a cat"}')), "unknown_metadata", "found only PNG parameters"),
        (b"# Notes", "not_image", "starts with b'# Notes'"),
        (png()[:-12], "damaged", "cut short"),
    ],
)
def test_file_without_a_prompt_says_what_was_found_and_invents_none(read, data, reason, words):
    record = read(data, "a.png")
    assert (record.prompt, record.reason, record.certainty) == (None, reason, "")
    assert words in record.error
    if reason not in ("not_image", "damaged"):
        assert record.error.endswith("the image again with its metadata.")


def test_file_with_a_prompt_has_no_reason(read):
    record = read(png(text_chunk("parameters", TEXT)), "a.png")
    assert (record.prompt, record.reason, record.error, record.certainty) == ("a text", "", None, "exact")


def test_record_holds_every_value_of_its_generation(read):
    tagged = TEXT.replace("a text", "a text <lora:fur:0.5>") + ", CFG scale: 7, Size: 64x32, Model: m\nTemplate: {a|b}"
    record = read(png(text_chunk("parameters", tagged), size=(8, 4)), "a.png")
    generation = parse([TextField("parameters", tagged, "PNG parameters")])
    for value in fields(generation):
        assert getattr(record, value.name) == getattr(generation, value.name), value.name
    assert (record.width, record.height, record.loras, record.alternatives) == (8, 4, (Lora("fur", 0.5),), ("{a|b}",))


def test_halves_of_surrogate_pairs_become_question_marks(read):
    half = json.loads('"\\ud83d"')
    params = dict.fromkeys(("prompt", "negativeprompt", "sampler", "model"), half) | {
        "loras": [half],
        "original_prompt": half * 2,
    }
    record = read(png(text_chunk("parameters", json.dumps({"sui_image_params": params}))), "a.png")
    assert (record.prompt, record.negative_prompt, record.sampler, record.model) == ("?", "?", "?", "?")
    assert (record.alternatives, record.loras) == (("??",), (Lora("?"),))


def test_file_is_opened_once_for_its_key_and_its_record(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(text_chunk("parameters", TEXT)))
    opened = []
    monkeypatch.setattr("builtins.open", lambda *args, real=open, **more: opened.append(args[0]) or real(*args, **more))
    key, record = read_file(path)
    assert opened == [str(path)]
    assert (key, record.prompt) == (content_key(path), "a text")


def test_key_is_that_of_size_head_and_tail(tmp_path):
    data = bytes(range(256)) * 400  # 102,400 bytes: more than a head and a tail
    (tmp_path / "a").write_bytes(data)
    digest = hashlib.blake2b(b"102400" + data[: 16 << 10] + data[-16 << 10 :], digest_size=12)
    assert content_key(tmp_path / "a") == digest.hexdigest()
    (tmp_path / "b").write_bytes(data[:50_000] + b"x" + data[50_001:])
    assert content_key(tmp_path / "b") == content_key(tmp_path / "a")
    for place in (0, 16_383, -16_384, -1):
        changed = bytearray(data)
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert content_key(tmp_path / "b") != content_key(tmp_path / "a"), place


def test_file_that_cannot_be_opened_has_no_key(tmp_path):
    key, record = read_file(tmp_path / "absent.png")
    assert (key, record.reason) == ("", "unreadable")
    assert record.error.startswith("absent.png: cannot be read (No such file or directory).")


def test_every_text_can_be_looked_at(tmp_path):
    (tmp_path / "a.png").write_bytes(png(text_chunk("Title", "x"), after=text_chunk("Notes", "y")))
    assert [(text.name, text.text) for text in read_texts(tmp_path / "a.png")] == [("Title", "x"), ("Notes", "y")]
    assert read_texts(tmp_path / "absent.png") == []
    (tmp_path / "b.png").write_bytes(b"no image")
    assert read_texts(tmp_path / "b.png") == []


def test_pixels_are_searched_only_where_asked_and_only_for_want_of_a_prompt(tmp_path, monkeypatch):
    asked = []
    hidden = [TextField("parameters", TEXT, "stealth pixels")]
    monkeypatch.setattr("dpo.metadata.stealth.read_stealth", lambda path: asked.append(path) or hidden)
    (tmp_path / "empty.png").write_bytes(png())
    (tmp_path / "full.png").write_bytes(png(text_chunk("parameters", TEXT)))
    assert read_image(tmp_path / "empty.png").prompt is None
    assert read_image(tmp_path / "full.png", stealth=True).where == "PNG parameters"
    assert asked == []
    record = read_image(tmp_path / "empty.png", stealth=True)
    assert (record.prompt, record.where, asked) == ("a text", "stealth pixels", [str(tmp_path / "empty.png")])


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample images are not beside this repository")
def test_prompts_of_real_files_are_exact():
    rows = json.loads((SAMPLES / "INDEX.json").read_text(encoding="utf-8"))
    wrong, invented = [], []
    for row in rows:
        record = read_image(SAMPLES / row["path"], stealth=True)
        accepted = [" ".join((text or "").split()) for text in (row["prompt"], *row["also_accept"])]
        if " ".join((record.prompt or "").split()) not in accepted:
            wrong.append(row["path"])
            if not row["prompt"]:
                invented.append(row["path"])
        assert bool(record.prompt) == (record.error is None)
        if record.width:
            assert (record.width, record.height) == (row["width"], row["height"]), row["path"]
    assert invented == []
    assert len(rows) > 100
    assert len(wrong) <= 0.03 * len(rows), wrong
