"""What people said is damaged on purpose, in every way a disk or a person does it, and opened again."""

import os
import random
import re
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from dpo.backups import MOST_ROWS, BackupError, Backups, extent_of, problem_of
from dpo.claims import QUEUE, Claim
from dpo.project import DamagedError, ProjectError, open_project
from tests.operations import make

BACKED_UP, SAID = 150, 400  # operations


def reopen(number):
    """An operation that needs no image."""
    return make("reopen", number, group=f"{number % 7:032x}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A project: its backup has what was said first, and picks.sqlite all of it. Opened again, it would be backed up again."""
    project = open_project(tmp_path_factory.mktemp("restoring") / "project")
    project.picks._database.after_write = lambda rows: None  # no copy but the one that is made here
    assert project.picks.apply(map(reopen, range(BACKED_UP))).new == BACKED_UP
    Backups(project.picks._database, project.path / "picks.backup.sqlite").take()
    project.library.give_prompt("k" * 32, "a prompt somebody typed")
    project.picks.apply(map(reopen, range(BACKED_UP, SAID)))
    with closing(sqlite3.connect(project.path / "picks.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return project


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it that no process has open."""
    for name in ("picks.sqlite", "picks.backup.sqlite"):
        shutil.copy(whole.path / name, tmp_path)
    return tmp_path


def wait_until_backed_up(project, rows):
    deadline = time.monotonic() + 60
    while extent_of(project.path / "picks.backup.sqlite").rows < rows:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def numbers(project):
    """Of all operations that are stored, oldest first."""
    return [row["number"] for row in project.picks._database.read("SELECT number FROM picks ORDER BY position")]


def scramble_the_middle(file):
    """Two pages with rows that are younger than the backup."""
    data = bytearray(file.read_bytes())
    pages = [place for place in range(0, len(data), 4096) if data[place : place + 4096].count(b"reopen") > 5]
    data[pages[-3] : pages[-3] + 8192] = random.Random(1).randbytes(8192)
    file.write_bytes(data)


def cut_off_the_end(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3 + 100])


def zero_the_header(file):
    data = bytearray(file.read_bytes())
    data[:100] = bytes(100)
    file.write_bytes(data)


def scramble_all_of_it(file):
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


def empty_it(file):
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (scramble_the_middle, SAID - 120),
        (cut_off_the_end, BACKED_UP),
        (zero_the_header, SAID),
        (scramble_all_of_it, BACKED_UP),
        (empty_it, BACKED_UP),
        (lambda file: file.unlink(), BACKED_UP),
    ],
    ids=["middle", "cut", "header", "all", "empty", "gone"],
)
def test_damaged_picks_restore_themselves_and_say_how_much_is_missing(whole, folder, damage, least):
    before = (folder / "picks.backup.sqlite").read_bytes()
    damage(folder / "picks.sqlite")
    damaged = (folder / "picks.sqlite").read_bytes() if (folder / "picks.sqlite").exists() else b""
    project = open_project(folder)
    kept = numbers(project)
    assert kept[:BACKED_UP] == list(range(BACKED_UP)) and kept == sorted(set(kept)) and len(kept) >= least
    assert project.id == whole.id
    assert f"{BACKED_UP} picks and 0 votes of the backup of" in project.mended
    (aside,) = list(folder.glob("picks.damaged-*.sqlite")) or [None]
    if damaged:
        assert f"{len(kept) - BACKED_UP} made since then" in project.mended
        assert aside.read_bytes() == damaged and aside.name in project.mended
    told = re.search(r"(\d+) more could not be read", project.mended)
    if damage in (scramble_the_middle, cut_off_the_end):
        assert int(told[1]) == SAID - len(kept) > 0
    elif damage is zero_the_header:
        assert "Nothing is missing." in project.mended
    else:
        assert aside is None or "nothing tells how much" in project.mended
    assert project.picks.apply([reopen(1000)]).new == 1 and problem_of(folder / "picks.sqlite") == ""
    assert len((folder / "picks.backup.sqlite").read_bytes()) >= len(before)
    assert open_project(folder).mended == ""


def test_typed_prompts_made_since_the_backup_come_back_too(folder):
    zero_the_header(folder / "picks.sqlite")
    assert open_project(folder).library._given.typed() == {"k" * 32: "a prompt somebody typed"}


@pytest.mark.parametrize("backup", ["gone", "damaged"])
def test_without_a_backup_all_that_can_be_read_is_kept(whole, folder, backup):
    scramble_the_middle(folder / "picks.sqlite")
    if backup == "gone":
        (folder / "picks.backup.sqlite").unlink()
    else:
        scramble_all_of_it(folder / "picks.backup.sqlite")
    project = open_project(folder)
    assert SAID - 120 <= len(numbers(project)) < SAID and project.id == whole.id


def test_what_was_still_in_the_log_of_a_killed_process_is_read_too(folder):
    """The last picks are in picks.sqlite-wal until SQLite copies them over; the main file alone would lose them."""
    live = open_project(folder)
    live.picks.apply([reopen(5000)])
    scramble_the_middle(folder / "picks.sqlite")
    other = folder.with_name("elsewhere")
    other.mkdir()
    for path in folder.glob("picks*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, other)
    assert numbers(open_project(other))[-1] == 5000


def test_a_process_killed_at_any_moment_of_restoring_leaves_all_that_can_be_restored(folder):
    """The process ends itself, as kill -9 does, at its n-th call of a function that changes the disk, for every n."""
    zero_the_header(folder / "picks.sqlite")
    for number in range(1, 100):
        place = folder / str(number)
        place.mkdir()
        for name in ("picks.sqlite", "picks.backup.sqlite"):
            shutil.copy(folder / name, place)
        pid = os.fork()
        if not pid:
            _die_at(number)
            try:
                open_project(place)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        project = open_project(place)
        assert len(numbers(project)) == SAID, number
        assert not list(place.glob(".restoring-*")) and not list(place.glob("picks.sqlite.partial*"))
        if status == 0:
            break
    assert number > 5, "the deaths were not where the work is"


def _die_at(last):
    calls = 0

    def mortal(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == last:
                os._exit(9)
            return function(*arguments, **options)

        return call

    for module, names in ((os, ("replace", "rename", "unlink", "fsync", "mkdir")), (shutil, ("copyfile",))):
        for name in names:
            setattr(module, name, mortal(getattr(module, name)))


def test_damaged_picks_that_an_app_has_open_are_left_to_it(folder):
    scramble_the_middle(folder / "picks.sqlite")
    claim = Claim(folder, QUEUE)
    assert claim.take("the app")
    with pytest.raises(ProjectError, match=rf"is damaged, and an app has the project open \(process {os.getpid()}, since"):
        open_project(folder)
    claim.give_up()
    assert open_project(folder).mended


# ------------------------------------------------------------------------------------------------ the backup


def test_a_good_backup_gives_way_neither_to_a_damaged_database_nor_to_one_that_holds_less(tmp_path):
    project = open_project(tmp_path / "one")
    project.picks.apply(map(reopen, range(300)))
    backups = Backups(project.picks._database, tmp_path / "backup.sqlite")
    backups.take()
    good = (tmp_path / "backup.sqlite").read_bytes()
    empty = open_project(tmp_path / "two")
    with pytest.raises(BackupError, match="has 0 picks and 0 votes, the backup 300 and 0"):
        Backups(empty.picks._database, tmp_path / "backup.sqlite").take()
    with closing(sqlite3.connect(project.path / "picks.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    scramble_the_middle(project.path / "picks.sqlite")
    with pytest.raises(BackupError, match="damaged"):
        Backups(_reopened(project), tmp_path / "backup.sqlite").take()
    assert (tmp_path / "backup.sqlite").read_bytes() == good


def _reopened(project):
    class Source:
        path = project.path / "picks.sqlite"

        def connection(self):
            return sqlite3.connect(self.path)

    return Source()


def test_a_backup_follows_while_the_project_is_open_and_nobody_who_picks_waits_for_it(tmp_path, monkeypatch):
    project, going, go_on = open_project(tmp_path), threading.Event(), threading.Event()
    copy = Backups._copy

    def slow(self):
        going.set()
        assert go_on.wait(30)
        copy(self)

    monkeypatch.setattr(Backups, "_copy", slow)
    for number in range(MOST_ROWS):
        project.picks.apply([reopen(number)])
    assert going.wait(30)
    project.picks.apply([reopen(900)])
    assert extent_of(tmp_path / "picks.backup.sqlite").picks == 0
    go_on.set()
    wait_until_backed_up(project, MOST_ROWS)
    assert problem_of(tmp_path / "picks.backup.sqlite") == ""


def test_a_few_picks_are_backed_up_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr("dpo.backups.MOST_SECONDS", 0.05)
    project = open_project(tmp_path)
    project.picks.apply([reopen(1)])
    wait_until_backed_up(project, 1)


def test_a_database_that_is_found_damaged_while_it_is_open_says_so_and_an_index_is_made_anew_at_the_next_opening(tmp_path):
    project = open_project(tmp_path / "project")
    index = tmp_path / "project" / "index.sqlite"
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'images'").fetchone()
    with index.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(bytes(range(256)) * 16)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(index, copy)
    damaged = open_project(copy)
    with pytest.raises(DamagedError, match=r"index.sqlite is damaged: .* Close the app and open it again"):
        damaged.library._database.tuples("SELECT * FROM images")
    assert open_project(copy).library.images(tmp_path) == [] and not (copy / "index.sqlite.damaged").exists()
    assert project.library.stand_ins(tmp_path)
