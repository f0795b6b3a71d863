"""One project in which everything that other people may write is hostile, through all tabs in a real browser."""

from __future__ import annotations

import pytest

from dpo.config import TrainConfig
from dpo.events import Note, RunEnded, RunStarted, SamplesSaved
from dpo.jobs import JobRegistry
from dpo.project import open_project
from dpo.runs import create_run
from tests.blind import Voter, make_test
from tests.browser.picking import press, wait_for_screen
from tests.browser.training import paint_samples, step_end
from tests.operations import best_worst
from tests.pictures import plain, write_prompted
from ui.session import Studio, project_secret

pytestmark = [pytest.mark.browser, pytest.mark.thorough]
TURNED = "\u202ereversed\u2066 and \u200bnever\x1b[31m ended"
HOSTILE = [
    "<img src=x onerror=window.hacked=1>", "${window.hacked=1}", "{{constructor.constructor('window.hacked=1')()}}",
    "</textarea></script><script>window.hacked=1</script>", f"{TURNED} ${{window.hacked=1}}", "x" * 1_000_000,
]  # fmt: skip
SHOWN_AS_CODE = "window.hacked"
# Elements that hold a mark turning the direction of text, and do not keep it to themselves.
LEAKING = """() => [...document.querySelectorAll('body *')].filter((node) => node.checkVisibility()
    && [...node.childNodes].some((child) => child.nodeType === 3 && /[\\u202a-\\u202e\\u2066-\\u2069]/.test(child.data))
    && !['isolate', 'isolate-override', 'plaintext'].includes(getComputedStyle(node).unicodeBidi))
    .map((node) => node.outerHTML)"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def studio(tmp_path) -> Studio:
    folder = tmp_path / "project" / "candidates"
    folder.mkdir(parents=True)
    for number, prompt in enumerate(HOSTILE):
        for image in range(3):
            write_prompted(folder / f"{number}_{image} {TURNED[:9]}.png", prompt, plain(("red", "green", "blue")[image]), image)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    groups = project.library.groups(folder)
    assert len(groups) == len(HOSTILE)
    project.picks.apply([best_worst(group, number, rater="<b>${window.hacked=1}") for number, group in enumerate(groups[1:])])
    run = create_run(project.runs, "cats-1", TrainConfig(max_steps=2), project.picks.pairs())
    for event in (RunStarted(0, 2, 5, 0), Note(0, HOSTILE[4], tone="warning"), *map(step_end, (1, 2)),
                  SamplesSaved(2, str(paint_samples(run, 2))), RunEnded(2, "failed", f"{HOSTILE[0]} {HOSTILE[4]}")):  # fmt: skip
        run.append(event)
    test = make_test(project, items=8, words=HOSTILE[4], run="cats-1", pairs=5, steps=2)
    voter = Voter(project, test, "A")
    for item in range(7):
        voter.vote(item, "adapter")
    return Studio(project, JobRegistry(), project_secret(project.path))


def check(page) -> None:
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(LEAKING) == []
    assert page.evaluate(TOO_WIDE) <= 0


def test_everything_hostile_is_shown_as_text_in_every_tab_and_runs_nothing(page, url, studio):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    wait_for_screen(page)
    page.click("#picker .prompt")
    check(page)
    press(page, "1")
    page.evaluate("document.querySelectorAll('#review-step .label-wrap')[0].click()")
    page.wait_for_selector("#review .card[data-state] img")
    card = page.locator("#review .card .prompt", has_text="xxxx").first
    assert len(card.text_content()) < 6000 and card.text_content().endswith("(1,000,000 characters)")
    page.evaluate("document.querySelectorAll('#images-step .label-wrap')[0].click()")
    page.wait_for_selector("#shelf .row")
    page.locator("#shelf .row").first.click()
    page.wait_for_selector("#shelf .candidate")
    check(page)

    page.get_by_role("tab", name="Train").click()
    page.locator("#run-report h3").wait_for()
    page.locator("#strip figcaption").first.wait_for()
    assert SHOWN_AS_CODE in page.inner_text("#tab-train")
    check(page)

    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    page.wait_for_selector("#blind .cell:not([hidden]) img")
    check(page)
    page.get_by_role("button", name="Show the result").click()
    page.locator("#blind-card figcaption").first.wait_for()
    page.click("#blind-card details summary")
    assert SHOWN_AS_CODE in page.inner_text("#blind-card")
    check(page)

    page.click("#this-project summary")
    page.click("#this-project .copy")
    page.wait_for_function("document.querySelector('#this-project .text').value.includes('Image DPO Studio')")
    assert SHOWN_AS_CODE not in page.input_value("#this-project .text").split("Last run")[0]
    check(page)
    assert errors == []
