"""Who gets what: several pages, several people, and what a page is to drop."""

import pytest

from dpo.groups import MODES, View
from dpo.leases import LEASE_SECONDS, Leases
from dpo.project import open_project
from dpo.rules import PickRules
from dpo.screens import is_asked_twice
from tests.asking import Clock, Page, add_group, keys, names, open_painted


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


# ------------------------------------------------------------------------------------------------ over, and again


def test_a_page_is_told_what_others_finished_and_not_what_is_still_open(project, view, groups):
    page, other = Page(project, view), Page(project, view)
    page.ask()
    other.pick(groups[1])
    other.skip(groups[2])
    assert page.ask().over == (groups[1].key, groups[2].key)
    assert names(page.queue) == [groups[0].key]


def test_a_screen_with_an_image_that_a_pair_has_now_is_over_and_comes_again_without_it(project, view, groups):
    project.picks.set_rules(PickRules(pairs_per_group=2))
    page = Page(project, view)
    page.ask(want=1)
    Page(project, view).pick(groups[0])
    found = page.ask()
    assert (found.over, names(found.screens)) == ((groups[0].key,), [groups[1].key, groups[2].key])
    assert not found.is_complete
    page.queue.clear()
    (screen,) = page.ask(want=1).screens
    assert (screen.group.key, len(screen.images)) == (groups[0].key, 2)


def test_a_screen_that_an_undo_brought_back_from_elsewhere_stays(project, view, groups, tmp_path):
    add_group(tmp_path / "other", "elsewhere", 2)
    project.library.scan(tmp_path / "other")
    page = Page(project, view)
    (elsewhere,) = Page(project, View(str(tmp_path / "other"))).ask().screens
    (duel, *_) = Page(project, view, "duel").ask(first=groups[0].key).screens
    page.queue = [elsewhere, duel]
    page.pick(groups[0])
    assert page.ask().over == ()
    page.skip(groups[0])
    assert page.ask().over == (groups[0].key,)


@pytest.mark.parametrize("mode", ["best_worst", "duel"])
def test_a_person_may_go_on_with_a_group_that_is_done(project, view, groups, mode):
    page = Page(project, view, mode)
    page.pick(groups[0])
    (screen,) = page.ask(want=1, first=groups[0].key, again=True).screens
    assert (screen.group.key, len(screen.images)) == (groups[0].key, 2)
    assert {image.key for image in groups[0].images[:2]}.isdisjoint(keys(screen))
    assert page.ask(want=0, first=groups[0].key, again=True).over == ()
    assert page.ask(want=0).over == (groups[0].key,)


# ------------------------------------------------------------------------------------------------ leases


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_page(project, view, clock, monkeypatch):
    """Pages that take nothing from each other's stores: that is told apart, where it is the matter."""
    monkeypatch.setattr("dpo.progress.FIRM", 0)
    leases = Leases(project.picks._leases._database, clock)
    return lambda client, mode="best_worst", rater="": Page(project, view, mode, client, rater, leases)


@pytest.mark.parametrize("mode", MODES)
def test_two_pages_never_get_the_same_group_and_each_hears_of_what_the_other_has(open_page, groups, mode):
    one, other = open_page("page-one", mode), open_page("page-two", mode)
    one.ask(want=4)
    mine = set(names(one.queue))
    found = other.ask()
    assert mine.isdisjoint(names(found.screens)) and mine | set(names(found.screens)) == {group.key for group in groups}
    assert (found.waiting, found.is_complete) == (len(mine), True)
    late = open_page("page-three", mode).ask()
    assert (late.screens, late.waiting, late.is_complete, late.done) == ([], 3, True, 0)


