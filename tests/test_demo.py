"""The demo: the painted world, its measures, the shipped model and candidates, and the loop on them."""

import json
import random
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dpo.__main__ import main
from dpo.compare import win_rate_interval
from dpo.config_files import load_preset
from dpo.demo import world
from dpo.demo.candidates import ARCHIVE, SEEDS, demo_prompts, prepare_demo
from dpo.demo.loop import DemoOptions, follows, pick_by_measure
from dpo.demo.measures import MEASURES, find_object, read_scene
from dpo.metadata import read_image
from dpo.models import DEMO_MODEL, load_pipeline
from dpo.project import open_project
from dpo.runs import create_run
from dpo.sampling import Sampler, SampleSettings


def scenes(count: int, seed: int = 11) -> list[world.Scene]:
    rng = random.Random(seed)
    return [world.random_scene(rng) for _ in range(count)]


def test_the_measures_read_painted_scenes_back():
    """The judge itself, judged on pictures whose truth is known."""
    painted = scenes(150)
    readings = [read_scene(world.draw(scene)) for scene in painted]
    for what, share in (("color", 0.99), ("background", 0.99), ("object", 0.95)):
        right = [getattr(scene, what) == getattr(reading, what) for scene, reading in zip(painted, readings, strict=True)]
        assert np.mean(right) >= share, what
    assert np.mean([abs(scene.x - reading.x) for scene, reading in zip(painted, readings, strict=True)]) < 0.02


@pytest.mark.parametrize("which", [0, 1])
def test_both_measures_of_a_preference_rank_the_same_scene_the_same_way(which):
    """Grow, centre, warm or sharpen one thing at a time: the measure must not sink."""
    rising = {
        "larger": [{"size": size, "base": 0.95} for size in (0.18, 0.28, 0.38)],
        "centred": [{"x": x} for x in (0.28, 0.4, 0.5)],
        "warm": [{"color": color} for color in ("blue", "red")],
        "sharp": [{"softness": softness} for softness in (1.3, 0.0)],
    }
    for preference, steps in rising.items():
        measure = MEASURES[preference][which]
        for obj in world.OBJECTS:
            base = {
                "object": obj,
                "color": "red",
                "background": "mint",
                "size": 0.25,
                "x": 0.5,
                "base": 0.9,
                "softness": 0.0,
                "mood": 3,
            }
            scores = [measure(world.draw(world.Scene(**(base | step)))) for step in steps]
            assert scores == sorted(scores) and scores[0] < scores[-1], (preference, obj, scores)


def test_captions_are_true_and_leave_things_out():
    rng = random.Random(5)
    seen = set()
    for scene in scenes(300):
        text = world.caption(scene, rng)
        words = text.split()
        assert scene.object in words
        assert words[0] == ("an" if words[1][0] in "aeiou" else "a")
        for word, truth in (
            ("small", scene.size < world.SMALL),
            ("large", scene.size > world.LARGE),
            ("left", scene.x < world.LEFT),
            ("right", scene.x > world.RIGHT),
        ):
            assert truth or word not in words, text
        assert not (set(world.COLORS) & set(words)) - {scene.color} or scene.background in words
        seen.add((scene.color in words, world.background_phrase(scene.background) in text, bool({"small", "large"} & set(words))))
    assert len(seen) == 8  # every combination of said and unsaid occurs


def test_a_picture_without_an_object_reads_as_such():
    color, mask = find_object(world.draw_background("sea", random.Random(1)))
    assert color is None and not mask.any()


