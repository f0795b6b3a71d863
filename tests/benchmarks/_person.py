"""A person at the picker, in a real Chromium: keys pressed at their pace, what they saw, how long it took, what the page noted.

A screen counts as painted when every image of it is loaded, visible, decoded, and the frame that shows it is over; a
placeholder is no image. What the page means to send is read where it lays it down, in `localStorage`, as it does so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.browser.conftest import find_chromium

PICK_SECONDS = 0.5  # two picks a second
PATIENCE_MS = 30_000  # for a screen to appear
VIEWPORT = {"width": 1440, "height": 900}
WATCH = Path(__file__).with_name("_person.js")
NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 20e6 / 8, "uploadThroughput": 20e6 / 8}  # ms, bytes/s


@dataclass
class Sight:
    """What is on the screen. `keys`: of its images, as shown; `born`: when this load of the page began."""

    keys: list[str]
    mode: str
    born: float


@dataclass
class Person:
    """One tab and who picks in it. They like an image the better, the lower its key is."""

    page: object
    made: list[dict] = field(default_factory=list)  # every operation the page laid into its outbox
    decided: int = 0  # screens answered by a key
    milliseconds: dict[str, list[float]] = field(default_factory=dict)  # by mode; outages and first screens left out
    born: float = 0.0  # when the load of the page began whose first screen is answered already
    due: float = 0.0  # when the next pick is to be made

    def look(self) -> Sight:
        """Wait for a screen. The page may load anew meanwhile: Gradio does so when it meets an app that was restarted."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while time.monotonic() < end:
            seen = self._ask(f"() => window.person && person.look({PATIENCE_MS})")
            if seen and seen["shown"]:
                return Sight([address.rsplit("/", 1)[1].split("-")[1] for address in seen["shown"]], seen["mode"], seen["born"])
            time.sleep(0.05)
        raise TimeoutError(f"no screen within {PATIENCE_MS / 1000:.0f} s: {self.page.text_content('#picker')!r}")

    def switch_mode(self, mode: str) -> None:
        self.page.click(f"#picker button[data-mode={mode}]")
        self.page.wait_for_function(f"document.querySelector('#picker .picker').dataset.mode === '{mode}'")

    def pick(self, mode: str, is_outage: bool = False) -> None:
        """Answer the screen that is shown, when it is time to; and time it, unless the app is down."""
        seen = self.look()
        if seen.mode != mode:
            print(f"the page forgot that it was at {mode}", file=sys.stderr)
            self.switch_mode(mode)
            seen = self.look()
        best, worst = seen.keys.index(min(seen.keys)), seen.keys.index(max(seen.keys))
        time.sleep(max(0.0, self.due - time.monotonic()))
        self.due = max(self.due, time.monotonic()) + PICK_SECONDS  # who waited for a screen does not hurry afterwards
        if mode == "duel":
            keys, result = [("ArrowLeft", "ArrowRight")[best]], ("left", "right")[best]
        else:
            keys, result = [str(best + 1), str(worst + 1)], [min(seen.keys), max(seen.keys)]
            self.page.keyboard.press(keys[0])
            time.sleep(PICK_SECONDS / 2)
        if not self._ask(f"() => window.person && person.arm({PATIENCE_MS})"):  # it loads anew just now
            return self.pick(mode, is_outage)
        self.page.keyboard.press(keys[-1])
        taken = None if is_outage else self._ask("() => person.timed()")
        is_same_load = self._ask("() => performance.timeOrigin") == seen.born
        is_noted = self._note(mode, seen.keys, result)
        self.decided += is_noted or is_same_load  # a key that met a page on its way out decided nothing
        if is_same_load and not is_outage:
            assert taken is not None, f"no further {mode} was painted within {PATIENCE_MS / 1000:.0f} s of a key"
            if self.born == seen.born:
                self.milliseconds.setdefault(mode, []).append(taken)
        self.born = seen.born

    def leave(self) -> None:
        """Wait until the page has nothing left to send."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while self._ask("() => window.person && person.waiting()") != 0:
            assert time.monotonic() < end, f"picks still wait after {PATIENCE_MS / 1000:.0f} s"
            time.sleep(0.1)

    def _note(self, mode: str, keys: list[str], result: str | list[str]) -> bool:
        """Take over what the page laid down, and whether it did. It has to be what was seen and pressed."""
        while (made := self._ask("() => window.person && person.made()")) is None:
            time.sleep(0.05)
        self.made += made
        told = [(operation["op"], operation["images"], operation["result"]) for operation in made if operation["op"] == mode]
        assert told in ([], [(mode, keys, result)]), f"pressed {result} on {keys}, and the page noted {told}"
        return bool(told)

    def _ask(self, script: str):
        """The answer of the page, None while it loads anew."""
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(script)
        except Error as error:
            if "navigation" in error.message or "context" in error.message:
                return None
            raise


@contextmanager
def open_browser() -> Iterator:
    """A context of a headless Chromium, with the watch in every page of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield new_context(browser)
        finally:
            browser.close()


def new_context(browser):
    """A browser of somebody's own, as far as a page can tell: its storage is nobody else's."""
    context = browser.new_context(viewport=VIEWPORT)
    context.add_init_script(path=WATCH)
    return context


def sit_down(context, url: str, is_slow: bool) -> Person:
    """Somebody new at a page of their own, perhaps on the slow link."""
    return _open(context.new_page(), url, is_slow)


def duplicate(person: Person, is_slow: bool) -> Person:
    """A second window with the storage of the first: what both share, and a copy of what each has for itself."""
    with person.page.expect_popup() as opened:
        person.page.evaluate("() => { open('about:blank', '_blank', 'popup'); }")
    opened.value.set_viewport_size(VIEWPORT)
    return _open(opened.value, person.page.url, is_slow)


def _open(page, url: str, is_slow: bool) -> Person:
    page.set_default_timeout(PATIENCE_MS)
    if is_slow:
        page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", NETWORK)
    page.goto(url)
    person = Person(page)
    person.look()
    return person


def round_trip_ms(page) -> float:
    """Of the smallest request there is: what the link adds can be seen in it."""
    ask = "async () => { const from = performance.now(); await fetch('/studio/image/none'); return performance.now() - from; }"
    return min(page.evaluate(ask) for _ in range(3))
