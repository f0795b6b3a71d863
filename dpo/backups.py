"""A second copy of what people said, brought up to date while a project is open: picks.backup.sqlite.

A copy takes the place of the one before only if it is whole and holds no less: rows of picks and votes are only ever added, so
one with fewer is of a database that was damaged or begun anew. What a backup is for: restoring.py.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dpo import StudioError
from dpo.disk import Held, hold, sync_folder

if TYPE_CHECKING:
    from dpo.project import Database

GROWING = ("picks", "votes")  # tables whose rows are only ever added
MOST_ROWS, MOST_SECONDS = 50, 600.0  # written, or gone by, after which a copy is due
PAUSE_SECONDS = 30.0  # between two copies, however fast people pick
COMPANIONS = ("-wal", "-shm")  # of an SQLite file that is open, or was when its process was killed

_log = logging.getLogger(__name__)


class BackupError(StudioError):
    """A copy that could not be made. The one before is as it was."""


@dataclass(frozen=True)
class Extent:
    """What a database of picks holds: whose they are, and how many rows were ever added."""

    project: str
    picks: int
    votes: int

    @property
    def rows(self) -> int:
        return self.picks + self.votes


class Backups:
    """Keeps `target` up to date with a database, in a thread that lives only as long as something is not copied yet."""

    def __init__(self, database: Database, target: Path) -> None:
        self._database, self._target = database, target
        self._change = threading.Condition()
        self._rows = 0  # written since the last copy was begun
        self._is_running = False

    def note(self, rows: int) -> None:
        """So many rows were written. Returns at once: whoever picks does not wait for a copy."""
        with self._change:
            self._rows += rows
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._follow, name="backup", daemon=True).start()
            elif self._rows >= MOST_ROWS:
                self._change.notify()

    def take(self) -> None:
        """Copy now. Raises BackupError where the disk refuses, the database is damaged, or it holds less than the copy before."""
        try:
            with hold(self._target.with_name(f"{self._target.name}.lock")):
                self._copy()
        except Held:
            return  # another process is at it
        except (OSError, sqlite3.DatabaseError, StudioError) as error:
            raise BackupError(f"{self._target} could not be brought up to date: {error}") from error

    def _copy(self) -> None:
        partial = self._target.with_name(f"{self._target.name}.partial")
        try:
            self._write_checked(partial)
            partial.replace(self._target)
        finally:
            remove_database(partial)
        sync_folder(self._target.parent)

    def _write_checked(self, partial: Path) -> None:
        remove_database(partial)  # of a process that was killed
        with closing(sqlite3.connect(partial)) as copy:
            self._database.connection().backup(copy)
        problem = problem_of(partial)
        if problem:
            raise BackupError(f"{self._database.path} is damaged ({problem}). Start the app again: it is restored by itself.")
        new, old = extent_of(partial), extent_of(self._target)
        if old and old.rows and new and (new.project != old.project or new.picks < old.picks or new.votes < old.votes):
            raise BackupError(
                f"{self._database.path} has {new.picks} picks and {new.votes} votes, the backup {old.picks} and {old.votes}. "
                "The backup is kept as it is; if you want to begin anew, move it elsewhere."
            )

    def _follow(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._rows >= MOST_ROWS, MOST_SECONDS)
                self._rows = 0
            try:
                self.take()
            except BackupError as error:  # the next copy tries again
                _log.warning("%s", error)
            time.sleep(PAUSE_SECONDS)
            with self._change:
                if not self._rows:
                    self._is_running = False
                    return


def problem_of(path: Path) -> str:
    """Why a database cannot be trusted; "" if it is whole and every row can be read.

    Raises sqlite3.OperationalError where that cannot be found out: it is locked, or the disk does not answer.
    """
    try:
        with opened(path) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != b"ok":
                return verdict.decode().splitlines()[-1]
            for table in tables_of(connection):
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        if isinstance(value, bytes):
                            value.decode()
    except UnicodeDecodeError:
        return "a text in it is none"
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def extent_of(path: Path) -> Extent | None:
    """None for a database that is not there, cannot be read, or holds no picks table yet."""
    if not path.exists():
        return None
    try:
        with opened(path) as connection:
            if "picks" not in tables_of(connection):
                return None
            (project,) = connection.execute("SELECT value FROM facts WHERE name = 'project'").fetchone()
            counts = [last_position(connection, table) for table in GROWING]
    except sqlite3.DatabaseError:
        return None
    return Extent(project.decode(), *counts)


def last_position(connection: sqlite3.Connection, table: str) -> int:
    """Of the newest row of a table that only grows; 0 if it is empty, or not there in an older version."""
    if table not in tables_of(connection):
        return 0
    return connection.execute(f"SELECT coalesce(max(position), 0) FROM {table}").fetchone()[0]


def tables_of(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name.decode() if isinstance(name, bytes) else name for (name,) in rows]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is there, with texts as bytes: a damaged one is no reason not to read the rest of a row."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=10, isolation_level=None)) as connection:
        connection.text_factory = bytes
        yield connection


def remove_database(path: Path) -> None:
    for ending in ("", *COMPANIONS):
        path.with_name(path.name + ending).unlink(missing_ok=True)
