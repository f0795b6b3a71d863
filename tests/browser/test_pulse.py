"""What a page does while nobody does anything: it asks by plain requests; Gradio's events, which can be felt, come with news."""

import re

import pytest

from dpo.config import TrainConfig
from dpo.events import RunEnded, RunStarted
from dpo.pairs import Pair
from dpo.runs import create_run
from tests.browser.picking import come_to_rest, is_event, press, wait_for_screen, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def events(picking):
    """Addresses of the events that the page started, once it has come to rest."""
    found = []
    picking.on("request", lambda request: is_event(request) and found.append(request.url))
    come_to_rest(picking, found)
    return found


def test_a_page_that_is_only_looked_at_asks_but_starts_no_event(picking, events):
    asked = []
    picking.on("request", lambda request: asked.append(request.url))
    picking.wait_for_timeout(4000)
    assert events == []
    assert len(asked) >= 2


def test_what_picks_change_elsewhere_on_the_page_is_shown_once_they_pause(picking, project, events):
    for _ in range(4):
        press(picking, "1", "2")
        picking.wait_for_timeout(700)
    assert events == []
    wait_until(lambda: len(project.picks.live()) == 4)
    picking.wait_for_selector("#to-train:has-text('4 pairs')")


@pytest.mark.thorough
def test_train_rests_too_and_shows_what_another_process_does_to_a_run(picking, project, events):
    picking.get_by_role("tab", name="Train").click()
    picking.wait_for_selector("#start-training")
    come_to_rest(picking, events)
    run = create_run(project.runs, "elsewhere-1", TrainConfig(), [Pair(f"prompt {i}", "a.png", "b.png") for i in range(4)])
    picking.wait_for_selector("#runs:has-text('elsewhere-1')")
    run.append(RunStarted(0, 9, 3, 1))
    run.append(RunEnded(9, "finished", "It ended by itself."))
    picking.wait_for_selector("#run-report:has-text('elsewhere-1 finished')")
    come_to_rest(picking, events)


@pytest.mark.thorough
def test_a_page_whose_app_was_closed_and_started_again_loads_anew_and_goes_on(picking, app):
    began = picking.evaluate("performance.timeOrigin")
    picking.wait_for_timeout(1500)
    app.kill()
    app.start()
    picking.wait_for_function(f"performance.timeOrigin !== {began}")
    wait_for_screen(picking)


@pytest.mark.thorough
def test_a_page_that_another_process_answers_loads_anew_even_if_it_missed_nothing(picking):
    began = picking.evaluate("performance.timeOrigin")
    picking.wait_for_timeout(1500)

    def answer(route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=re.sub('"process": ?"[0-9a-f]+"', '"process":"another"', response.text()))

    picking.route(re.compile("component_server"), answer)
    picking.wait_for_function(f"performance.timeOrigin !== {began}")
