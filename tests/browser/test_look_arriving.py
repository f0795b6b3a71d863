"""Rows of a look that arrive while somebody looks at others. An app for each try, for it cannot be gone back to."""

from __future__ import annotations

import pytest

from tests.browser.looking import choose, opened
from tests.browser.picking import come_to_rest

pytestmark = pytest.mark.browser


def test_rows_arrive_and_those_that_stand_there_stay_as_they_are(browser, tmp_path):
    with opened(browser, tmp_path / "project") as looking:
        page = looking.page
        page.locator("#compare-report h3", has_text="6 of 9 images").wait_for()
        first = page.locator("#results .result img").first
        first.evaluate("image => (image.dataset.mark = 'mine')")
        choose(page, 1, 2)
        looking.go_on.set()
        page.locator("#compare-report h3", has_text="9 images.").wait_for()
        assert page.locator("#results .result").count() == 3
        assert first.get_attribute("data-mark") == "mine"
        assert page.locator("#results .stage").get_attribute("data-shown") == "1 2", "what a person looks at stays"
        assert page.locator("#stop-compare").is_hidden() and page.locator("#save-compare").is_visible()
        page.locator("#job", has_text="idle").wait_for()  # the page has heard of the end, too
        asked = []
        page.on("request", lambda request: "look_state" in (request.post_data or "") and asked.append(request.url))
        come_to_rest(page, asked)
        page.reload()
        page.get_by_role("tab", name="Compare").click()
        page.locator("#results .result").nth(2).wait_for()
