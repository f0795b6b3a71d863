"""The stopwatch of the benchmark `pick` stops for what is painted, and for nothing else."""

import time

import pytest
from PIL import Image

from tests.benchmarks._person import WATCH

pytestmark = pytest.mark.browser

PAGE = """
<div id="picker"><div class="picker" data-mode="duel">
  <button class="cell"><span class="frame"></span></button><button class="cell"><span class="frame"></span></button>
</div></div>
<style>img { width: 100px; height: 100px; display: block; }</style>
<script>
  const frames = [...document.querySelectorAll(".frame")];
  const show = (...names) => frames.forEach((frame, index) => {
    const image = new Image();
    image.src = names[index];
    frame.replaceChildren(image);
  });
  show("/a", "/b");
  addEventListener("load", () => document.addEventListener("keydown", onKey));
  function onKey() { NEXT }
</script>
"""
LATE = 0.4  # seconds


@pytest.fixture
def time_a_key(browser, tmp_path):
    """time_a_key(what the page does at a key) -> milliseconds, None if no other screen is painted within two seconds."""
    Image.effect_noise((64, 64), 50).save(tmp_path / "image.png")
    context = browser.new_context()
    context.add_init_script(path=WATCH)
    page = context.new_page()

    def answer(route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if not name:
            return route.fulfill(body=answer.page, content_type="text/html")
        if name == "late":
            time.sleep(LATE)
        return route.abort() if name == "broken" else route.fulfill(path=tmp_path / "image.png")

    def measure(script: str) -> float | None:
        answer.page = PAGE.replace("NEXT", script)
        page.route("**/*", answer)
        page.goto("http://a.test/")
        page.evaluate("() => person.look(5000)")
        assert page.evaluate("() => person.arm(2000)")
        page.keyboard.press("1")
        return page.evaluate("() => person.timed()")

    yield measure
    context.close()


@pytest.mark.parametrize(
    "script",
    [
        'show("/c", "/late")',
        'show("/c", "/d"); frames[1].classList.add("waiting"); setTimeout(() => frames[1].classList.remove("waiting"), 400)',
        'show("/c", "/d"); frames[1].style.visibility = "hidden"; setTimeout(() => (frames[1].style.visibility = ""), 400)',
        'setTimeout(() => show("/c", "/d"), 400)',
    ],
    ids=["an image that is on its way", "a placeholder", "an image nobody sees", "the screen before"],
)
@pytest.mark.thorough
def test_the_stopwatch_runs_on_while_the_page_shows(time_a_key, script):
    assert time_a_key(script) >= 1000 * LATE


@pytest.mark.thorough
def test_the_stopwatch_stops_for_images_that_are_there(time_a_key):
    assert 0 < time_a_key('show("/c", "/d")') < 1000 * LATE


@pytest.mark.thorough
@pytest.mark.parametrize("script", ['show("/c", "/broken")', 'show("/a", "/b")', "frames[0].parentElement.hidden = true"])
def test_the_stopwatch_never_stops_without_another_whole_screen(time_a_key, script):
    assert time_a_key(script) is None
