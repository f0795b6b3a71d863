"""Look in a real browser: two images large in four ways, zoom of both, the grid, and rows that arrive. Nothing is sampled here.

One app and one page for all tests, each of which begins at the first row, side by side and not zoomed.
"""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.browser.looking import BLUE, DARK_RED, RED, SIDE, VARIANTS, choose, opened
from tests.browser.training import HOSTILE

pytestmark = pytest.mark.browser

MIDDLE = (0.5, 0.5)


@pytest.fixture(scope="module")
def looking(browser, tmp_path_factory):
    with opened(browser, tmp_path_factory.mktemp("looking") / "project") as made:
        yield made


@pytest.fixture
def page(looking):
    page = looking.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#results [data-mode=side]").click()
    page.keyboard.press("0")
    choose(page, 0, 1)
    return page


def box(page, side: str = "other") -> dict:
    return page.locator(f"#results .{side} .window").bounding_box()


def colour_at(page, place: tuple[float, float], side: str = "other") -> tuple[int, int, int]:
    """What is seen at that place of the window, as shares of its sides."""
    frame = box(page, side)
    clip = {"x": frame["x"] + place[0] * frame["width"], "y": frame["y"] + place[1] * frame["height"], "width": 1, "height": 1}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB").getpixel((0, 0))


def move_to(page, place: tuple[float, float], side: str = "other") -> None:
    frame = box(page, side)
    page.mouse.move(frame["x"] + place[0] * frame["width"], frame["y"] + place[1] * frame["height"])


def test_prompts_reach_the_page_as_text_only(page):
    assert page.locator("#results .prompt").inner_text() == HOSTILE
    assert page.locator("#results .result .of").first.text_content() == HOSTILE
    assert page.evaluate("window.hit") is None


def test_base_stands_beside_the_variant_with_both_names_under_them(page):
    assert (colour_at(page, MIDDLE, "base"), colour_at(page, MIDDLE)) == (RED, BLUE)
    assert page.locator("#results .base figcaption").inner_text() == "base"
    assert page.locator("#results .other figcaption").inner_text() == "cats at 0.5"
    assert page.locator("#results .other .shown-other img").get_attribute("alt") == f"cats at 0.5: {HOSTILE}, seed 1"


def test_several_strengths_stand_in_a_grid_under_their_names(page):
    assert page.locator("#results .names span").all_inner_texts() == ["", "base", "cats at 0.5", "cats at 1"]
    cells = page.locator("#results .result").first.locator(".cell")
    assert cells.count() == len(VARIANTS)
    choose(page, 1, 2)
    assert (colour_at(page, MIDDLE, "base"), colour_at(page, MIDDLE)) == (DARK_RED, BLUE)
    assert page.locator("#results .seed").inner_text() == "seed 2"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.locator("#results .stage[data-shown='0 1']").wait_for()


def test_the_slider_shows_base_on_its_left_and_moves_by_pointer_and_keys(page):
    page.locator("#results [data-mode=slider]").click()
    assert (colour_at(page, (0.25, 0.5)), colour_at(page, (0.75, 0.5))) == (RED, BLUE)
    move_to(page, MIDDLE)
    page.mouse.down()
    move_to(page, (0.9, 0.5))
    page.mouse.up()
    assert colour_at(page, (0.75, 0.2)) == RED
    divider = page.locator("#results .divider")
    assert divider.get_attribute("aria-valuenow") == "90"
    divider.focus()
    for _ in range(5):
        page.keyboard.press("Shift+ArrowLeft")
    assert divider.get_attribute("aria-valuenow") == "40"
    assert (colour_at(page, (0.3, 0.2)), colour_at(page, (0.6, 0.2))) == (RED, BLUE)


def test_holding_f_lays_base_in_place_of_the_adapter_and_moves_nothing(page):
    boxes = "[...document.querySelectorAll('#results *')].map((node) => node.getBoundingClientRect().toJSON())"
    before = page.evaluate(boxes)
    page.keyboard.down("f")
    assert colour_at(page, MIDDLE) == RED
    assert page.locator("#results .other figcaption").inner_text() == "base"
    during = page.evaluate(boxes)
    page.keyboard.up("f")
    assert colour_at(page, MIDDLE) == BLUE
    changed = [index for index, (one, other) in enumerate(zip(before, during, strict=True)) if one != other]
    words = page.evaluate("[...document.querySelectorAll('#results *')].findIndex((n) => n.matches('.other .right'))")
    assert changed in ([], [words]), "only the words under the image may take another width"


