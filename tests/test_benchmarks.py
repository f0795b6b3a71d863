"""The files that benchmarks measure on: what is written is what can be read, or the numbers would be of something else."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from dpo.metadata import read_image
from tests.benchmarks._generated import KINDS, Written, write_folder
from tests.benchmarks._graphs import comfyui_texts
from tests.benchmarks.scan import _compare, _is_right

FILES = 300  # enough for one of each kind


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> list[Written]:
    return write_folder(tmp_path_factory.mktemp("generated"), FILES, prompts=40, full_size=False)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_a_generated_file_says_its_prompt_and_shows_its_pixels(written, kind):
    files = [file for file in written if file.kind == kind]
    assert files
    for file in files:
        record = read_image(file.path)
        assert record.prompt == file.prompt
        with Image.open(file.path) as image:
            image.load()
            assert image.size == (record.width, record.height)


def test_the_shares_of_the_kinds_are_per_cents():
    assert sum(KINDS.values()) == 100


def test_the_same_arguments_write_the_same_files(written, tmp_path):
    again = write_folder(tmp_path, FILES, prompts=40, full_size=False)
    assert [(file.path.name, file.path.read_bytes()) for file in again] == [
        (file.path.name, file.path.read_bytes()) for file in written
    ]


def test_images_of_one_prompt_have_one_size(written):
    sizes = {}
    for file in written:
        record = read_image(file.path)
        if record.prompt:
            sizes.setdefault(record.prompt, set()).add((record.width, record.height))
    assert len(sizes) > 30 and all(len(found) == 1 for found in sizes.values())


@pytest.mark.parametrize("length", [20_000, 60_000, 200_000])
def test_graphs_are_as_long_as_asked_for(length):
    texts = comfyui_texts("a cat", "blurry", (512, 512), 1, length, random.Random(0))
    assert 0.85 * length < sum(map(len, texts)) < 1.15 * length
    assert all(isinstance(json.loads(text), dict) for text in texts)


def test_a_prompt_counts_as_right_only_if_it_is_the_one_written():
    assert _is_right(["a  cat\n"], "a cat") and _is_right(["a dog", "a cat"], "a cat") and _is_right(["b"], "a", ("b",))
    assert not _is_right([], "a cat") and not _is_right(["a cat, sitting"], "a cat")
    assert _is_right([], None) and not _is_right(["a cat"], None)


def test_a_reader_that_does_twice_the_work_has_half_the_speed(written):
    def twice(path: Path) -> list[str]:
        return [read_image(path).prompt or "", read_image(path).prompt or ""]

    result = _compare(written, twice)
    assert result["right"] == result["sd_parsers_right"] == result["right_in_both"] == FILES
    assert 1.2 < result["files_per_second_ratio"] < 3.5