def test_a_second_person_gets_work_from_the_store_of_the_first_when_nothing_else_is_left(tmp_path):
    for number in range(6):
        add_group(tmp_path / "images", f"a cat {number}", 2)
    project, view = open_project(tmp_path / "project"), View(str(tmp_path / "images"))
    project.library.scan(tmp_path / "images")
    one, other = (Page(project, view, client=client) for client in ("page-a", "page-b"))
    assert len(one.ask().screens) == 6
    taken = names(other.ask().screens)
    assert taken == names(one.queue)[2:4]  # neither what is shown nor what is next
    assert set(one.ask().over) == set(taken) and len(one.queue) == 4
    assert other.ask().screens == []  # it has enough to go on
    while one.queue or other.queue:
        for page in (one, other):
            if page.queue:
                page.answer()
            page.ask()
    assert (one.ask().done, len(project.picks.pairs())) == (6, 6)


def test_the_groups_of_a_page_that_fell_silent_are_handed_out_and_it_drops_them(open_page, groups, clock):
    one, other = open_page("page-one"), open_page("page-two")
    one.ask()
    clock.now += LEASE_SECONDS - 1
    assert other.ask().screens == []
    clock.now += 2
    assert len(other.ask(want=2).screens) == 2
    found = one.ask()
    assert found.over == (groups[0].key, groups[1].key)
    assert names(one.queue) == [groups[2].key]


def test_a_page_that_asks_now_and_then_keeps_what_it_has(open_page, groups, clock):
    one, other = open_page("page-one"), open_page("page-two")
    one.ask()
    for _ in range(5):
        clock.now += LEASE_SECONDS - 1
        assert one.ask(want=0).over == ()
        assert other.ask().screens == []


def test_a_page_after_its_reload_has_its_groups_at_once(open_page, groups):
    open_page("page-one").ask()
    again = open_page("page-two")
    assert again.ask().screens == []
    assert names(again.ask(left="page-one").screens) == [group.key for group in groups]


def test_what_a_page_answered_or_dropped_is_free(open_page, groups):
    one = open_page("page-one")
    one.ask()
    one.answer("best_worst", op="skip")
    one.queue.pop(0)
    one.ask(want=0)
    assert names(open_page("page-two").ask().screens) == [groups[1].key]


def test_a_group_that_a_page_need_not_answer_is_free(project, view, open_page, groups):
    one, somebody = open_page("page-one"), Page(project, view)
    one.ask()
    pick = somebody.pick(groups[0])
    assert one.ask().over == (groups[0].key,)
    somebody.say("undo", undoes=pick)
    assert names(open_page("page-two").ask().screens) == [groups[0].key]


def test_of_two_pages_that_look_at_the_same_moment_one_gets_the_group(open_page, groups, monkeypatch):
    one, other = open_page("page-one"), open_page("page-two")
    other.ask()
    one.queue = other.queue[:1]
    monkeypatch.setattr(Leases, "of_others", lambda self, client: set())  # as it was before the other asked
    found = one.ask()
    assert (found.screens, found.over, found.is_complete) == ([], (groups[0].key,), False)


def test_who_has_no_name_takes_no_lease(open_page, groups):
    nameless = open_page("")
    nameless.ask()
    assert len(open_page("page-one").ask().screens) == 3
    found = nameless.ask()
    assert (found.waiting, found.over) == (3, tuple(group.key for group in groups))


def test_a_group_that_somebody_else_has_is_not_handed_out_on_demand_either(open_page, groups):
    open_page("page-one").ask(want=1)
    found = open_page("page-two").ask(first=groups[0].key, again=True)
    assert names(found.screens) == [groups[1].key, groups[2].key]


# ------------------------------------------------------------------------------------------------ second opinions


def test_one_group_in_ten_is_asked_twice():
    asked = [is_asked_twice("project", f"{number:027x}") for number in range(3000)]
    assert 0.08 < sum(asked) / len(asked) < 0.12
    assert asked != [is_asked_twice("another", f"{number:027x}") for number in range(3000)]


@pytest.fixture
def agreeing(project, monkeypatch):
    """Agreement is measured, and on every group."""
    monkeypatch.setattr("dpo.screens.SECOND_IN", 1)
    project.picks.set_rules(PickRules(agreement=True))
    return project


