"""Picking in a real browser: what keys do to a grid, and that nothing else picks. Modes, safety and options: beside this."""

import shutil

import pytest

from dpo.project import open_project
from tests.browser.picking import (
    offered,
    paths,
    press,
    progress,
    reload,
    shown_keys,
    shown_prompt,
    switch_to,
    wait_for_screen,
    wait_until,
    write_hostile,
)
from tests.pictures import paint_folder, plain

pytestmark = pytest.mark.browser


def test_number_keys_pick_best_then_worst_and_the_pair_is_in_the_store(picking, project, groups):
    assert shown_prompt(picking) == groups[0].prompt
    press(picking, "3")
    assert project.picks.live() == []
    press(picking, "1")
    assert shown_prompt(picking) == groups[1].prompt  # at once, before any answer
    wait_until(lambda: project.picks.pairs())
    (pair,) = project.picks.pairs()
    assert (pair.chosen, pair.rejected) == (paths(groups[0])[2], paths(groups[0])[0])


@pytest.mark.thorough
def test_clicks_pick_as_keys_do(picking, project, groups):
    cells = picking.locator("#picker .cell:not([hidden])")
    cells.nth(1).click()
    cells.nth(3).click()
    wait_until(lambda: project.picks.pairs())
    assert project.picks.pairs()[0].chosen == paths(groups[0])[1]


@pytest.mark.thorough
def test_the_same_key_again_takes_the_mark_off(picking, project):
    press(picking, "2", "2")
    assert picking.locator("#picker .cell.best").count() == 0
    press(picking, "1", "4")
    wait_until(lambda: project.picks.pairs())
    assert len(project.picks.live()) == 1


@pytest.mark.thorough
def test_groups_come_in_another_order_than_the_folder_s_and_in_the_same_after_a_reload(picking, groups):
    first = [group.images[0].path for group in groups]
    assert first != sorted(first)
    reload(picking)
    wait_for_screen(picking)
    assert shown_prompt(picking) == groups[0].prompt


# ------------------------------------------------------------------------------------------------ undo


def test_undo_brings_the_same_screen_back_and_takes_the_pair_away(picking, project, groups):
    shown = shown_keys(picking)
    press(picking, "1", "2", "1", "2")
    wait_until(lambda: len(project.picks.pairs()) == 2)
    press(picking, "z", "z")
    assert (shown_prompt(picking), shown_keys(picking)) == (groups[0].prompt, shown)
    wait_until(lambda: project.picks.pairs() == [])
    assert progress(picking) == "0 of 12"


def test_a_reload_goes_on_where_it_was_and_can_undo_what_was_before(picking, project, groups):
    press(picking, "1", "2", "1", "2", "s")
    wait_until(lambda: len(project.picks.live()) == 3)
    reload(picking)
    wait_for_screen(picking)
    picking.wait_for_function("document.querySelector('#picker .count')?.textContent === '3 of 12'")
    assert shown_prompt(picking) == groups[3].prompt
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 4)
    press(picking, "z", "z", "z", "z")
    assert shown_prompt(picking) == groups[0].prompt
    wait_until(lambda: project.picks.live() == [])


@pytest.mark.thorough
def test_many_picks_before_a_reload_can_all_be_undone_after_it(picking, project, groups):
    for _ in range(11):
        press(picking, "2", "1")
        picking.wait_for_timeout(50)
    wait_until(lambda: len(project.picks.live()) == 11)
    reload(picking)
    wait_for_screen(picking)
    for _ in range(11):
        press(picking, "z")
        picking.wait_for_timeout(100)
    wait_until(lambda: project.picks.live() == [])
    assert shown_prompt(picking) == groups[0].prompt


