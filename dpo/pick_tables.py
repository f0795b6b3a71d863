"""The tables of picks.sqlite, as steps from one version to the next. Steps are only ever added."""

from __future__ import annotations

import secrets
import sqlite3


def _create_picks(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute("INSERT INTO facts VALUES ('project', ?)", (secrets.token_hex(8),))
    connection.execute("""
        CREATE TABLE picks (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            client TEXT NOT NULL,
            number INTEGER NOT NULL,
            op TEXT NOT NULL,
            received REAL NOT NULL,           -- seconds since 1970
            group_key TEXT NOT NULL DEFAULT '',
            prompt TEXT NOT NULL DEFAULT '',
            keys TEXT NOT NULL DEFAULT '',    -- of the images as shown, separated by spaces
            paths TEXT NOT NULL DEFAULT '[]', -- of the same images, JSON
            result TEXT NOT NULL DEFAULT '',
            chosen TEXT NOT NULL DEFAULT '',
            rejected TEXT NOT NULL DEFAULT '',
            undoes INTEGER UNIQUE REFERENCES picks (position),
            UNIQUE (client, number)
        )""")
    connection.execute("""
        CREATE VIEW live_picks AS
        SELECT * FROM picks AS pick
        WHERE op != 'undo' AND NOT EXISTS (SELECT 1 FROM picks WHERE undoes = pick.position)""")


def _create_given_prompts(connection: sqlite3.Connection) -> None:
    connection.execute("""
        CREATE TABLE stand_ins (
            folder TEXT PRIMARY KEY,
            sidecar INTEGER NOT NULL,
            folder_name INTEGER NOT NULL,
            csv TEXT NOT NULL,            -- path of a table, "" for none
            pixels INTEGER NOT NULL
        )""")
    connection.execute("CREATE TABLE typed_prompts (key TEXT PRIMARY KEY, prompt TEXT NOT NULL)")


def _create_raters(connection: sqlite3.Connection) -> None:
    for column in (
        "rater TEXT NOT NULL DEFAULT ''",
        "is_clear INTEGER NOT NULL DEFAULT 0",
        "is_second INTEGER NOT NULL DEFAULT 0",
        "source TEXT NOT NULL DEFAULT ''",
        "confidence REAL NOT NULL DEFAULT 1",
        "size INTEGER NOT NULL DEFAULT 0",  # images in the group
        "about INTEGER REFERENCES picks (position)",  # the duel that was meant clearly
    ):
        connection.execute(f"ALTER TABLE picks ADD COLUMN {column}")
    connection.execute("CREATE INDEX picks_reopened ON picks (group_key, position) WHERE op = 'reopen'")
    connection.execute("DROP VIEW live_picks")
    connection.execute("""
        CREATE VIEW live_picks AS
        SELECT * FROM picks AS pick
        WHERE op != 'undo' AND NOT EXISTS (SELECT 1 FROM picks WHERE undoes = pick.position)
        AND (op = 'reopen' OR NOT EXISTS (
            SELECT 1 FROM picks AS later
            WHERE later.op = 'reopen' AND later.group_key = pick.group_key AND later.position > pick.position
            AND NOT EXISTS (SELECT 1 FROM picks WHERE undoes = later.position)))""")


def _create_votes(connection: sqlite3.Connection) -> None:
    connection.execute("""
        CREATE TABLE votes (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            client TEXT NOT NULL,
            number INTEGER NOT NULL,
            received REAL NOT NULL,           -- seconds since 1970
            test TEXT NOT NULL DEFAULT '',
            item INTEGER NOT NULL DEFAULT 0,
            question TEXT NOT NULL DEFAULT '',
            shown_left TEXT NOT NULL DEFAULT '',  -- "base" or "adapter"
            result TEXT NOT NULL DEFAULT '',
            rater TEXT NOT NULL DEFAULT '',
            undoes INTEGER UNIQUE REFERENCES votes (position),
            UNIQUE (client, number)
        )""")
    connection.execute("""
        CREATE VIEW live_votes AS
        SELECT * FROM votes AS vote
        WHERE undoes IS NULL AND NOT EXISTS (SELECT 1 FROM votes WHERE undoes = vote.position)""")


def _create_courses(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE picks ADD COLUMN courses TEXT NOT NULL DEFAULT ''")  # of the images, JSON; "" for none at all


PICK_MIGRATIONS = [_create_picks, _create_given_prompts, _create_raters, _create_votes, _create_courses]
