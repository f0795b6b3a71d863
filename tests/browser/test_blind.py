"""The blind test in a real browser: votes by keys, nothing that tells the sides apart, nothing lost, the card, pairs."""

from __future__ import annotations

import pytest

from tests.blind import make_test
from tests.browser.picking import press, reload, wait_until
from ui.images import file_url

pytestmark = pytest.mark.browser
HOSTILE = "${window.hacked=1}<img src=x onerror=window.hacked=1>"


@pytest.fixture
def blind(studio):
    """A test of twelve pairs whose images are there."""
    return make_test(studio.project, items=12)


def open_test(page, url: str) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    wait_for_pair(page)


def wait_for_pair(page) -> None:
    page.wait_for_selector("#blind .cell:not([hidden]) img")


def shown(page) -> list[str]:
    """The addresses of the two images on screen."""
    return page.eval_on_selector_all(
        "#blind .cell:not([hidden]) img", "images => images.map(image => new URL(image.src).pathname)"
    )


def key_for(page, studio, test, side: str = "adapter") -> str:
    """The arrow that votes for a side: only the app knows."""
    addresses = {file_url(studio, test.image(item, side)) for item in test.items}
    left, _ = shown(page)
    return "ArrowLeft" if left in addresses else "ArrowRight"


def votes(studio, test) -> list:
    return studio.project.votes.votes(test.name, "overall")


def waiting(page) -> int:
    return page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('image-dpo-votes')).length")


def test_votes_by_keys_come_to_a_verdict_a_card_and_pairs(page, url, studio, blind):
    open_test(page, url)
    markup = page.inner_html("#blind").lower()
    assert "base" not in markup and "adapter" not in markup and page.inner_text("#blind .asked") == "Which do you prefer?"
    assert page.is_hidden("#blind-card .card")

    before = shown(page)
    press(page, "ArrowUp")
    assert shown(page) != before  # at once, before any answer
    wait_until(lambda: votes(studio, blind))
    press(page, "z")
    assert shown(page) == before  # the very same screen
    wait_until(lambda: not votes(studio, blind))

    for _ in range(9):
        press(page, key_for(page, studio, blind))
    wait_until(lambda: len(votes(studio, blind)) == 9)
    page.get_by_text("9 of 9 for one of the two; the evidence is 51 to 1; that decides it").wait_for()
    assert {vote.preferred for vote in votes(studio, blind)} == {"adapter"} and waiting(page) == 0
    markup = page.inner_html("#blind").lower()
    assert "base" not in markup and "adapter" not in markup

    reload(page)
    page.get_by_role("tab", name="Compare").click()
    wait_for_pair(page)
    page.get_by_text("9 of 12").wait_for()
    press(page, "z")
    wait_until(lambda: len(votes(studio, blind)) == 8)

    page.get_by_role("button", name="Show the result").click()
    page.get_by_text("8 of 8 for the adapter; the evidence is 28 to 1").wait_for()
    assert page.inner_text("#blind-card h3").startswith("100% for the adapter, 95% interval ")
    assert page.locator("#blind-card figure").count() == 6 and page.locator("#blind-card img.chosen").count() == 6
    page.click("#blind-card .keep")
    with page.expect_download() as download:
        page.get_by_role("link", name="Picture (PNG)").click()
    assert download.value.suggested_filename == "blind-cats-1-overall.png"
    page.click("#blind-card .make-pairs")
    page.get_by_text("8 new pairs from these votes.").wait_for()
    assert len(studio.project.picks.pairs()) == 8


@pytest.mark.thorough
def test_votes_wait_through_a_lost_connection_and_a_reload(page, url, studio, blind):
    open_test(page, url)
    page.route("**/gradio_api/**", lambda route: route.abort())
    press(page, "ArrowLeft", "ArrowRight", "ArrowUp")
    assert waiting(page) == 3
    page.wait_for_timeout(500)
    assert votes(studio, blind) == []
    page.unroute("**/gradio_api/**")
    reload(page)
    page.get_by_role("tab", name="Compare").click()  # what waits is sent when the test is looked at again
    wait_until(lambda: len(votes(studio, blind)) == 3)
    assert [vote.result for vote in votes(studio, blind)] == ["left", "right", "tie"]
    wait_until(lambda: waiting(page) == 0)  # the answer has come too


def test_prompts_are_text_questions_are_asked_apart_and_a_phone_has_room_for_all(page, url, studio):
    test = make_test(studio.project, items=4, words=HOSTILE, questions=("overall", "prompt"))
    page.set_viewport_size({"width": 390, "height": 844})
    open_test(page, url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.inner_text("#blind .of-prompt").startswith(HOSTILE) and page.evaluate("window.hacked") is None
    for button in page.locator("#blind .keys button:visible").all():
        assert button.bounding_box()["height"] >= 28
    page.get_by_role("button", name="Prompt").click()
    page.get_by_text("Which follows the prompt better?").wait_for()
    wait_for_pair(page)
    page.locator("#blind .cell:visible").first.click()
    wait_until(lambda: studio.project.votes.votes(test.name, "prompt"))
    assert votes(studio, test) == []
    page.get_by_role("button", name="Show the result").click()
    page.get_by_text("Prompt by prompt, for the adapter").click()
    assert page.inner_text("#blind-card td").startswith(HOSTILE) and page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
