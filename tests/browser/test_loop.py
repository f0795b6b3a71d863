"""The whole loop as a newcomer does it: by clicks and keys, in a real browser, on the real app, model and images."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from dpo.demo.candidates import prepare_demo
from dpo.metadata import read_image
from dpo.project import open_project
from dpo.runs import find_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICKS = 8
STEPS = 40
LONG = 240_000  # milliseconds: loading torch and a model on a busy machine


def test_from_a_folder_of_images_to_an_adapter_seen_working(page, start_app, tmp_path):
    project = open_project(tmp_path / "demo")
    prepare_demo(project)
    app = start_app(project.path)
    page.goto(app.url)

    # Pairs: scan, then best and worst by keys.
    page.locator("#scan").click()
    page.locator(".step", has_text=re.compile(r"1 Images: .*360 images")).first.wait_for(timeout=60_000)
    page.locator("#shelf").wait_for(state="hidden")  # the step folds at the end of the scan that was asked for
    page.locator("#picker .cell:not([hidden]) img").first.wait_for()
    for _ in range(PICKS):
        page.locator("#picker .cell:not([hidden]) img").nth(3).wait_for()
        page.keyboard.press("1")
        page.keyboard.press("3")
    page.locator("#to-train", has_text=f"{PICKS} pairs").wait_for()
    assert len(project.picks.pairs()) == PICKS

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
    page.locator("#prompts textarea").fill("a red house in a meadow")
    page.locator("#seeds textarea, #seeds input").first.fill("1, 2")
    page.locator("#start-compare").click()
    page.wait_for_function("document.querySelectorAll('#results .result').length === 2", timeout=LONG)
    page.locator("#save-compare").click()
    page.locator("#compare-saved", has_text="Saved 4 images").wait_for()
    (folder,) = project.exports.glob("compare-*")
    for base in folder.glob("*-base.png"):
        (adapter,) = folder.glob(f"{base.name.removesuffix('-0-base.png')}-1-*.png")
        assert read_image(base).prompt == read_image(adapter).prompt == "a red house in a meadow"
        difference = np.asarray(Image.open(base)).astype(int) - np.asarray(Image.open(adapter))
        assert np.abs(difference).mean() > 0.1
