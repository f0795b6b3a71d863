"""What people said, as a file of its own: copied out of a project, held against the tables that a project has, taken into one."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.bundle.contents import BundleError
from dpo.bundle.places import MARK, Move
from dpo.pick_tables import PICK_MIGRATIONS
from dpo.rules import PickRules, RulesError

if TYPE_CHECKING:
    from dpo.project import Project

_SCHEMA = "SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
_TABLES = ("picks", "votes", "stand_ins", "typed_prompts")


def copy_said(project: Project, target: Path, own: Move, table: Move) -> None:
    """Write a copy of the picks as they are now, whoever is picking, with their paths put through `own`, and those of folders
    with stand-ins through `table`."""
    with closing(sqlite3.connect(project.path / "picks.sqlite")) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file
        with copy:
            _move_picks(copy, own)
            for folder, csv in copy.execute("SELECT folder, csv FROM stand_ins").fetchall():
                moved = table(folder), table(os.path.join(folder, csv)) if csv else "", folder
                copy.execute("UPDATE OR REPLACE stand_ins SET folder = ?, csv = ? WHERE folder = ?", moved)
            _forget_live_folder(copy)
        copy.execute("VACUUM")


def list_tables(project: Project) -> set[str]:
    """The tables of prompts that folders were given, as absolute paths of files that are there."""
    with closing(sqlite3.connect(project.path / "picks.sqlite")) as database:
        rows = database.execute("SELECT folder, csv FROM stand_ins WHERE csv != ''").fetchall()
    return {path for path in (os.path.join(*row) for row in rows) if os.path.isfile(path)}


def check_said(path: Path) -> None:
    """Raises BundleError for a file that is no database, or one with other tables, views or triggers than a project has."""
    try:
        with closing(_open(path)) as found, closing(sqlite3.connect(":memory:")) as usual:
            (version,) = found.execute("PRAGMA user_version").fetchone()
            if version > len(PICK_MIGRATIONS):
                raise BundleError("It was packed by a newer version of this program. Update this one, then open it again.")
            for step in PICK_MIGRATIONS[:version]:
                step(usual)
            if not version or _schema(found) != _schema(usual):
                raise BundleError("What people said in it (picks.sqlite) is not laid out as in a project. It is not opened.")
            (verdict,) = found.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise BundleError(f"What people said in it (picks.sqlite) is damaged: {str(verdict)[:200]}.")
    except sqlite3.Error as error:
        raise BundleError(f"What people said in it (picks.sqlite) cannot be read: {error}.") from error


def place_said(path: Path, own: Move, is_there: Callable[[str], bool]) -> None:
    """Give a checked file the paths of this machine. Stand-ins for folders of elsewhere are left out, tables that are not there
    too, and there is no live folder: that is a place on the other machine."""
    try:
        with closing(_open(path)) as database, database:
            _move_picks(database, own)
            database.execute("DELETE FROM stand_ins WHERE substr(folder, 1, ?) != ?", (len(MARK), MARK))
            for folder, csv in database.execute("SELECT folder, csv FROM stand_ins").fetchall():
                kept = own(csv) if csv.startswith(MARK) else csv
                if not is_there(os.path.join(own(folder), kept)):
                    kept = ""
                database.execute("UPDATE stand_ins SET folder = ?, csv = ? WHERE folder = ?", (own(folder), kept, folder))
            _forget_live_folder(database)
    except (sqlite3.Error, ValueError, TypeError, AttributeError, RulesError) as error:
        raise BundleError(f"What people said in it (picks.sqlite) cannot be read: {error}.") from error


def check_meaning(path: Path, folder: Path) -> None:
    """Raises BundleError for a placed file whose rows mean nothing. `folder`: a new one, to open a copy in."""
    from dpo.project import open_project

    folder.mkdir()
    shutil.copyfile(path, folder / path.name)
    try:
        picks = open_project(folder).picks
        _ = picks.picked_pairs(), picks.rankings(), picks.likes(), picks.rules()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, sqlite3.Error, StudioError) as error:
        raise BundleError(f"What people said in it (picks.sqlite) cannot be understood: {type(error).__name__}.") from error


def is_empty(project: Project) -> bool:
    """Whether nobody has said anything in this project yet: not even something that was taken back."""
    with closing(sqlite3.connect(project.path / "picks.sqlite")) as found:
        return not any(found.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("picks", "votes"))


def take_in_said(project: Project, path: Path) -> None:
    """Put all that a placed file says into a project that is empty, in one transaction; the project keeps its own id. Raises
    BundleError: then nothing was put in."""
    try:
        with closing(sqlite3.connect(project.path / "picks.sqlite", isolation_level=None)) as database:
            database.execute("ATTACH DATABASE ? AS sent", (str(path),))
            database.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                names = ", ".join(row[1] for row in database.execute(f"PRAGMA sent.table_info({table})"))
                database.execute(f"INSERT OR REPLACE INTO main.{table} ({names}) SELECT {names} FROM sent.{table}")
            database.execute("INSERT OR REPLACE INTO main.facts SELECT name, value FROM sent.facts WHERE name != 'project'")
            database.execute("COMMIT")
    except sqlite3.Error as error:  # closing takes all of it back
        raise BundleError(f"The project cannot be written: {error}. Free some space, then try again.") from error


def _move_picks(database: sqlite3.Connection, own: Move) -> None:
    for position, paths in database.execute("SELECT position, paths FROM picks WHERE paths != '[]'").fetchall():
        moved = json.dumps([own(str(path)) for path in json.loads(paths)])
        database.execute("UPDATE picks SET paths = ? WHERE position = ?", (moved, position))


def _forget_live_folder(database: sqlite3.Connection) -> None:
    for (rules,) in database.execute("SELECT value FROM facts WHERE name = 'rules'").fetchall():
        quiet = PickRules.from_json(json.dumps(json.loads(rules) | {"live_folder": ""}))
        database.execute("UPDATE facts SET value = ? WHERE name = 'rules'", (quiet.to_json(),))


def _open(path: Path) -> sqlite3.Connection:
    """A file that may come from anybody: what its tables say is data, and calls nothing."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA trusted_schema=OFF")
    database.execute("PRAGMA cell_size_check=ON")
    return database


def _schema(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return [(kind, name, re.sub(r"\s+", " ", text)) for kind, name, text in database.execute(_SCHEMA)]
