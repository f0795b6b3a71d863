"""A project is a folder: what people said (picks.sqlite), what is known of images (index.sqlite), cache/, runs/, exports/.

Only this module and the stores it hands out (`Library`, `PickStore`, `VoteStore`) speak SQL. Two files, so that a scan never
blocks a pick; which page has which group just now, and what scorers say of images, are two more (leases.sqlite,
scores.sqlite). Several processes may open a project.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from dpo import StudioError
from dpo.agreement import catalogue_of_unsure
from dpo.backups import BackupError, Backups
from dpo.claims import QUEUE, Claim
from dpo.disk import Held, hold, remedy
from dpo.given import GivenPrompts
from dpo.leases import LEASE_MIGRATIONS, Leases
from dpo.leftovers import clear_leftovers
from dpo.library import INDEX_MIGRATIONS, Library
from dpo.pick_tables import PICK_MIGRATIONS
from dpo.picks import PickStore
from dpo.previews import Previews
from dpo.restoring import damage, restore
from dpo.scores import SCORE_MIGRATIONS, ScoreStore
from dpo.votes import VoteStore

DEFAULT_PROJECT = Path("~/image-dpo/demo")
BUSY_SECONDS = 10


REMEDIES = {  # by SQLite's name of what went wrong
    "SQLITE_FULL": "Free some space",
    "SQLITE_BUSY": "Close the program that holds it",
    "SQLITE_READONLY": "Make its folder writable",
    "SQLITE_CANTOPEN": "Bring its folder back",
}

_log = logging.getLogger(__name__)


class ProjectError(StudioError):
    """A project folder or database that cannot be opened, read or written."""


class DamagedError(ProjectError):
    """A database in which something stands that was never written."""


@dataclass(frozen=True)
class Project:
    """An open project. `id` names it for a browser, whose storage may hold picks of several projects on one port. `mended`: what
    was restored when it was opened, as sentences; "" where nothing had to be."""

    path: Path
    id: str
    library: Library
    picks: PickStore
    votes: VoteStore
    previews: Previews
    scores: ScoreStore
    mended: str = ""

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

    What people said is looked through, restored by itself where it is damaged, and kept twice from now on. An index that cannot
    be read is made anew: a scan fills it; so are leases and scores. What killed processes left half-written is cleared away.
    """
    path = Path(path).expanduser().resolve()
    try:
        for folder in (path, path / "runs", path / "cache", path / "exports"):
            folder.mkdir(parents=True, exist_ok=True)
        picks, mended = _open_picks(path / "picks.sqlite", path / "picks.backup.sqlite")
    except OSError as error:
        raise ProjectError(
            f"{path} cannot be used as a project folder: {error.strerror}. {remedy(error)}, or choose another with --project."
        ) from error
    clear_leftovers(path)
    library = Library(_open_rebuildable(path / "index.sqlite", INDEX_MIGRATIONS, "NORMAL"), GivenPrompts(picks))
    # Losing a lease costs next to nothing, and every answer to a page renews some: no waiting for the disk.
    leases = Leases(_open_rebuildable(path / "leases.sqlite", LEASE_MIGRATIONS, "OFF"))
    store = PickStore(picks, library.image, leases)
    previews = Previews(path / "cache" / "previews", library)
    scores = ScoreStore(_open_rebuildable(path / "scores.sqlite", SCORE_MIGRATIONS, "NORMAL"))
    project = Project(path, store.project_id(), library, store, VoteStore(picks), previews, scores, mended)
    library.leave_out_sure = partial(catalogue_of_unsure, project)
    return project


