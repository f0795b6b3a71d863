"""What a person sees of a job: the same in every tab, after every reload, and nothing that runs which should only be read."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from dpo.compare import Comparison
from dpo.events import CheckpointSaved, RunEnded, RunStarted, StepEnd
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.picks import PickStore
from dpo.project import open_project
from ui import create_app, launch
from ui.security import check_doors
from ui.session import Studio, project_secret

pytestmark = pytest.mark.browser

HOSTILE = "${window.hit = 1} <img src=x onerror='window.hit = 1'> {{constructor}} a red balloon"
STEPS = 600


@pytest.fixture
def studio(tmp_path) -> Studio:
    project = open_project(tmp_path / "project")
    return Studio(project, JobRegistry(), project_secret(project.path))


@pytest.fixture
def url(studio) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(studio)
    launch(app, studio, check_doors("127.0.0.1", None, False), port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    for job in studio.jobs.active():
        job.stop.set()
        job.finished.wait(10)
    app.close()


@pytest.fixture
def pairs(studio, monkeypatch, tmp_path) -> list[Pair]:
    """Eight pairs of four prompts, as if picked."""
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    picked = [Pair(f"prompt {number // 2}", str(image), str(image)) for number in range(8)]
    monkeypatch.setattr(PickStore, "pairs", lambda self: picked)
    return picked


@pytest.fixture
def slow_training(monkeypatch) -> threading.Event:
    """Training that only counts, 20 steps a second, until stopped or until the event says to finish."""
    finish = threading.Event()

    def execute(run, cache):
        yield RunStarted(0, STEPS, 6, 2)
        for step in range(1, STEPS + 1):
            time.sleep(0.05)
            yield StepEnd(step, 0.05, {"loss": 0.69 - step / 1000, "rewards/accuracies": 0.8, "errors/chosen_drift": 0.001})
            if run.stop_requested() or finish.is_set():
                break
        run.adapter.write_bytes(b"adapter")
        yield CheckpointSaved(step, "checkpoints/last")
        yield RunEnded(step, "finished" if finish.is_set() else "stopped", "What was learned is kept.")

    monkeypatch.setattr("dpo.training.execute", execute)
    return finish


def open_tab(page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_role("tab", name=name).click()


def start_training(page, name: str) -> None:
    page.locator("#run-name textarea, #run-name input").first.fill(name)
    page.locator("#start-training").click()


def headline(page, part: str = "#run-report") -> str:
    return page.locator(f"{part} h3").inner_text()


def steps_shown(page) -> int:
    page.locator("#run-report h3", has_text="is training").wait_for()
    return int(re.search(r"step (\d+) of", headline(page)).group(1))


def test_a_reload_and_a_second_page_find_the_running_job(page, browser, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    page.locator("#pairs-line", has_text="8 pairs from 4 prompts").wait_for()
    start_training(page, "first-1")
    before = steps_shown(page)
    page.locator("#job", has_text="training first-1").wait_for()

    open_tab(page, url, "Train")
    assert steps_shown(page) > before, "the job went on while nobody looked"
    page.locator("#job", has_text="training first-1").wait_for()
    page.locator("#plots .vega-embed").nth(3).wait_for()

    context = browser.new_context()
    other = context.new_page()
    open_tab(other, url, "Train")
    assert steps_shown(other) > before
    other.get_by_role("tab", name="Compare").click()
    other.locator("#job button").click()
    other.locator("#stop-training").wait_for()
    other.locator("#stop-training").click()
    for each in (other, page):
        each.locator("#run-report h3", has_text="first-1 was stopped at step").wait_for()
        each.locator("#job", has_text="idle").wait_for()
    context.close()


def test_starting_twice_is_refused_in_words_and_keeps_what_was_typed(page, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    start_training(page, "same-1")
    steps_shown(page)
    page.locator("#setting-max_steps input").fill("123")
    start_training(page, "same-1")
    page.locator("#train-problem", has_text="A run named 'same-1' exists already").wait_for()
    assert page.locator("#setting-max_steps input").input_value() == "123"
    assert len(studio.jobs.active()) == 1


def test_too_few_pairs_is_said_beside_the_button(page, url, studio):
    page.goto(url)
    page.locator("#next-reason", has_text="4 more pairs").wait_for()  # the page has been filled in before the tab is opened
    page.wait_for_timeout(1000)
    page.get_by_role("tab", name="Train").click()
    page.locator("#no-run", has_text="No run yet").wait_for()
    start_training(page, "none-1")
    page.locator("#train-problem", has_text="at least 4").wait_for()
    assert not list(studio.project.runs.iterdir())


def test_a_setting_out_of_range_names_the_field(page, url, studio, pairs):
    open_tab(page, url, "Train")
    page.locator("#setting-beta input").fill("0")
    start_training(page, "beta-1")
    page.locator("#train-problem", has_text="beta=0 is too small").wait_for()


def test_compare_opens_with_the_finished_runs_adapter(page, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    start_training(page, "done-1")
    steps_shown(page)
    slow_training.set()
    page.locator("#run-report h3", has_text="done-1 finished").wait_for()
    with page.expect_download() as download:
        page.locator("#download-adapter").click()
    assert download.value.suggested_filename == "done-1.safetensors"
    page.locator("#to-compare").click()
    page.wait_for_function("document.querySelector('#adapter input')?.value === 'done-1'")
    open_tab(page, url, "Compare")
    page.wait_for_function("document.querySelector('#adapter input')?.value === 'done-1'")


def test_a_run_whose_app_died_offers_to_resume(page, url, studio, pairs, slow_training):
    from dpo.config import TrainConfig
    from dpo.runs import create_run

    run = create_run(studio.project.runs, "dead-1", TrainConfig(), pairs)
    run.append(RunStarted(0, 100, 6, 2))
    open_tab(page, url, "Train")
    page.locator("#run-report h3", has_text="dead-1 was interrupted").wait_for()
    page.locator("#resume-training").click()
    steps_shown(page)


def test_prompts_reach_the_page_as_text_only(page, url, studio, tmp_path):
    folder = studio.project.path / "compare" / "x"
    folder.mkdir(parents=True)
    for side in ("base", "adapter"):
        Image.new("RGB", (16, 16), (200, 30, 30) if side == "base" else (30, 30, 200)).save(folder / f"{side}.png")
    result = Comparison(HOSTILE, 7, 1.0, folder / "base.png", folder / "adapter.png")
    job = studio.jobs.submit("compare", f"comparing {HOSTILE}", "x", lambda job: [result])
    assert job.finished.wait(5)
    open_tab(page, url, "Compare")
    page.locator("#results .prompt").wait_for()
    assert page.locator("#results .prompt").inner_text() == HOSTILE
    page.wait_for_function("[...document.querySelectorAll('#results img')].every((i) => i.naturalWidth === 16)")
    assert page.evaluate("window.hit") is None
    page.locator("#save-compare").click()
    page.locator("#compare-saved", has_text="Saved 2 images in").wait_for()
    assert len(list(studio.project.exports.glob("compare-x/*.png"))) == 2
