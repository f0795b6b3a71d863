"""No pick is lost, doubled or made of an image twice, whatever happens to page, app, connection, and however many look."""

import re
import time

import pytest

from tests.browser.picking import (
    open_picker,
    press,
    reload,
    shown_keys,
    shown_prompt,
    switch_to,
    wait_for_screen,
    wait_until,
    waiting_picks,
)

pytestmark = pytest.mark.browser


def test_picks_made_while_the_app_is_dead_arrive_once_when_it_is_back(picking, project, app):
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 1)
    wait_until(lambda: waiting_picks(picking) == 0)
    app.kill()
    for _ in range(3):
        press(picking, "1", "2")
    picking.wait_for_function("document.querySelector('#picker .notice')?.textContent.includes('3 picks are waiting')")
    assert picking.text_content("#picker .saved") != "all saved"
    app.start()
    wait_until(lambda: len(project.picks.live()) == 4, seconds=30)
    time.sleep(1)
    assert len(project.picks.live()) == 4
    assert project.picks.revision() == 4
    picking.wait_for_function("document.querySelector('#picker .notice')?.textContent === ''")
    picking.wait_for_selector("#picker .saved:has-text('all saved')")


def test_picks_made_without_a_connection_wait_in_order_and_the_page_says_how_many(picking, project, groups):
    picking.wait_for_timeout(1000)  # the next images are loaded
    picking.context.set_offline(True)
    picking.wait_for_selector("#picker .notice:has-text('The connection is gone')")
    press(picking, "1", "2", "2", "1", "s")
    assert shown_prompt(picking) == groups[3].prompt
    picking.wait_for_selector("#picker .notice:has-text('3 picks are waiting')")
    assert project.picks.revision() == 0
    picking.context.set_offline(False)
    wait_until(lambda: project.picks.revision() == 3)
    assert [(pick.op, pick.group) for pick in project.picks.live()] == [
        ("best_worst", groups[0].key), ("best_worst", groups[1].key), ("skip", groups[2].key),
    ]  # fmt: skip
    picking.wait_for_selector("#picker .notice", state="hidden")


@pytest.mark.thorough
@pytest.mark.parametrize("width", [1440, 1000, 390])
def test_without_a_connection_nothing_moves_and_what_can_be_clicked_still_can(picking, project, width):
    picking.set_viewport_size({"width": width, "height": 844})
    switch_to(picking, "triage", 1)
    picking.wait_for_timeout(1000)  # the next images are loaded
    before = picking.locator("#picker .stage").bounding_box()
    picking.context.set_offline(True)
    picking.wait_for_selector("#picker .notice:has-text('The connection is gone')")
    for answer in ("good", "bad", "skip"):
        picking.click(f"#picker .keys [data-do={answer}]", timeout=5000)
    picking.wait_for_selector("#picker .notice:has-text('3 picks are waiting')")
    assert picking.locator("#picker .stage").bounding_box() == before
    picking.context.set_offline(False)
    wait_until(lambda: [pick.result for pick in project.picks.live()] == ["good", "bad", "skip"])


def test_a_pick_is_called_saved_only_after_the_store_has_it(picking, project):
    picking.wait_for_selector("#picker .saved:has-text('all saved')")
    unanswered, is_held = [], True
    picking.route(re.compile("component_server"), lambda route: unanswered.append(route) if is_held else route.continue_())
    press(picking, "1", "2")
    assert picking.text_content("#picker .saved") == ""
    picking.wait_for_selector("#picker .saved:has-text('1 waiting')")
    assert waiting_picks(picking) == 1
    is_held = False
    for route in unanswered:
        route.continue_()
    picking.wait_for_selector("#picker .saved:has-text('all saved')")
    assert len(project.picks.live()) == 1


def test_picks_waiting_in_a_page_that_was_reloaded_arrive_once(picking, project, app, groups):
    app.kill()
    press(picking, "1", "2", "1", "2")
    app.start()
    reload(picking)
    wait_until(lambda: len(project.picks.live()) == 2, seconds=30)
    wait_for_screen(picking)
    wait_until(lambda: shown_prompt(picking) == groups[2].prompt)
    assert project.picks.revision() == 2
    wait_until(lambda: waiting_picks(picking) == 0)


@pytest.mark.thorough
def test_picks_waiting_for_another_project_are_not_sent_to_this_one(picking, project):
    foreign = "image-dpo-outbox ffffffffffffffff client-x 0"
    picking.evaluate("name => localStorage.setItem(name, JSON.stringify({client: 'client-x', number: 0}))", foreign)
    reload(picking)
    wait_for_screen(picking)
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 1)
    assert picking.evaluate("name => localStorage.getItem(name) !== null", foreign)


# ------------------------------------------------------------------------------------------------ two pages at once


def test_two_people_get_different_groups_and_use_no_image_twice(picking, browser, project, app):
    other = browser.new_context().new_page()
    open_picker(other, app)
    assert shown_prompt(other) != shown_prompt(picking)
    pick_in_turns(project, picking, other)
    other.context.close()


@pytest.mark.thorough
def test_two_tabs_of_one_person_get_different_groups_and_use_no_image_twice(picking, project, app):
    other = picking.context.new_page()
    open_picker(other, app)
    assert shown_prompt(other) != shown_prompt(picking)
    pick_in_turns(project, picking, other)


def pick_in_turns(project, *pages) -> None:
    """Pick until nothing is left, one after the other."""
    for _ in range(12):
        for page in pages:
            page.bring_to_front()
            page.wait_for_timeout(300)  # it asks what became of its groups while another tab covered it
            if page.locator("#picker .cell:not([hidden])").count():
                press(page, "1", "2")
                wait_until(lambda page=page: waiting_picks(page) == 0)
    picks = project.picks.live()
    assert len(picks) == len({pick.group for pick in picks}) == 12
    used = [path for pair in project.picks.pairs() for path in (pair.chosen, pair.rejected)]
    assert len(used) == len(set(used)) == 24


@pytest.mark.thorough
def test_a_reload_gets_its_own_groups_back_at_once(picking, project, groups):
    reload(picking)
    wait_for_screen(picking)
    assert shown_prompt(picking) == groups[0].prompt


@pytest.mark.thorough
def test_a_tab_that_was_away_drops_what_others_have_done_meanwhile(picking, project, groups):
    picking.evaluate("""() => {
        window.isAway = false;
        Object.defineProperty(document, "visibilityState", { get: () => (window.isAway ? "hidden" : "visible") });
        window.look = (isAway) => { window.isAway = isAway; document.dispatchEvent(new Event("visibilitychange")); };
    }""")
    picking.evaluate("look(true)")
    shown = shown_keys(picking)
    pick = {"op": "best_worst", "group": groups[0].key, "images": shown, "result": shown[:2]}
    project.picks.apply([{"client": "somebody-else", "number": 0, **pick}])
    assert shown_prompt(picking) == groups[0].prompt
    picking.evaluate("look(false)")
    wait_until(lambda: shown_prompt(picking) == groups[1].prompt)


@pytest.mark.thorough
def test_what_is_on_screen_stays_while_it_is_looked_at(picking, project, groups):
    shown = shown_keys(picking)
    pick = {"op": "best_worst", "group": groups[0].key, "images": shown, "result": shown[:2]}
    project.picks.apply([{"client": "somebody-else", "number": 0, **pick}])
    press(picking, "3")
    picking.wait_for_timeout(11_000)  # longer than between two questions
    assert shown_keys(picking) == shown
    assert picking.locator("#picker .cell.best").count() == 1
