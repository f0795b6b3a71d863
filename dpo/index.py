"""Writing index.sqlite: its tables, the rows of a scan, and what stands in for prompts.

An image's row says it as it is used. Its record says what the file said, `given` what was put in its place; so that a stand-in
can be taken back without opening the file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dpo.catalogue import IN_FOLDER, range_of
from dpo.groups import identify, prompt_forms
from dpo.rows import Batch, Facts, ImageRow, make_facts, to_image
from dpo.scan import FEW, Found, read_all
from dpo.standins import Giver

if TYPE_CHECKING:
    from dpo.project import Database

MOST_READERS = 4
SECONDS_OF_WORK = 0.5  # between two transactions of a scan: what one that is killed loses at most
MOST_BATCHES = 16  # in one of them
MOST_ROWS = 1024  # in one transaction that gives prompts
_KEYS = "key IN (SELECT value FROM json_each(?))"
_SAVED = ("fingerprint", "made", "key", "content", "prepared", "has_own", "state", *Facts._fields)


def remove_files(database: Database, paths: Iterable[str]) -> dict[str, list[int]]:
    """Forget files. Returns the ids they had, by key: the next file with that content is the same one, moved."""
    listed = json.dumps(list(paths))
    ids: dict[str, list[int]] = {}
    if listed != "[]":
        with database.write() as connection:
            chosen = "path IN (SELECT value FROM json_each(?))"
            for key, number in connection.execute(f"SELECT key, id FROM images WHERE {chosen}", (listed,)):
                ids.setdefault(key, []).append(number)
            connection.execute(f"DELETE FROM images WHERE {chosen}", (listed,))
            count_change(connection)
    return ids


def read_files(
    database: Database,
    files: list[Found],
    giver: Giver,
    gone: dict[str, list[int]],
    report: Callable[[int], None],
    stop: threading.Event | None = None,
    processes: int | None = None,
) -> tuple[int, int]:
    """Read files and store what they say, until told to stop. Returns how many were read, and how many of those moved.

    `gone`: as `remove_files` returned it. `processes`: how many read, 0 for this one; None decides by the number of files.
    Raises LibraryError when a reading process dies; what was read is kept.
    """
    read = moved = 0
    if processes is None:
        processes = 0 if len(files) <= FEW else max(2, min(MOST_READERS, os.cpu_count() or 1))
    pending: list[Batch] = []
    saved = time.monotonic()
    try:
        for batch in read_all(files, processes, stop or threading.Event()):
            pending.append(batch)
            read += len(batch.rows)
            report(read)
            if len(pending) >= MOST_BATCHES or time.monotonic() - saved > SECONDS_OF_WORK:
                moved += save_batches(database, pending, giver, gone)
                pending, saved = [], time.monotonic()
    finally:
        moved += save_batches(database, pending, giver, gone)
    return read, moved


def save_batches(database: Database, batches: list[Batch], giver: Giver, gone: dict[str, list[int]]) -> int:
    """Store what was read, with what stands in for missing prompts.

    `gone`: as `remove_files` returned it. Returns how many files were known at a path that is gone; those are taken out of it.
    """
    rows = [row for batch in batches for row in batch.rows]
    if not rows:
        return 0
    keys = json.dumps([row.key for row in rows if row.key])
    with database.write() as connection:
        numbers = _find_moved(connection, rows, keys, gone)
        pixels = dict(map(tuple, connection.execute(f"SELECT key, digest FROM pixels WHERE {_KEYS}", (keys,))))
        connection.executemany(
            "INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?, ?)", [forms for batch in batches for forms in batch.prompts]
        )
        connection.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, '', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in _SAVED),
            [
                (
                    numbers.get(row.path), row.path, row.fingerprint, row.made, row.key,
                    identify(pixels[row.key]) if row.key in pixels else row.content, row.key in pixels, row.has_own, *row.facts,
                )
                for row in rows
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT OR REPLACE INTO records SELECT id, ?, '' FROM images WHERE path = ?",
            [(row.record, row.path) for row in rows],
        )
        mark_shared(connection, [row.key for row in rows if row.key])
        count_change(connection)
    wanting = [row.path for row in rows if row.facts.width and giver.state(row.path, row.key, bool(row.has_own))]
    if wanting:
        give_prompts(
            database,
            database.tuples(
                "SELECT id, path, key, has_own FROM images WHERE path IN (SELECT value FROM json_each(?))",
                (json.dumps(wanting),),
            ),
            giver,
        )
    return len(numbers)


def give_again(database: Database, folder: str, giver: Giver) -> None:
    """Bring up to date what stands in for the prompts of a folder's files, where it changed."""
    rows = database.tuples(
        f"SELECT id, path, key, has_own, state FROM images WHERE has_own = 0 AND width > 0 AND {IN_FOLDER} ORDER BY path",
        range_of(folder),
    )
    changed = [row[:4] for row in rows if giver.state(*row[1:3], bool(row[3])) != row[4]]
    for start in range(0, len(changed), MOST_ROWS):
        give_prompts(database, changed[start : start + MOST_ROWS], giver)


