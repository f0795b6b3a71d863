"""Blind tests as they are made: on prompts nobody trained on, from the same noise, resumable, by real pipelines."""

import numpy as np
import pytest
from PIL import Image

from dpo import StudioError
from dpo.blind import (
    DEMO_SEED,
    BlindError,
    BlindRequest,
    default_prompts,
    find_test,
    list_tests,
    resume_test,
    start_test,
    trained_prompts,
)
from dpo.config import TrainConfig
from dpo.demo.candidates import demo_prompts
from dpo.jobs import JobRegistry
from dpo.metadata import read_image
from dpo.outcomes import make_pairs
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run, find_run
from tests.blind import Voter, make_test
from tests.test_adapters import build_learned
from tests.tiny import SIDE, build_pipeline

SEEN, HELD_OUT = ("a cat", "a dog", "a fox", "an owl"), ("a whale", "a heron")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project with a run that trained on SEEN and held out HELD_OUT, and one that went on from it with a prompt of its own."""
    folder = tmp_path_factory.mktemp("blind")
    build_pipeline().save_pretrained(folder / "model")
    project = open_project(folder / "project")
    first = make_run(project, folder, "first", SEEN, HELD_OUT)
    make_run(project, folder, "second", ("a bear", "a whale", "a cat", "a fish"), ("a heron",), str(first.adapter))
    return project


def make_run(project, folder, name, seen, held_out, starting_adapter=""):
    config = TrainConfig(model=str(folder / "model"), starting_adapter=starting_adapter)
    run = create_run(project.runs, name, config, [Pair(prompt, "a.png", "b.png") for prompt in (*seen, *held_out)])
    run.hold_out(held_out)
    build_learned(2, 6.0)[1].save(run.adapter)
    return run


def request_for(project, run="first", **more) -> BlindRequest:
    model = str(project.path.parent / "model")
    usual = {"sampling_steps": 2, "width": SIDE, "height": SIDE}
    return BlindRequest(model, project.runs / run / "adapter" / "pytorch_lora_weights.safetensors", **usual | more)


class Held(JobRegistry):
    """A queue in which nothing runs, so that what is queued can be looked at."""

    def submit(self, kind, title, key, work, result=None, **more):
        return super().submit("held", title, key, lambda job: None, result, **more)


@pytest.fixture(scope="module")
def made(place):
    """(project, test) of three comparisons on the held-out prompts, with its images."""
    jobs = JobRegistry()
    job = start_test(place, jobs, request_for(place, comparisons=3))
    assert job.finished.wait(60) and job.state == "done", job.message
    assert (job.kind, job.done, job.total) == ("test", 12, 12)
    return place, find_test(place, job.key)


# ------------------------------------------------------------------------------------------------ prompts


def test_a_test_takes_what_the_run_held_out_and_gives_prompts_more_seeds_where_more_is_asked(made):
    _, test = made
    assert [item.prompt for item in test.items] == ["a whale", "a heron", "a whale"]
    assert len({item.seed for item in test.items}) == 3


def test_what_an_earlier_round_trained_on_is_no_test_of_a_later_one(place):
    first, second = (find_run(place.runs, name) for name in ("first", "second"))
    assert trained_prompts(first) == set(SEEN)
    assert trained_prompts(second) == {*SEEN, "a bear", "a whale", "a fish"}
    assert default_prompts(place, first) == ["a whale", "a heron"] and default_prompts(place, second) == ["a heron"]


def test_typed_prompts_that_were_trained_on_are_refused_by_name_however_they_are_written(place):
    with pytest.raises(BlindError, match=r"2 of these prompts second was trained on: A  Cat; a whale. Take them out"):
        start_test(place, Held(), request_for(place, "second", prompts=("A  Cat", "a whale", "a horse")))
    test = find_test(place, start_test(place, Held(), request_for(place, prompts=("a horse", " ", "a horse"))).key)
    assert [item.prompt for item in test.items] == ["a horse"]


def test_seeds_are_fresh_for_every_test_so_nobody_has_seen_its_images_with_their_names(place):
    seeds = [find_test(place, start_test(place, Held(), request_for(place)).key).items[0].seed for _ in range(3)]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapter": "missing.safetensors"}, "is not a file"),
        ({"strength": 0.0}, "is the base model itself"),
        ({"sampling_steps": 0}, "too small"),
        ({"questions": ("taste",)}, "A test asks one or more of overall, appeal, prompt, not taste"),
        ({"questions": ()}, "not nothing"),
        ({"comparisons": 2001}, "is not from 0 to 2,000"),
        ({"model": "missing-model"}, "missing-model"),
    ],
    ids=["adapter", "strength", "steps", "question", "no question", "comparisons", "model"],
)
def test_what_is_wrong_is_said_before_anything_is_queued_or_written(place, change, words):
    before = [test.name for test in list_tests(place)]
    request = BlindRequest(**{**vars(request_for(place)), **change})
    with pytest.raises(StudioError, match=words):
        start_test(place, Held(), request)
    assert [test.name for test in list_tests(place)] == before


def test_an_adapter_from_elsewhere_needs_prompts(place, tmp_path):
    build_learned(2, 6.0)[1].save(tmp_path / "theirs.safetensors")
    request = BlindRequest(**{**vars(request_for(place)), "adapter": tmp_path / "theirs.safetensors"})
    with pytest.raises(BlindError, match="This adapter is not of a run"):
        start_test(place, Held(), request)


def test_the_demo_is_tested_on_fresh_prompts_as_many_as_comparisons_are_asked(tmp_path):
    project = open_project(tmp_path / "project")
    seen = demo_prompts(5, DEMO_SEED)  # those that would be offered first
    run = create_run(project.runs, "demo-1", TrainConfig(model="demo"), [Pair(prompt, "a.png", "b.png") for prompt in seen])
    offered = default_prompts(project, run)
    assert len(set(offered)) == 40 and not set(offered) & set(seen)
    assert len(default_prompts(project, run, count=90)) == 90


def test_prompts_whose_votes_became_pairs_are_left_out_of_later_tests(tmp_path):
    project = open_project(tmp_path / "project")
    test = make_test(project, items=4)
    items = [Pair(prompt, "a.png", "b.png") for prompt in ("p", "q", "r", "s")]
    run = create_run(project.runs, "cats-1", TrainConfig(model="elsewhere"), items)
    run.hold_out([item.prompt for item in test.items])
    voter = Voter(project, test, "Ada")
    voter.vote(1, "adapter")
    assert len(default_prompts(project, run)) == 4
    make_pairs(project, voter.outcome())
    assert default_prompts(project, run) == [test.items[number].prompt for number in (0, 2, 3)]


# ------------------------------------------------------------------------------------------------ images


def test_both_sides_start_from_the_same_noise_and_their_files_say_how_they_were_made(made):
    _, test = made
    assert test.ready() == list(test.items)
    for item in test.items:
        base, adapter = (read_image(test.image(item, side)) for side in ("base", "adapter"))
        assert (base.prompt, base.seed) == (adapter.prompt, adapter.seed) == (item.prompt, item.seed)
        assert (base.loras, [lora.name for lora in adapter.loras]) == ((), ["first"])
        pixels = [np.asarray(Image.open(test.image(item, side))).astype(int) for side in ("base", "adapter")]
        assert np.abs(pixels[0] - pixels[1]).max() > 3
    assert not list(test.path.glob("unfinished*"))


def test_only_missing_images_are_made_again_and_come_out_the_same(made):
    project, test = made
    kept, lost = test.image(test.items[0], "base"), test.image(test.items[1], "adapter")
    stamp, pixels = kept.stat().st_mtime_ns, np.asarray(Image.open(lost)).astype(int)
    lost.unlink()
    assert test.ready() == [test.items[0], test.items[2]]
    job = resume_test(project, JobRegistry(), test)
    assert job.finished.wait(60) and job.state == "done", job.message
    assert kept.stat().st_mtime_ns == stamp
    assert np.abs(np.asarray(Image.open(lost)).astype(int) - pixels).max() <= 1


def test_what_was_learned_and_asked_is_kept_with_the_test(made):
    project, test = made
    assert (test.run, test.strength, test.questions, test.sampling_steps) == ("first", 1.0, ("overall",), 2)
    assert test.run_made == find_run(project.runs, "first").made
    assert test.name == "first-1" and test in list_tests(project)


def test_a_name_that_leads_elsewhere_finds_no_test(made):
    for name in ("../runs", "", ".", "gone"):
        with pytest.raises(BlindError, match="There is no blind test named"):
            find_test(made[0], name)


def test_a_damaged_test_is_named_and_hides_no_other(tmp_path):
    project = open_project(tmp_path / "project")
    make_test(project, items=1, name="good")
    (project.path / "tests" / "bad").mkdir()
    (project.path / "tests" / "bad" / "test.json").write_text('{"items": 3}')
    assert [test.name for test in list_tests(project)] == ["good"]
    with pytest.raises(BlindError, match=r"test.json cannot be read"):
        find_test(project, "bad")
