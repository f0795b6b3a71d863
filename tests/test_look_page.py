"""What Compare paints: the same prompts, seeds and first noise by the base, adapters and checkpoints, in a job."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dpo import StudioError
from dpo.compare import (
    BASE,
    CompareError,
    LookRequest,
    Variant,
    base_settings,
    check_look,
    read_prompts,
    run_adapters,
    save_look,
    start_look,
)
from dpo.config import TrainConfig
from dpo.jobs import JobRegistry
from dpo.looks import MemoryProblem, in_batches, paint_look
from dpo.metadata import Lora, read_image
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run
from dpo.sample_settings import SampleSettings
from dpo.sampling import Sampler
from tests.test_adapters import build_learned
from tests.tiny import SIDE, build_pipeline

SETTINGS = SampleSettings(sampling_steps=3, width=SIDE, height=SIDE)
PROMPTS, SEEDS = ("a cat", "猫 ${1} $x$"), (1, 2, 3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and two adapters of different ranks for it."""
    folder = tmp_path_factory.mktemp("look")
    build_pipeline().save_pretrained(folder / "model")
    for name, rank in (("large", 3), ("small", 2)):
        build_learned(rank, 6.0)[1].save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def request_(place):
    large, small = place / "large.safetensors", place / "small.safetensors"
    variants = (BASE, Variant("large", large, 1.0), Variant("none", large, 0.0), Variant("small", small, 0.5))
    return LookRequest(str(place / "model"), variants, PROMPTS, SEEDS, SETTINGS)


