"""A shared page as people of each role see it, in a real browser: what is theirs works, what is not is not shown, and nothing
complains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.picking import press, wait_for_screen, wait_until
from tests.strangers import PASSWORD, Site, open_site

pytestmark = pytest.mark.browser
NOT_FOR_RATERS = (
    "#folder", "#scan", "#upload", "#candidates-step", "#scorers-step", "#to-train", "#compare-look .side", "#blind-new",
    "#next-round-step", "#review-step .datasets", "#this-project",
)  # fmt: skip


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with open_site(tmp_path / "roles") as site:
        yield site


@pytest.fixture
def complaints(page) -> list[str]:
    """Whatever the page was refused, or said went wrong."""
    found: list[str] = []
    page.on("response", lambda response: found.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    return found


def come_in(page, site: Site, name: str) -> None:
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.get_by_label("username").fill(name)
    page.get_by_label("password").fill(PASSWORD)
    page.get_by_role("button", name="Login").click()
    page.wait_for_selector("#tabs")


def shown(page, selectors: tuple[str, ...]) -> list[str]:
    return [selector for selector in selectors if page.locator(selector).first.is_visible()]


def pick(page) -> None:
    """Of two images the first key decides; a second would mark one of the next screen."""
    press(page, *("1", "2")[: page.locator("#picker .cell:not([hidden])").count() - 1])


def visit_every_tab(page) -> None:
    for name in ("Compare", "Pairs"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(700)


@pytest.mark.thorough
def test_a_rater_picks_takes_back_and_votes_and_sees_nothing_of_the_rest(page, site, complaints):
    come_in(page, site, "rita")
    complaints.clear()  # the page that asks for the login
    wait_for_screen(page)
    assert "pick, vote" in page.inner_text("#rights")
    assert page.get_by_role("tab").all_inner_texts() == ["Pairs", "Compare"] or not page.locator("#tab-train-button").is_visible()
    pick(page)
    wait_until(lambda: len(site.studio.project.picks.live()) == 1)
    assert site.studio.project.picks.live()[0].rater == "rita"
    press(page, "z")
    wait_until(lambda: not site.studio.project.picks.live())
    pick(page)
    wait_until(lambda: len(site.studio.project.picks.live()) == 1)
    page.locator("#review-step > .label-wrap").click()
    page.wait_for_selector("#review .card")
    assert shown(page, (*NOT_FOR_RATERS, "#review .card button")) == []
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    page.wait_for_selector("#blind .cell:not([hidden]) img")
    press(page, "ArrowLeft")
    wait_until(lambda: [vote.rater for vote in site.studio.project.votes.votes("cats-1", "overall")] == ["rita"])
    assert shown(page, NOT_FOR_RATERS) == []
    visit_every_tab(page)
    assert complaints == [] and page.locator(".toast-body").count() == 0


def test_a_viewer_sees_pairs_and_results_and_can_press_nothing(page, site, complaints):
    come_in(page, site, "vera")
    complaints.clear()
    page.wait_for_selector("#review-step")
    page.wait_for_selector("#rights p:has-text('look here')")
    before = len(site.studio.project.picks.live())
    press(page, "1", "2")
    page.locator("#images-step > .label-wrap").click()
    page.locator("#review-step > .label-wrap").click()
    page.wait_for_timeout(700)
    assert shown(page, (*NOT_FOR_RATERS, "#picker .picker", "#review .card button")) == []
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    page.wait_for_selector("#blind .evidence", state="attached")
    page.wait_for_timeout(700)
    press(page, "ArrowLeft", "z")
    assert page.locator("#blind .cell:not([hidden]) img").count() == 0 and shown(page, NOT_FOR_RATERS) == []
    visit_every_tab(page)
    assert len(site.studio.project.picks.live()) == before
    assert complaints == [] and page.locator(".toast-body").count() == 0


@pytest.mark.thorough
def test_an_owner_has_all_of_it(page, site, complaints):
    come_in(page, site, "olga")
    complaints.clear()
    wait_for_screen(page)
    assert page.locator("#tab-train-button").is_visible() and page.locator("#rights").is_hidden()
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#start-training")
    visit_every_tab(page)
    assert complaints == [] and page.locator(".toast-body").count() == 0