@pytest.mark.thorough
def test_undo_goes_back_through_modes_and_a_reload_to_the_very_first_screen(picking, project, groups):
    shown = shown_keys(picking)
    press(picking, "1", "2")
    switch_to(picking, "duel", images=2)
    sides = shown_keys(picking)
    press(picking, "ArrowRight")
    wait_until(lambda: len(project.picks.live()) == 2)
    reload(picking)
    picking.wait_for_selector("#picker [data-mode=duel][aria-pressed=true]")
    wait_for_screen(picking)
    wait_until(lambda: picking.is_enabled("#picker .keys [data-do=undo]"))
    press(picking, "z")
    assert shown_keys(picking) == sides  # left and right as they were
    press(picking, "z")
    assert shown_keys(picking) == shown
    assert picking.get_attribute("#picker .modes [data-mode=best_worst]", "aria-pressed") == "true"
    wait_until(lambda: project.picks.live() == [])


# ------------------------------------------------------------------------------------------------ after a pair


@pytest.mark.thorough
def test_after_a_pair_the_rest_of_the_group_is_offered_while_the_next_one_is_there_already(picking, project, groups):
    press(picking, "1", "2")
    assert shown_prompt(picking) == groups[1].prompt
    assert offered(picking) == "2 images left of the last prompt:"
    press(picking, "c")
    assert shown_prompt(picking) == groups[0].prompt
    assert shown_keys(picking) == [image.key for image in groups[0].images[2:]]
    press(picking, "2")  # of two images, the other one is worst
    assert (shown_prompt(picking), offered(picking)) == (groups[1].prompt, "")
    wait_until(lambda: len(project.picks.pairs()) == 2)
    assert {pair.prompt for pair in project.picks.pairs()} == {groups[0].prompt}
    used = [path for pair in project.picks.pairs() for path in (pair.chosen, pair.rejected)]
    assert sorted(used) == sorted(paths(groups[0]))
    assert progress(picking) == "1 of 12"


@pytest.mark.thorough
def test_moving_on_takes_the_offer_away_and_picks_nothing(picking, project, groups):
    press(picking, "1", "2", "Enter")
    assert (offered(picking), shown_prompt(picking)) == ("", groups[1].prompt)
    press(picking, "c")
    assert shown_prompt(picking) == groups[1].prompt
    press(picking, "1", "2", "c", "Enter")  # also after one has begun to continue
    assert shown_prompt(picking) == groups[2].prompt
    wait_until(lambda: len(project.picks.live()) == 2)


@pytest.mark.thorough
def test_the_pick_is_taken_back_from_the_offer(picking, project, groups):
    press(picking, "1", "2")
    picking.click("#picker .offer [data-do=undo]")
    assert (shown_prompt(picking), offered(picking)) == (groups[0].prompt, "")
    wait_until(lambda: project.picks.revision() == 2)
    assert project.picks.live() == []


@pytest.mark.thorough
def test_with_two_pairs_a_group_its_other_images_come_at_once_and_count_once(picking, project, groups):
    picking.click("#picker .open-options")
    picking.fill("#picker [name=pairs_per_group]", "2")
    press(picking, "Tab", "Escape")
    wait_until(lambda: project.picks.rules().pairs_per_group == 2)
    press(picking, "1", "2")
    assert shown_keys(picking) == [image.key for image in groups[0].images[2:]]
    assert (offered(picking), progress(picking)) == ("", "0 of 12")
    press(picking, "1")
    assert (shown_prompt(picking), progress(picking)) == (groups[1].prompt, "1 of 12")
    wait_until(lambda: len(project.picks.pairs()) == 2)
    press(picking, "z", "z")
    assert shown_keys(picking) == [image.key for image in groups[0].images]
    wait_until(lambda: project.picks.live() == [])
    press(picking, "s")
    assert (shown_prompt(picking), progress(picking)) == (groups[1].prompt, "1 of 12")


# ------------------------------------------------------------------------------------------------ what does not pick


@pytest.mark.thorough
def test_typing_in_a_text_box_picks_nothing(picking, project, groups):
    box = picking.locator("#folder textarea, #folder input").first
    box.wait_for(state="hidden")  # the page folds the step as it learns that the folder was scanned
    picking.locator("#picker").evaluate("() => document.querySelector('.step button, .step .label-wrap').click()")
    box.click()
    box.press_sequentially("12s z")
    box.press("ArrowLeft")
    assert (shown_prompt(picking), project.picks.revision()) == (groups[0].prompt, 0)
    assert picking.locator("#picker .cell.best").count() == 0


