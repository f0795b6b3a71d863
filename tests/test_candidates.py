"""Sets of candidates, by the demo model at 2 steps: what is asked for is made, once, and can be gone on with."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpo import candidates
from dpo.adapters import attach_adapter
from dpo.candidates import (
    CandidatesError,
    CandidatesRequest,
    list_candidates,
    make_candidates_of,
    open_set,
    plan_images,
    start_candidates,
)
from dpo.config import TrainConfig
from dpo.families import load_family
from dpo.groups import View
from dpo.jobs import JobRegistry
from dpo.metadata import read_image
from dpo.models import load_pipeline
from dpo.project import open_project
from dpo.sampling import Sampler
from tests.batches import move

PROMPTS = ("a red ball on grass", "a blue cube on sand")
REQUEST = CandidatesRequest("first", prompts=PROMPTS, per_prompt=3, sampling_steps=2, seed=4)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    family = load_family(load_pipeline("demo"))
    made = attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False)
    move(family)
    path = tmp_path_factory.mktemp("adapter") / "mine.safetensors"
    made.save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with the set REQUEST."""
    project = open_project(tmp_path_factory.mktemp("made") / "project")
    return project, make_candidates_of(project, REQUEST)


def pixels(path):
    return np.asarray(Image.open(path))


def files(project, name="first"):
    return sorted((project.rounds / name).glob("*.png"))


def test_a_set_is_groups_to_pick_from_whose_files_say_how_they_were_made(made):
    project, found = made
    assert (found.done, found.total, found.is_unfinished, found.request) == (6, 6, False, REQUEST)
    catalogue = project.library.catalogue(View(str(found.folder)))
    assert (catalogue.images, len(catalogue.lines)) == (6, 2)
    records = [read_image(path) for path in files(project)]
    assert [record.prompt for record in records] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    assert {(record.steps, record.model, record.course) for record in records} == {(2, "demo", None)}
    assert not list(found.folder.glob(".unfinished/*"))


def test_seeds_differ_within_a_group_and_follow_from_seed_and_prompt_alone(made):
    project, _ = made
    seeds = [image.seed for image in plan_images(project, REQUEST)]
    assert [record.seed for record in map(read_image, files(project))] == seeds
    assert len({*seeds[:3]}) == 3
    turned = replace(REQUEST, name="other", prompts=PROMPTS[::-1], per_prompt=5)
    assert [image.seed for image in plan_images(project, turned)][5:8] == seeds[:3]
    assert not {image.seed for image in plan_images(project, replace(REQUEST, seed=5))} & {*seeds}


def test_a_stopped_set_goes_on_with_what_is_missing_and_ends_as_if_never_stopped(made, tmp_path, monkeypatch):
    monkeypatch.setattr(Sampler, "batch_size", lambda sampler, settings: 2)
    project, stop = open_project(tmp_path / "project"), threading.Event()

    def report(done, total, words):
        if words == "2 of 6 images":
            stop.set()

    found = make_candidates_of(project, REQUEST, report, stop)
    assert found.is_unfinished and found.done == 2
    kept = {path: path.stat().st_mtime_ns for path in files(project)}
    files(project)[0].write_bytes(b"")  # as a crash of the machine may leave it
    (found.folder / ".unfinished/00000-002.png").write_bytes(b"half")
    told = []
    assert make_candidates_of(project, found.request, lambda *said: told.append(said)).done == 6
    assert [path.stat().st_mtime_ns == kept.get(path) for path in files(project)].count(True) == len(kept) - 1
    assert told[-1] == ((6 - len(kept) + 1) * 2, (6 - len(kept) + 1) * 2, "6 of 6 images")
    for path, other in zip(files(project), files(made[0]), strict=True):
        assert np.abs(pixels(path).astype(int) - pixels(other)).max() <= 1  # another batch rounds otherwise

    monkeypatch.setattr(candidates, "_paint_missing", None)
    assert make_candidates_of(project, REQUEST).done == 6  # nothing is missing: no model is loaded