@pytest.fixture(scope="module")
def looked(place, request_):
    """(the project, the job of the request, done)"""
    project = open_project(place / "project")
    job = start_look(project, JobRegistry(), request_)
    assert job.finished.wait(60) and job.state == "done", job.message
    return project, job


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_every_prompt_and_seed_has_an_image_by_every_variant_in_the_order_asked_for(looked, request_):
    _, job = looked
    assert [(row.prompt, row.seed) for row in job.result] == [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    assert job.request is request_ and (job.done, job.total) == (72, 72)  # 6 rows, 4 variants, 3 steps
    for row in job.result:
        records = [read_image(path) for path in row.images]
        assert [(record.prompt, record.seed, record.steps) for record in records] == [(row.prompt, row.seed, 3)] * 4
        assert [record.loras for record in records] == [
            (), (Lora("large", 1.0),), (Lora("large", 0.0),), (Lora("small", 0.5),)
        ]  # fmt: skip


def test_at_strength_0_an_adapter_is_the_base_to_the_bit_and_above_it_is_not(looked):
    for row in looked[1].result:
        base, large, none, small = map(pixels, row.images)
        assert np.array_equal(none, base)
        assert np.abs(large - base).max() > 10 and np.abs(small - base).max() > 3


def test_adapters_that_share_a_model_paint_as_each_would_on_a_model_of_its_own_and_all_at_once_as_one_by_one(looked, request_):
    """A batch sums in another order than a row alone: by a grey level at most."""
    rows = looked[1].result[2:4]  # of one batch with two others
    for column, variant in enumerate(request_.variants):
        sampler = Sampler(build_pipeline(), "tiny", variant.adapter)
        strength = variant.strength if variant.adapter else None
        for row in rows:
            (alone,) = sampler.sample([(row.prompt, row.seed)], SETTINGS, strength=strength)
            assert np.abs(pixels(row.images[column]) - np.asarray(alone)).max() <= 1, variant.name


def test_a_stop_keeps_the_rows_that_are_done_and_the_first_is_done_soon(place, request_):
    stop, rows, done = threading.Event(), [], []

    def report(steps, total, words):
        done.append(steps)
        if rows:
            stop.set()

    for row in paint_look(request_, {}, lambda *at: place / f"stopped-{'-'.join(map(str, at))}.png", report, stop, lambda: None):
        rows.append(row)
        assert done[-1] == 12  # one row by four variants of 3 steps each
    assert len(rows) == 1 and all(path.is_file() for path in rows[0].images)


def test_batches_grow_so_that_the_first_rows_are_there_early():
    rows = [("a", seed) for seed in range(30)]
    found = list(in_batches(rows, 16, lambda first, batch: batch))
    assert [(first, len(batch)) for first, batch, _ in found] == [(0, 1), (1, 4), (5, 16), (21, 9)]
    assert [row for _, batch, _ in found for row in batch] == rows


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_made_again_and_later_ones_are_no_larger():
    rows, asked = [("a", seed) for seed in range(12)], []

    def make(first, batch):
        asked.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no room")
        return batch

    made = [row for _, batch, found in in_batches(rows, 16, make) for row in found]
    assert made == rows
    assert asked == [1, 4, 2, 2, 2, 2, 2, 1]
    with pytest.raises(MemoryProblem, match="One image alone does not fit"):
        list(in_batches(rows, 16, lambda first, batch: 1 / 0 if first else make(0, rows)))
    with pytest.raises(ZeroDivisionError):
        list(in_batches(rows, 16, lambda first, batch: 1 / 0))


def test_what_is_saved_lies_in_the_exports_with_a_grid(looked, request_):
    project, job = looked
    folder = save_look(project, request_, job.result)
    assert folder.parent == project.exports
    assert len(list(folder.glob("*-*.png"))) == 24
    assert Image.open(folder / "grid.png").width > 4 * 160
    with pytest.raises(CompareError, match="nothing to save"):
        save_look(project, request_, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompts": ()}, "There is no prompt"),
        ({"seeds": ()}, "There is no seed"),
        ({"seeds": (-1,)}, "seed=-1 cannot be used"),
        ({"model": "nowhere"}, "model='nowhere' is neither"),
        ({"image_format": "bmp"}, "Choose one of png, jpeg, webp"),
        ({"settings": replace(SETTINGS, sampling_steps=0)}, "sampling_steps=0 is too small"),
        ({"settings": replace(SETTINGS, guidance_scale=float("nan"))}, "guidance_scale=nan is not a number"),
        ({"settings": replace(SETTINGS, width=-8)}, "A size of -8x16 cannot be"),
        ({"settings": replace(SETTINGS, sampler="Euler b")}, "sampler='Euler b' does not fit this model. Choose one of Euler, "),
        ({"add": ("new", "absent.safetensors", 1.0)}, "absent.safetensors is not a file"),
        ({"add": ("large", "small.safetensors", 1.0)}, "Two columns are called 'large'"),
        ({"add": ("new", "small.safetensors", -0.5)}, "strength=-0.5 is too small"),
        ({"add": ("new", "model/model_index.json", 1.0)}, "is not a .safetensors file"),
        ({"picture_of": "absent.png"}, "absent.png cannot be opened"),
        ({"picture_of": "grey.png", "picture_strength": 0.0}, "picture_strength=0.0 is out of range"),
        ({"picture_of": "grey.png", "picture_strength": 0.2}, "is less than one step"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_what_cannot_be_is_said_before_a_model_loads(change, says, place, request_):
    Image.new("RGB", (8, 8)).save(place / "grey.png")
    change = dict(change)
    if added := change.pop("add", None):
        change["variants"] = (*request_.variants, Variant(added[0], place / added[1], added[2]))
    if name := change.pop("picture_of", None):
        change["picture"] = place / name
    with pytest.raises(StudioError) as error:
        check_look(replace(request_, **change))
    assert says in str(error.value)


def test_the_first_column_of_a_look_is_the_base(place, request_):
    with pytest.raises(CompareError, match="The first column of a look is the base"):
        start_look(open_project(place / "project"), JobRegistry(), replace(request_, variants=request_.variants[1:]))


def test_the_model_is_loaded_as_the_runs_of_the_adapters_did_and_as_its_name_says_for_others(tmp_path, place):
    project = open_project(tmp_path / "project")
    config = TrainConfig(model="owner/name", prediction_type="v_prediction", quantization="nf4")
    run = create_run(project.runs, "cats-1", config, [Pair("a", "b", "c")] * 4)
    run.adapter.touch()
    checkpoint = run.checkpoints / "step-000040.pt"
    checkpoint.touch()

    def said(model, *files):
        variants = tuple(Variant(str(number), file, 1.0) for number, file in enumerate(files))
        return base_settings(LookRequest(model, (BASE, *variants), PROMPTS, SEEDS, SETTINGS))

    assert said("owner/name", run.adapter) == said("owner/name", place / "large.safetensors", checkpoint) == config.base
    assert said("owner/name", place / "large.safetensors") == said("demo", run.adapter) == {}
    other = create_run(project.runs, "cats-2", replace(config, quantization="none"), [Pair("a", "b", "c")] * 4)
    with pytest.raises(CompareError, match="loaded the model differently"):
        said("owner/name", run.adapter, other.adapter)


def test_a_run_offers_its_adapter_and_its_checkpoints_by_names(tmp_path):
    run = create_run(tmp_path, "cats-1", TrainConfig(), [Pair("a", "b", "c")] * 4)
    assert run_adapters(run) == []
    for path in (run.adapter, run.best, run.checkpoints / "step-000040.pt", run.checkpoints / "step-000080.partial"):
        path.touch()
    assert run_adapters(run) == [
        ("cats-1", run.adapter), ("cats-1 best", run.best), ("cats-1 step 40", run.checkpoints / "step-000040.pt"),
    ]  # fmt: skip


def test_a_prompts_file_has_a_prompt_a_line(tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeffa cat\r\n\n  ein Hund, groß \n", encoding="utf-8")
    assert read_prompts(tmp_path / "prompts.txt") == ["a cat", "ein Hund, groß"]
    (tmp_path / "other.txt").write_bytes(b"\xff\xfea")
    for name in ("other.txt", "absent.txt"):
        with pytest.raises(CompareError, match=f"{name} cannot be read"):
            read_prompts(tmp_path / name)
