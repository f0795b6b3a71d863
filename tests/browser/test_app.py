"""What a person sees of a job: the same in every tab, after every reload, and nothing that runs which should only be read."""

from __future__ import annotations

import pytest

from dpo.events import RunStarted
from tests.browser.training import open_tab, start_training, steps_shown, wait_for_steps

pytestmark = pytest.mark.browser


@pytest.mark.thorough
def test_a_reload_and_a_second_page_find_the_running_job(page, browser, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    page.locator("#pairs-line", has_text="8 pairs from 4 prompts").wait_for()
    start_training(page, "first-1")
    before = steps_shown(page)
    page.locator("#job", has_text="training first-1").wait_for()

    open_tab(page, url, "Train")
    wait_for_steps(page, before)  # the job went on while nobody looked
    page.locator("#job", has_text="training first-1").wait_for()
    page.locator("#plots .vega-embed").nth(3).wait_for()

    context = browser.new_context()
    other = context.new_page()
    open_tab(other, url, "Train")
    wait_for_steps(other, before)
    other.get_by_role("tab", name="Compare").click()
    other.locator("#job button").click()
    other.locator("#stop-training").wait_for()
    other.locator("#stop-training").click()
    for each in (other, page):
        each.locator("#run-report h3", has_text="first-1 was stopped at step").wait_for()
        each.locator("#job", has_text="idle").wait_for()
    context.close()


@pytest.mark.thorough
def test_starting_twice_is_refused_in_words_and_keeps_what_was_typed(page, url, studio, pairs, slow_training):
    open_tab(page, url, "Train")
    start_training(page, "same-1")
    steps_shown(page)
    page.locator("#setting-max_steps input").fill("123")
    start_training(page, "same-1")
    page.locator("#train-problem", has_text="A run named 'same-1' exists already").wait_for()
    assert page.locator("#setting-max_steps input").input_value() == "123"
    assert len(studio.jobs.active()) == 1


@pytest.mark.thorough
def test_too_few_pairs_is_said_beside_the_button(page, url, studio):
    page.goto(url)
    page.locator("#next-reason", has_text="4 more pairs").wait_for()  # the page has been filled in before the tab is opened
    page.wait_for_timeout(1000)
    page.get_by_role("tab", name="Train").click()
    page.locator("#no-run", has_text="No run yet").wait_for()
    start_training(page, "none-1")
    page.locator("#train-problem", has_text="at least 4").wait_for()
    assert not list(studio.project.runs.iterdir())


@pytest.mark.thorough
def test_a_setting_out_of_range_names_the_field(page, url, studio, pairs):
    open_tab(page, url, "Train")
    page.locator("#setting-beta input").fill("0")
    start_training(page, "beta-1")
    page.locator("#train-problem", has_text="beta=0 is too small").wait_for()


@pytest.mark.thorough
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
    page.locator("#adapter .token", has_text="done-1").wait_for()
    open_tab(page, url, "Compare")
    page.locator("#adapter .token", has_text="done-1").wait_for()


def test_a_run_whose_app_died_offers_to_resume(page, url, studio, pairs, slow_training):
    from dpo.config import TrainConfig
    from dpo.runs import create_run

    run = create_run(studio.project.runs, "dead-1", TrainConfig(), pairs)
    run.append(RunStarted(0, 100, 6, 2))
    open_tab(page, url, "Train")
    page.locator("#run-report h3", has_text="dead-1 stopped unexpectedly").wait_for()
    page.locator("#resume-training").click()
    steps_shown(page)
