"""The Train tab as a person uses it: settings that stay, runs that wait, pause and go, curves of two runs, samples, imports."""

from __future__ import annotations

import json
import time

import pytest

from dpo.config import TrainConfig
from dpo.events import RunEnded, RunStarted
from dpo.runs import Run, create_run
from tests.browser.training import HOSTILE, PICTURE, headline, open_tab, row, start_training, step_end, steps_shown, typed

pytestmark = pytest.mark.browser

FOUND = {
    "probe/margin_p50": 0.0068, "probe/margin_p90": 0.031, "probe/saturated": 0.25, "probe/suggested_beta": 350.0,
    "probe/base_separates": 0.95,
}  # fmt: skip


def make_run(studio, name: str, pairs, **settings) -> Run:
    """A run of 20 steps that has ended."""
    run = create_run(studio.project.runs, name, TrainConfig(**settings), pairs)
    for event in (RunStarted(0, 20, 6, 2), *map(step_end, range(1, 21)), RunEnded(20, "finished")):
        run.append(event)
    return run


def unfold(page, section: str) -> None:
    page.locator(f"#section-{section} > button").click()


def test_what_is_typed_survives_a_mistake_and_a_reload(page, url, pairs):
    open_tab(page, url, "Train")
    page.locator("#pairs-line", has_text="8 pairs from 4 prompts").wait_for()
    typed(page, "beta").fill("0")
    typed(page, "max_steps").fill("1.5")
    unfold(page, "noise")
    typed(page, "shared_noise").uncheck()
    page.locator("#section-noise", has_text="no shared noise").wait_for()  # a folded group says what differs in it
    start_training(page, "wrong-1")
    said = page.locator("#train-problem li")
    said.nth(1).wait_for()
    assert [line.split(" ")[0] for line in said.all_inner_texts()] == ["max_steps=1.5", "beta=0"], "all that is wrong, by name"

    open_tab(page, url, "Train")
    page.locator("#section-noise", has_text="no shared noise").wait_for()
    assert typed(page, "beta").input_value() == "0" and typed(page, "max_steps").input_value() == "1.5"
    assert page.locator("#run-name textarea, #run-name input").first.input_value() == "wrong-1"
    unfold(page, "noise")
    assert not typed(page, "shared_noise").is_checked()


@pytest.mark.thorough
def test_a_preset_says_what_it_sets_and_why_and_is_there_after_a_reload(page, url, pairs):
    open_tab(page, url, "Train")
    page.locator("#about-preset", has_text="The demo model, on a laptop without a GPU.").wait_for()
    page.locator("#preset input").click()
    page.get_by_role("option", name="sdxl-12gb").click()
    page.locator("#about-preset", has_text="SDXL at 1024 pixels on a card with 12 GB.").wait_for()
    assert not page.locator("#preset-why li").first.is_visible()
    page.get_by_text("What it sets, and why").click()
    page.locator("#preset-why li", has_text="Execution: sequential").wait_for()
    page.locator("#fits", has_text="Needs about").wait_for()
    assert typed(page, "resolution").input_value() == "1024"

    open_tab(page, url, "Train")
    page.locator("#about-preset", has_text="SDXL at 1024 pixels").wait_for()
    assert typed(page, "resolution").input_value() == "1024"


@pytest.mark.thorough
def test_filters_say_at_once_what_they_leave(page, url, pairs):
    open_tab(page, url, "Train")
    page.locator("#pairs-line", has_text="8 pairs from 4 prompts").wait_for()
    unfold(page, "pairs")
    page.locator("#setting-source input").click()
    page.get_by_role("option", name="best_worst").click()  # offered, as there are pairs of it
    page.locator("#pairs-line", has_text="6 of 8 pairs from 3 prompts").wait_for()
    typed(page, "max_pairs").fill("3")
    page.locator("#pairs-line", has_text="3 pairs of 8 left by the filters").wait_for()


@pytest.mark.thorough
def test_a_loss_says_when_to_use_it_also_in_a_mix(page, url):
    open_tab(page, url, "Train")
    unfold(page, "loss")
    page.locator("#about-loss", has_text="Start here").wait_for()
    typed(page, "loss").fill("sigmoid 0.8, ipo 0.2")
    typed(page, "loss").press("Enter")
    page.locator("#about-loss li", has_text="ipo, weight 0.2: ").wait_for()


@pytest.mark.thorough
def test_settings_come_out_of_files_of_ours_and_of_onetrainer(page, url, tmp_path):
    ours, theirs, neither = (tmp_path / name for name in ("ours.json", "theirs.json", "neither.json"))
    ours.write_text(json.dumps({"beta": 321.0, "sampling_steps": 1}))
    theirs.write_text(json.dumps({"training_method": "LORA", "__version": 10, "lora_rank": 24, "rlhf_dpo_beta": 4321.0}))
    neither.write_text("[1]")
    open_tab(page, url, "Train")
    page.locator("#about-model", has_text="demo").wait_for()
    chooser = page.locator("#train .preset-row input[type=file]")
    chooser.set_input_files(neither)
    page.locator("#import-notes [data-tone=bad]", has_text="neither.json").wait_for()
    chooser.set_input_files(theirs)
    page.locator("#import-notes li", has_text="theirs.json: ").wait_for()
    page.wait_for_function("document.querySelector('#setting-lora_rank input')?.value === '24'")
    chooser.set_input_files(ours)
    page.locator("#import-notes", has_text="sampling_steps").wait_for()  # what it does not know is said


