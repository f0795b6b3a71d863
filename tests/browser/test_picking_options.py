"""The picker's options in a real browser: who picks, with or without shortcuts, by which rules; and what the help says."""

import pytest

from dpo.project import open_project
from dpo.rules import PickRules
from tests.browser.picking import group_order, press, reload, shown_keys, shown_prompt, switch_to, wait_for_screen, wait_until
from tests.pictures import paint_folder

pytestmark = pytest.mark.browser


@pytest.mark.thorough
def test_without_shortcuts_keys_pick_nothing_and_the_keyboard_still_does(picking, project, groups):
    picking.click("#picker .open-options")
    picking.uncheck("#picker [name=shortcuts]")
    press(picking, "Escape")
    assert not picking.is_visible("#picker .options")
    for _ in range(2):  # also after a reload
        press(picking, "1", "2", "s", "c", "z", " ", "?")
        assert (shown_prompt(picking), picking.locator("#picker .cell.best").count()) == (groups[0].prompt, 0)
        assert not picking.is_visible("#picker .zoom") and not picking.is_visible("#picker .help")
        reload(picking)
        wait_for_screen(picking)
    picking.locator("#picker .prompt").focus()
    go_by_tab_to(picking, "Pick image 1")
    press(picking, "Enter", "Tab", " ")
    wait_until(lambda: len(project.picks.live()) == 1)
    assert project.picks.live()[0].chosen == groups[0].images[0].key
    picking.locator("#picker .keys [data-do=zoom]").focus()
    press(picking, "Enter")
    first = picking.get_attribute("#picker .zoom img", "alt")
    press(picking, "ArrowRight")
    assert picking.get_attribute("#picker .zoom img", "alt") != first
    press(picking, "Escape")
    assert not picking.is_visible("#picker .zoom")
    switch_to(picking, "duel", images=2)
    press(picking, "ArrowLeft", "b")
    picking.wait_for_timeout(200)
    assert len(project.picks.live()) == 1


def go_by_tab_to(page, label: str) -> None:
    for _ in range(30):
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == label:
            return
        press(page, "Tab")
    raise AssertionError(f"Tab does not lead to {label!r}")


@pytest.mark.thorough
def test_enter_on_a_button_that_tab_reached_presses_it_even_while_a_group_is_offered(picking, project, groups):
    press(picking, "1", "2")
    picking.locator("#picker .modes [data-mode=triage]").focus()
    press(picking, "Tab", "Shift+Tab", "Enter")
    picking.wait_for_selector("#picker [data-mode=triage][aria-pressed=true]")


def test_the_name_is_asked_once_and_goes_with_every_pick_from_then_on(picking, project):
    press(picking, "1", "2")
    wait_until(lambda: project.picks.revision() == 1)
    picking.fill("#picker .who input", "Ada 12")
    picking.fill("#picker .who input", "Ada")
    picking.wait_for_timeout(300)
    assert project.picks.revision() == 1  # typing picked nothing
    press(picking, "Enter")
    assert not picking.is_visible("#picker .who")
    press(picking, "1", "2")
    wait_until(lambda: [pick.rater for pick in project.picks.live()] == ["", "Ada"])
    reload(picking)
    wait_for_screen(picking)
    assert not picking.is_visible("#picker .who")
    press(picking, "1", "2")
    wait_until(lambda: [pick.rater for pick in project.picks.live()] == ["", "Ada", "Ada"])
    picking.click("#picker .open-options")
    assert picking.input_value("#picker .options [name=rater]") == "Ada"


@pytest.mark.thorough
def test_who_does_not_want_to_say_a_name_is_not_asked_again(picking):
    picking.click("#picker .who .later")
    reload(picking)
    wait_for_screen(picking)
    assert not picking.is_visible("#picker .who")


