"""Duels and triage in a real browser: what each key says, what "clearly" takes, and what a hand without a keyboard does."""

import pytest

from tests.browser.picking import hold, press, progress, reload, shown_keys, shown_prompt, switch_to, wait_for_screen, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def duelling(picking):
    switch_to(picking, "duel", images=2)
    return picking


@pytest.fixture
def sorting(picking):
    switch_to(picking, "triage", images=1)
    return picking


@pytest.fixture
def touching(browser, app, groups):
    """A page on a phone, with a finger: touching(mode) -> page."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)

    def open_on_a_phone(mode: str):
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(app.url)
        page.wait_for_selector("#picker .cell:not([hidden]) img")
        switch_to(page, mode, images=2 if mode == "duel" else 1)
        return page

    yield open_on_a_phone
    context.close()


def drag(page, across: int, seconds: float = 0.05) -> None:
    """A finger on the first image, moved sideways by so many pixels, and lifted after so long."""
    box = page.locator("#picker .cell:not([hidden])").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for part in (0.3, 0.6, 1.0) if across else ():
        point = {"x": x + across * part, "y": y}
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    page.wait_for_timeout(1000 * seconds)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


# ------------------------------------------------------------------------------------------------ duels


def test_a_duel_records_the_order_shown_and_the_side_that_won(duelling, project):
    sides = shown_keys(duelling)
    press(duelling, "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "b")
    wait_until(lambda: len(project.picks.live()) == 5)
    right, left, tie, skip, both_bad = project.picks.live()
    assert list(right.keys) == sides
    assert (right.chosen, right.rejected) == (right.keys[1], right.keys[0])
    assert (left.chosen, left.rejected) == (left.keys[0], left.keys[1])
    assert (tie.result, tie.chosen, skip.result, skip.chosen) == ("tie", "", "skip", "")
    assert (both_bad.result, both_bad.chosen) == ("both_bad", "")
    assert not any(pick.is_clear for pick in project.picks.live())


@pytest.mark.thorough
def test_the_next_duel_is_there_before_any_answer_and_the_group_s_duels_come_together(duelling, project, groups):
    first = set(shown_keys(duelling))
    press(duelling, "ArrowLeft")
    assert shown_prompt(duelling) == groups[0].prompt
    assert set(shown_keys(duelling)) != first


@pytest.mark.thorough
def test_shift_with_an_arrow_says_clearly_with_the_pick(duelling, project):
    press(duelling, "Shift+ArrowLeft")
    assert duelling.text_content("#picker .said") == "clearly better"
    wait_until(lambda: len(project.picks.live()) == 1)
    (pick,) = project.picks.live()
    assert pick.is_clear and project.picks.revision() == 1


@pytest.mark.thorough
def test_a_held_arrow_picks_at_once_and_says_clearly_when_it_was_long_enough(duelling, project):
    sides = shown_keys(duelling)
    duelling.keyboard.down("ArrowRight")
    assert shown_keys(duelling) != sides  # at once
    wait_until(lambda: project.picks.live() and project.picks.live()[0].is_clear)
    duelling.keyboard.up("ArrowRight")
    assert [pick.result for pick in project.picks.live()] == ["right"]
    press(duelling, "z")
    assert shown_keys(duelling) == sides
    wait_until(lambda: project.picks.live() == [])


@pytest.mark.thorough
def test_an_arrow_let_go_sooner_does_not_say_clearly(duelling, project):
    hold(duelling, "ArrowRight", 0.15)
    duelling.wait_for_timeout(700)
    wait_until(lambda: len(project.picks.live()) == 1)
    assert not project.picks.live()[0].is_clear and project.picks.revision() == 1


@pytest.mark.thorough
def test_another_pick_while_an_arrow_is_held_leaves_the_first_as_it_was(duelling, project):
    duelling.keyboard.down("ArrowRight")
    press(duelling, "z")
    duelling.wait_for_timeout(700)
    duelling.keyboard.up("ArrowRight")
    wait_until(lambda: project.picks.revision() == 2 and project.picks.live() == [])


@pytest.mark.thorough
def test_a_held_f_lays_the_right_image_over_the_left(duelling, project):
    right = shown_keys(duelling)[1]
    duelling.keyboard.down("f")
    assert f"preview-{right}-" in duelling.get_attribute("#picker .cell .over", "src")
    duelling.keyboard.up("f")
    assert duelling.locator("#picker .over").count() == 0
    assert project.picks.revision() == 0


@pytest.mark.thorough
def test_duels_of_a_group_end_with_its_pair_and_the_progress_counts_the_group(duelling, project, groups):
    order = [image.key for image in groups[0].images]
    for _ in range(40):
        if shown_prompt(duelling) != groups[0].prompt:
            break
        left, right = shown_keys(duelling)
        press(duelling, "Shift+ArrowLeft" if order.index(left) < order.index(right) else "Shift+ArrowRight")
        duelling.wait_for_timeout(200)
    assert shown_prompt(duelling) == groups[1].prompt
    wait_until(lambda: progress(duelling) == "1 of 12")
    (pair,) = project.picks.pairs()
    assert (pair.chosen, pair.rejected) == (groups[0].images[0].path, groups[0].images[3].path)


# ------------------------------------------------------------------------------------------------ triage


def test_triage_labels_one_by_one_and_makes_a_pair_of_a_good_and_a_bad_one(sorting, project, groups):
    shown = shown_keys(sorting)
    press(sorting, "ArrowRight", "x", "g", "ArrowLeft")
    assert shown_prompt(sorting) == groups[1].prompt
    wait_until(lambda: len(project.picks.live()) == 4)
    assert [pick.result for pick in project.picks.live()] == ["good", "bad", "good", "bad"]
    assert list(project.picks.live()[0].keys) == shown
    assert len(project.picks.pairs()) == 1
    assert progress(sorting) == "1 of 12"


@pytest.mark.thorough
def test_triage_skips_and_takes_back_one_image(sorting, project):
    first = shown_keys(sorting)
    press(sorting, "ArrowDown")
    wait_until(lambda: [pick.result for pick in project.picks.live()] == ["skip"])
    press(sorting, "z")
    assert shown_keys(sorting) == first
    wait_until(lambda: project.picks.live() == [])


@pytest.mark.thorough
def test_the_buttons_of_a_mode_do_what_its_keys_do(sorting, project):
    sorting.click("#picker .keys [data-do=good]")
    sorting.click("#picker .keys [data-do=bad]")
    switch_to(sorting, "duel", images=2)
    sorting.click("#picker .keys [data-do=tie]")
    sorting.click("#picker .keys [data-do=both_bad]")
    wait_until(lambda: len(project.picks.live()) == 4)
    assert [pick.result for pick in project.picks.live()] == ["good", "bad", "tie", "both_bad"]


# ------------------------------------------------------------------------------------------------ fingers


def test_a_finger_swipes_good_to_the_right_and_bad_to_the_left(touching, project):
    page = touching("triage")
    drag(page, 150)
    drag(page, -150)
    wait_until(lambda: len(project.picks.live()) == 2)
    assert [pick.result for pick in project.picks.live()] == ["good", "bad"]


@pytest.mark.thorough
def test_a_tap_picks_and_a_long_press_picks_clearly(touching, project):
    page = touching("duel")
    drag(page, 0)
    wait_until(lambda: len(project.picks.live()) == 1)
    drag(page, 0, seconds=0.7)
    wait_until(lambda: len(project.picks.live()) == 2)
    page.wait_for_timeout(300)
    assert [(pick.result, pick.is_clear) for pick in project.picks.live()] == [("left", False), ("left", True)]


@pytest.mark.thorough
def test_a_swipe_in_a_duel_chooses_the_side_it_goes_to(touching, project):
    page = touching("duel")
    drag(page, 150)
    wait_until(lambda: [pick.result for pick in project.picks.live()] == ["right"])


@pytest.mark.thorough
def test_a_reload_keeps_the_mode_also_before_the_app_has_heard_of_it(picking):
    picking.route("**/queue/join*", lambda route: route.abort())  # how a page tells of its choice
    picking.click("#picker .modes [data-mode=triage]")
    picking.unroute("**/queue/join*")
    reload(picking)
    wait_for_screen(picking)
    picking.wait_for_selector("#picker .modes [data-mode=triage][aria-pressed=true]")
    assert picking.get_attribute("#picker .picker", "data-mode") == "triage"
