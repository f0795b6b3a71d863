import sqlite3
import threading

import pytest

from dpo.project import Database, ProjectError, open_project
from tests.pictures import paint_folder


def pragma(database: Database, name: str):
    return database.connection().execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_project_has_its_folders_and_both_databases(tmp_path):
    project = open_project(tmp_path / "new" / "project")
    for path in (project.runs, project.cache, project.exports, project.path / "picks.sqlite", project.path / "index.sqlite"):
        assert path.exists()
    assert project.picks.pairs() == [] and project.library.images(tmp_path) == []


def test_picks_are_on_disk_when_they_are_answered(tmp_path):
    project = open_project(tmp_path)
    database = project.picks._database
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2  # FULL
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "busy_timeout") >= 1000


def test_a_project_keeps_its_id_and_two_projects_differ(tmp_path):
    first = open_project(tmp_path / "a")
    assert open_project(tmp_path / "a").id == first.id
    assert open_project(tmp_path / "b").id != first.id


def test_every_thread_has_its_own_connection(tmp_path):
    database = open_project(tmp_path).picks._database
    others = []
    thread = threading.Thread(target=lambda: others.append(id(database.connection())))
    thread.start()
    thread.join()
    assert others != [id(database.connection())]
    assert database.connection() is database.connection()


def test_migrations_run_once_each_and_in_order(tmp_path):
    steps = [
        lambda connection: connection.execute("CREATE TABLE a (value)"),
        lambda connection: connection.execute("INSERT INTO a VALUES (1)"),
    ]
    Database(tmp_path / "x.sqlite", steps[:1], "FULL")
    Database(tmp_path / "x.sqlite", steps, "FULL")
    database = Database(tmp_path / "x.sqlite", steps, "FULL")
    assert [row["value"] for row in database.read("SELECT value FROM a")] == [1]
    assert pragma(database, "user_version") == 2


def test_a_failed_migration_leaves_the_file_as_it_was(tmp_path):
    def fail(connection):
        connection.execute("CREATE TABLE b (value)")
        raise ValueError

    create = lambda connection: connection.execute("CREATE TABLE a (value)")  # noqa: E731
    with pytest.raises(ValueError):
        Database(tmp_path / "x.sqlite", [create, fail], "FULL")
    assert pragma(Database(tmp_path / "x.sqlite", [create], "FULL"), "user_version") == 1


def test_a_project_of_a_newer_version_is_not_touched(tmp_path):
    Database(tmp_path / "x.sqlite", [lambda connection: None] * 3, "FULL")
    with pytest.raises(ProjectError, match="newer version"):
        Database(tmp_path / "x.sqlite", [lambda connection: None], "FULL")


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path):
    database = Database(tmp_path / "x.sqlite", [lambda connection: connection.execute("CREATE TABLE a (value)")], "FULL")
    with pytest.raises(ValueError), database.write() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
        raise ValueError
    assert database.read("SELECT * FROM a") == []


def test_a_full_disk_is_one_sentence_and_keeps_what_was_saved(tmp_path):
    database = Database(tmp_path / "x.sqlite", [lambda connection: connection.execute("CREATE TABLE a (value)")], "FULL")
    with database.write() as connection:
        connection.execute("INSERT INTO a VALUES ('first')")
    database.connection().execute(f"PRAGMA max_page_count={pragma(database, 'page_count')}")
    with pytest.raises(ProjectError, match=r"full.*Free some space"), database.write() as connection:
        connection.execute("INSERT INTO a VALUES (?)", ("x" * 100_000,))
    assert [row["value"] for row in database.read("SELECT value FROM a")] == ["first"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="--project"):
        open_project(tmp_path / "file" / "project")


def test_a_broken_index_is_made_anew_and_a_scan_fills_it(tmp_path):
    open_project(tmp_path / "project")
    for leftover in (tmp_path / "project").glob("index.sqlite-*"):
        leftover.unlink()
    (tmp_path / "project" / "index.sqlite").write_bytes(b"this is no database" * 1000)
    paint_folder(tmp_path / "images", prompts=1, per_prompt=2)
    project = open_project(tmp_path / "project")
    assert project.library.scan(tmp_path / "images").read == 2


def test_the_backup_is_a_whole_database(tmp_path):
    open_project(tmp_path)
    with sqlite3.connect(tmp_path / "picks.backup.sqlite") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
