"""The line of rounds is read from what runs say of themselves."""

import os
from dataclasses import replace

import pytest

from dpo.adapters import attach_adapter
from dpo.agreement import group_scores
from dpo.candidates import read_set
from dpo.config import TrainConfig
from dpo.families import load_family
from dpo.groups import View
from dpo.jobs import JobRegistry
from dpo.metadata import read_image
from dpo.models import load_pipeline
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.rounds import RoundRequest, begin_round, line_of, next_config, next_name, prompts_of
from dpo.runs import Run, RunError, create_run, list_runs
from tests.batches import move


def make_run(runs, name: str, start: Run | None = None, candidates: str = "", age: int = 0, **settings) -> Run:
    """A run with an adapter file, made `age` seconds before the others."""
    pairs = [Pair(f"prompt {number}", "a.png", "b.png", round=candidates) for number in range(4)]
    config = TrainConfig(starting_adapter=str(start.adapter) if start else "", **settings)
    run = create_run(runs, name, config, pairs)
    run.adapter.write_bytes(b"weights")
    made = run.made / 1e9 - age
    os.utime(run.path / "config.json", (made, made))
    return run


def line(runs, run) -> list[tuple[int, str]]:
    return [(each.number, each.run.name) for each in line_of(list_runs(runs), run)]


def test_a_run_from_the_base_model_is_round_one(tmp_path):
    run = make_run(tmp_path, "cats-1")
    (only,) = line_of(list_runs(tmp_path), run)
    assert (only.number, only.run, only.pairs, only.candidates) == (1, run, 4, "")


def test_rounds_follow_the_adapters_they_started_from_whichever_of_them_is_asked_about(tmp_path):
    first = make_run(tmp_path, "cats-1", age=30)
    make_run(tmp_path, "dogs-1", age=25)
    second = make_run(tmp_path, "cats-2", first, "round-2", age=20)
    third = make_run(tmp_path, "cats-3", second, "round-3", age=10)
    expected = [(1, "cats-1"), (2, "cats-2"), (3, "cats-3")]
    assert line(tmp_path, first) == line(tmp_path, second) == line(tmp_path, third) == expected
    assert [each.candidates for each in line_of(list_runs(tmp_path), third)] == ["", "round-2", "round-3"]


def test_of_two_runs_from_one_adapter_the_newer_is_followed_and_the_older_still_has_its_own_line(tmp_path):
    first = make_run(tmp_path, "cats-1", age=30)
    older = make_run(tmp_path, "cats-2", first, age=20)
    make_run(tmp_path, "cats-3", first, age=10)
    assert line(tmp_path, first) == [(1, "cats-1"), (2, "cats-3")]
    assert line(tmp_path, older) == [(1, "cats-1"), (2, "cats-2")]


def test_a_run_whose_settings_cannot_be_read_breaks_no_line(tmp_path):
    first = make_run(tmp_path, "cats-1", age=30)
    second = make_run(tmp_path, "cats-2", first, age=20)
    broken = make_run(tmp_path, "cats-3", second, age=10)
    (broken.path / "config.json").write_text("{")
    assert line(tmp_path, first) == [(1, "cats-1"), (2, "cats-2")]


def test_two_runs_that_name_each_other_make_no_endless_line(tmp_path):
    first = make_run(tmp_path, "cats-1", age=20)
    second = make_run(tmp_path, "cats-2", first, age=10)
    settings = first.path / "config.json"
    settings.write_text(settings.read_text().replace('"starting_adapter": ""', f'"starting_adapter": "{second.adapter}"'))
    assert first.config.starting_adapter
    assert len(line(tmp_path, first)) == 2


def test_the_next_round_is_named_by_its_number_and_takes_no_name_that_is_taken(tmp_path):
    first = make_run(tmp_path, "cats-1", age=20)
    second = make_run(tmp_path, "cats-2", first, age=10)
    runs = list_runs(tmp_path)
    assert next_name(runs, first, []) == "round-2"
    assert next_name(runs, second, ["round-2"]) == "round-3"
    assert next_name(runs, first, ["round-2", "round-2-2"]) == "round-2-3"


def test_the_next_round_starts_from_the_adapter_and_is_compared_with_it(tmp_path):
    run = make_run(tmp_path, "cats-1", max_steps=77, beta=50.0, lora_modules="attention+mlp", source="duel")
    config = next_config(run, "round-2")
    assert config == replace(
        run.config, starting_adapter=str(run.adapter), round="round-2", lora_modules=TrainConfig().lora_modules, source=""
    )
    assert config.reference_mode == "adapter"


def test_there_is_no_next_round_without_an_adapter(tmp_path):
    run = make_run(tmp_path, "cats-1")
    run.adapter.unlink()
    with pytest.raises(RunError, match=r"^cats-1 has no adapter to go on from. Let it finish first"):
        next_config(run, "round-2")


def test_a_round_starts_from_nothing_that_is_odd(tmp_path):
    project, jobs = open_project(tmp_path / "project"), JobRegistry()
    run = make_run(project.runs, "cats-1")
    with pytest.raises(RunError, match=r"^per_prompt=3 cannot be halved between adapter and base. Set it to 2, 4, 6 or more.$"):
        begin_round(project, jobs, run, RoundRequest(per_prompt=3))
    assert not jobs.active() and not project.rounds.exists()


def test_its_prompts_are_those_that_the_run_learned_from_and_none_that_it_kept_out(tmp_path):
    run = make_run(tmp_path, "cats-1")
    run.hold_out(["prompt 2"])
    assert prompts_of(run) == ["prompt 0", "prompt 1", "prompt 3"]


@pytest.mark.slow
def test_a_round_is_painted_by_the_adapter_and_the_base_scored_by_the_adapter_and_ready_to_be_picked_from(tmp_path):
    project, jobs = open_project(tmp_path / "project"), JobRegistry()
    run = make_run(project.runs, "demo-1", resolution=64)
    family = load_family(load_pipeline("demo"))
    adapter = attach_adapter(family, run.config, starting=None, reference=None, moving=False)
    move(family)
    adapter.save(run.adapter)
    prompts = ("a red cat in the snow", "a blue ball on a beach")
    folder = begin_round(project, jobs, run, RoundRequest(prompts, per_prompt=4))
    for job in list(jobs.active()):
        assert job.finished.wait(120) and job.state == "done", job.message
    assert (read_set(folder).done, read_set(folder).total) == (8, 8)
    said = [read_image(path) for path in sorted(folder.glob("*.png"))]
    assert sorted({record.prompt for record in said}) == sorted(prompts)
    assert len({record.seed for record in said}) == 8
    scores = group_scores(project, View(str(folder)), f"adapter {run.path}")
    assert [len(images) for images in scores.values()] == [4, 4]
    assert len(project.library.catalogue(View(str(folder), unsure=True)).lines) == 1
