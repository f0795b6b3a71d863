"""The whole circle by clicks and keys, in a real browser, on the real app and model: generate, pick, train, look, test blind,
make pairs of the votes, begin the next round."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpo.blind import list_tests
from dpo.demo.candidates import demo_prompts
from dpo.metadata import read_image
from dpo.project import open_project
from dpo.runs import find_run
from tests.browser.picking import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICKS, PER_PROMPT = 6, 4
PROMPTS = demo_prompts(PICKS + 6, 7)  # to pick from, to vote on, and of the next round
STEPS = 20
LONG = 240_000  # milliseconds: loading torch and a model on a busy machine


def test_the_whole_circle_from_a_prompt_to_the_next_round(page, start_app, tmp_path):
    project = open_project(tmp_path / "demo")
    app = start_app(project.path)
    page.goto(app.url)

    # Pairs: have candidates made, then best and worst by keys.
    page.locator("#candidates-step > button").click()
    page.locator("#candidate-prompts textarea").fill("\n".join(PROMPTS[:PICKS]))
    page.locator("#candidate-count input").fill(str(PER_PROMPT))
    page.locator("#candidates-estimate", has_text=f"{PICKS} prompts × {PER_PROMPT} = {PICKS * PER_PROMPT} images").wait_for()
    page.locator("#candidate-name textarea, #candidate-name input").first.fill("first")
    page.locator("#generate").click()
    page.locator("#candidates-progress h3", has_text="done.").wait_for(timeout=LONG)
    page.locator("#pick-candidates").click()
    page.locator("#images-step > button", has_text=f"{PICKS * PER_PROMPT} images").wait_for()
    for _ in range(PICKS):
        page.locator("#picker .cell:not([hidden]) img").nth(PER_PROMPT - 1).wait_for()
        page.keyboard.press("1")
        page.keyboard.press("3")
    page.locator("#to-train", has_text=f"{PICKS} pairs").wait_for()
    assert {pair.round for pair in project.picks.pairs()} == {"first"}

    # Train: the pairs are there; a reload in the middle changes nothing.
    page.locator("#to-train").click()
    page.locator("#pairs-line", has_text=f"{PICKS} pairs").wait_for()
    page.locator("#run-name textarea, #run-name input").first.fill("loop-1")
    page.locator("#setting-max_steps input").fill(str(STEPS))
    page.locator("#section-records > button").click()
    page.locator("#setting-sample_every input").fill(str(STEPS // 2))
    page.locator("#measure-beta").click()
    page.locator("#probe-report", has_text="Suggested: ").wait_for(timeout=LONG)
    page.locator("#use-beta").wait_for()  # offered, and left: what follows is the preset's own run
    page.locator("#start-training").click()
    page.locator("#run-report h3", has_text=re.compile(r"loop-1 is training: step [1-9]")).wait_for(timeout=LONG)
    page.reload()
    page.get_by_role("tab", name="Train").click()
    page.locator("#run-report h3", has_text="loop-1").wait_for()
    page.locator("#run-report h3", has_text="loop-1 finished").wait_for(timeout=LONG)
    page.locator("#plots .vega-embed").nth(3).wait_for()
    page.locator("#strip .steps button", has_text=str(STEPS)).wait_for()
    page.wait_for_function("[...document.querySelectorAll('#strip img')].every((image) => image.naturalWidth === 64)")
    run = find_run(project.runs, "loop-1")
    assert run.status().step == STEPS and run.adapter.exists()
    steps = [event.step for event in run.events() if type(event).__name__ == "StepEnd"]
    assert steps == list(range(1, STEPS + 1)), "the reload must neither stop nor repeat a step"

    # Compare opens with that run's adapter, and the two sides differ.
    page.locator("#to-compare").click()
    page.locator("#adapter .token", has_text="loop-1").wait_for()
    (prompt, *judged), next_prompts = PROMPTS[PICKS : PICKS + 4], PROMPTS[PICKS + 4 :]
    page.locator("#prompts textarea").fill(prompt)
    page.locator("#seeds textarea, #seeds input").first.fill("1, 2")
    page.locator("#start-compare").click()
    page.wait_for_function("document.querySelectorAll('#results .result').length === 2", timeout=LONG)
    page.locator("#save-compare").click()
    page.locator("#compare-saved", has_text="Saved 4 images").wait_for()
    (folder,) = project.exports.glob("compare-*")
    for base in folder.glob("*-base.png"):
        (adapter,) = folder.glob(f"{base.name.removesuffix('-0-base.png')}-1-*.png")
        assert read_image(base).prompt == read_image(adapter).prompt == prompt
        difference = np.asarray(Image.open(base)).astype(int) - np.asarray(Image.open(adapter))
        assert np.abs(difference).mean() > 0.1

    # A blind test on prompts that training never saw; nothing says which is which, so the left one is taken every time.
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    page.locator("#blind-prompts textarea").fill("\n".join(judged))
    page.locator("#start-blind").click()
    for number in range(len(judged)):
        page.locator("#blind .count", has_text=f"{number} of {len(judged)}").wait_for(timeout=LONG)
        page.locator("#blind .cell:not([hidden]) img").nth(1).wait_for(timeout=LONG)
        page.keyboard.press("ArrowLeft")
    (test,) = list_tests(project)
    wait_until(lambda: len(project.votes.votes(test.name, "overall")) == len(judged))
    page.get_by_role("button", name="Show the result").click()
    page.locator("#blind-card .make-pairs").click()
    page.get_by_text(f"{len(judged)} new pairs from these votes.").wait_for()
    assert len(project.picks.pairs()) == PICKS + len(judged)

    # The next round: candidates of the adapter and of the base, to be picked from, and the form of a run that starts from it.
    page.locator("#rounds-line li", has_text="1 loop-1").wait_for()
    page.locator("#next-round-step > button").click()
    page.locator("#round-prompts textarea").fill("\n".join(next_prompts))
    page.locator("#round-images input").fill("4")
    page.locator("#next-round").click()
    page.locator("#images-step > button", has_text=f"{4 * len(next_prompts)} images").wait_for(timeout=LONG)
    page.locator("#picker .cell:not([hidden]) img").nth(3).wait_for(timeout=LONG)
    folder = project.rounds / "round-2"
    assert Path(page.locator("#folder textarea, #folder input").first.input_value()) == folder
    painted = [read_image(path) for path in folder.glob("*.png")]
    assert sorted({record.prompt for record in painted}) == sorted(next_prompts) and len(painted) == 4 * len(next_prompts)
    page.get_by_role("tab", name="Train").click()
    page.locator("#section-start > button").click()
    start = page.locator("#setting-starting_adapter input")
    wait_until(lambda: start.input_value() in (run.name, str(run.adapter)))
    page.locator("#import-notes", has_text="The round after loop-1").wait_for()
