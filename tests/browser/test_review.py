"""The review in a real browser: what is done to pairs, what of them is shown, and what nobody may lose by it."""

from __future__ import annotations

import shutil
import time

import pytest
from PIL import Image

from dpo.picks import ImportedPair
from dpo.project import open_project
from tests.browser.picking import press, reload, shown_prompt, wait_until, write_hostile
from tests.pictures import paint_folder

pytestmark = pytest.mark.browser

PICKED = 5
# One may stand for less than the half second between two looks of a test.
REMEMBER_PROBLEMS = """
  window.problems = [];
  const place = document.querySelector('#review .problem');
  const observer = new MutationObserver(() => problems.push(place.textContent));
  observer.observe(place, {childList: true, characterData: true, subtree: true});
"""


@pytest.fixture
def project(tmp_path):
    """Six prompts with four images each, five of them picked from, by Anna and Ben in turn."""
    folder = tmp_path / "project" / "candidates"
    paint_folder(folder, prompts=6, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    for number, group in enumerate(groups_of(project)[:PICKED]):
        keys = [image.key for image in group.images]
        pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys[:2], "rater": ("Anna", "Ben")[number % 2]}
        project.picks.apply([{"client": "earlier-page", "number": number, **pick}])
    return project


def groups_of(project):
    return project.library.groups(project.path / "candidates")


@pytest.fixture
def review(page, start_app, project):
    """The page of that project with the review unfolded."""
    open_review(page, start_app(project.path))
    return page


def open_review(page, app) -> None:
    page.goto(app.url)
    page.wait_for_selector("#review-step:has-text(' pair')")
    unfold(page)


def unfold(page) -> None:
    page.click("#review-step > button, #review-step .label-wrap")
    page.wait_for_selector("#review .card[data-state] img")
    page.locator("#review .tools").scroll_into_view_if_needed()


def prompts(page) -> list[str]:
    """Those on the sheet, in their order."""
    return page.eval_on_selector_all(
        "#review .card:not(.loading)",
        "cards => cards.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map(card => card.querySelector('.prompt').textContent)",
    )


def card(page, prompt: str):
    return page.locator("#review .card", has=page.locator(".prompt", has_text=prompt))


def pair_of(project, prompt: str):
    return next(picked for picked in project.picks.picked_pairs() if picked.pair.prompt == prompt)


def newest_first(project) -> list[str]:
    return [picked.pair.prompt for picked in project.picks.picked_pairs()[::-1]]


def test_every_pair_is_there_newest_first_with_what_is_known_of_it(review, project):
    assert prompts(review) == newest_first(project)
    first = review.locator("#review .card", has_text=prompts(review)[0])
    newest = project.picks.picked_pairs()[-1]
    assert first.locator(".facts").text_content() == f"best and worst · {newest.pair.confidence:.0%} · Anna · just now"
    assert newest.chosen in first.locator(".chosen img").get_attribute("src")
    assert newest.rejected in first.locator(".rejected img").get_attribute("src")
    boxes = [first.locator(f".{side}").bounding_box()["x"] for side in ("chosen", "rejected")]
    assert boxes[0] < boxes[1]
    validation = {picked.pair.prompt for picked in project.picks.picked_pairs() if picked.is_validation}
    assert {prompt for prompt in prompts(review) if card(review, prompt).locator(".sign").is_visible()} == validation


def test_keys_swap_and_delete_the_pair_that_has_the_focus_and_the_picker_hears_nothing(review, project):
    before, shown = project.picks.picked_pairs()[-1], prompts(review)
    question, mine = shown_prompt(review), project.picks.revision()
    card(review, shown[0]).focus()
    press(review, "s")
    wait_until(lambda: project.picks.picked_pairs()[-1].chosen == before.rejected)
    press(review, "ArrowRight", "Delete", "1", "3")
    wait_until(lambda: pair_of(project, shown[1]).state == "deleted")
    wait_until(lambda: prompts(review) == [shown[0], *shown[2:]])
    assert (shown_prompt(review), project.picks.revision()) == (question, mine + 2)
    assert review.locator("#picker .cell.best").count() == 0
    press(review, "Delete")  # the next one has the focus now
    wait_until(lambda: pair_of(project, shown[2]).state == "deleted")
    press(review, "z")
    wait_until(lambda: pair_of(project, shown[2]).state == "used")


@pytest.mark.thorough
def test_a_deleted_pair_is_found_under_its_filter_after_a_reload_and_restored(review, project):
    shown = prompts(review)
    card(review, shown[1]).hover()
    card(review, shown[1]).get_by_role("button", name="Delete").click()
    wait_until(lambda: pair_of(project, shown[1]).state == "deleted")
    reload(review)
    review.wait_for_selector("#picker .cell:not([hidden]) img")
    unfold(review)
    assert shown[1] not in prompts(review)
    review.select_option("#review [data-filter=state]", label="Deleted (1)")
    wait_until(lambda: prompts(review) == [shown[1]])
    card(review, shown[1]).hover()
    card(review, shown[1]).get_by_role("button", name="Restore").click()
    wait_until(lambda: pair_of(project, shown[1]).state == "used")
    review.click("#review .clear")
    wait_until(lambda: prompts(review) == shown)


