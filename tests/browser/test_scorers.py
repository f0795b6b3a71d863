"""AI feedback in a real browser: score, propose, keep."""

from __future__ import annotations

import os

import pytest

from tests.browser.picking import wait_until
from tests.clip import save_clip

pytestmark = pytest.mark.browser


def unfold(page, step: str) -> None:
    page.click(f"#{step} > button, #{step} .label-wrap")


def keep_picture(page, name: str) -> None:
    """Where somebody who looks at the page wants it."""
    if os.environ.get("STUDIO_PICTURES"):
        page.screenshot(path=f"{os.environ['STUDIO_PICTURES']}/{name}.png", full_page=True)


def test_a_scorer_proposes_and_a_person_keeps_what_it_proposed(picking, project, tmp_path):
    page, model = picking, save_clip(tmp_path / "tiny")
    unfold(page, "scorers-step")
    part = page.locator("#scorers")
    part.locator(".kind").select_option("pickscore")
    assert part.locator(".propose").is_disabled()  # nothing is scored yet
    part.locator(".model").fill("nobody/nothing")
    part.locator("[type=submit]").click()
    part.locator(".problem", has_text="nobody/nothing cannot be loaded").wait_for()
    part.locator(".model").fill(str(model))
    part.locator(".model").press("Enter")
    part.locator(".facts", has_text="12 of 12 groups scored").wait_for()
    part.locator(".propose").click()
    part.locator(".said", has_text="12 pairs wait in the review").wait_for()
    assert project.picks.pairs() == []
    keep_picture(page, "scorers")

    unfold(page, "review-step")
    page.locator("#review .card[data-state=proposed]").first.wait_for()
    first = page.locator("#review .card[aria-posinset='1']")
    prompt = first.locator(".prompt").text_content()
    assert "to be confirmed · AI proposal: pickscore tiny" in first.locator(".facts").text_content()
    keep_picture(page, "review")
    first.focus()
    page.keyboard.press("k")
    wait_until(lambda: [pair.prompt for pair in project.picks.pairs()] == [prompt])
    page.locator("#review .card[aria-posinset='1'] .facts", has_text="confirmed: pickscore tiny").wait_for(state="attached")