def test_a_pause_holds_the_run_also_for_who_comes_later_and_a_stop_can_be_resumed(page, url, pairs, slow_training):
    open_tab(page, url, "Train")
    start_training(page, "held-1")
    page.locator("#run-report h3", has_text="2.5 GB of memory").wait_for()
    page.locator("#run-warnings", has_text="Validation rests on 2 pairs.").wait_for()
    page.locator("#pause-training").click()
    page.locator("#run-report h3", has_text="held-1 is paused").wait_for()
    open_tab(page, url, "Train")
    page.locator("#run-report h3", has_text="held-1 is paused").wait_for()
    before = headline(page)
    time.sleep(1)
    assert headline(page) == before
    page.locator("#continue-training").click()
    steps_shown(page)
    page.locator("#stop-training").click()
    page.locator("#run-report h3", has_text="held-1 was stopped").wait_for()
    page.locator("#resume-training").click()
    steps_shown(page)


@pytest.mark.thorough
def test_runs_wait_in_line_move_up_and_leave_it(page, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    for name in ("first-1", "second-1", "third-1"):
        start_training(page, name)
        row(page, name).wait_for()
    row(page, "second-1").get_by_text("waits, next in line").wait_for()
    row(page, "third-1").get_by_text("waits, second in line").wait_for()
    row(page, "third-1").get_by_role("button", name="Move up").click()
    row(page, "second-1").get_by_text("waits, second in line").wait_for()
    row(page, "third-1").get_by_role("button", name="Remove from the queue").click()
    row(page, "third-1").get_by_text("stopped").wait_for()
    row(page, "second-1").get_by_text("waits, next in line").wait_for()
    assert [job.key for job in studio.jobs.active()] == ["first-1", "second-1"]


@pytest.mark.thorough
def test_a_run_is_cloned_compared_and_deleted_only_when_asked_twice(page, url, studio, pairs):
    kept, other = make_run(studio, "kept-1", pairs, beta=123.0), make_run(studio, "other-1", pairs, execution="sequential")
    (studio.project.runs / "broken-1").mkdir()
    (studio.project.runs / "broken-1" / "config.json").write_text("{")
    open_tab(page, url, "Train")
    row(page, "broken-1").get_by_text("unreadable").wait_for()
    row(page, "kept-1").click()
    page.locator("#run-report h3", has_text="kept-1 finished").wait_for()
    row(page, "other-1").get_by_role("button", name="Compare curves").click()
    page.locator("#runs tr.compared", has_text="other-1").wait_for()
    for name in ("kept-1", "other-1"):  # both named in each plot
        page.wait_for_function(
            f"[...document.querySelectorAll('#plots .vega-embed')].every(p => p.textContent.includes('{name}'))"
        )

    row(page, "other-1").get_by_role("button", name="Clone").click()
    page.locator("#section-memory-and-speed", has_text="sequential").wait_for()
    page.locator("#import-notes", has_text="settings of other-1").wait_for()
    assert page.locator("#run-name textarea, #run-name input").first.input_value() == "other-2"

    row(page, "other-1").get_by_role("button", name="Delete").click()
    row(page, "other-1").get_by_role("button", name="Keep it").click()
    row(page, "broken-1").get_by_role("button", name="Delete").click()
    row(page, "broken-1").get_by_role("button", name="Delete it").click()
    row(page, "broken-1").wait_for(state="detached")
    assert kept.path.exists() and other.path.exists() and not (studio.project.runs / "broken-1").exists()


@pytest.mark.thorough
def test_samples_stand_base_above_policy_and_their_prompts_are_text_only(page, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    unfold(page, "records")
    typed(page, "sample_every").fill("10")
    start_training(page, "painted-1")
    page.locator("#strip .steps button").nth(1).wait_for()
    slow_training.set()
    page.locator("#run-report h3", has_text="painted-1 finished").wait_for()
    page.locator("#strip .steps button", has_text="10").first.click()
    page.locator("#strip .sides", has_text="Base above, step 10 below.").wait_for()
    page.wait_for_function(f"[...document.querySelectorAll('#strip img')].every((image) => image.naturalWidth === {PICTURE})")
    assert page.locator("#strip img").count() == 4 and page.locator("#strip figcaption").first.inner_text() == HOSTILE
    address = page.locator("#strip img.policy").first.evaluate("image => image.src")
    assert page.request.get(address).status == 200
    assert page.request.get(address.replace("000-1", "001-2")).status == 404, "another picture with this one's signature"
    assert page.evaluate("window.hit") is None


def test_a_measured_strength_is_told_and_used(page, url, studio, pairs, monkeypatch):
    measured = []

    def start_probe(project, jobs, config):
        measured.append(config.beta)
        return jobs.submit("probe", "measuring the strength", "probe", lambda job: dict(FOUND))

    monkeypatch.setattr("ui.train_tab.start_probe", start_probe)
    open_tab(page, url, "Train")
    typed(page, "beta").fill("77")
    page.locator("#measure-beta").click()
    page.locator("#probe-report", has_text="0.0068 or more for half the pairs, by 0.031 or more for a tenth; 25%").wait_for()
    page.locator("#probe-report", has_text="tells 95% of the pairs apart by itself").wait_for()
    page.get_by_role("button", name="Use 350").click()
    page.wait_for_function("document.querySelector('#setting-beta input')?.value === '350'")
    assert measured == [77]