def test_a_name_means_one_set(made):
    project, _ = made
    with pytest.raises(CandidatesError, match=r"called first made otherwise \(per_prompt, seed\)"):
        open_set(project, replace(REQUEST, per_prompt=4, seed=1))


def test_a_plan_that_cannot_be_read_is_a_line_with_its_reason_and_is_never_overwritten(tmp_path):
    project = open_project(tmp_path)
    open_set(project, REQUEST)
    (project.rounds / "first/plan.json").write_text("{")
    (found,) = list_candidates(project)
    assert found.request is None and "plan.json cannot be read" in found.problem
    with pytest.raises(CandidatesError, match="plan.json cannot be read"):
        open_set(project, REQUEST)


def test_images_of_adapter_and_base_stand_in_one_group_and_say_which_they_are(tmp_path, adapter):
    project = open_project(tmp_path / "project")
    request = replace(REQUEST, adapter=adapter, strength=0.7, both=True, prompts=PROMPTS[:1], per_prompt=1)
    jobs = JobRegistry()
    job = start_candidates(project, jobs, request)
    assert job.finished.wait(60) and (job.state, job.message) == ("done", "2 of 2 images")
    assert job.result.done == 2
    texts = [path.read_bytes() for path in files(project)]
    assert b"Adapter: mine, Adapter strength: 0.7" in texts[0] and b"Adapter" not in texts[1]
    alone = replace(REQUEST, name="base", prompts=PROMPTS[:1], per_prompt=2)
    make_candidates_of(project, alone)
    base = [pixels(path) for path in files(project, "base")]
    assert np.abs(pixels(files(project)[1]).astype(int) - base[1]).max() <= 1
    assert np.abs(pixels(files(project)[0]).astype(int) - base[0]).max() > 1


def test_branched_candidates_share_a_course_per_prompt_and_side_and_their_pairs_know_where_it_ends(tmp_path, adapter):
    project = open_project(tmp_path / "project")
    request = replace(REQUEST, adapter=adapter, both=True, per_prompt=2, branch=0.5, sampling_steps=4)
    make_candidates_of(project, request)
    courses = [read_image(path).course for path in files(project)]
    assert {course.place for course in courses} == {0.5}
    assert [course.seed for course in courses[::2]] == [course.seed for course in courses[1::2]]
    assert len({course.seed for course in courses}) == 4
    group = project.library.groups(project.rounds / "first")[0]
    images = sorted(group.images, key=lambda image: image.path)
    for number, (first, second) in enumerate(((0, 1), (2, 3))):
        keys = [images[first].key, images[second].key]
        pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys}
        assert project.picks.apply([{"client": "page", "number": number, **pick}]).new == 1
    assert [(pair.round, pair.max_timestep) for pair in project.picks.pairs()] == [("first", 0.5)] * 2


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"name": "../x"}, "cannot be a folder's name"),
        ({"name": ""}, "cannot be a folder's name"),
        ({"name": ".hidden"}, "cannot be a folder's name"),
        ({"prompts": ()}, "There is no prompt"),
        ({"prompts": ("a", "a")}, "'a' is there twice"),
        ({"per_prompt": 0}, "per_prompt=0 is out of range"),
        ({"per_prompt": 1}, "nothing to be compared with"),
        ({"adapter": Path("gone.safetensors")}, "gone.safetensors is not a file"),
        ({"both": True}, "needs an adapter"),
        ({"strength": -1.0}, "strength=-1.0 is too small"),
        ({"branch": 1.0}, "branch=1.0 is out of range"),
        ({"branch": 0.5, "sampling_steps": 1}, "no step to branch at"),
        ({"sampling_steps": 0}, "sampling_steps=0 is too small"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"width": -8}, "A size of -8x0"),
        ({"seed": -1}, "seed=-1 is out of range"),
    ],
)
def test_what_cannot_be_made_is_said_before_a_model_loads_and_leaves_nothing_behind(tmp_path, changes, sentence):
    project, jobs = open_project(tmp_path), JobRegistry()
    with pytest.raises(CandidatesError, match=sentence):
        start_candidates(project, jobs, replace(REQUEST, **changes))
    assert list_candidates(project) == [] and jobs.current() is None and not project.rounds.exists()