def give_prompts(database: Database, rows: list[tuple[int, str, str, int]], giver: Giver) -> None:
    """Work out what stands in for the prompts of (id, path, key, has_own) and store it."""
    prompts, facts, records = [], [], []
    for number, path, key, has_own in rows:
        given = giver.give(path, key, bool(has_own))
        ((record,),) = database.tuples("SELECT record FROM records WHERE id = ?", (number,))
        given_json = json.dumps(given) if given else ""
        effective = to_image(key, path, record, given_json).record
        forms = prompt_forms(effective.prompt)
        if forms:
            prompts.append(forms)
        facts.append((giver.state(path, key, bool(has_own)), *make_facts(effective, forms), number))
        records.append((given_json, number))
    if rows:
        with database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?, ?)", prompts)
            names = ", ".join(f"{name} = ?" for name in ("state", *Facts._fields))
            connection.executemany(f"UPDATE images SET {names} WHERE id = ?", facts)
            connection.executemany("UPDATE records SET given = ? WHERE id = ?", records)
            count_change(connection)


def mark_broken(database: Database, rows: list[tuple[str, str]]) -> None:
    """Leave out the images with these keys, each for the reason that its sentence gives. When their files change or are read
    anew, they are tried again."""
    with database.write() as connection:
        for key, sentence in rows:
            record = json.dumps({"reason": "damaged", "error": sentence})
            connection.execute(
                "UPDATE records SET record = ?, given = '' WHERE id IN (SELECT id FROM images WHERE key = ?)", (record, key)
            )
            connection.execute(
                "UPDATE images SET reason = 'damaged', prompt = NULL, width = 0, height = 0, has_own = 0, prepared = 1 "
                "WHERE key = ?",
                (key,),
            )
        count_change(connection)


def _find_moved(connection: sqlite3.Connection, rows: list[ImageRow], keys: str, gone: dict[str, list[int]]) -> dict[str, int]:
    """Path -> the id its file had where it was before. Forgets the old places that lie outside the folder."""
    elsewhere: dict[str, list[tuple[str, int]]] = {}
    for key, path, number in connection.execute(f"SELECT key, path, id FROM images WHERE {_KEYS}", (keys,)):
        elsewhere.setdefault(key, []).append((path, number))
    numbers = {}
    for row in rows:
        places = elsewhere.get(row.key, [])
        if not row.key or any(path == row.path for path, _ in places):  # nothing to know it by, or read again where it was
            continue
        old = next((place for place in places if not os.path.lexists(place[0])), None)
        if gone.get(row.key):
            numbers[row.path] = gone[row.key].pop()
        elif old:
            places.remove(old)
            connection.execute("DELETE FROM images WHERE id = ?", (old[1],))
            numbers[row.path] = old[1]
    return numbers


