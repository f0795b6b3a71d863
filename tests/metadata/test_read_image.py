"""Which source counts, what is said when there is none, and how well all of it does on real files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpo.metadata import read_image
from tests.metadata.files import exif_segment, jpeg, png, text_chunk, user_comment, webp

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
GENERATORS = {"a1111", "forge", "reforge", "sdnext", "sdcpp", "civitai", "comfyui", "swarmui"}

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


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample images are not beside this repository")
def test_prompts_of_real_files_are_exact():
    rows = json.loads((SAMPLES / "INDEX.json").read_text(encoding="utf-8"))
    wrong, total, invented = [], 0, []
    for row in rows:
        record = read_image(SAMPLES / row["path"])
        accepted = [" ".join((text or "").split()) for text in (row["prompt"], *row["also_accept"])]
        is_right = " ".join((record.prompt or "").split()) in accepted
        if row["generator"] in GENERATORS:
            total += 1
            if not is_right:
                wrong.append(row["path"])
        elif record.prompt and not is_right:
            invented.append(row["path"])
        if record.width:
            assert (record.width, record.height) == (row["width"], row["height"]), row["path"]
    assert invented == []
    assert total > 80
    assert len(wrong) <= 0.03 * total, wrong