def test_a_change_whose_answer_was_lost_is_sent_again_and_counts_once(review, project):
    lost = []

    def lose(route):
        if not lost and "drop" in route.request.post_data:
            lost.append(route.fetch().status)
            return route.abort()
        route.continue_()

    review.route("**/component_server/**", lose)
    review.evaluate(REMEMBER_PROBLEMS)
    shown, before = prompts(review), project.picks.revision()
    card(review, shown[0]).focus()
    press(review, "Delete")
    review.wait_for_function("problems.some(text => text.includes('1 change waits here')) && problems.at(-1) === ''")
    wait_until(lambda: prompts(review) == shown[1:])
    assert (lost, project.picks.revision()) == ([200], before + 1)


@pytest.mark.thorough
def test_a_group_that_is_opened_again_loses_its_pair_and_is_picked_next(review, project):
    prompt = prompts(review)[2]
    assert shown_prompt(review) != prompt
    card(review, prompt).hover()
    card(review, prompt).get_by_role("button", name="Open again").click()
    wait_until(lambda: len(project.picks.picked_pairs()) == PICKED - 1)
    wait_until(lambda: shown_prompt(review) == prompt)
    wait_until(lambda: prompt not in prompts(review))


@pytest.mark.thorough
def test_filters_and_orders_are_those_of_all_pairs(review, project):
    pairs = project.picks.picked_pairs()
    review.select_option("#review [data-filter=rater]", label="Ben")
    wait_until(lambda: set(prompts(review)) == {picked.pair.prompt for picked in pairs if picked.rater == "Ben"})
    assert review.text_content("#review .amount") == f"2 of {PICKED} pairs"
    review.select_option("#review [data-filter=rater]", label="Any rater")
    review.select_option("#review [data-filter=split]", label="Validation")
    wait_until(lambda: set(prompts(review)) == {picked.pair.prompt for picked in pairs if picked.is_validation})
    review.select_option("#review [data-filter=split]", label="Training and validation")
    word = pairs[0].pair.prompt.split()[-1]
    review.fill("#review .search", f" {word.upper()} ")
    wait_until(lambda: set(prompts(review)) == {picked.pair.prompt for picked in pairs if word in picked.pair.prompt})
    review.fill("#review .search", "no prompt says this")
    review.wait_for_selector("#review .nothing:has-text('No pair matches')")
    review.click("#review .clear")
    wait_until(lambda: len(prompts(review)) == PICKED)
    keys = [image.key for image in groups_of(project)[PICKED].images]
    paths = tuple(project.library.image(key).path for key in keys[:2])
    project.picks.import_pairs([ImportedPair("a weak pair", *keys[:2], paths, 0.6, "elsewhere", "1")])
    wait_until(lambda: len(prompts(review)) == PICKED + 1)
    review.select_option("#review [data-filter=order]", label="Least confident first")
    wait_until(lambda: prompts(review)[0] == "a weak pair")
    review.select_option("#review [data-filter=order]", label="Most confident first")
    wait_until(lambda: prompts(review)[-1] == "a weak pair")
    review.select_option("#review [data-filter=source]", label="import: elsewhere")
    wait_until(lambda: prompts(review) == ["a weak pair"])


@pytest.mark.thorough
def test_files_that_were_moved_are_found_where_they_are_now(review, project, tmp_path):
    lost = project.picks.picked_pairs()[1]
    moved = project.path / "moved"
    moved.mkdir()
    shutil.move(lost.pair.chosen, moved / "elsewhere.png")
    project.library.scan(project.path / "candidates")
    review.wait_for_selector("#review .gone:has-text('1 pair is not used')")
    review.click("#review .show-gone")
    wait_until(lambda: prompts(review) == [lost.pair.prompt])
    review.click("#review .clear")
    review.fill("#review .gone input", str(tmp_path / "nowhere"))
    review.click("#review .gone [type=submit]")
    review.wait_for_selector("#review .problem:has-text('does not exist')")
    review.fill("#review .gone input", str(moved))
    review.click("#review .gone [type=submit]")
    review.wait_for_selector("#review .gone", state="hidden")
    assert pair_of(project, lost.pair.prompt).pair.chosen == str(moved / "elsewhere.png")