class Database:
    """One SQLite file in WAL mode with a connection per thread.

    `migrations` are functions of a connection; number n brings the file from version n to n + 1. They are only ever added to.
    `after_write` is told after every transaction how many rows it stored.
    """

    def __init__(self, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]], synchronous: str) -> None:
        self.path = path
        self.after_write: Callable[[int], None] = lambda rows: None
        self._synchronous = synchronous
        self._threads = threading.local()
        path.touch()
        self._place = _place_of(path)
        self._migrate(migrations)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection. For reading; write through `write`."""
        if not hasattr(self._threads, "connection"):
            # Never makes the file: in the place of one that was taken away it would be taken for all that was ever said.
            address = f"file:{quote(str(self.path))}?mode=rw"
            connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", f"synchronous={self._synchronous}", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._threads.connection = connection
        return self._threads.connection

    def read(self, sql: str, values: Sequence = ()) -> list[sqlite3.Row]:
        with self._told("read"):
            return self.connection().execute(sql, values).fetchall()

    def tuples(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """Like `read`, plain and faster: for many rows."""
        return list(self.each(sql, values))

    def each(self, sql: str, values: Sequence = ()) -> Iterator[tuple]:
        """The rows one by one, as plain tuples: for a caller that may stop early."""
        with self._told("read"):
            cursor = self.connection().cursor()
            cursor.row_factory = None
            yield from cursor.execute(sql, values)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start: all of it is on disk afterwards, or none of it.

        Raises ProjectError if the disk is full, read-only or gone, or another program holds the file for long.
        """
        with self._told("written"):
            connection = self.connection()
            before = connection.total_changes
            try:
                connection.execute("BEGIN IMMEDIATE")
                self._check_place()
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        self.after_write(connection.total_changes - before)

    def _check_place(self) -> None:
        """A file that was deleted is written to as ever, and is gone when the process ends."""
        place = _place_of(self.path)
        if place != self._place:
            what = "is not there any more" if place is None else "is another file than when it was opened"
            raise ProjectError(
                f"{self.path} {what}. Bring its folder back as it was, or close the app and open it again. What was saved before "
                "is as it was; what a page has not saved yet it keeps."
            )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Say what SQLite says of a disk that refuses, or of a damaged file, as a person can use it."""
        try:
            yield
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorname", "")
            advice = next((words for name, words in REMEDIES.items() if code.startswith(name)), "Check the disk")
            raise ProjectError(f"{self.path} cannot be {what}: {error}. {advice}; nothing saved so far is lost.") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # what was to be stored breaks a rule of its table: not the file's fault
            self.path.with_name(f"{self.path.name}.damaged").touch()
            raise DamagedError(f"{self.path} is damaged: {error}. Close the app and open it again: it mends it.") from error

    def _migrate(self, migrations: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
        with self.write() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(migrations):
                raise ProjectError(f"{self.path} was written by a newer version of this program. Update it, then open it again.")
            for number in range(version, len(migrations)):
                migrations[number](connection)
            connection.execute(f"PRAGMA user_version={len(migrations)}")


def _open_picks(file: Path, backup: Path) -> tuple[Database, str]:
    """(what people said, what had to be restored of it: see `Project.mended`)"""
    mended = ""
    try:
        if damage(file, backup):
            mended = _restore_alone(file, backup)
    except sqlite3.OperationalError as error:
        raise ProjectError(f"{file} cannot be read: {error}. Close the program that holds it, and check the disk.") from error
    file.with_name(f"{file.name}.damaged").unlink(missing_ok=True)
    picks = Database(file, PICK_MIGRATIONS, synchronous="FULL")
    backups = Backups(picks, backup)
    try:
        backups.take()
    except BackupError as error:  # a full disk must not keep anyone from opening what they have
        _log.warning("%s", error)
    picks.after_write = backups.note
    return picks, mended


def _restore_alone(file: Path, backup: Path) -> str:
    """As `restore`, with nobody else at the file. Raises ProjectError if an app has it open."""
    try:
        with hold(file.with_name(f"{QUEUE}.lock")):
            problem = damage(file, backup)  # another process may have mended it meanwhile
            return problem and restore(file, backup, problem, _make_empty)
    except Held as error:
        other = Claim(file.parent, QUEUE).other()
        raise ProjectError(
            f"{file} is damaged, and an app has the project open ({other or 'in another process'}). Close it and open it again: "
            "it restores the file by itself."
        ) from error


def _make_empty(path: Path) -> None:
    with closing(Database(path, PICK_MIGRATIONS, synchronous="FULL").connection()) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # all of it in one file


def _open_rebuildable(path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]], synchronous: str) -> Database:
    """A database whose contents are found again by themselves: one that cannot be read is made anew."""
    try:
        if not path.with_name(f"{path.name}.damaged").exists():
            return Database(path, migrations, synchronous)
    except DamagedError:
        pass
    _log.warning("%s was damaged, and is made anew.", path)
    for leftover in path.parent.glob(path.name + "*"):
        leftover.unlink()
    return Database(path, migrations, synchronous)


def _place_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from another that takes its place; None while none is there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
