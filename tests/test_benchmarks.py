"""What benchmarks measure on and with: files say what they should, and losses are seen."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dpo.adapters import attach_adapter
from dpo.config_files import load_preset
from dpo.drawing import PREVIEW_BYTES, encode
from dpo.families import load_family
from dpo.metadata import read_image
from dpo.parallel import join_processes
from dpo.project import open_project
from dpo.runs import create_run
from dpo.trainer import train
from tests.benchmarks import _train_worker, kills, review
from tests.benchmarks import losses as benchmark_of_losses
from tests.benchmarks._generated import KINDS, Written, write_folder
from tests.benchmarks._graphs import comfyui_texts
from tests.benchmarks._models import make_config
from tests.benchmarks._photos import photograph_folder
from tests.benchmarks._plain_recipe import PlainRecipe
from tests.benchmarks.scan import _compare, _is_right
from tests.benchmarks.train import LARGE, summarise
from tests.tiny import build_pipeline, make_pairs

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


def test_a_reader_that_does_ten_times_the_work_is_slower_and_as_right(written):
    def ten_times(path: Path) -> list[str]:
        return [read_image(path).prompt or "" for _ in range(10)]

    result = _compare(written, ten_times)
    assert result["right"] == result["sd_parsers_right"] == result["right_in_both"] == FILES
    assert result["files_per_second_ratio"] > 1.5


# ------------------------------------------------------------------------------------------------ photographs


def test_a_photograph_says_its_prompt_and_its_preview_weighs_what_one_of_a_generated_image_does(tmp_path):
    paths = photograph_folder(tmp_path, [2, 2])
    prompts = [read_image(path).prompt for path in paths]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (1024, 1024)
            assert 60_000 < len(encode(image.convert("RGB"), "preview")) <= PREVIEW_BYTES


# ------------------------------------------------------------------------------------------------ kills

PICK = {"client": "page-1", "number": 0, "op": "best_worst", "images": ["a", "b"], "result": ["a", "b"]}
UNDO = {"client": "page-1", "number": 1, "op": "undo", "undoes": ["page-1", 0]}


def test_an_operation_without_a_row_is_lost_and_a_row_too_many_is_doubled():
    rows = [kills.as_row(PICK), kills.as_row(UNDO)]
    assert kills.compare([PICK, UNDO], rows) == (0, 0)
    assert kills.compare([PICK, UNDO], rows[:1]) == (1, 0)
    assert kills.compare([PICK, UNDO], [*rows, rows[0]]) == (0, 1)
    assert kills.compare([PICK | {"result": ["b", "a"]}, UNDO], rows) == (1, 1)
    assert kills.compare([PICK, UNDO], [rows[0], kills.as_row(PICK | {"number": 2}), rows[1]]) == (0, 1)


@pytest.mark.thorough  # test_faults.py has a few
def test_no_kill_of_the_app_loses_or_doubles_a_pick():
    result = kills.measure(kills=3)
    assert (result["kills"], result["picks_lost"], result["picks_doubled"]) == (3, 0, 0)
    assert result["picks_made"] >= 3 and result["sent_without_answer"] >= 1, "the kills hit nothing that was on its way"


def test_the_review_is_measured_on_as_many_pairs_as_it_says_and_one_group_is_left_to_pick_from(tmp_path):
    review._prepare(tmp_path, pairs=40, prompts=8, seen=2)
    project = open_project(tmp_path)
    pairs = project.picks.picked_pairs()
    assert {(picked.state, picked.missing) for picked in pairs} == {("used", ())} and len(pairs) == 40
    assert len({picked.pair.prompt for picked in pairs}) == 8 + 2
    assert {picked.pair.source for picked in pairs} == {"best_worst", "duel"} and {picked.rater for picked in pairs} == {
        "Ada",
        "Bo",
    }
    newest = [Path(picked.pair.chosen) for picked in pairs[-2:]]
    assert all(path.parent.name == "photographs" for path in newest)
    asked = review._ask(tmp_path)
    assert asked["used"] == 40 and asked["check_health_ms"] > 0
    images = {image.key for image in project.library.images(tmp_path / "candidates")}
    assert len(images - {key for picked in pairs for key in (picked.chosen, picked.rejected)}) == 4


# ------------------------------------------------------------------------------------------------ training


def test_the_plain_recipe_loses_what_the_trainer_does_step_by_step(tmp_path):
    config = replace(make_config(LARGE), resolution=16, lora_rank=2, learning_rate=5e-3, beta=20.0, max_steps=3)
    pairs = make_pairs(tmp_path, prompts=4, per_prompt=1)
    losses = []
    for is_plain in (True, False):
        family = load_family(build_pipeline())
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
        data, nothing = (_train_worker.encode(items, family, config, tmp_path / "cache") for items in (pairs, []))
        if is_plain:
            recipe = PlainRecipe(config, family.pipeline, family.add_noise)
            steps = _train_worker.plain_steps(config, recipe, pairs, family, data)
        else:
            run = create_run(tmp_path / "runs", "run", config, pairs)
            steps = _train_worker.our_steps(train(config, data, nothing, family, adapter, run, processes=join_processes()))
        losses.append([next(steps)["loss"] for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][0] != losses[0][2]


def test_ratios_are_of_medians_and_of_what_each_cannot_do_without():
    steps = {"plain": [10.0, 12.0, 100.0], "full_concurrent draws_2": [5.0, 6.0, 50.0]}
    floors = {
        "plain": [{"encodes": 2.0, "policy": 4.0, "reference": 3.0}] * 3,
        "full_concurrent draws_2": [{"seconds": 4.0}, {"seconds": 5.0}, {"seconds": 40.0}],
    }
    found = summarise(2, steps, floors, {"plain": 2**30, "full_concurrent draws_2": 2**29}, {})["full_concurrent draws_2"]
    assert found == {
        "pairs_per_second": 0.333, "pairs_per_second_ratio": 2.0, "bound": 1.8, "ratio_over_bound": 1.111,
        "peak_memory_mb": 512, "peak_memory_ratio": 0.5, "step_over_floor": 1.25,
    }  # fmt: skip


def test_a_loss_that_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    """Only what was cut short, or is asked otherwise than before."""
    trained = []

    def measure_one(name, setting, project, pairs, judged, folder):
        trained.append(name)
        (folder / name).mkdir(exist_ok=True)
        return {"win_rate_low": 0.6, "win_rate_high": 0.4, "following": 0.98, "following_base": 1.0}

    monkeypatch.setattr(benchmark_of_losses, "_measure_one", measure_one)
    monkeypatch.setattr(benchmark_of_losses, "_paint", lambda *_: None)
    monkeypatch.setattr("dpo.demo.loop.pick_by_measure", lambda *_, **__: [])
    first = benchmark_of_losses.measure(tmp_path)
    assert trained == list(benchmark_of_losses.SETTINGS)
    assert (first["preference_losses_win"], first["swapped_labels_lose"], first["safeguard_follows"]) == (True, True, True)
    monkeypatch.setitem(benchmark_of_losses.SETTINGS, "ipo", benchmark_of_losses.Setting("", {"loss": "ipo", "beta": 3.0}))
    benchmark_of_losses.measure(tmp_path)
    assert trained[len(benchmark_of_losses.SETTINGS) :] == ["ipo"]


def test_every_setting_of_the_losses_is_a_config():
    for setting in benchmark_of_losses.SETTINGS.values():
        assert load_preset("demo", **benchmark_of_losses.UNGUARDED | setting.changes)