@pytest.mark.thorough
def test_pairs_whose_files_are_gone_are_removed_together_and_come_back_together(review, project):
    for picked in project.picks.picked_pairs()[:2]:
        shutil.move(picked.pair.rejected, f"{picked.pair.rejected}.away")
    project.library.scan(project.path / "candidates")
    review.wait_for_selector("#review .gone:has-text('2 pairs are not used')")
    review.click("#review .remove-gone")
    wait_until(lambda: [picked.state for picked in project.picks.picked_pairs()].count("deleted") == 2)
    review.wait_for_selector("#review .gone", state="hidden")
    review.click("#review .line .undo")
    wait_until(lambda: [picked.state for picked in project.picks.picked_pairs()].count("deleted") == 0)


@pytest.mark.thorough
def test_health_names_a_planted_problem_and_shows_its_pairs(page, start_app, project):
    keys = [image.key for image in groups_of(project)[PICKED].images][:2]
    paths = tuple(project.library.image(key).path for key in keys)
    project.picks.import_pairs([ImportedPair("an unsure pair", *keys, paths, 0.55, "elsewhere", "1")])
    open_review(page, start_app(project.path))
    finding = page.locator("#review .health li", has_text="1 of 6 pairs (17%) is less than 80% sure")
    finding.wait_for()
    assert "demo, the default" in page.text_content("#review .health .about")
    finding.get_by_role("button", name="Show these 1").click()
    wait_until(lambda: prompts(page) == ["an unsure pair"])
    card(page, "an unsure pair").focus()
    press(page, "Delete")
    wait_until(lambda: pair_of(project, "an unsure pair").state == "deleted")
    finding.wait_for(state="detached")


@pytest.mark.thorough
def test_three_hundred_pairs_are_scrolled_through_with_few_of_them_in_the_document(page, start_app, project):
    source = paint_folder(project.path / "many", prompts=1, per_prompt=1, side=16)[0]
    rows = []
    for number in range(300):
        paths = [str(project.path / "many" / f"{number}_{side}.png") for side in ("a", "b")]
        for side, path in enumerate(paths):
            Image.new("RGB", (16, 16), (number % 256, number // 256, side)).save(path)
        keys = project.library.add_files(paths)
        rows.append(ImportedPair(f"number {number}", *(keys[path] for path in paths), tuple(paths), 0.9, "many", str(number)))
    source.unlink()
    project.picks.import_pairs(rows)
    open_review(page, start_app(project.path))
    page.wait_for_selector(f"#review .amount:has-text('{300 + PICKED} pairs')")
    seen = set(prompts(page))
    while f"number {0}" not in seen:
        page.locator("#review .sheet").evaluate("sheet => sheet.scrollBy(0, sheet.clientHeight)")
        wait_until(lambda: page.locator("#review .card.loading").count() == 0)
        page.wait_for_timeout(50)
        assert page.locator("#review .card").count() < 60
        assert prompts(page)
        seen |= set(prompts(page))
    assert {f"number {number}" for number in range(300)} <= seen


@pytest.mark.thorough
def test_a_pair_shown_large_can_be_gone_on_from_and_closed(review, project):
    shown = prompts(review)
    card(review, shown[0]).locator(".sides").click()
    assert review.text_content("#review .large .whole") == shown[0]
    press(review, "ArrowRight")
    assert review.text_content("#review .large .whole") == shown[1]
    press(review, "Delete")
    wait_until(lambda: pair_of(project, shown[1]).state == "deleted")
    assert review.text_content("#review .large .whole") == shown[2]
    press(review, "Escape")
    assert not review.is_visible("#review .large")
    assert review.evaluate("document.activeElement.querySelector('.prompt').textContent") == shown[2]


@pytest.mark.thorough
def test_the_train_tab_leads_to_the_review_unfolded(page, start_app, project):
    app = start_app(project.path)
    page.goto(app.url)
    page.wait_for_selector("#picker .cell:not([hidden]) img")
    page.get_by_role("tab", name="Train").click()
    page.click("#to-review")
    page.wait_for_selector("#review .card[data-state] img")
    assert page.locator("#review .card").count() == PICKED


@pytest.mark.thorough
def test_hostile_prompts_are_shown_as_text_and_run_nothing(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    hostile = write_hostile(folder)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    for number, group in enumerate(groups_of(project)):
        keys = [image.key for image in group.images]
        pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys, "rater": "<b>${window.hacked=1}</b>"}
        project.picks.apply([{"client": "earlier-page", "number": number, **pick}])
    shutil.move(project.picks.picked_pairs()[0].pair.chosen, folder / "${window.hacked=1}.away")
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    page.wait_for_selector("#review-step")
    unfold(page)
    page.wait_for_function("document.querySelectorAll('#review .card:not(.loading)').length === 5")
    assert set(prompts(page)) == set(hostile)
    card(page, hostile[0]).locator(".sides").click()
    assert page.text_content("#review .large .whole") == hostile[0]
    time.sleep(1)
    assert page.evaluate("window.hacked") is None