def test_keys_pick_nothing_on_another_tab_or_with_modifiers_or_while_held(picking, project, groups):
    press(picking, "Control+1", "Alt+2", "Meta+3")
    picking.click("#tab-train-button, button[role=tab]:has-text('Train')")
    picking.wait_for_function("document.querySelector('#picker')?.offsetParent === null")
    press(picking, "1", "2")
    picking.click("#tab-pairs-button, button[role=tab]:has-text('Pairs')")
    picking.wait_for_function("document.querySelector('#picker')?.offsetParent != null")
    for _ in range(6):  # Playwright sends repeats for a key that is still down
        picking.keyboard.down("1")
    assert picking.locator("#picker .cell.best").count() == 1
    assert (shown_prompt(picking), project.picks.revision()) == (groups[0].prompt, 0)


def test_space_zooms_and_arrows_flip_without_picking(picking, project):
    press(picking, " ")
    assert picking.is_visible("#picker .zoom")
    first = picking.get_attribute("#picker .zoom img", "alt")
    press(picking, "ArrowRight")
    assert picking.get_attribute("#picker .zoom img", "alt") != first
    press(picking, " ")
    assert not picking.is_visible("#picker .zoom")
    assert project.picks.revision() == 0


# ------------------------------------------------------------------------------------------------ what surrounds it


def test_hostile_prompts_are_shown_as_text_and_run_nothing(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    hostile = write_hostile(folder)
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    page.click("#scan")
    wait_for_screen(page)
    seen = set()
    for _ in hostile:
        seen.add(shown_prompt(page))
        page.click("#picker .prompt")
        assert page.text_content("#picker .details .whole") == shown_prompt(page)
        page.click("#picker .prompt")
        press(page, "1")
    assert seen == set(hostile)
    page.locator(".step .label-wrap, .step button").first.click()
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None


def test_images_are_asked_for_by_signed_id_and_never_by_path(picking, project):
    addresses = picking.eval_on_selector_all("#picker img", "images => images.map(image => new URL(image.src).pathname)")
    assert addresses
    for address in addresses:
        assert address.startswith("/studio/image/preview-")
        assert "candidates" not in address and ".png" not in address


def test_the_button_to_train_opens_with_the_fourth_pair_and_says_what_is_missing(picking, project):
    assert picking.is_disabled("#to-train")
    assert "4 more pairs" in picking.text_content("#next-reason")
    for _ in range(4):
        press(picking, "1", "2")
    picking.wait_for_selector("#to-train:has-text('4 pairs')")
    assert picking.is_enabled("#to-train")


@pytest.mark.thorough
def test_a_scan_is_still_there_after_a_reload_and_stops_keeping_what_it_read(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    (original,) = paint_folder(folder, prompts=1, per_prompt=1)
    for number in range(6000):
        shutil.copyfile(original, folder / f"copy_{number}.png")
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    page.click("#scan")
    page.wait_for_selector("#scan-progress h3:has-text('a second')")
    page.reload()
    page.wait_for_selector("#scan-progress h3:has-text('a second')")
    page.click("#stop-scan")
    page.wait_for_selector("#scan-progress h3:has-text('Stopped at')")
    page.wait_for_selector("#scan:visible")
    assert 0 < len(open_project(app.project).library.images(folder)) < 6001


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, place, words",
    [("nowhere", "folder-refused", "does not exist"), ("empty", "folder-problem", "no image files found"),
     ("silent", "folder-problem", "3 images, and none says its prompt")],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_says_so_in_the_page_and_keeps_what_was_typed(page, start_app, tmp_path, name, place, words):
    (tmp_path / "silent").mkdir()
    for number in range(3):
        plain().save(tmp_path / "silent" / f"{number}.png")
    (tmp_path / "empty").mkdir()
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    box = page.locator("#folder textarea, #folder input").first
    box.fill(str(tmp_path / name))
    page.click("#scan")
    page.wait_for_selector(f"#{place}:has-text('{words}')")
    assert box.input_value() == str(tmp_path / name)