@pytest.mark.thorough
def test_nobody_undoes_what_somebody_else_picked(picking, project, groups):
    shown = [image.key for image in groups[5].images]
    pick = {"op": "best_worst", "group": groups[5].key, "images": shown, "result": shown[:2]}
    project.picks.apply([{"client": "somebody-else", "number": 0, "rater": "Grace", **pick}])
    press(picking, "1", "2")
    reload(picking)
    wait_for_screen(picking)
    wait_until(lambda: picking.is_enabled("#picker .keys [data-do=undo]"))
    press(picking, "z", "z")
    wait_until(lambda: [pick.rater for pick in project.picks.live()] == ["Grace"])
    assert picking.is_disabled("#picker .keys [data-do=undo]")


@pytest.mark.thorough
def test_options_survive_a_reload_and_what_cannot_be_is_said_there(picking, project):
    picking.click("#picker .open-options")
    picking.select_option("#picker [name=pairing]", "swiss")
    picking.check("#picker [name=agreement]")
    picking.fill("#picker [name=pairs_per_group]", "3")
    press(picking, "Tab")
    wait_until(lambda: project.picks.rules() == PickRules(3, "swiss", True))
    picking.fill("#picker [name=pairs_per_group]", "99")
    press(picking, "Tab")
    picking.wait_for_selector("#picker .options .problem:has-text('pairs_per_group=99 must be a whole number from 1 to 8')")
    reload(picking)
    wait_for_screen(picking)
    picking.click("#picker .open-options")
    wait_until(lambda: picking.input_value("#picker [name=pairs_per_group]") == "3")
    assert picking.input_value("#picker [name=pairing]") == "swiss"
    assert picking.is_checked("#picker [name=agreement]")
    picking.click("#picker .stage", position={"x": 5, "y": 5})
    assert not picking.is_visible("#picker .options")


@pytest.mark.thorough
def test_keys_pick_nothing_while_help_or_options_are_open(picking, project):
    for opener in (".open-options", ".keys [data-do=help]"):
        picking.click(f"#picker {opener}")
        press(picking, "1", "2", "s")
        press(picking, "Escape")
    picking.wait_for_timeout(200)
    assert project.picks.revision() == 0
    assert picking.locator("#picker .cell.best").count() == 0


@pytest.mark.thorough
def test_the_help_does_what_it_lists(picking, project, groups):
    press(picking, "?")
    picking.click("#picker .help [data-do=skip_group]")
    assert not picking.is_visible("#picker .help")
    assert shown_prompt(picking) == groups[1].prompt
    wait_until(lambda: [pick.op for pick in project.picks.live()] == ["skip"])


@pytest.mark.thorough
def test_a_second_opinion_is_asked_for_quietly_and_makes_no_pair(page, start_app, tmp_path):
    """Sixty groups of two images: that none is among the tenth which two people see happens once in five hundred times."""
    paint_folder(tmp_path / "project" / "candidates", prompts=60, per_prompt=2, side=32)
    project = open_project(tmp_path / "project")
    project.library.scan(project.path / "candidates")
    project.picks.set_rules(PickRules(agreement=True))
    for number, group in enumerate(group_order(project)):
        shown = [image.key for image in group.images]
        pick = {"op": "best_worst", "group": group.key, "images": shown, "result": shown, "rater": "Grace"}
        project.picks.apply([{"client": "somebody-else", "number": number, **pick}])
    pairs = project.picks.pairs()
    page.goto(start_app(project.path).url)
    page.wait_for_selector("#picker .empty:has-text('Everything here is picked')")
    page.fill("#picker .who input", "Ada")
    press(page, "Enter")
    page.wait_for_selector("#picker .asking:has-text('A second opinion: which is better?')")
    assert len(shown_keys(page)) == 2
    press(page, "ArrowLeft")
    wait_until(lambda: project.picks.agreement().count == 1)
    assert project.picks.pairs() == pairs
    page.click("#picker .open-options")
    page.wait_for_selector("#picker .options .agreement:has-text('1 judged twice')")
