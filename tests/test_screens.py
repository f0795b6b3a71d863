"""Which screens of a group are shown in each mode, and how they end."""

import pytest

from dpo.groups import MODES, View
from dpo.project import open_project
from dpo.rules import PickRules
from tests.asking import Page, add_group, keys, names, one_group, open_painted


@pytest.fixture
def project(tmp_path):
    return open_painted(tmp_path)


@pytest.fixture
def view(tmp_path):
    return View(str(tmp_path / "images"))


@pytest.fixture
def groups(project, view):
    """In the order in which they are shown."""
    return [screen.group for screen in Page(project, view).ask().screens]


# ------------------------------------------------------------------------------------------------ best and worst


def test_a_second_pair_of_a_group_is_asked_for_after_the_first_and_of_other_images(project, view, groups):
    project.picks.set_rules(PickRules(pairs_per_group=2))
    page = Page(project, view)
    (first, *_) = page.ask(want=1).screens
    assert (first.finishes, first.rest) == (False, 0)
    assert groups[0].key not in names(page.ask().screens)  # while the page has it
    page.answer()
    (second,) = [screen for screen in page.ask().screens if screen.group.key == first.group.key]
    assert set(keys(second)) == set(keys(first)[1:-1])
    assert second.finishes
    page.queue = [second]
    page.answer()
    assert page.ask(want=0).done == 1


def test_of_a_large_group_the_images_not_seen_yet_come_first(tmp_path):
    project, view = one_group(tmp_path, 40)
    project.picks.set_rules(PickRules(pairs_per_group=8))
    page, seen, used = Page(project, view), set(), set()
    for number, (fresh, rest) in enumerate([(9, 31), (9, 29), (9, 27), (9, 25), (4, 23), (0, 21), (0, 19), (0, 17)]):
        (screen,) = page.ask().screens
        assert (len(screen.images), len(set(keys(screen)) - seen), screen.rest) == (9, fresh, rest), number
        assert used.isdisjoint(keys(screen)) and list(keys(screen)) == sorted(keys(screen))
        assert screen.finishes == (number == 7)
        seen.update(keys(screen))
        used |= {keys(screen)[0], keys(screen)[-1]}
        page.answer()
    assert (page.ask().screens, page.ask().done) == ([], 1)


@pytest.mark.parametrize("count", [3, 4])
def test_images_of_a_pair_that_came_out_of_duels_are_not_in_a_grid(tmp_path, count):
    project, view = one_group(tmp_path, count)
    project.picks.set_rules(PickRules(pairs_per_group=2))
    page = Page(project, view)
    (whole,) = page.ask().screens
    best, *others, worst = keys(whole)
    for better, worse in [(best, worst), *((best, other) for other in others), *((other, worst) for other in others)] * 2:
        page.say("duel", group=whole.group.key, images=[better, worse], result="left", clearly=True, size=count)
    assert len(project.picks.pairs()) == 1
    shown = [keys(screen) for screen in Page(project, view).ask().screens]
    assert shown == ([tuple(others)] if count == 4 else [])  # one image alone is nothing to choose from


@pytest.mark.parametrize("count, finishes", [(2, True), (3, True), (4, False)])
def test_an_answer_that_leaves_fewer_than_two_images_finishes_a_group(tmp_path, count, finishes):
    project, view = one_group(tmp_path, count)
    project.picks.set_rules(PickRules(pairs_per_group=8))
    page = Page(project, view)
    assert page.ask().screens[0].finishes is finishes
    page.answer()
    assert [Page(project, view, mode).ask().done for mode in MODES] == [int(finishes)] * 3


# ------------------------------------------------------------------------------------------------ duels


def test_three_duels_of_the_foremost_group_are_handed_out_and_one_of_each_other(project, view, groups):
    page = Page(project, view, "duel")
    found = page.ask()
    assert names(found.screens) == [groups[0].key] * 3 + [groups[1].key, groups[2].key]
    assert found.is_complete and page.ask().screens == []
    assert len({frozenset(keys(screen)) for screen in found.screens}) == 5
    assert [screen.likely_left for screen in found.screens[:3]] == [found.screens[0].likely_left - number for number in range(3)]
    page.answer()
    (further,) = page.ask().screens
    assert further.group.key == groups[0].key
    assert len({frozenset(keys(screen)) for screen in page.queue if screen.group.key == groups[0].key}) == 3


