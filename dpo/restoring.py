"""What people said, put back by itself where picks.sqlite is damaged or gone.

The backup (backups.py) takes its place, with all that was said since and can still be read out of the damaged file: rows of
picks and votes are only ever added, each under the next position, so those are the ones after the backup's last. The damaged
file is kept beside under its date. Killed at any moment, the next opening begins again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from dpo.backups import (
    COMPANIONS,
    GROWING,
    Extent,
    extent_of,
    last_position,
    opened,
    problem_of,
    remove_database,
    tables_of,
)
from dpo.disk import sync_folder

NAMED = {"facts": "name", "stand_ins": "folder", "typed_prompts": "key"}  # tables whose rows have a name, and the newest holds
MOST_MISSED = 2000  # positions in a row at which nothing is found, after which nothing more is expected
HEADER_NUMBER, HEADER_CHECK = slice(24, 28), slice(92, 96)  # where they differ, SQLite goes by the size of the file
PAGE_SIZE = slice(16, 18)

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """Of a table in a damaged file: rows that were added to the mended one, of how many that it lacked; None: nothing says."""

    added: int
    there: int | None


def damage(file: Path, backup: Path) -> str:
    """What is wrong with a database of picks; "" for one that is whole, and for one that was never there.

    Raises sqlite3.OperationalError where that cannot be found out.
    """
    if file.exists() and file.stat().st_size:
        return problem_of(file)
    kept = extent_of(backup)
    return "it was gone" if kept and kept.rows else ""


def restore(file: Path, backup: Path, problem: str, make: Callable[[Path], None]) -> str:
    """Mend a database in which `damage` found a problem. Returns what was done, as sentences.

    `make(path)` writes a new, empty database: what is mended where there is no backup. The caller is the only one who has the
    file open. Raises sqlite3.OperationalError and OSError where the disk refuses.
    """
    kept = extent_of(backup) if backup.exists() and not problem_of(backup) else None
    mended = file.with_name(f"{file.name}.partial")
    remove_database(mended)
    if kept:
        shutil.copyfile(backup, mended)
    else:
        make(mended)
    is_gone = not (file.exists() and file.stat().st_size)
    found = {} if is_gone else _salvage(file, mended, backup if kept else None)
    with mended.open("rb+") as whole:
        os.fsync(whole.fileno())
    aside = "" if is_gone else _put_aside(file)
    for ending in COMPANIONS:  # they belong to the damaged file; beside the mended one they would be taken for its own
        file.with_name(file.name + ending).unlink(missing_ok=True)
    mended.replace(file)
    sync_folder(file.parent)
    said = _sentences(file, problem, kept, backup, found, aside)
    _log.warning("%s", said)
    return said


def _salvage(file: Path, mended: Path, backup: Path | None) -> dict[str, Found]:
    """Add to `mended` what it lacks and `file` still tells. Returns what was found of each growing table.

    Read is a copy: SQLite would write to the file, which is kept as it was found. Where nothing can be read as it is, its first
    page, which says where everything else lies, is taken from the backup.
    """
    found = dict.fromkeys(GROWING, Found(0, None))
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".restoring-") as folder:
        copy = Path(folder) / file.name
        for ending in ("", COMPANIONS[0]):
            source = file.with_name(file.name + ending)
            if source.exists():
                shutil.copyfile(source, copy.with_name(copy.name + ending))
        if backup and not _can_be_opened(copy):
            _patch(copy, backup)
        try:
            with opened(copy) as damaged, opened(mended) as target:
                damaged.execute(
                    "PRAGMA writable_schema=ON"
                )  # what lies past the end of the file is no reason not to read the rest
                target.execute("PRAGMA foreign_keys=ON")
                for table in GROWING:
                    found[table] = _add_rows(damaged, target, table)
                for table, name in NAMED.items():
                    _add_named(damaged, target, table, name, with_project=backup is None)
        except sqlite3.DatabaseError as error:
            _log.warning("Nothing more can be read out of %s: %s", file, error)
    return found


def _can_be_opened(path: Path) -> bool:
    try:
        with opened(path) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            return bool(tables_of(connection))
    except sqlite3.DatabaseError:
        return False


def _patch(copy: Path, backup: Path) -> None:
    with backup.open("rb") as source, copy.open("r+b") as target:
        page = bytearray(source.read(100))
        size = int.from_bytes(page[PAGE_SIZE]) % 65535 or 65536  # 1 stands for 65536
        page += source.read(size - 100)
        page[HEADER_CHECK] = bytes(byte ^ 0xFF for byte in page[HEADER_NUMBER])
        target.write(page)


def _add_rows(damaged: sqlite3.Connection, target: sqlite3.Connection, table: str) -> Found:
    last, newest = last_position(target, table), _newest(damaged, table)
    added, position, found = 0, last, last
    while position - found < MOST_MISSED and (newest is None or position < newest):
        position += 1
        try:
            row = _row(damaged, table, position)
            if row is not None:
                _insert(target, table, row, "INSERT")
                added, found = added + 1, position
        except (sqlite3.DatabaseError, ValueError):  # on a page that is damaged, or about a row that is lost
            continue
    return Found(added, None if newest is None else max(0, newest - last))


def _newest(damaged: sqlite3.Connection, table: str) -> int | None:
    """The last position ever given in a table; None where it cannot be read, or makes no sense."""
    for question in (f"SELECT sum(seq) FROM sqlite_sequence WHERE name = '{table}'", f"SELECT max(position) FROM {table}"):
        try:
            (newest,) = damaged.execute(question).fetchone()
        except sqlite3.DatabaseError:
            continue
        if newest is None or (isinstance(newest, int) and 0 <= newest < 2**40):
            return newest or 0
    return None


def _row(damaged: sqlite3.Connection, table: str, position: int) -> dict | None:
    cursor = damaged.execute(f"SELECT * FROM {table} WHERE position = ?", (position,))
    row = cursor.fetchone()
    return row and dict(zip((column[0] for column in cursor.description), row, strict=True))


def _add_named(damaged: sqlite3.Connection, target: sqlite3.Connection, table: str, name: str, with_project: bool) -> None:
    try:
        cursor = damaged.execute(f"SELECT * FROM {table}")
        columns = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(columns, values, strict=True))
            if with_project or row[name] != b"project":
                _insert(target, table, row, "INSERT OR REPLACE")
    except (sqlite3.DatabaseError, ValueError) as error:
        _log.warning("%s: not all of it could be read: %s", table, error)


def _insert(target: sqlite3.Connection, table: str, row: dict, how: str) -> None:
    """Raises ValueError for a row whose values are not of their columns' kinds: what stands there is not what was written."""
    kinds = {name.decode(): kind.decode() for _, name, kind, *_ in target.execute(f"PRAGMA table_info({table})")}
    if kinds.keys() != row.keys():
        raise ValueError(f"{table} has other columns")
    values = {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
    for name, value in values.items():
        wanted = {"TEXT": str, "REAL": float, "INTEGER": int}[kinds[name]]
        if value is not None and not isinstance(value, wanted):
            raise ValueError(f"{name}={value!r} is no {kinds[name]}")
    for name in ("paths", "courses"):
        if values.get(name):
            json.loads(values[name])
    target.execute(f"{how} INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))


def _put_aside(file: Path) -> str:
    """Copy a damaged database, with what belongs to it, under a name with the date; returns that name."""
    name = next(name for name in _names(file) if not file.with_name(name).exists())
    for ending in ("", COMPANIONS[0]):
        source = file.with_name(file.name + ending)
        if source.exists():
            shutil.copyfile(source, file.with_name(name + ending))
    return name


def _names(file: Path) -> Iterator[str]:
    stem = f"{file.stem}.damaged-{datetime.now():%Y-%m-%d-%H%M%S}"
    yield f"{stem}{file.suffix}"
    for number in range(2, 1000):
        yield f"{stem}-{number}{file.suffix}"


def _sentences(file: Path, problem: str, kept: Extent | None, backup: Path, found: dict[str, Found], aside: str) -> str:
    parts = []
    if kept:
        made = datetime.fromtimestamp(backup.stat().st_mtime)
        parts.append(f"{kept.picks:,} picks and {kept.votes:,} votes of the backup of {made:%Y-%m-%d %H:%M}")
    if aside:
        added = sum(part.added for part in found.values())
        parts.append(f"{added:,} {'made since then' if kept else 'picks and votes'}, read out of the damaged file")
    lost = sum(max(0, (part.there or 0) - part.added) for part in found.values())
    if not found or any(part.there is None for part in found.values()):
        missing = "Whatever else was said since then is lost; nothing tells how much it was."
    else:
        missing = f"{lost:,} more could not be read and are lost." if lost else "Nothing is missing."
    said = [f"{file.name} was {f'damaged ({problem})' if aside else 'gone'}. Restored: {', and '.join(parts)}.", missing]
    return " ".join([*said, *([f"The damaged file is kept as {aside}."] if aside else [])])
