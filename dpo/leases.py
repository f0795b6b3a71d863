"""Leases: which page has which group just now, so that two people do not pick from the same one.

A lease runs out unless its page goes on asking, so nothing has to be cleaned up after a page that was closed. Losing all of
them costs nothing but a group that two people may get at once: the file can be deleted at any time.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpo.project import Database

LEASE_SECONDS = 30  # pages ask at least every ten while somebody looks at them
FIRM = 2  # groups that nobody takes from a page: what it shows, and what comes next


class Leases:
    """The leases of a project, by the keys of groups. Processes share them through the file.

    A page has the first `FIRM` of its groups for itself. The rest are its store; when nothing else is left, others may take
    from it, or one page would keep a second person from a small folder altogether.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def of_others(self, client: str, only_firm: bool = False) -> set[str]:
        """The groups that pages other than `client` have; with `only_firm` without their stores."""
        most, now = FIRM if only_firm else 2**31, self._clock()
        rows = self._database.tuples(
            "SELECT group_key FROM leases WHERE client != ? AND until > ? AND until <= ? AND place < ?",
            (client, now, now + LEASE_SECONDS, most),
        )
        return {group for (group,) in rows}

    def hold(self, client: str, groups: Iterable[str], takes: bool = False) -> set[str]:
        """Lease exactly these groups, in the order in which it will show them, to `client` for the next 30 seconds, and give up
        what else it had. `takes`: also from the stores of others. Returns those it has now: all but those that another page
        has."""
        now = self._clock()
        with self._database.write() as connection:
            # One that ends later than any can was made before the clock was put back: its page has renewed it, or is gone.
            connection.execute(
                "DELETE FROM leases WHERE client = ? OR until <= ? OR until > ?", (client, now, now + LEASE_SECONDS)
            )
            connection.execute(
                "INSERT INTO leases SELECT value, ?, ?, key FROM json_each(?) WHERE true ON CONFLICT DO UPDATE "
                "SET client = excluded.client, until = excluded.until, place = excluded.place WHERE place >= ?",
                (client, now + LEASE_SECONDS, json.dumps(list(dict.fromkeys(groups))), FIRM if takes else 2**31),
            )
            rows = connection.execute("SELECT group_key FROM leases WHERE client = ?", (client,)).fetchall()
        return {row["group_key"] for row in rows}

    def give_up(self, client: str) -> None:
        """For a page that is gone: others may have its groups at once."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM leases WHERE client = ?", (client,))


def _create_leases(connection: sqlite3.Connection) -> None:
    connection.execute("""
        CREATE TABLE leases (
            group_key TEXT PRIMARY KEY,
            client TEXT NOT NULL,
            until REAL NOT NULL,     -- seconds since 1970
            place INTEGER NOT NULL   -- in the order of its page, from 0
        )""")


LEASE_MIGRATIONS = [_create_leases]
