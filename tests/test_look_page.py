"""Look: what its form asks for, and what its page is told of a look, its rows and how two images differ."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from dpo.compare import BASE, CompareError, LookRequest, LookRow, Variant
from dpo.config import TrainConfig
from dpo.jobs import Job, JobRegistry
from dpo.pairs import Pair
from dpo.pixels import PixelError, mean_difference
from dpo.project import open_project
from dpo.runs import Run, create_run
from dpo.sample_settings import SampleSettings
from ui import create_app
from ui.look_answers import ANSWERS, MOST_ROWS, NO_ADAPTER, difference_words
from ui.look_form import (
    adapter_choices,
    first_prompts,
    held_out_prompts,
    prompt_lists,
    read_prompt_file,
    read_request,
    read_seeds,
    read_strengths,
    sampler_choices,
)
from ui.places import PlaceError
from ui.session import Studio, project_secret
from ui.words import report_look

ADAPTER = Path("cats.safetensors")
VARIANTS = (BASE, Variant("cats at 0.5", ADAPTER, 0.5), Variant("cats at 1", ADAPTER, 1.0))


@pytest.fixture
def studio(tmp_path) -> Studio:
    project = open_project(tmp_path / "project")
    return Studio(project, JobRegistry(), project_secret(project.path))


def request(prompts=("a cat",), seeds=(1,), variants=VARIANTS) -> LookRequest:
    return LookRequest("demo", variants, prompts, seeds, SampleSettings())


def rows_of(studio: Studio, count: int) -> list[LookRow]:
    """Rows of a cat with seeds from 1 on: the base grey, the others lighter by 10 a step."""
    folder = studio.project.path / "compare" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(1, count + 1):
        paths = [folder / f"{seed}-{index}.png" for index in range(len(VARIANTS))]
        for index, path in enumerate(paths):
            Image.new("RGB", (16, 16), (100 + 10 * index, seed, 100)).save(path)
        rows.append(LookRow("a cat", seed, tuple(paths)))
    return rows


def finished(studio: Studio, rows: list[LookRow]) -> Job:
    seeds = tuple(row.seed for row in rows)
    job = studio.jobs.submit("compare", "looking", str(studio.project.path), lambda job: rows, request=request(seeds=seeds))
    assert job.finished.wait(5)
    return job


def a_run(studio: Studio, name: str = "cats", model: str = "sdxl", prompts: int = 8) -> Run:
    run = create_run(
        studio.project.runs,
        name,
        TrainConfig(model=model),
        [Pair(f"prompt {number}", "a.png", "b.png") for number in range(prompts)],
    )
    run.adapter.parent.mkdir(parents=True, exist_ok=True)
    run.adapter.write_bytes(b"adapter")
    return run


def ask_for(studio: Studio, adapters: list[str], **changes) -> LookRequest:
    typed = {
        "strengths": "1", "prompts": "a cat", "seeds": "1", "model": "demo", "sampler": "", "steps": 20, "guidance": 3,
        "width": None, "height": None, "negative": "", "picture": None, "picture_strength": 0.6, "image_format": "png",
    } | changes  # fmt: skip
    return read_request(studio, adapters, *typed.values())


# --- What is typed


def test_seeds_are_read_as_people_write_them():
    assert read_seeds(" 1, 2 3,3\n") == [1, 2, 3]
    for text in ("1, x", "-1", "1.5", "²", str(2**32)):
        with pytest.raises(CompareError, match="is not a seed"):
            read_seeds(text)


def test_strengths_are_numbers_from_0_on_each_once():
    assert read_strengths("0, 0.5 1,1.0") == [0.0, 0.5, 1.0]
    for text in ("-1", "x", "nan", "inf"):
        with pytest.raises(CompareError, match="is not a strength"):
            read_strengths(text)
    with pytest.raises(CompareError, match="There is no strength"):
        read_strengths(" ")


def test_every_adapter_is_asked_for_at_every_strength_beside_the_base(studio):
    run = a_run(studio)
    asked = ask_for(studio, [str(run.adapter), "elsewhere/dogs.safetensors"], strengths="0.5, 1")
    assert asked.variants[0] == BASE
    names = ["cats at 0.5", "cats at 1", "dogs at 0.5", "dogs at 1"]
    assert [variant.name for variant in asked.variants[1:]] == names
    assert [variant.adapter for variant in asked.variants[1::2]] == [run.adapter, Path("elsewhere/dogs.safetensors")]
    assert [variant.strength for variant in asked.variants[1:]] == [0.5, 1.0, 0.5, 1.0]


def test_two_files_of_one_name_are_told_apart_by_their_folders(studio):
    asked = ask_for(studio, ["one/dogs.safetensors", "two/dogs.safetensors"])
    assert [variant.name for variant in asked.variants[1:]] == ["one/dogs.safetensors at 1", "two/dogs.safetensors at 1"]


def test_the_form_asks_for_what_was_typed(studio):
    asked = ask_for(
        studio, ["dogs.safetensors"], prompts=" a cat \n\na dog\na cat", seeds="3 4", sampler="DDIM", steps=12.0, guidance=5,
        width=640.0, negative=" blurry ", picture="p.png", picture_strength=0.4, image_format="webp",
    )  # fmt: skip
    assert (asked.prompts, asked.seeds) == (("a cat", "a dog"), (3, 4))
    assert asked.settings == SampleSettings(12, 5.0, 640, 0, "blurry", "DDIM")
    assert (asked.picture, asked.picture_strength, asked.image_format) == (Path("p.png"), 0.4, "webp")


@pytest.mark.parametrize(
    "changes, said",
    [({"steps": None}, "Sampling steps"), ({"steps": 1.5}, "Sampling steps"), ({"guidance": None}, "Guidance"),
     ({"width": 7.5}, "Width"), ({"picture_strength": None}, "Change")],
    ids=["no steps", "half a step", "no guidance", "half a pixel", "no change"],
)  # fmt: skip
def test_what_is_no_number_is_named(studio, changes, said):
    with pytest.raises(CompareError, match=f"{said} wants a"):
        ask_for(studio, ["dogs.safetensors"], **changes)


def test_without_an_adapter_it_is_said_which_way_to_one(studio):
    with pytest.raises(CompareError, match="Train a run first"):
        ask_for(studio, [])
    a_run(studio)
    with pytest.raises(CompareError, match="Choose an adapter first"):
        ask_for(studio, [])


def test_a_shared_page_reaches_no_adapter_outside_the_project(studio):
    studio.is_shared = True
    inside = studio.project.path / "dogs.safetensors"
    assert ask_for(studio, [str(inside)]).variants[1].adapter == inside
    for typed in ({"adapters": ["/elsewhere/dogs.safetensors"]}, {"adapters": [str(inside)], "model": "/elsewhere/model"}):
        with pytest.raises(PlaceError, match="outside the project folder"):
            ask_for(studio, **typed)
    assert sampler_choices(studio, "/elsewhere/model") == sampler_choices(studio, "no model at all")


# --- What is offered


def test_every_runs_adapter_is_offered_by_its_name(studio):
    first, second = a_run(studio, "cats"), a_run(studio, "dogs")
    assert {("cats", str(first.adapter)), ("dogs", str(second.adapter))} <= set(adapter_choices(studio))


def test_held_out_prompts_are_none_that_was_trained_on(studio):
    run = a_run(studio, prompts=40)
    run.hold_out(["prompt 3", "prompt 5"])
    assert held_out_prompts(run) == ["prompt 3", "prompt 5"]
    assert first_prompts(run) == "prompt 3\nprompt 5"


def test_for_the_demo_there_are_prompts_it_was_not_trained_on(studio):
    run = a_run(studio, model="demo")
    first = held_out_prompts(run)
    again = create_run(studio.project.runs, "more", TrainConfig(model="demo"), [Pair(first[0], "a.png", "b.png")] * 4)
    assert len(first) == 12 and first[0] not in held_out_prompts(again)


def test_lists_of_prompts_come_with_the_studio():
    lists = {name: read_prompt_file(path).splitlines() for name, path in prompt_lists().items()}
    assert set(lists) == {"people", "objects and scenes"}
    assert all(len(prompts) == 12 for prompts in lists.values())


def test_a_file_of_prompts_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffein Haus\r\n\r\n  猫  \n".encode())
    assert read_prompt_file(path) == "ein Haus\n猫"
    for data, said in (
        (b"\xff\xfe\x00", "cannot be read"),
        (b" \n", "holds no prompt"),
        (b"x" * 2**21, "is larger than"),
    ):
        path.write_bytes(data)
        with pytest.raises(CompareError, match=f"mine.txt {said}"):
            read_prompt_file(path)


# --- What the page is told


def test_a_report_counts_images(studio):
    ready = threading.Event()

    def work(job: Job) -> list:
        job.result.extend(rows_of(studio, 3))
        job.report(350, 800, "sampling")
        ready.set()
        job.stop.wait(20)
        return job.result

    job = studio.jobs.submit("compare", "looking", "x", work, result=[], request=request(seeds=(1, 2, 3, 4, 5, 6, 7, 8)))
    assert ready.wait(5)
    job.started = time.monotonic() - 35
    said = report_look(job, studio.jobs).headline
    job.stop.set()
    assert said == "10 of 24 images, 45 s left."  # 350 of 800 parts, of 8 seeds for 3 variants
    assert job.finished.wait(5)
    assert report_look(job, studio.jobs).headline == "9 images of 24, stopped."


def test_a_page_is_sent_each_row_once_and_many_in_several_answers(studio):
    finished(studio, rows_of(studio, MOST_ROWS + 3))
    state = ANSWERS["look_state"]
    first = state(studio, {})
    assert (first["made"], len(first["rows"])) == (MOST_ROWS + 3, MOST_ROWS)
    assert [variant["label"] for variant in first["variants"]] == ["base", "cats at 0.5", "cats at 1"]
    then = state(studio, {"key": first["key"], "have": MOST_ROWS})
    assert [row["seed"] for row in first["rows"] + then["rows"]] == list(range(1, MOST_ROWS + 4))
    assert state(studio, {"key": first["key"], "have": MOST_ROWS + 3})["rows"] == []
    assert len(state(studio, {"key": "another", "have": MOST_ROWS})["rows"]) == MOST_ROWS  # the page shows an older look


def test_an_image_that_is_gone_takes_no_other_with_it(studio):
    rows = rows_of(studio, 2)
    rows[0].images[1].unlink()
    finished(studio, rows)
    first, second = ANSWERS["look_state"](studio, {})["rows"]
    assert first["images"][1] is None and all(first["images"][::2]) and all(second["images"])
    assert set(first["images"][0]) == {"full", "thumb"}


def test_a_page_learns_of_no_folder(studio):
    finished(studio, rows_of(studio, 1))
    assert str(studio.project.path) not in repr(ANSWERS["look_state"](studio, {}))


def test_where_nothing_was_compared_the_page_says_what_is_missing(studio):
    assert ANSWERS["look_state"](studio, {})["empty"] == NO_ADAPTER
    a_run(studio)
    assert "press Compare" in ANSWERS["look_state"](studio, {})["empty"]


def test_a_page_that_shows_an_older_look_cannot_stop_or_save_the_newest(studio):
    job = finished(studio, rows_of(studio, 1))
    for name in ("look_stop", "look_save", "look_difference"):
        with pytest.raises(CompareError, match="A newer comparison"):
            ANSWERS[name](studio, {"key": "another"})
    assert not job.stop.is_set()


def test_what_is_saved_lies_in_exports_with_a_grid_to_download(studio):
    finished(studio, rows_of(studio, 2))
    answer = ANSWERS["look_save"](studio, {"key": ANSWERS["look_state"](studio, {})["key"]})
    (folder,) = studio.project.exports.glob("compare-*")
    assert answer["text"] == f"Saved 6 images and a grid of them in {folder}."
    grid = folder / answer["link"].rpartition("/")[2]
    with Image.open(grid) as image:
        assert image.width > image.height  # three columns, two rows
    assert len(list(folder.iterdir())) == 7


def test_the_difference_is_that_of_the_files(studio):
    finished(studio, rows_of(studio, 1))
    key = ANSWERS["look_state"](studio, {})["key"]
    answers = [ANSWERS["look_difference"](studio, {"key": key, "row": 0, "variant": number})["text"] for number in range(3)]
    # One of three channels is 10 and 20 brighter: 10 / 3 and 20 / 3 of 255.
    words = [
        "Identical: no pixel differs.",
        *(f"Mean difference {mean} of 255. Shown four times as bright." for mean in ("3.33", "6.67")),
    ]
    assert answers == words


def test_a_difference_too_small_to_be_written_is_not_called_identical():
    assert difference_words(0.001).startswith("Mean difference 0.001 of 255")


def test_images_of_two_sizes_have_no_difference(tmp_path):
    for name, side in (("a.png", 8), ("b.png", 16)):
        Image.new("RGB", (side, side)).save(tmp_path / name)
    with pytest.raises(PixelError, match=r"a\.png and b\.png differ in size"):
        mean_difference(tmp_path / "a.png", tmp_path / "b.png")


def test_which_way_is_shown_is_said_by_the_person_and_by_the_beginning_of_a_page_and_by_nobody_else(studio):
    page = create_app(studio)
    (way,) = [block for block in page.blocks.values() if block.elem_id == "compare-way"]
    assert [event.name for event in page.fns.values() if way in event.outputs] == ["restore"]
