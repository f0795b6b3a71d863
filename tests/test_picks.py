import shutil
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dpo.groups import View
from dpo.library import content_key
from dpo.picks import PICK_MIGRATIONS, PickStore
from dpo.project import Database, ProjectError, open_project
from tests.pictures import paint_folder, plain, write_prompted


@pytest.fixture
def project(tmp_path):
    paint_folder(tmp_path / "images", prompts=3, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(tmp_path / "images")
    return project


@pytest.fixture
def groups(project, tmp_path):
    return project.library.groups(tmp_path / "images")


@pytest.fixture
def view(tmp_path):
    return View(str(tmp_path / "images"))


def next_screens(project, view, mode="best_worst", want=99, have=(), first=""):
    return project.picks.next_screens(project.library, view, mode, want, set(have), first)


def keys(group) -> list[str]:
    return [image.key for image in group.images]


def best_worst(group, number=0, best=0, worst=1, client="client-a") -> dict:
    shown = keys(group)
    return {
        "client": client, "number": number, "op": "best_worst", "group": group.key,
        "images": shown, "result": [shown[best], shown[worst]],
    }  # fmt: skip


def duel(group, result, number=0, left=0, right=1) -> dict:
    shown = [keys(group)[left], keys(group)[right]]
    return {"client": "client-a", "number": number, "op": "duel", "group": group.key, "images": shown, "result": result}


def skip(group, number=0) -> dict:
    shown = {"group": group.key, "images": keys(group), "result": "best_worst"}
    return {"client": "client-a", "number": number, "op": "skip", **shown}


def undo(of, number, client="client-a") -> dict:
    return {"client": client, "number": number, "op": "undo", "undoes": [of["client"], of["number"]]}


def test_best_and_worst_become_chosen_and_rejected(project, groups):
    assert project.picks.apply([best_worst(groups[0], best=2, worst=3)]).new == 1
    (pair,) = project.picks.pairs()
    assert pair.chosen == groups[0].images[2].path
    assert pair.rejected == groups[0].images[3].path
    assert (pair.prompt, pair.source) == (groups[0].prompt, "best_worst")


@pytest.mark.parametrize("result, chosen, rejected", [("left", 2, 1), ("right", 1, 2)])
def test_the_side_that_won_a_duel_is_chosen(project, groups, result, chosen, rejected):
    project.picks.apply([duel(groups[0], result, left=2, right=1)])
    (pair,) = project.picks.pairs()
    assert (pair.chosen, pair.rejected) == (groups[0].images[chosen].path, groups[0].images[rejected].path)


@pytest.mark.parametrize("result", ["tie", "skip"])
def test_a_tie_or_skipped_duel_is_never_a_pair(project, groups, result):
    project.picks.apply([duel(groups[0], result), skip(groups[1], 1)])
    assert len(project.picks.live()) == 2
    assert project.picks.pairs() == []


def test_an_operation_sent_twice_counts_once(project, groups):
    operation = best_worst(groups[0])
    assert project.picks.apply([operation, operation]).new == 1
    assert project.picks.apply([operation]).new == 0
    assert len(project.picks.live()) == 1


def test_an_undo_takes_back_the_pick_it_names_and_no_other(project, groups):
    first, second = best_worst(groups[0], 0), best_worst(groups[1], 1)
    project.picks.apply([first, second, undo(first, 2)])
    assert [pair.prompt for pair in project.picks.pairs()] == [groups[1].prompt]


def test_an_undo_sent_again_does_not_take_back_another_pick(project, groups):
    first, second = best_worst(groups[0], 0), best_worst(groups[1], 1)
    project.picks.apply([first, second, undo(second, 2)])
    applied = project.picks.apply([undo(second, 2), undo(second, 3)])
    assert applied.new == 0 and len(applied.refused) == 1
    assert len(project.picks.pairs()) == 1


def test_another_page_may_undo_a_pick_and_it_can_be_made_again(project, groups):
    first = best_worst(groups[0], 0)
    project.picks.apply([first, undo(first, 0, client="client-b"), best_worst(groups[0], 1, best=3, worst=0)])
    (pair,) = project.picks.pairs()
    assert pair.chosen == groups[0].images[3].path


def test_of_two_picks_of_the_same_images_the_later_counts(project, groups):
    project.picks.apply([best_worst(groups[0], 0), best_worst(groups[0], 0, best=1, worst=0, client="client-b")])
    (pair,) = project.picks.pairs()
    assert pair.chosen == groups[0].images[1].path


def broken(shown, **changes) -> dict:
    return {**best_worst(shown, 7), **changes}


@pytest.mark.parametrize(
    "make",
    [
        lambda group: "not a dict",
        lambda group: {},
        lambda group: broken(group, op="drop table"),
        lambda group: broken(group, op=["best_worst"]),
        lambda group: broken(group, extra=1),
        lambda group: broken(group, client="a b"),
        lambda group: broken(group, client="\ud800\ud800\ud800\ud800"),
        lambda group: broken(group, number=-1),
        lambda group: broken(group, number=True),
        lambda group: broken(group, number=2**70),
        lambda group: broken(group, group="../../x"),
        lambda group: broken(group, images=[]),
        lambda group: broken(group, images=[""] * 2),
        lambda group: broken(group, images=keys(group)[:1]),
        lambda group: broken(group, images=[keys(group)[0]] * 2),
        lambda group: broken(group, images=[*keys(group), "0" * 24]),
        lambda group: broken(group, result=[keys(group)[0]] * 2),
        lambda group: broken(group, result=[keys(group)[0], "0" * 24]),
        lambda group: broken(group, result=None),
        lambda group: {**duel(group, "left", 7), "result": "up"},
        lambda group: {**skip(group, 7), "result": "left"},
        lambda group: {**duel(group, "left", 7), "result": ["left"]},
        lambda group: {**duel(group, "left", 7), "images": keys(group)},
        lambda group: {"client": "client-a", "number": 7, "op": "undo", "undoes": ["client-a", 99]},
        lambda group: {"client": "client-a", "number": 7, "op": "undo", "undoes": ["client-a", 2**70]},
        lambda group: {"client": "client-a", "number": 7, "op": "undo", "undoes": "client-a"},
    ],
)
def test_a_malformed_operation_is_refused_and_the_others_are_kept(project, groups, make):
    applied = project.picks.apply([best_worst(groups[0], 0), make(groups[0]), best_worst(groups[1], 1)])
    assert applied.new == 2
    assert len(applied.refused) == 1 and applied.refused[0]
    assert len(project.picks.pairs()) == 2


def test_images_of_different_prompts_are_not_compared(project, groups):
    mixed = broken(groups[0], images=[keys(groups[0])[0], keys(groups[1])[0]])
    mixed["result"] = mixed["images"]
    assert "different prompts" in project.picks.apply([mixed]).refused[0]


def test_pairs_outlive_the_index(project, groups, tmp_path):
    project.picks.apply([best_worst(groups[0])])
    before = project.picks.pairs()
    for path in project.path.glob("index.sqlite*"):
        path.unlink()
    assert open_project(project.path).picks.pairs() == before


def test_a_pair_whose_file_vanished_is_reported_and_not_used(project, groups):
    project.picks.apply([best_worst(groups[0], 0), best_worst(groups[1], 1)])
    gone = project.picks.pairs()[0].rejected
    Path(gone).unlink()
    assert len(project.picks.pairs()) == 1
    assert [picked.missing for picked in project.picks.picked_pairs()] == [(gone,), ()]


def test_a_pair_follows_files_that_moved_once_they_were_scanned(project, groups, tmp_path):
    project.picks.apply([best_worst(groups[0])])
    shutil.move(tmp_path / "images", tmp_path / "moved")
    assert project.picks.pairs() == []
    project.library.scan(tmp_path / "moved")
    (pair,) = project.picks.pairs()
    assert pair.chosen.startswith(str(tmp_path / "moved"))


def test_screens_answered_are_not_shown_again_and_an_undo_brings_them_back(project, groups, view):
    found = next_screens(project, view)
    assert (len(found.screens), found.done, found.total, found.is_complete) == (3, 0, 3, True)
    operation = best_worst(groups[1])
    project.picks.apply([operation])
    found = next_screens(project, view)
    assert ([screen.group.key for screen in found.screens], found.done) == ([groups[0].key, groups[2].key], 1)
    project.picks.apply([undo(operation, 1)])
    assert (len(next_screens(project, view).screens), next_screens(project, view).done) == (3, 0)


def test_a_group_picked_twice_is_open_again_only_when_both_picks_are_taken_back(project, groups, view):
    first, second = best_worst(groups[1]), best_worst(groups[1], 1)
    project.picks.apply([first, second, undo(first, 2)])
    assert next_screens(project, view).done == 1
    project.picks.apply([undo(second, 3)])
    assert next_screens(project, view).done == 0


def test_no_more_is_handed_out_than_wanted_and_none_that_the_page_has(project, groups, view):
    first = next_screens(project, view, want=2)
    assert ([screen.group.key for screen in first.screens], first.is_complete) == ([groups[0].key, groups[1].key], False)
    rest = next_screens(project, view, want=2, have={screen.key for screen in first.screens})
    assert ([screen.group.key for screen in rest.screens], rest.is_complete) == ([groups[2].key], True)


def test_a_group_that_somebody_asked_for_comes_first_and_once(project, groups, view):
    found = next_screens(project, view, first=groups[2].key)
    assert [screen.group.key for screen in found.screens] == [groups[2].key, groups[0].key, groups[1].key]
    project.picks.apply([best_worst(groups[2])])
    found = next_screens(project, view, first=groups[2].key)
    assert [screen.group.key for screen in found.screens] == [groups[0].key, groups[1].key]
    assert len(next_screens(project, view, first="0" * 27).screens) == 2


def test_the_modes_are_answered_apart_but_a_skipped_group_is_gone_from_both(project, groups, view):
    project.picks.apply([best_worst(groups[0], 0), duel(groups[1], "tie", 1), skip(groups[2], 2)])
    assert {screen.group.key for screen in next_screens(project, view).screens} == {groups[1].key}
    duels = next_screens(project, view, "duel")
    assert (duels.done, duels.total) == (3, 6)
    assert [screen.group.key for screen in duels.screens] == [groups[0].key] * 2 + [groups[1].key]


def test_unpicked_counts_the_open_screens_of_groups_with_picks_alone(project, groups, view):
    project.picks.apply([best_worst(groups[0], 0), duel(groups[1], "tie", 1), skip(groups[2], 2)])
    assert project.picks.unpicked(project.library, view, "best_worst") == {groups[0].key: 0, groups[2].key: 0}
    assert project.picks.unpicked(project.library, view, "duel") == {groups[1].key: 1, groups[2].key: 0}


def test_two_new_images_reopen_a_group_and_one_does_not(project, groups, view, tmp_path):
    project.picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    write_prompted(tmp_path / "images" / "one.png", groups[0].prompt, plain("red"))
    project.library.scan(tmp_path / "images")
    assert next_screens(project, view).screens == []
    write_prompted(tmp_path / "images" / "two.png", groups[0].prompt, plain("blue"))
    project.library.scan(tmp_path / "images")
    (screen,) = next_screens(project, view).screens
    assert len(screen.images) == 6


def test_a_skipped_group_stays_skipped_when_images_join_it(project, groups, view, tmp_path):
    project.picks.apply([skip(groups[0])])
    for name, colour in (("one", "red"), ("two", "blue")):
        write_prompted(tmp_path / "images" / f"{name}.png", groups[0].prompt, plain(colour))
    project.library.scan(tmp_path / "images")
    assert [screen.group.key for screen in next_screens(project, view).screens] == [groups[1].key, groups[2].key]


@pytest.mark.parametrize("options", [{"ignore_case": True}, {"ignore_loras": True}, {"same_model": True}, {"size": "64x64"}])
def test_another_option_or_filter_brings_no_answered_image_back(project, groups, view, options):
    project.picks.apply([best_worst(groups[0], 0), skip(groups[1], 1)])
    other = replace(view, **options)
    project.library.catalogue(other)
    assert [screen.group.prompt for screen in next_screens(project, other).screens] == [groups[2].prompt]


def test_a_copy_of_an_answered_image_is_answered_too(project, groups, view, tmp_path):
    project.picks.apply([best_worst(groups[0], 0)])
    for image in groups[0].images:  # the same pixels under another key
        copy = Path(image.path).with_name("copy " + Path(image.path).name)
        with Image.open(image.path) as pixels:
            write_prompted(copy, groups[0].prompt, pixels.copy(), seed=7)
        key = content_key(copy)
        project.library.scan(tmp_path / "images")
        project.library.note_pixels([(image.key, image.key, "0" * 16), (key, image.key, "0" * 16)])
    assert [screen.group.key for screen in next_screens(project, view).screens] == [groups[1].key, groups[2].key]


def test_images_that_differ_in_lora_tags_or_case_can_be_compared_and_train_without_the_tags(project, tmp_path):
    (tmp_path / "more").mkdir()
    for name, prompt, colour in (("a", "A cat <lora:x:1>", "red"), ("b", "a cat", "blue")):
        write_prompted(tmp_path / "more" / f"{name}.png", prompt, plain(colour))
    project.library.scan(tmp_path / "more")
    view = View(str(tmp_path / "more"), ignore_loras=True, ignore_case=True)
    (screen,) = next_screens(project, view).screens
    tagged = next(image.key for image in screen.images if image.path.endswith("a.png"))
    other = next(image.key for image in screen.images if image.path.endswith("b.png"))
    operation = {**best_worst(screen.group), "result": [tagged, other]}
    assert project.picks.apply([operation]).refused == ()
    assert project.picks.pairs()[0].prompt == "A cat"


def test_only_groups_with_picks_are_looked_into(project, groups, view, monkeypatch):
    project.picks.apply([best_worst(groups[1])])
    next_screens(project, view, want=0)
    asked = []
    members = project.library.members
    monkeypatch.setattr(project.library, "members", lambda view, keys: asked.append(set(keys)) or members(view, keys))
    next_screens(project, view, want=0)
    project.picks.apply([best_worst(groups[2], 1)])
    next_screens(project, view, want=0)
    assert asked == [set(keys(groups[2]))]


def test_a_store_of_the_first_version_opens_and_keeps_its_picks(tmp_path, project, groups):
    project.picks.apply([best_worst(groups[0])])
    before = project.picks.live()
    old = tmp_path / "old"
    old.mkdir()
    Database(old / "picks.sqlite", PICK_MIGRATIONS[:1], "FULL")
    rows = [tuple(row) for row in project.picks._database.read("SELECT * FROM picks")]
    with sqlite3.connect(old / "picks.sqlite") as connection:
        connection.executemany(f"INSERT INTO picks VALUES ({', '.join('?' * len(rows[0]))})", rows)
    connection.close()
    again = open_project(old)
    assert again.picks.live() == before
    again.library.give_prompt(before[0].keys[0], "typed")
    again.library.scan(tmp_path / "images")
    assert again.library.image(before[0].keys[0]).record.prompt == "typed"


def test_recent_picks_come_newest_first_and_can_be_paged(project, groups):
    project.picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    newest = project.picks.recent(None, 2)
    assert [pick.number for pick in newest] == [2, 1]
    assert [pick.number for pick in project.picks.recent(newest[-1].position, 2)] == [0]
    assert newest[0].keys == tuple(keys(groups[2]))


def test_the_revision_grows_with_every_operation(project, groups):
    before = project.picks.revision()
    operation = best_worst(groups[0])
    project.picks.apply([operation])
    after_pick = project.picks.revision()
    project.picks.apply([undo(operation, 1)])
    assert before < after_pick < project.picks.revision()


def test_picks_from_several_pages_at_once_are_all_kept(project, groups):
    def pick(client):
        for number in range(20):
            project.picks.apply([best_worst(groups[0], number, client=client)])

    threads = [threading.Thread(target=pick, args=(f"client-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(project.picks.live()) == 80


def test_when_the_disk_refuses_no_part_of_a_batch_is_kept(project, groups):
    database = project.picks._database
    pages = database.connection().execute("PRAGMA page_count").fetchone()[0]
    database.connection().execute(f"PRAGMA max_page_count={pages}")
    batch = [best_worst(groups[0], number) for number in range(500)]
    with pytest.raises(ProjectError, match="Free some space"):
        project.picks.apply(batch)
    assert project.picks.live() == []
    database.connection().execute("PRAGMA max_page_count=1000000")
    assert project.picks.apply(batch).new == 500


def test_a_store_opened_again_has_the_same_picks(project, groups):
    project.picks.apply([best_worst(groups[0])])
    assert isinstance(project.picks, PickStore)
    assert open_project(project.path).picks.live() == project.picks.live()