def test_pressing_the_image_flips_it_in_flip_mode(page):
    page.locator("#results [data-mode=flip]").click()
    move_to(page, MIDDLE)
    assert colour_at(page, MIDDLE) == BLUE
    page.mouse.down()
    assert colour_at(page, MIDDLE) == RED
    page.mouse.up()
    assert colour_at(page, MIDDLE) == BLUE


def test_the_difference_of_identical_images_is_nothing_and_that_of_others_is_brightened(page):
    choose(page, 0, 2)
    page.locator("#results [data-mode=difference]").click()
    page.locator("#results .other .left", has_text="Identical: no pixel differs.").wait_for()
    largest = """() => {
      const canvas = document.querySelector('#results canvas'), size = canvas.width * canvas.height * 4;
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return size ? Math.max(...data.filter((value, place) => place % 4 < 3)) : -1;
    }"""
    assert page.evaluate(largest) == 0
    choose(page, 1, 2)
    # 150 - 30 and 200 - 30 in two of three channels, but for one pixel that is green in both
    mean = (120 + 170) / 3 * (1 - 1 / SIDE**2)
    page.locator("#results .other .left", has_text=f"Mean difference {mean:.3g} of 255").wait_for()
    assert colour_at(page, MIDDLE) == (255, 0, 255)


def test_zoom_and_pan_are_the_same_on_both_sides(page):
    def seen(side: str) -> list[float]:
        """Where the image lies in its window, in window sides."""
        frame = box(page, side)
        image = page.locator(f"#results .{side} .sheet img").first.bounding_box()
        places = [(image["x"] - frame["x"]), (image["y"] - frame["y"]), image["width"], image["height"]]
        return [round(place / frame["width"], 3) for place in places]

    assert seen("base") == seen("other") == [0, 0, 1, 1]
    move_to(page, (0.75, 0.25), "base")
    page.mouse.wheel(0, -300)
    page.wait_for_function("document.querySelector('#results .stage')?.classList.contains('zoomed')")
    zoomed = seen("base")
    assert zoomed == seen("other") and zoomed[2] > 1.5
    # The point under the pointer stays: (0.75 - left) / zoom is still 0.75.
    assert (0.75 - zoomed[0]) / zoomed[2] == pytest.approx(0.75, abs=0.01)
    page.mouse.down()
    move_to(page, (0.95, 0.25), "base")
    page.mouse.up()
    dragged = seen("other")
    assert dragged == seen("base") and dragged[0] == pytest.approx(min(0, zoomed[0] + 0.2), abs=0.01)
    page.mouse.dblclick(box(page)["x"] + 50, box(page)["y"] + 50)
    assert seen("base") == seen("other") == [0, 0, 1, 1]


def test_nothing_is_wider_than_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for mode in ("side", "slider", "flip", "difference"):
        page.locator(f"#results [data-mode={mode}]").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, mode
    page.locator("#look-more > button").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#look-more > button").click()


def test_what_cannot_be_is_said_under_the_button_and_what_was_typed_stays(page):
    page.locator("#strength input, #strength textarea").first.fill("0.5, often")
    page.locator("#prompts textarea").fill("a cat")
    page.locator("#adapter input").fill("nowhere.safetensors")
    page.keyboard.press("Enter")
    page.locator("#start-compare").click()
    page.locator("#compare-problem", has_text="'often' is not a strength").wait_for()
    page.locator("#strength input, #strength textarea").first.fill("0.5, 1")
    page.locator("#start-compare").click()
    page.locator("#compare-problem", has_text="nowhere.safetensors is not a file").wait_for()
    assert page.locator("#prompts textarea").input_value() == "a cat"


def test_a_list_of_prompts_takes_the_place_of_what_was_there(page):
    page.locator("#prompts textarea").fill("a cat")
    page.get_by_role("button", name="people", exact=True).click()
    page.locator("#prompts-said", has_text="12 prompts taken").wait_for()
    assert len(page.locator("#prompts textarea").input_value().splitlines()) == 12
