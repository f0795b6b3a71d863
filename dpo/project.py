"""A project is a folder: what people said (picks.sqlite), what is known of images (index.sqlite), cache/, runs/, exports/.

Only this module and the stores it hands out (`Library`, `PickStore`, `VoteStore`) speak SQL. Two files, so that a scan never
blocks a pick; which page has which group just now, and what scorers say of images, are two more (leases.sqlite,
scores.sqlite). Several processes may open a project.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dpo import StudioError
from dpo.agreement import catalogue_of_unsure
from dpo.given import GivenPrompts
from dpo.leases import LEASE_MIGRATIONS, Leases
from dpo.library import INDEX_MIGRATIONS, Library
from dpo.pick_tables import PICK_MIGRATIONS
from dpo.picks import PickStore
from dpo.previews import Previews
from dpo.scores import SCORE_MIGRATIONS, ScoreStore
from dpo.votes import VoteStore

DEFAULT_PROJECT = Path("~/image-dpo/demo")
BUSY_SECONDS = 10


class ProjectError(StudioError):
    """A project folder or database that cannot be opened, read or written."""


@dataclass(frozen=True)
class Project:
    """An open project. `id` names it for a browser, whose storage may hold picks of several projects on one port."""

    path: Path
    id: str
    library: Library
    picks: PickStore
    votes: VoteStore
    previews: Previews
    scores: ScoreStore

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def rounds(self) -> Path:
        """A folder for each set of candidates that was made here."""
        return self.path / "rounds"


def open_project(path: Path = DEFAULT_PROJECT) -> Project:
    """Open a project folder, making whatever is missing. Raises ProjectError with what to do.

    The picks are copied to picks.backup.sqlite at every opening. An index that cannot be read is made anew: a scan fills it;
    so are leases and scores.
    """
    path = Path(path).expanduser().resolve()
    try:
        for folder in (path, path / "runs", path / "cache", path / "exports"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            f"{path} cannot be used as a project folder: {error.strerror}. Choose another folder with --project."
        ) from error
    picks_file = path / "picks.sqlite"
    try:
        picks = Database(picks_file, PICK_MIGRATIONS, synchronous="FULL")
        _back_up(picks, path / "picks.backup.sqlite")
    except sqlite3.DatabaseError as error:
        raise ProjectError(
            f"{picks_file} cannot be opened: {error}. If the disk has space and no other program holds the file, "
            "put picks.backup.sqlite in its place: it has the picks as they were when the project was last opened."
        ) from error
    library = Library(_open_rebuildable(path / "index.sqlite", INDEX_MIGRATIONS, "NORMAL"), GivenPrompts(picks))
    # Losing a lease costs next to nothing, and every answer to a page renews some: no waiting for the disk.
    leases = Leases(_open_rebuildable(path / "leases.sqlite", LEASE_MIGRATIONS, "OFF"))
    store = PickStore(picks, library.image, leases)
    previews = Previews(path / "cache" / "previews", library)
    scores = ScoreStore(_open_rebuildable(path / "scores.sqlite", SCORE_MIGRATIONS, "NORMAL"))
    project = Project(path, store.project_id(), library, store, VoteStore(picks), previews, scores)
    library.leave_out_sure = partial(catalogue_of_unsure, project)
    return project


class Database:
    """One SQLite file in WAL mode with a connection per thread.

    `migrations` are functions of a connection; number n brings the file from version n to n + 1. They are only ever added to.
    """

    def __init__(self, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]], synchronous: str) -> None:
        self.path = path
        self._synchronous = synchronous
        self._threads = threading.local()
        self._migrate(migrations)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection. For reading; write through `write`."""
        if not hasattr(self._threads, "connection"):
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", f"synchronous={self._synchronous}", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._threads.connection = connection
        return self._threads.connection

    def read(self, sql: str, values: Sequence = ()) -> list[sqlite3.Row]:
        return self.connection().execute(sql, values).fetchall()

    def tuples(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """Like `read`, plain and faster: for many rows."""
        return list(self.each(sql, values))

    def each(self, sql: str, values: Sequence = ()) -> Iterator[tuple]:
        """The rows one by one, as plain tuples: for a caller that may stop early."""
        cursor = self.connection().cursor()
        cursor.row_factory = None
        return cursor.execute(sql, values)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start: all of it is on disk afterwards, or none of it.

        Raises ProjectError if the disk is full, read-only, or another program holds the file for long.
        """
        connection = self.connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            _roll_back(connection)
            raise ProjectError(
                f"{self.path} cannot be written: {error}. Free some space, or close the program that holds it; "
                "nothing saved so far is lost."
            ) from error
        except BaseException:
            _roll_back(connection)
            raise

    def _migrate(self, migrations: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
        with self.write() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(migrations):
                raise ProjectError(f"{self.path} was written by a newer version of this program. Update it, then open it again.")
            for number in range(version, len(migrations)):
                migrations[number](connection)
            connection.execute(f"PRAGMA user_version={len(migrations)}")


def _open_rebuildable(path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]], synchronous: str) -> Database:
    """A database whose contents are found again by themselves: one that cannot be read is made anew."""
    try:
        return Database(path, migrations, synchronous)
    except sqlite3.OperationalError as error:  # held by another program, or no access: nothing to mend by deleting
        raise ProjectError(f"{path} cannot be opened: {error}. Close the program that holds it, or free some space.") from error
    except sqlite3.DatabaseError:
        for leftover in path.parent.glob(path.name + "*"):
            leftover.unlink()
        return Database(path, migrations, synchronous)


def _back_up(database: Database, target: Path) -> None:
    """Copy through a temporary file: a crash half-way leaves the previous copy whole."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(unfinished)) as copy:
            database.connection().backup(copy)
        unfinished.replace(target)
    except (OSError, sqlite3.OperationalError):
        # A full disk must not keep anyone from opening what they have.
        unfinished.unlink(missing_ok=True)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