@pytest.mark.parametrize("mode", MODES)
def test_another_person_is_asked_about_the_very_pair_once(agreeing, view, groups, mode):
    ann, ben = Page(agreeing, view, client="page-ann", rater="Ann"), Page(agreeing, view, mode, client="page-ben", rater="Ben")
    ann.pick(groups[0])
    (pair,) = agreeing.picks.pairs()
    screen = ben.ask(want=3).screens[0]
    assert (screen.is_second, screen.mode, screen.group.key, screen.finishes) == (True, "duel", groups[0].key, True)
    assert {image.path for image in screen.images} == {pair.chosen, pair.rejected}
    assert not any(screen.is_second for screen in ben.ask().screens)  # while it has one
    assert ben.ask().over == ()
    before = agreeing.picks.pairs()
    ben.answer("left")
    ben.ask(want=0)
    assert agreeing.picks.pairs() == before and agreeing.picks.agreement().count == 1
    for rater in ("Ben", "Cid"):
        assert not any(screen.is_second for screen in Page(agreeing, view, rater=rater).ask().screens)


@pytest.mark.parametrize("maker, asker", [("Ann", "Ann"), ("Ann", ""), ("", "Ben")])
def test_the_same_person_or_one_without_a_name_gives_no_second_opinion(agreeing, view, groups, maker, asker):
    Page(agreeing, view, rater=maker).pick(groups[0])
    assert not any(screen.is_second for screen in Page(agreeing, view, rater=asker).ask().screens)


def test_nobody_is_asked_twice_unless_agreement_is_measured_nor_about_a_deleted_pair(agreeing, view, groups):
    ann = Page(agreeing, view, rater="Ann")
    ann.pick(groups[0])
    agreeing.picks.set_rules(PickRules(agreement=False))
    assert not any(screen.is_second for screen in Page(agreeing, view, rater="Ben").ask().screens)
    agreeing.picks.set_rules(PickRules(agreement=True))
    ann.say("drop", group=groups[0].key, images=[image.key for image in groups[0].images[:2]])
    assert not any(screen.is_second for screen in Page(agreeing, view, rater="Ben").ask().screens)


def test_second_opinions_come_now_and_then_and_one_by_one_when_nothing_else_is_left(agreeing, view, groups):
    ann, ben = Page(agreeing, view, client="page-ann", rater="Ann"), Page(agreeing, view, client="page-ben", rater="Ben")
    for group in groups[:2]:
        ann.pick(group)
    assert [screen.is_second for screen in ben.ask().screens] == [True, False]
    ben.answer("right")
    assert ben.ask().screens == []  # too soon for the other one, while the third group is to be picked from
    ben.answer()
    assert [screen.is_second for screen in ben.ask().screens] == [True]
    ann.pick(groups[2])
    for _ in range(9):
        ann.say("undo", undoes=ann.skip(groups[2]))
    assert ben.ask().screens == []  # while it has one


def test_a_second_opinion_does_not_stand_in_the_way_of_the_duels_ahead(agreeing, view, groups):
    Page(agreeing, view, rater="Ann").pick(groups[0])
    ben = Page(agreeing, view, "duel", rater="Ben")
    ben.ask(want=1)
    assert ben.queue[0].is_second
    assert names(ben.ask().screens) == [groups[1].key] * 3 + [groups[2].key]


def test_of_two_people_who_look_again_each_gets_another_pair(agreeing, view, groups):
    ann = Page(agreeing, view, rater="Ann")
    for group in groups[:2]:
        ann.pick(group)
    pages = [Page(agreeing, view, client=f"page-{rater}", rater=rater) for rater in ("Ben", "Cid", "Dan")]
    found = [page.ask() for page in pages]
    seconds = [[screen.group.key for screen in answer.screens if screen.is_second] for answer in found]
    assert sorted(seconds[0] + seconds[1]) == sorted(group.key for group in groups[:2])
    assert seconds[2] == []
    assert [answer.waiting for answer in found] == [0, 1, 1]  # for the third group, which Ben has
