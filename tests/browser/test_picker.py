"""Picking in a real browser: what keys do, and that no pick is lost or doubled whatever happens to page and app."""

import random
import shutil
import time
import zipfile

import pytest
from PIL import Image

from dpo.demo.world import draw, random_scene
from dpo.groups import View
from dpo.project import open_project
from tests.pictures import paint_folder, plain, write_prompted

pytestmark = pytest.mark.browser


@pytest.fixture
def project(tmp_path):
    """A scanned project of 12 prompts with 4 images each."""
    paint_folder(tmp_path / "project" / "candidates", prompts=12, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(project.path / "candidates")
    return project


@pytest.fixture
def groups(project):
    return project.library.groups(project.path / "candidates")


@pytest.fixture
def app(start_app, project):
    return start_app(project.path)


@pytest.fixture
def picking(page, app):
    """The page with the first screen on it."""
    open_picker(page, app)
    return page


def open_picker(page, app) -> None:
    page.goto(app.url)
    page.wait_for_selector("#picker .cell:not([hidden]) img")


def wait_until(claim, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def reload(page) -> None:
    """Gradio reloads a page by itself once it meets an app that was started anew; if it is first, ours is aborted."""
    from playwright.sync_api import Error

    try:
        page.reload()
    except Error as error:
        assert "ERR_ABORTED" in error.message
        page.wait_for_load_state()


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def shown_prompt(page) -> str:
    return page.text_content("#picker .prompt span")


def progress(page) -> str:
    return page.text_content("#picker .count")


def waiting_picks(page) -> int:
    return page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('image-dpo-outbox')).length")


def paths(group) -> list[str]:
    return [image.path for image in group.images]


def test_number_keys_pick_best_then_worst_and_the_pair_is_in_the_store(picking, project, groups):
    assert shown_prompt(picking) == groups[0].prompt
    press(picking, "3")
    assert project.picks.live() == []
    press(picking, "1")
    assert shown_prompt(picking) == groups[1].prompt  # at once, before any answer
    wait_until(lambda: project.picks.pairs())
    (pair,) = project.picks.pairs()
    assert (pair.chosen, pair.rejected) == (paths(groups[0])[2], paths(groups[0])[0])


def test_clicks_pick_as_keys_do(picking, project, groups):
    cells = picking.locator("#picker .cell:not([hidden])")
    cells.nth(1).click()
    cells.nth(3).click()
    wait_until(lambda: project.picks.pairs())
    assert project.picks.pairs()[0].chosen == paths(groups[0])[1]


def test_the_same_key_again_takes_the_mark_off(picking, project):
    press(picking, "2", "2")
    assert picking.locator("#picker .cell.best").count() == 0
    press(picking, "1", "4")
    wait_until(lambda: project.picks.pairs())
    assert len(project.picks.live()) == 1


def test_a_duel_records_the_order_shown_and_the_side_that_won(picking, project):
    picking.click("#picker [data-mode=duel]")
    picking.wait_for_function("document.querySelectorAll('#picker .cell:not([hidden])').length === 2")
    press(picking, "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown")
    wait_until(lambda: len(project.picks.live()) == 4)
    right, left, tie, skip = project.picks.live()
    assert (right.chosen, right.rejected) == (right.keys[1], right.keys[0])
    assert (left.chosen, left.rejected) == (left.keys[0], left.keys[1])
    assert (tie.result, tie.chosen, skip.result, skip.chosen) == ("tie", "", "skip", "")
    assert len(project.picks.pairs()) == 2


def test_undo_brings_the_same_screen_back_and_takes_the_pair_away(picking, project, groups):
    shown = picking.eval_on_selector_all("#picker .cell:not([hidden]) img", "images => images.map(image => image.src)")
    press(picking, "1", "2", "1", "2")
    wait_until(lambda: len(project.picks.pairs()) == 2)
    press(picking, "z", "z")
    assert shown_prompt(picking) == groups[0].prompt
    assert picking.eval_on_selector_all("#picker .cell:not([hidden]) img", "images => images.map(image => image.src)") == shown
    wait_until(lambda: project.picks.pairs() == [])
    assert progress(picking) == "0 of 12"


def test_a_reload_goes_on_where_it_was_and_can_undo_what_was_before(picking, project, groups, app):
    press(picking, "1", "2", "1", "2", "s")
    wait_until(lambda: len(project.picks.live()) == 3)
    reload(picking)
    picking.wait_for_selector("#picker .cell:not([hidden]) img")
    assert (shown_prompt(picking), progress(picking)) == (groups[3].prompt, "3 of 12")
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 4)
    press(picking, "z", "z", "z", "z")
    assert shown_prompt(picking) == groups[0].prompt
    wait_until(lambda: project.picks.live() == [])


def test_many_picks_before_a_reload_can_all_be_undone_after_it(picking, project, groups):
    for _ in range(11):
        press(picking, "2", "1")
        time.sleep(0.05)
    wait_until(lambda: len(project.picks.live()) == 11)
    reload(picking)
    picking.wait_for_selector("#picker .cell:not([hidden]) img")
    for _ in range(11):
        press(picking, "z")
        time.sleep(0.1)
    wait_until(lambda: project.picks.live() == [])
    assert shown_prompt(picking) == groups[0].prompt