def test_the_model_is_small_and_holds_only_safetensors():
    files = [path for path in DEMO_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16e6
    assert {path.suffix for path in files if path.stat().st_size > 100_000} <= {".safetensors"}


@pytest.fixture(scope="module")
def painted():
    """120 samples of the shipped model: (words said, picture). Every word the captions know is asked for."""
    torch.set_num_threads(2)
    rng = random.Random(2024)
    asked = []
    for number in range(120):
        said = {
            "object": world.OBJECTS[number % len(world.OBJECTS)],
            "color": rng.choice(list(world.COLORS)),
            "background": world.BACKGROUNDS[number % len(world.BACKGROUNDS)],
            "size": rng.choice((None, "small", "large")),
            "place": rng.choice((None, "left", "right")),
        }
        asked.append((said, world.describe(said["object"], said["color"], said["background"], said["size"], said["place"])))
    sampler, pictures = Sampler(load_pipeline("demo"), "demo"), []
    for start in range(0, len(asked), 16):
        rows = [(prompt, 5000 + start + offset) for offset, (_, prompt) in enumerate(asked[start : start + 16])]
        pictures += sampler.sample(rows, SampleSettings())
    torch.set_num_threads(1)
    return [(said, prompt, np.asarray(picture)) for (said, prompt), picture in zip(asked, pictures, strict=True)]


@pytest.mark.thorough
def test_the_model_gets_colour_and_background_right(painted):
    assert np.mean([follows(picture, prompt) for _, prompt, picture in painted]) >= 0.98


@pytest.mark.thorough
def test_the_model_gets_objects_sizes_and_places_right(painted):
    readings = [(said, read_scene(picture)) for said, _, picture in painted]
    objects = [said["object"] == reading.object for said, reading in readings]
    places = [(reading.x < 0.5) == (said["place"] == "left") for said, reading in readings if said["place"]]
    # A size is relative to the object: what "large" means for its coloured part lies halfway between the painted extremes.
    middle = {obj: _extent(obj, (world.SMALL + world.LARGE) / 2) for obj in world.OBJECTS}
    sizes = [(reading.extent > middle[said["object"]]) == (said["size"] == "large") for said, reading in readings if said["size"]]
    shares = {"objects": np.mean(objects), "places": np.mean(places), "sizes": np.mean(sizes)}
    assert min(shares.values()) >= 0.70, shares


def _extent(obj: str, size: float) -> float:
    return read_scene(world.draw(world.Scene(obj, "red", "white", size, 0.5, 0.95, 0.0, 1))).extent


def test_the_shipped_candidates_are_ordinary_images_with_ordinary_metadata(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = archive.namelist()
    assert 200 <= len(names) <= 500 and all("/" not in name and name.endswith(".png") for name in names)
    project = open_project(tmp_path / "project")
    folder = prepare_demo(project)
    assert prepare_demo(project) == folder
    record = read_image(sorted(folder.iterdir())[0])
    assert record.error is None and record.generator and record.seed is not None
    assert (record.width, record.height, record.steps) == (64, 64, 20)
    report = project.library.scan(folder)
    groups = project.library.groups(folder)
    assert {len(group.images) for group in groups} == {SEEDS}
    assert report is not None and sum(len(group.images) for group in groups) == len(names)


@pytest.mark.thorough
def test_candidates_of_one_prompt_differ_in_what_the_prompt_leaves_open(tmp_path):
    """Otherwise there is nothing to prefer: in three of four groups the largest object is at least 1.2 times the smallest."""
    folder = prepare_demo(open_project(tmp_path / "project"))
    extents: dict[str, list[float]] = {}
    for path in sorted(folder.iterdir()):
        extents.setdefault(read_image(path).prompt, []).append(read_scene(np.asarray(Image.open(path))).extent)
    assert np.mean([max(values) > 1.2 * max(min(values), 0.01) for values in extents.values()]) >= 0.75


@pytest.mark.thorough
def test_programmatic_picks_go_through_the_store_and_prefer_what_the_measure_prefers(tmp_path):
    project = open_project(tmp_path / "project")
    prepare_demo(project)
    pairs = pick_by_measure(project, DemoOptions(preference="larger"), project.path / "candidates")
    assert len(pairs) > 60
    measure = MEASURES["larger"][0]
    for pair in pairs[:20]:
        chosen, rejected = (np.asarray(Image.open(path)) for path in (pair.chosen, pair.rejected))
        assert measure(chosen) > measure(rejected)
        assert follows(chosen, pair.prompt) and follows(rejected, pair.prompt)


def test_held_out_prompts_are_disjoint_from_training_prompts():
    training = demo_prompts(80, 100)
    held_out = demo_prompts(48, 200, exclude=frozenset(training))
    assert len(set(held_out)) == 48 and not set(held_out) & set(training)


def test_win_rates_count_ties_half_and_resample_whole_prompts():
    """Two prompts, one all won and one all lost: the rate is 0.5 and, with whole prompts drawn again, anything from 0 to 1."""
    assert win_rate_interval(np.array([[1.0, 1.0], [0.0, 0.0]])) == (0.5, 0.0, 1.0)
    rate, low, high = win_rate_interval(np.array([[1.0, 0.5]] * 10))
    assert (rate, low, high) == (0.75, 0.75, 0.75)


@pytest.mark.slow
def test_the_command_runs_the_whole_loop_and_prints_one_json_object(tmp_path, capsys, monkeypatch):
    fewer = partial(DemoOptions, prompts=10, seeds=4, judged_prompts=4)  # the whole takes minutes, and goes the same way
    monkeypatch.setattr("dpo.demo.loop.DemoOptions", fewer)
    torch.set_num_threads(2)
    assert main(["demo", "--steps", "3", "--pairs", "10", "--project", str(tmp_path / "loop"), "--json"]) == 0
    torch.set_num_threads(1)
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 8 and result["steps"] == 3 and result["pairs"] == 10
    assert 0 <= result["win_rate_low"] <= result["win_rate"] <= result["win_rate_high"] <= 1
    assert set(result["seconds"]) == {"candidates", "picking", "training", "sampling", "judging", "total"}
    assert len(list((tmp_path / "loop" / "judged").iterdir())) == 16


@pytest.mark.thorough
def test_a_run_that_destroys_the_demo_is_stopped_by_the_drift_while_its_accuracy_looks_fine(tmp_path):
    """Four times the preset's learning rate: margin and accuracy rise to the end, and both images would be noise."""
    from dpo.events import RunEnded, StepEnd
    from dpo.training import execute

    torch.set_num_threads(2)
    project = open_project(tmp_path / "project")
    prepare_demo(project)
    config = load_preset("demo", learning_rate=4e-3, beta=50.0, max_steps=240, validate_every=0)
    run = create_run(project.runs, "destroyed", config, pick_by_measure(project, DemoOptions(), project.path / "candidates"))
    events = list(execute(run, project.cache))
    torch.set_num_threads(1)
    end = events[-1]
    assert isinstance(end, RunEnded) and end.reason == "damaged" and end.step < 240
    assert "Lower the learning rate (0.004) or raise beta (50). The adapter of step 40 is kept." in end.message
    last = [event.metrics for event in events if isinstance(event, StepEnd)][-8:]
    assert np.mean([metrics["rewards/accuracies"] for metrics in last]) > 0.6
    assert run.adapter.exists()
