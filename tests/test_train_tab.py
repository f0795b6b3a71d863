"""What the Train tab makes of settings, runs and probes, without a browser."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, fields

import gradio as gr
import pytest

from dpo.config import SECTIONS, ConfigError, TrainConfig
from dpo.events import Note, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.jobs import Job, JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import Run, RunError, create_run
from tests.browser.training import HOSTILE, paint_samples
from ui.places import PlaceError
from ui.session import Session, Studio
from ui.train_fill import from_browser, remembered
from ui.train_form import FROM_PAIRS, check_places, create_form, read_config
from ui.train_probe import probe_lines
from ui.train_samples import strip_of
from ui.train_view import Seen, act_on, draw
from ui.train_words import best_accuracy, group_label, loss_words, queue_place, report_run, run_row, warnings_of


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(open_project(tmp_path / "project"), JobRegistry(), b"s" * 32)


@pytest.fixture
def form(studio):
    with gr.Blocks():
        return create_form(studio)


def make_run(studio: Studio, name: str, *events, **settings) -> Run:
    run = create_run(studio.project.runs, name, TrainConfig(**settings), [Pair(f"p{n}", "c", "r") for n in range(8)])
    for event in events:
        run.append(event)
    return run


# --- The form


def test_every_setting_has_one_input_with_its_own_label_and_help(form):
    assert list(form.settings) == [field.name for field in fields(TrainConfig)]
    for field in fields(TrainConfig):
        component = form.settings[field.name]
        assert component.label == field.metadata["label"]
        assert field.name == "model" or component.info == field.metadata["help"]
        assert (component.__class__ is gr.Checkbox) == (field.type == "bool")
    assert list(form.groups) == list(SECTIONS[1:])


def test_all_fields_that_cannot_be_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        read_config(asdict(TrainConfig()) | {"max_steps": 1.5, "beta": 0, "loss": "sigmoid"})
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["max_steps=1.5", "beta=0"]


def test_a_shared_page_reaches_no_place_outside_the_project(studio):
    studio.is_shared = True
    for name in ("model", "base_adapter", "starting_adapter", "reference_adapter"):
        with pytest.raises(PlaceError):
            check_places(studio, TrainConfig(**{name: "/etc/passwd"}))
    with pytest.raises(PlaceError):
        check_places(studio, TrainConfig(model="owner/model.safetensors", components="/etc"))
    check_places(studio, TrainConfig())


def test_a_folded_group_says_what_is_not_at_its_default():
    values = asdict(TrainConfig(loss="ipo", sft_weight=0.5, shared_noise=False))
    assert group_label("Loss", values) == "Loss: ipo, supervised mix 0.5"
    assert group_label("Noise", values) == "Noise: no shared noise"
    assert group_label("Guards", values) == "Guards"
    assert group_label("Optimizer", values | {"weight_decay": None}) == "Optimizer: no weight decay"


def test_a_loss_that_is_none_says_so_instead_of_when_to_use_it():
    (line,) = loss_words("sigmund")
    assert line["tone"] == "bad" and "'sigmund' is not known" in line["text"]


@pytest.mark.parametrize("stored", [None, [], "x", 7])
def test_a_browser_that_remembers_nothing_changes_nothing(studio, form, stored):
    assert from_browser(studio, form, stored) == {}


def test_what_a_browser_remembers_is_taken_only_where_it_fits(studio, form):
    stored = {
        "beta": 0, "max_steps": "many", "loss": "x" * 5000, "shared_noise": 1, "unknown": 1, "preset": "none", "keep_best": False,
        "name": "mine-1", "rater": "me",
    }  # fmt: skip
    updates = from_browser(studio, form, stored)
    kept = {form.settings["beta"]: 0, form.settings["keep_best"]: False, form.settings["rater"]: "me", form.name: "mine-1"}
    assert updates == kept


def test_a_name_that_was_taken_meanwhile_is_not_brought_back(studio, form):
    make_run(studio, "mine-1")
    assert form.name not in from_browser(studio, form, {"name": "mine-1"})


def test_the_browsers_script_names_every_input_in_order(form):
    components, script = remembered(form)
    names = json.loads(script[script.index("[") : script.index("]") + 1])
    assert names == ["preset", "name", *form.settings] and len(components) == len(names)
    assert set(FROM_PAIRS) < set(names)


# --- Runs


def test_a_run_that_cannot_be_read_is_a_line_that_says_so_and_can_be_deleted(studio):
    run = make_run(studio, "broken-1")
    (run.path / "config.json").write_text("{")
    row = run_row(run, studio.jobs)
    assert (row["state"], row["actions"]) == ("unreadable", ["delete"]) and "cannot be read" in row["problem"]
    reports = [update.props.get("report", {}) for update in draw(studio, Session(), "") if isinstance(update, gr.HTML)]
    assert "broken-1 cannot be read." in [report.get("headline") for report in reports]


def test_an_active_run_is_not_deleted(studio):
    run = make_run(studio, "busy-1")
    job = studio.jobs.submit("train", "training busy-1", "busy-1", lambda job: job.stop.wait(20))
    with pytest.raises(RunError, match="Stop it"):
        act_on(studio.jobs, run, "delete")
    job.stop.set()
    assert job.finished.wait(5)
    act_on(studio.jobs, run, "delete")
    assert not run.path.exists()


def test_waiting_runs_have_places_that_change_when_asked(studio):
    runs = {name: make_run(studio, name) for name in ("a-1", "b-1", "c-1")}
    jobs = [studio.jobs.submit("train", name, name, lambda job: job.stop.wait(20)) for name in runs]
    while jobs[0].state == "queued":
        time.sleep(0.005)
    assert (queue_place("b-1", studio.jobs), queue_place("c-1", studio.jobs)) == (1, 2)
    act_on(studio.jobs, runs["c-1"], "sooner")
    assert queue_place("c-1", studio.jobs) == 1 and "sooner" in run_row(runs["b-1"], studio.jobs)["actions"]
    act_on(studio.jobs, runs["c-1"], "remove")
    assert jobs[2].state == "stopped" and queue_place("b-1", studio.jobs) == 1
    for job in jobs:
        job.stop.set()


def test_the_best_accuracy_is_of_validation_where_there_is_one():
    steps = [StepEnd(step, 0.1, {"rewards/accuracies": 1.0}) for step in (1, 2)]
    assert best_accuracy(steps) == 1.0
    validated = [ValidationEnd(step, {"rewards/accuracies": value}) for step, value in ((1, 0.7), (2, 0.6))]
    assert best_accuracy([*steps, *validated]) == 0.7
    assert best_accuracy([]) is None


def test_a_warning_is_said_once_and_a_note_is_no_warning():
    events = [Note(0, "Loading"), Note(1, "Careful.", tone="warning"), Note(2, "Careful.", tone="warning")]
    assert warnings_of(events) == [{"text": "Careful.", "tone": "warn"}]


@pytest.mark.parametrize(
    "settings, ended, words",
    [
        ({}, False, "than by the base model. Stop, and start again with a lower learning rate. The run stops itself at 0.05."),
        ({"on_damage": "warn"}, False, "than by the base model. Stop, and start again with a lower learning rate."),
        ({"starting_adapter": "a.safetensors"}, True, "than by the reference. Start again with a lower learning rate."),
        ({"ref_model_sync_steps": 4}, True, "than by the reference. Start again with a lower learning rate."),
    ],
    ids=str,
)
def test_a_run_that_harms_images_says_over_what_and_whether_it_will_stop_itself(studio, settings, ended, words):
    end = [RunEnded(1, "finished")] if ended else []
    run = make_run(studio, "cats-1", RunStarted(0, 1, 8, 0), StepEnd(1, 0.1, {"errors/chosen_drift": 0.04}), *end, **settings)
    with run.held() if not ended else contextlib.nullcontext():
        shown = report_run(run, run.events(), run.status(), studio.jobs)
    assert shown.tone == "bad" and shown.detail.endswith(words) and "0.040 worse" in shown.detail


@pytest.mark.parametrize("text", [None, "", "x", "[]", "[1, 2, 3]", '{"run": ""}'])
def test_a_page_that_kept_something_else_is_drawn_anew(studio, text):
    make_run(studio, "a-1", RunStarted(0, 1, 6, 2), RunEnded(1, "finished"))
    drawn = draw(studio, Session(), text)
    assert drawn == draw(studio, Session(), "") or drawn[-1] == draw(studio, Session(), "")[-1]
    assert Seen.of(drawn[-1]).run.startswith("a-1 ")


# --- Samples and probe


def test_the_strip_has_the_steps_whose_pictures_are_there(studio):
    run = make_run(studio, "a-1")
    events = [SamplesSaved(step, str(paint_samples(run, step))) for step in (10, 20)] + [SamplesSaved(30, "gone")]
    strip = strip_of(studio, run, events)
    assert [step["step"] for step in strip["steps"]] == [10, 20]
    assert strip["prompts"] == [HOSTILE, HOSTILE] and len(strip["base"]) == 2
    assert str(studio.project.path) not in str(strip), "addresses name no place on the disk"
    assert strip_of(studio, run, []) == {}


def test_a_probe_says_its_numbers_and_what_it_cannot_tell(studio):
    job = Job("probe", "measuring", "probe", state="done")
    job.result = {
        "probe/margin_p50": 0.0068, "probe/margin_p90": 0.03, "probe/saturated": 0.0, "probe/suggested_beta": 350.0,
        "probe/base_separates": 0.5,
    }  # fmt: skip
    (line,) = probe_lines(job, studio.jobs)
    assert "by 0.0068 or more for half the pairs" in line["text"] and "Suggested: 350." in line["text"]
    job.result = {"probe/base_separates": 0.96}
    nothing, easy = probe_lines(job, studio.jobs)
    assert "says nothing" in nothing["text"] and "96% of the pairs" in easy["text"]