def mark_shared(connection: sqlite3.Connection, keys: list[str]) -> bool:
    """Mark the images that have the same content as one of these; returns whether any was not marked before."""
    contents = connection.execute(
        f"SELECT content FROM images WHERE content IN (SELECT content FROM images WHERE {_KEYS}) "
        "GROUP BY content HAVING count(*) > 1 AND min(is_shared) = 0",
        (json.dumps(keys),),
    ).fetchall()
    connection.executemany("UPDATE images SET is_shared = 1 WHERE content = ?", map(tuple, contents))
    return bool(contents)


def count_change(connection: sqlite3.Connection) -> None:
    """Say that what is known of images changed."""
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'revision'")


def _create_images(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL)")
    connection.execute("INSERT INTO facts VALUES ('revision', 0)")
    connection.execute(
        "CREATE TABLE images (path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, key TEXT NOT NULL, record TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX images_by_key ON images (key)")


def _split_records_from_images(connection: sqlite3.Connection) -> None:
    """Begin anew: a scan fills it."""
    connection.execute("DROP TABLE images")
    connection.execute("DELETE FROM facts WHERE name = 'record'")
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'revision'")
    connection.execute("""
        CREATE TABLE prompts (               -- see PromptForms; rows are only ever added
            exact INTEGER PRIMARY KEY,
            caseless INTEGER NOT NULL,
            bare INTEGER NOT NULL,
            both INTEGER NOT NULL,
            text TEXT NOT NULL,
            folded TEXT NOT NULL
        )""")
    for form in ("caseless", "bare", "both"):
        connection.execute(f"CREATE INDEX prompts_by_{form} ON prompts ({form})")
    connection.execute("""
        CREATE TABLE images (
            id INTEGER PRIMARY KEY AUTOINCREMENT, -- grows in the order of arrival; a file that moved or changed keeps it
            path TEXT NOT NULL UNIQUE,
            fingerprint TEXT NOT NULL,
            made REAL NOT NULL,              -- the file's unix time
            key TEXT NOT NULL,
            content INTEGER NOT NULL,        -- same number, same picture: of its pixels once they were decoded, else of its key
            is_shared INTEGER NOT NULL,      -- 0 if no other image has the same content; 1 if one may
            prepared INTEGER NOT NULL,       -- 1 once its pixels were decoded
            has_own INTEGER NOT NULL,        -- 1 if the file itself says its prompt
            state TEXT NOT NULL,             -- of what may stand in for its prompt, see Giver.state
            prompt INTEGER,                  -- from here on as used, with what stands in: see Facts
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            generator TEXT NOT NULL,
            model TEXT NOT NULL,
            seed TEXT,
            reason TEXT NOT NULL
        )""")
    connection.execute("""
        CREATE TABLE records (               -- apart, so that what is asked of many images need not pass over them
            id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
            record TEXT NOT NULL,
            given TEXT NOT NULL
        )""")
    connection.execute("CREATE TABLE pixels (key TEXT PRIMARY KEY, digest TEXT NOT NULL, dhash TEXT NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE INDEX images_by_key ON images (key)")
    # All that grouping asks for, and no more, so that it reads little.
    connection.execute("CREATE INDEX images_by_group ON images (prompt, width, height, path, key, made) WHERE reason = ''")
    connection.execute("CREATE INDEX images_by_content ON images (content)")
    connection.execute(
        "CREATE INDEX images_shared ON images (prompt, width, height, content, path, key) WHERE is_shared = 1 AND reason = ''"
    )
    connection.execute("CREATE INDEX images_left_out ON images (reason, path) WHERE reason != ''")
    connection.execute("CREATE INDEX images_without_own ON images (path) WHERE has_own = 0")
    connection.execute("CREATE INDEX images_unprepared ON images (path) WHERE prepared = 0 AND reason = ''")


INDEX_MIGRATIONS = [_create_images, _split_records_from_images]
