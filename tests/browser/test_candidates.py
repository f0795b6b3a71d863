"""Candidates in a real browser: asked for, made while the page goes on, and picked from."""

from __future__ import annotations

import pytest

from dpo.candidates import list_candidates
from dpo.project import open_project
from tests.browser.picking import open_picker, wait_for_screen
from tests.pictures import paint_folder

pytestmark = pytest.mark.browser


@pytest.fixture
def project(tmp_path):
    """Two prompts with two images each."""
    folder = tmp_path / "project" / "candidates"
    paint_folder(folder, prompts=2, per_prompt=2)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    return project


@pytest.mark.thorough
def test_candidates_of_the_prompts_at_hand_are_made_and_picked_from_on_a_phone(page, start_app, project):
    open_picker(page, start_app(project.path))
    page.set_viewport_size({"width": 390, "height": 800})
    if page.locator("#candidates-step").is_hidden():
        page.click("#images-step > button")
    page.click("#candidates-step > button")
    page.fill("#candidate-name input, #candidate-name textarea", "mine")
    page.fill("#candidate-count input", "1")
    page.click("#candidate-prompts-own")
    page.wait_for_selector("#candidates-estimate:has-text('2 prompts × 1 = 2 images')")
    page.click("#generate")
    page.wait_for_selector("#candidates-problem:has-text('nothing to be compared with')")
    assert len(page.input_value("#candidate-prompts textarea").splitlines()) == 2  # what was typed stays
    page.fill("#candidate-count input", "2")
    page.click("#candidates-more > button")
    page.get_by_label("Sampling steps").last.fill("2")
    page.click("#generate")
    page.wait_for_selector("#candidates-progress h3:has-text('4 of 4 images, done')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#pick-candidates")
    page.wait_for_function("document.querySelector('#folder input, #folder textarea')?.value.endsWith('rounds/mine')")
    wait_for_screen(page)
    (found,) = list_candidates(project)
    assert (found.done, found.request.sampling_steps) == (4, 2)