def test_when_a_group_is_left_the_next_one_gets_its_duels_ahead(project, view, groups):
    page = Page(project, view, "duel")
    page.ask()
    page.answer("duel", op="skip")
    found = page.ask()
    assert (found.over, found.done) == ((groups[0].key,), 1)
    assert names(page.queue) == [groups[1].key, groups[2].key, groups[1].key, groups[1].key]


def test_a_skipped_duel_is_not_asked_again_and_when_all_are_skipped_the_group_is_done(tmp_path):
    project, view = one_group(tmp_path, 3)
    page, asked = Page(project, view, "duel"), []
    while page.ask(want=1).screens:
        asked.append(frozenset(keys(page.queue[0])))
        page.answer("skip")
    assert len(asked) == len(set(asked)) == 3
    assert page.ask().done == 1


@pytest.mark.parametrize("result", ["left", "right", "tie", "both_bad", "skip"])
def test_a_group_of_two_is_done_after_one_duel_whatever_the_answer(tmp_path, result):
    project, view = one_group(tmp_path, 2)
    page = Page(project, view, "duel")
    (screen,) = page.ask().screens
    assert screen.finishes and screen.likely_left == 1
    page.answer(result)
    assert (page.ask().done, page.queue) == (1, [])


def test_duels_go_on_until_the_ranking_is_finished_not_to_its_first_pair(tmp_path):
    project, view = one_group(tmp_path, 6)
    page = Page(project, view, "duel")
    duels = early = 0
    while page.ask(want=1).screens:
        screen = page.queue[0]
        assert screen.likely_left >= 1
        page.answer("left" if keys(screen)[0] < keys(screen)[1] else "right")
        duels += 1
        early += bool(project.picks.pairs()) and page.ask(want=0).done == 0
    assert 5 <= duels <= 24 and early > 0
    assert page.ask().done == 1
    (pair,) = project.picks.pairs()
    (group,) = project.library.groups(view.folder)
    assert [pair.chosen, pair.rejected] == [group.images[0].path, group.images[-1].path]


def test_the_last_duel_of_a_group_says_that_it_finishes_it(tmp_path):
    project, view = one_group(tmp_path, 4)
    project.picks.set_rules(PickRules(pairing="elo"))  # which knows how many it takes: 15
    page = Page(project, view, "duel")
    said = []
    while page.ask().screens or page.queue:
        said.append((page.queue[0].finishes, page.queue[0].likely_left))
        page.answer("left")
    assert [finishes for finishes, _ in said] == [False] * 14 + [True]
    assert [left for _, left in said] == list(range(15, 0, -1))


def test_a_group_whose_images_are_all_bad_is_not_asked_about_on(tmp_path):
    project, view = one_group(tmp_path, 4)
    page, duels = Page(project, view, "duel"), 0
    while page.ask(want=1).screens:
        page.answer("both_bad")
        duels += 1
    assert duels == 2


# ------------------------------------------------------------------------------------------------ triage


def test_triage_shows_each_unlabelled_image_by_itself_and_is_done_when_all_have_an_answer(tmp_path):
    project, view = one_group(tmp_path, 4)
    page = Page(project, view, "triage")
    found = page.ask(want=3)
    assert [len(screen.images) for screen in found.screens] == [1, 1, 1] and not found.is_complete
    assert [screen.rest for screen in found.screens] == [3, 2, 1]
    (last,) = page.ask().screens
    assert (last.rest, last.finishes) == (0, True)
    assert len({keys(screen) for screen in page.queue}) == 4
    for result in ("good", "skip", "good"):
        page.answer(result)
        found = page.ask()
        assert (found.done, found.screens, found.over) == (0, [], ())
    page.answer("good")
    assert page.ask().done == 1


def test_labels_that_make_no_pair_leave_a_group_open_for_duels_and_those_that_make_one_do_not(tmp_path):
    for prompt in ("all good", "all bad", "mixed"):
        add_group(tmp_path / "three", prompt, 2)
    project = open_project(tmp_path / "project")
    project.library.scan(tmp_path / "three")
    view = View(str(tmp_path / "three"))
    page = Page(project, view, "triage")
    page.ask()
    while page.queue:
        number = keys(page.queue[0])[0] == page.queue[0].group.images[0].key
        page.answer({"all good": "good", "all bad": "bad", "mixed": "good" if number else "bad"}[page.queue[0].group.prompt])
    assert page.ask().done == 3
    assert [pair.prompt for pair in project.picks.pairs()] == ["mixed"]
    assert [screen.group.prompt for screen in Page(project, view, "duel").ask().screens] == ["all good"]
    assert {screen.group.prompt for screen in Page(project, view).ask().screens} == {"all good", "all bad"}
