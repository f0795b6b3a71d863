"""In which order groups come, when one is done, and what it costs to know."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dpo.groups import MODES, View
from dpo.library import content_key
from dpo.project import open_project
from dpo.rules import PickRules
from tests.asking import Page, add_group, keys, names, open_painted
from tests.pictures import plain, write_prompted


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


# ------------------------------------------------------------------------------------------------ the order


def test_groups_come_shuffled_the_same_at_every_start_and_for_everybody_but_not_in_every_project(tmp_path):
    for number in range(12):
        add_group(tmp_path / "images", f"prompt {number:02}", 2)
    view, orders = View(str(tmp_path / "images")), []
    for name in ("one", "one", "other"):
        project = open_project(tmp_path / name)
        project.library.scan(tmp_path / "images")
        orders.append([screen.group.prompt for screen in Page(project, view).ask().screens])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) != orders[0]


def test_groups_that_join_move_none_of_those_before_them(project, view, groups, tmp_path):
    for number in range(6):
        add_group(tmp_path / "images", f"later {number}", 2)
    project.library.scan(tmp_path / "images")
    order = names(Page(project, view).ask().screens)
    assert len(order) == 9
    assert [key for key in order if key in {group.key for group in groups}] == [group.key for group in groups]


def test_a_group_that_somebody_asked_for_comes_first_and_once(project, view, groups):
    page = Page(project, view)
    assert names(page.ask(first=groups[2].key).screens) == [groups[2].key, groups[0].key, groups[1].key]
    page.pick(groups[2])
    assert names(Page(project, view).ask(first=groups[2].key).screens) == [groups[0].key, groups[1].key]
    assert len(Page(project, view).ask(first="0" * 27).screens) == 2


def test_no_more_is_handed_out_than_wanted_and_none_that_the_page_has(project, view, groups):
    page = Page(project, view)
    found = page.ask(want=2)
    assert (names(found.screens), found.is_complete) == ([groups[0].key, groups[1].key], False)
    found = page.ask(want=2)
    assert (names(found.screens), found.is_complete) == ([groups[2].key], True)
    assert page.ask(want=0).is_complete


# ------------------------------------------------------------------------------------------------ done


def test_a_group_with_its_pair_is_done_and_an_undo_brings_it_back(project, view, groups):
    page = Page(project, view)
    pick = page.pick(groups[1])
    found = Page(project, view).ask()
    assert (names(found.screens), found.done, found.total) == ([groups[0].key, groups[2].key], 1, 3)
    page.say("undo", undoes=pick)
    found = Page(project, view).ask()
    assert (len(found.screens), found.done) == (3, 0)


def test_a_group_picked_twice_is_open_again_only_when_both_picks_are_taken_back(project, view, groups):
    page = Page(project, view)
    first, second = page.pick(groups[1]), page.pick(groups[1])
    page.say("undo", undoes=first)
    assert page.ask(want=0).done == 1
    page.say("undo", undoes=second)
    assert page.ask(want=0).done == 0


def test_a_reopened_group_comes_again(project, view, groups):
    page = Page(project, view)
    page.pick(groups[0])
    assert len(page.ask().screens) == 2
    page.say("reopen", group=groups[0].key)
    assert names(page.ask().screens) == [groups[0].key]


def test_a_group_with_its_pair_or_skipped_is_done_in_every_mode(project, view, groups):
    page = Page(project, view)
    page.pick(groups[0])
    page.skip(groups[1], "duel")
    for mode in MODES:
        found = Page(project, view, mode).ask()
        assert (found.done, set(names(found.screens))) == (2, {groups[2].key}), mode


def test_unpicked_tells_of_groups_with_picks_alone_whether_they_are_open(project, view, groups):
    page = Page(project, view)
    page.pick(groups[0])
    shown = [image.key for image in groups[1].images]
    page.say("duel", group=groups[1].key, images=shown[:2], result="left", size=4)
    for mode in MODES:
        assert project.picks.unpicked(project.library, view, mode) == {groups[0].key: 0, groups[1].key: 1}


@pytest.mark.parametrize("mode", MODES)
def test_files_that_join_a_group_bring_nothing_back(project, view, groups, tmp_path, mode):
    page = Page(project, view)
    page.pick(groups[0])
    page.skip(groups[1])
    for group in groups[:2]:
        for colour in ("red", "blue", "green"):
            write_prompted(tmp_path / "images" / f"{group.key} {colour}.png", group.prompt, plain(colour))
    project.library.scan(tmp_path / "images")
    assert set(names(Page(project, view, mode).ask().screens)) == {groups[2].key}


def test_of_a_group_that_files_joined_only_unused_images_are_shown(project, view, groups, tmp_path):
    project.picks.set_rules(PickRules(pairs_per_group=2))
    Page(project, view).pick(groups[0])
    write_prompted(tmp_path / "images" / "new.png", groups[0].prompt, plain("red"))
    project.library.scan(tmp_path / "images")
    (screen,) = [screen for screen in Page(project, view).ask().screens if screen.group.key == groups[0].key]
    used = {image.key for image in groups[0].images[:2]}
    assert len(screen.images) == 3 and used.isdisjoint(keys(screen))


@pytest.mark.parametrize("options", [{"ignore_case": True}, {"ignore_loras": True}, {"same_model": True}, {"size": "64x64"}])
def test_another_option_or_filter_brings_no_answered_image_back(project, view, groups, options):
    page = Page(project, view)
    page.pick(groups[0])
    page.skip(groups[1])
    (screen,) = Page(project, replace(view, **options)).ask().screens
    assert screen.group.prompt == groups[2].prompt


@pytest.mark.parametrize("count, is_open", [(0, False), (2, True)])
def test_a_filter_that_takes_the_chosen_image_away_brings_those_shown_with_it_not_back(project, tmp_path, count, is_open):
    """Of four images the best is left out by its size: with all four shown the rest is answered, with two of them it is not."""
    (tmp_path / "sizes").mkdir()
    for number in range(4):
        size = (80, 80) if number == 0 else (64, 64)
        write_prompted(tmp_path / "sizes" / f"{number}.png", "a cat", plain(f"#0000{number:02x}", size))
    project.library.scan(tmp_path / "sizes")
    (group,) = project.library.groups(tmp_path / "sizes")
    images = sorted(group.images, key=lambda image: image.path)
    Page(project, None).pick(replace(group, images=tuple(images)), count)
    found = Page(project, View(str(tmp_path / "sizes"), size="64x64")).ask()
    assert (len(found.screens), found.total) == (int(is_open), 1)


def test_a_copy_of_an_answered_image_is_answered_too(project, view, groups, tmp_path):
    Page(project, view).pick(groups[0], count=0)
    for image in groups[0].images:  # the same pixels under another key
        copy = Path(image.path).with_name("copy " + Path(image.path).name)
        with Image.open(image.path) as pixels:
            write_prompted(copy, groups[0].prompt, pixels.copy(), seed=7)
        key = content_key(copy)
        project.library.scan(tmp_path / "images")
        project.library.note_pixels([(image.key, image.key, "0" * 16), (key, image.key, "0" * 16)])
    for mode in MODES:
        found = Page(project, view, mode).ask()
        assert (found.done, set(names(found.screens))) == (1, {groups[1].key, groups[2].key})
    project.picks.set_rules(PickRules(pairs_per_group=2))
    (screen,) = [screen for screen in Page(project, view).ask().screens if screen.group.key == groups[0].key]
    assert len(screen.images) == 2  # each of the other two once


def test_two_images_that_turn_out_to_be_copies_answer_a_grid_but_no_duel(project, tmp_path):
    for name in ("grid", "duel"):
        add_group(tmp_path / "twins", name, 3)
    project.library.scan(tmp_path / "twins")
    groups = {group.prompt: group for group in project.library.groups(tmp_path / "twins")}
    page = Page(project, View(str(tmp_path / "twins")))
    for group in groups.values():
        one, other = (image.key for image in group.images[:2])
        result = [one, other] if group.prompt == "grid" else "left"
        page.say("best_worst" if group.prompt == "grid" else "duel", group=group.key, images=[one, other], result=result)
        project.library.note_pixels([(one, group.prompt, "0" * 16), (other, group.prompt, "0" * 16)])
    assert (page.ask().done, names(page.queue)) == (1, [groups["duel"].key])
    page = Page(project, page.view, "duel")
    assert [len(screen.images) for screen in page.ask().screens] == [2]
    assert page.queue[0].group.prompt == "duel"


def test_images_that_differ_in_lora_tags_or_case_are_shown_together_where_the_view_says_so(project, tmp_path):
    (tmp_path / "more").mkdir()
    for name, prompt, colour in (("a", "A cat <lora:x:1>", "red"), ("b", "a cat", "blue")):
        write_prompted(tmp_path / "more" / f"{name}.png", prompt, plain(colour))
    project.library.scan(tmp_path / "more")
    assert Page(project, View(str(tmp_path / "more"))).ask().total == 0
    page = Page(project, View(str(tmp_path / "more"), ignore_loras=True, ignore_case=True))
    assert (page.ask().total, len(page.queue[0].images)) == (1, 2)
    page.answer()
    assert page.ask().done == 1


# ------------------------------------------------------------------------------------------------ cost


def test_only_groups_with_new_picks_are_looked_into(project, view, groups, monkeypatch):
    page = Page(project, view)
    page.pick(groups[1])
    page.ask(want=0)
    asked, members = [], project.library.members
    monkeypatch.setattr(project.library, "members", lambda view, keys: asked.append(set(keys)) or members(view, keys))
    page.ask(want=0)
    assert asked == []
    page.pick(groups[2])
    page.ask(want=0)
    assert asked == [{image.key for image in groups[2].images[:2]}]


def test_what_is_known_of_groups_that_a_scan_did_not_change_is_kept(project, view, groups, tmp_path, monkeypatch):
    page = Page(project, view)
    page.pick(groups[0])
    page.pick(groups[1])
    page.ask(want=0)
    asked, members = [], project.library.members
    monkeypatch.setattr(project.library, "members", lambda view, keys: asked.append(set(keys)) or members(view, keys))
    write_prompted(tmp_path / "images" / "new.png", groups[1].prompt, plain("red"))
    project.library.scan(tmp_path / "images")
    assert page.ask(want=0).done == 2
    assert asked == [{image.key for image in groups[1].images[:2]}]


def test_only_the_groups_that_are_handed_out_are_read(project, view, groups, monkeypatch):
    asked, group = [], project.library.group
    monkeypatch.setattr(project.library, "group", lambda view, key: asked.append(key) or group(view, key))
    page = Page(project, view)
    page.ask(want=1)
    assert len(asked) == 2  # one more, to know whether there is one
    page.ask(want=0)
    assert len(asked) == 3


def test_the_groups_of_a_large_folder_are_put_in_order_once_and_fast(project, view, groups, monkeypatch):
    catalogue = project.library.catalogue(view)
    lines = [catalogue.lines[0]._replace(key=f"{number * 2654435761 % 2**64:016x}00000100001") for number in range(50_000)]
    large = replace(catalogue, lines=lines)
    monkeypatch.setattr(project.library, "catalogue", lambda view: large)
    page = Page(project, view)
    started = time.perf_counter()
    page.ask(want=0, first=groups[0].key)
    assert time.perf_counter() - started < 20
    started = time.perf_counter()
    for _ in range(10):
        assert page.ask(want=0, first=groups[0].key).total == 50_000
    assert time.perf_counter() - started < 10