def test_picks_made_while_the_app_is_dead_arrive_once_when_it_is_back(picking, project, app):
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 1)
    wait_until(lambda: waiting_picks(picking) == 0)
    app.kill()
    for _ in range(3):
        press(picking, "1", "2")
    picking.wait_for_function("document.querySelector('#picker .notice').textContent.includes('3 picks are waiting')")
    app.start()
    wait_until(lambda: len(project.picks.live()) == 4, seconds=30)
    time.sleep(1)
    assert len(project.picks.live()) == 4
    assert project.picks.revision() == 4
    picking.wait_for_function("document.querySelector('#picker .notice').textContent === ''")


def test_picks_waiting_in_a_page_that_was_reloaded_arrive_once(picking, project, app, groups):
    app.kill()
    press(picking, "1", "2", "1", "2")
    app.start()
    reload(picking)
    wait_until(lambda: len(project.picks.live()) == 2, seconds=30)
    picking.wait_for_selector("#picker .cell:not([hidden]) img")
    wait_until(lambda: shown_prompt(picking) == groups[2].prompt)
    assert project.picks.revision() == 2
    wait_until(lambda: waiting_picks(picking) == 0)


def test_picks_waiting_for_another_project_are_not_sent_to_this_one(picking, project):
    foreign = "image-dpo-outbox ffffffffffffffff client-x 0"
    picking.evaluate("name => localStorage.setItem(name, JSON.stringify({client: 'client-x', number: 0}))", foreign)
    reload(picking)
    picking.wait_for_selector("#picker .cell:not([hidden]) img")
    press(picking, "1", "2")
    wait_until(lambda: len(project.picks.live()) == 1)
    assert picking.evaluate("name => localStorage.getItem(name) !== null", foreign)


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
    picking.wait_for_function("document.querySelector('#picker').offsetParent === null")
    press(picking, "1", "2")
    picking.click("#tab-pairs-button, button[role=tab]:has-text('Pairs')")
    picking.wait_for_function("document.querySelector('#picker').offsetParent !== null")
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


def test_hostile_prompts_are_shown_as_text_and_run_nothing(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    folder.mkdir(parents=True)
    rng = random.Random(0)
    hostile = [
        "<img src=x onerror=window.hacked=1>",
        "${window.hacked=1}",
        "{{constructor.constructor('window.hacked=1')()}}",
        "`${Reflect.set(window,/hacked/.source,1)}`",
        "</script><script>window.hacked=1</script>",
    ]
    for number, prompt in enumerate(hostile):
        for image in range(2):
            write_prompted(folder / f"{number}_{image}.png", prompt, Image.fromarray(draw(random_scene(rng))))
    write_prompted(folder / "<img src=x onerror=window.hacked=1> ${window.hacked=1}.png", "${window.hacked=1} alone", plain())
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    page.click("#scan")
    page.wait_for_selector("#picker .cell:not([hidden]) img")
    seen = set()
    for _ in hostile:
        seen.add(shown_prompt(page))
        page.click("#picker .prompt")
        assert page.text_content("#picker .details .whole") == shown_prompt(page)
        page.click("#picker .prompt")
        press(page, "1")
    assert seen == set(hostile)
    page.click("#review-step button, #review-step .label-wrap")
    page.wait_for_function("document.querySelectorAll('#review .sheet li').length === 5")
    assert set(page.locator("#review .words span").all_text_contents()) == set(hostile)
    page.locator(".step .label-wrap, .step button").first.click()
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None


def test_images_are_asked_for_by_signed_id_and_never_by_path(picking, project):
    addresses = picking.eval_on_selector_all("#picker img", "images => images.map(image => new URL(image.src).pathname)")
    assert addresses
    for address in addresses:
        assert address.startswith("/studio/image/preview-")
        assert "candidates" not in address and ".png" not in address


def test_a_pair_taken_back_in_the_review_can_be_picked_again(picking, project, groups):
    press(picking, "1", "2")
    wait_until(lambda: project.picks.pairs())
    picking.click("#review-step button, #review-step .label-wrap")
    picking.hover("#review .sheet li")
    picking.click("#review .words button")
    wait_until(lambda: project.picks.pairs() == [])
    view = View(str(project.path / "candidates"))
    assert project.picks.next_screens(project.library, view, "best_worst", 1, set()).screens[0].group.key == groups[0].key


def test_the_button_to_train_opens_with_the_fourth_pair_and_says_what_is_missing(picking, project):
    assert picking.is_disabled("#to-train")
    assert "4 more pairs" in picking.text_content("#next-reason")
    for _ in range(4):
        press(picking, "1", "2")
    picking.wait_for_selector("#to-train:has-text('4 pairs')")
    assert picking.is_enabled("#to-train")


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


def test_the_review_shows_the_pairs_that_were_there_before_the_page(page, app, project, groups):
    shown = [image.key for image in groups[0].images]
    pick = {"op": "best_worst", "group": groups[0].key, "images": shown, "result": shown[:2]}
    project.picks.apply([{"client": "earlier-page", "number": 0, **pick}])
    open_picker(page, app)
    page.click("#review-step button, #review-step .label-wrap")
    page.wait_for_selector("#review .sheet li")
    assert page.locator("#review .sheet li").count() == 1
    page.click("#export-onetrainer")
    page.wait_for_selector("#exported:has-text('1 pair exported')")
    (stem,) = {path.stem for path in project.exports.glob("*/chosen/*.png")}
    assert len(list(project.exports.glob(f"*/rejected/{stem}.png"))) == 1
    with page.expect_download() as download:
        page.click("#download-export")
    assert zipfile.ZipFile(download.value.path()).namelist()


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
