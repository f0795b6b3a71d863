import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dpo.pick_tables import PICK_MIGRATIONS
from dpo.picks import PickStore
from dpo.project import Database, ProjectError, open_project
from dpo.rules import PickRules
from tests.operations import best_worst, clearly, duel, keys, reopen, review, skip, triage, undo
from tests.pictures import paint_folder, plain, write_prompted

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path):
    paint_folder(tmp_path / "images", prompts=3, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(tmp_path / "images")
    return project


@pytest.fixture
def groups(project, tmp_path):
    return project.library.groups(tmp_path / "images")


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
        lambda group: broken(group, op="drop table"),
        lambda group: broken(group, extra=1),
        lambda group: broken(group, images=keys(group)[:1]),
        lambda group: broken(group, images=[*keys(group), "0" * 24]),
        lambda group: broken(group, result=[keys(group)[0], "0" * 24]),
        lambda group: broken(group, op="import"),
        lambda group: undo({"client": "client-a", "number": 99}, 7),
        lambda group: clearly({"client": "client-a", "number": 99}, 7),
        lambda group: clearly({"client": "client-a", "number": 0}, 7),  # that is no duel
        lambda group: {**review("drop", group, 7), "images": ["0" * 24, keys(group)[0]]},
        lambda group: {**review("swap", group, 7), "images": [keys(group)[0], "0" * 24]},
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


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_opens_and_keeps_its_picks(tmp_path, project, groups, version):
    first, second = best_worst(groups[0], 0), best_worst(groups[1], 1)
    project.picks.apply([first, second, undo(second, 2), duel(groups[2], "right", 3)])
    before = project.picks.live()
    old = tmp_path / "old"
    old.mkdir()
    database = Database(old / "picks.sqlite", PICK_MIGRATIONS[:version], "FULL")
    names = ", ".join(row["name"] for row in database.read("SELECT name FROM pragma_table_info('picks')"))
    rows = project.picks._database.tuples(f"SELECT {names} FROM picks")
    with database.write() as connection:
        connection.executemany(f"INSERT INTO picks VALUES ({', '.join('?' * len(rows[0]))})", rows)
    again = open_project(old)
    assert again.picks.live() == before and len(before) == 2
    assert [picked.pair for picked in again.picks.picked_pairs()] == project.picks.pairs()
    assert again.picks.apply([first]).new == 0
    assert again.picks.apply([undo(second, 9)]).refused
    again.picks.apply([reopen(groups[0], 10)])
    assert [pick.op for pick in again.picks.live()] == ["duel"]
    again.library.give_prompt(before[0].keys[0], "typed")
    again.library.scan(tmp_path / "images")
    assert again.library.image(before[0].keys[0]).record.prompt == "typed"


def test_recent_picks_come_newest_first_and_can_be_paged(project, groups):
    project.picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    newest = project.picks.recent(None, 2)
    assert [pick.number for pick in newest] == [2, 1]
    assert [pick.number for pick in project.picks.recent(newest[-1].position, 2)] == [0]
    assert newest[0].keys == tuple(keys(groups[2]))


def test_the_revision_grows_with_every_operation_and_change_of_rules(project, groups):
    revisions, operation = [project.picks.revision()], best_worst(groups[0])
    for change in (
        lambda: project.picks.apply([operation]),
        lambda: project.picks.apply([undo(operation, 1)]),
        lambda: project.picks.set_rules(PickRules(pairs_per_group=2)),
        lambda: project.picks.set_rules(PickRules(pairs_per_group=3)),
    ):
        change()
        revisions.append(project.picks.revision())
    assert revisions == sorted(set(revisions))


def test_rules_are_kept_with_the_picks(project):
    assert project.picks.rules() == PickRules()
    rules = PickRules(pairs_per_group=2, pairing="elo", agreement=True, live_folder="pairs")
    project.picks.set_rules(rules)
    assert open_project(project.path).picks.rules() == rules


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


def test_the_login_goes_before_the_name_that_an_operation_gives(project, groups):
    project.picks.apply([best_worst(groups[0], 0, rater=" Ann "), best_worst(groups[1], 1)])
    project.picks.apply([best_worst(groups[2], 2, rater="Ann")], rater="bob")
    assert [pick.rater for pick in project.picks.live()] == ["Ann", "", "bob"]


def test_a_duel_whose_key_was_held_counts_as_said_clearly(project, groups):
    plain_duel, said = duel(groups[0], "left", 0), duel(groups[1], "left", 1, clearly=True)
    project.picks.apply([plain_duel, said])
    assert [pick.is_clear for pick in project.picks.live()] == [False, True]
    project.picks.apply([clearly(plain_duel, 2)])
    assert [pick.is_clear for pick in project.picks.live()] == [True, True]
    project.picks.apply([undo(clearly(plain_duel, 2), 3)])
    assert [pick.is_clear for pick in project.picks.live()] == [False, True]


@pytest.mark.parametrize("hide", [lambda group, pick: undo(pick, 1), lambda group, pick: reopen(group, 1)])
def test_what_is_not_live_any_more_cannot_be_undone_nor_said_clearly(project, groups, hide):
    operation = duel(groups[0], "left", 0)
    project.picks.apply([operation, hide(groups[0], operation)])
    assert len(project.picks.apply([undo(operation, 2), clearly(operation, 3)]).refused) == 2


def test_opening_a_group_again_can_be_taken_back_and_an_undo_cannot(project, groups):
    pick, opening = best_worst(groups[0], 0), reopen(groups[0], 1)
    project.picks.apply([pick, opening])
    assert project.picks.pairs() == []
    back = undo(opening, 2)
    project.picks.apply([back, undo(back, 3)])
    assert len(project.picks.pairs()) == 1
    assert project.picks.apply([undo(back, 4)]).refused
    project.picks.apply([undo(pick, 5)])
    assert project.picks.pairs() == []


def test_each_opening_of_a_group_can_be_taken_back_whatever_came_after_it(project, groups):
    project.picks.apply([best_worst(groups[0], 0), reopen(groups[0], 1), reopen(groups[0], 2)])
    assert project.picks.apply([undo(reopen(groups[0], 1), 3)]).refused == ()
    assert project.picks.pairs() == []
    project.picks.apply([undo(reopen(groups[0], 2), 4)])
    assert len(project.picks.pairs()) == 1


def test_a_label_is_a_pick_of_one_image(project, groups):
    project.picks.apply([triage(groups[0], "good", 0, 0), triage(groups[0], "bad", 1, 1), triage(groups[0], "skip", 2, 2)])
    (pair,) = project.picks.pairs()
    assert (pair.source, pair.chosen, pair.rejected) == ("triage", groups[0].images[0].path, groups[0].images[1].path)


def test_images_that_differ_in_lora_tags_or_case_can_be_compared_and_train_without_the_tags(project, tmp_path):
    (tmp_path / "more").mkdir()
    for name, prompt, colour in (("a", "A cat <lora:x:1>", "red"), ("b", "a cat", "blue")):
        write_prompted(tmp_path / "more" / f"{name}.png", prompt, plain(colour))
    project.library.scan(tmp_path / "more")
    tagged, other = (image.key for image in project.library.images(tmp_path / "more"))
    operation = {"client": "client-a", "number": 0, "op": "best_worst", "group": "0" * 27, "images": [tagged, other]}
    assert project.picks.apply([{**operation, "result": [tagged, other]}]).refused == ()
    assert project.picks.pairs()[0].prompt == "A cat"


KILLED = """
import json, sys
from pathlib import Path
from dpo.project import open_project

picks = open_project(Path(sys.argv[1])).picks
operation = json.loads(sys.argv[2])
for number in range(10**6):
    picks.apply([{**operation, "number": number}])
    print(number, flush=True)
"""


def test_a_server_killed_at_any_moment_has_kept_what_it_acknowledged(project, groups):
    """The next page sends what it had no answer for again."""
    chance, acknowledged = random.Random(4), set()
    for attempt in range(4):
        operation = json.dumps(best_worst(groups[0], client=f"client-{attempt}"))
        command = [sys.executable, "-c", KILLED, str(project.path), operation]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        heard = [child.stdout.readline()]
        kill = threading.Timer(chance.uniform(0, 0.2), child.send_signal, [signal.SIGKILL])
        kill.start()
        heard += child.stdout
        assert child.wait() == -signal.SIGKILL
        # A line that is torn off was never read by anybody.
        numbers = [int(line) for line in heard if line.endswith("\n")]
        acknowledged |= {(f"client-{attempt}", number) for number in numbers}
        unanswered = [best_worst(groups[0], numbers[-1] + extra, client=f"client-{attempt}") for extra in (0, 1)]
        assert open_project(project.path).picks.apply(unanswered).refused == ()
    stored = [(pick.client, pick.number) for pick in open_project(project.path).picks.live()]
    assert acknowledged <= set(stored) and len(acknowledged) > 4
    assert len(stored) == len(set(stored))
