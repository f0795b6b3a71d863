"""The tables of index.sqlite."""

from __future__ import annotations

import sqlite3


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
            id INTEGER PRIMARY KEY,          -- grows in the order of arrival; a file that moved or changed keeps it
            path TEXT NOT NULL UNIQUE,
            fingerprint TEXT NOT NULL,
            made REAL NOT NULL,              -- the file's unix time
            key TEXT NOT NULL,
            content INTEGER NOT NULL,        -- same number, same picture: of its pixels once they were decoded, else of its key
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
    # All that grouping and filtering ask for, so that they read nothing else.
    connection.execute(
        "CREATE INDEX images_by_group ON images (prompt, width, height, content, path, key, made, generator, model, seed) "
        "WHERE reason = ''"
    )
    connection.execute("CREATE INDEX images_left_out ON images (reason, path) WHERE reason != ''")
    connection.execute("CREATE INDEX images_without_own ON images (path) WHERE has_own = 0")
    connection.execute("CREATE INDEX images_unprepared ON images (path) WHERE prepared = 0 AND reason = ''")


INDEX_MIGRATIONS = [_create_images, _split_records_from_images]
