"""Picks: what people said about groups, kept as rows that are only ever added; an undo is a row too.

A pick arrives from a page as an operation, a dict. `client` and `number` name it for good: sent twice, it counts once.

    {"client", "number", "op": "best_worst", "group", "images": [keys as shown], "result": [best key, worst key]}
    {"client", "number", "op": "duel", "group", "images": [left key, right key], "result": "left" | "right" | "tie" | "skip"}
    {"client", "number", "op": "skip", "group", "images": [keys as shown], "result": mode}    nothing more from this group
    {"client", "number", "op": "undo", "undoes": [client, number]}

Prompt and paths are stored with a pick, because the index of images may be thrown away. A pick is live unless undone.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.groups import MODES, IndexedImage, View, normalise_prompt, prompt_forms, without_loras
from dpo.pairs import Pair
from dpo.progress import Change, NextScreens, Progress
from dpo.standins import StandIns

if TYPE_CHECKING:
    from dpo.library import Library
    from dpo.project import Database

MOST_KEPT = 8  # views whose progress is kept; a page asks for one
DUEL_RESULTS = ("left", "right", "tie", "skip")
_PICK_FIELDS = {"client", "number", "op", "group", "images", "result"}
_FIELDS = {
    "best_worst": _PICK_FIELDS,
    "duel": _PICK_FIELDS,
    "skip": _PICK_FIELDS,
    "undo": {"client", "number", "op", "undoes"},
}


class Refused(ValueError):
    """An operation that says nothing we understand. The message says why."""


@dataclass(frozen=True)
class Applied:
    """What became of some operations: how many were new, and why others were refused. The rest had arrived before."""

    new: int
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Pick:
    """One live pick. `position` grows with every row; `keys` are the images as they were shown."""

    position: int
    client: str
    number: int
    op: str
    group: str
    prompt: str
    keys: tuple[str, ...]
    result: str
    chosen: str  # key, or "" where the pick prefers none
    rejected: str


@dataclass(frozen=True)
class PickedPair:
    """A pair and the pick it came from. `missing` are the files of it that are no longer there."""

    pick: Pick
    pair: Pair
    missing: tuple[str, ...]


class PickStore:
    """The picks of a project. `find_image(key)` answers what the index knows of an image, or None."""

    def __init__(self, database: Database, find_image: Callable[[str], IndexedImage | None]) -> None:
        self._database = database
        self._find_image = find_image
        self._progress: dict[tuple[View, str], Progress] = {}  # the oldest first
        self._asking = threading.Lock()

    def project_id(self) -> str:
        return self._database.read("SELECT value FROM facts WHERE name = 'project'")[0]["value"]

    def revision(self) -> int:
        """Grows with every operation stored: cheap to ask, so that a page redraws only then."""
        return self._database.read("SELECT coalesce(max(position), 0) AS last FROM picks")[0]["last"]

    def apply(self, operations: Iterable[dict]) -> Applied:
        """Store operations in one transaction; when this returns they are on disk.

        A malformed one is refused with a reason and the others are kept; one that is known already changes nothing.
        Raises ProjectError if the disk refuses: then none was stored.
        """
        new, refused = 0, []
        with self._database.write() as connection:
            for operation in operations:
                try:
                    new += self._store(connection, operation)
                except Refused as reason:
                    refused.append(str(reason))
        return Applied(new, tuple(refused))

    def live(self) -> list[Pick]:
        """All live picks, oldest first."""
        return [_to_pick(row) for row in self._database.read("SELECT * FROM live_picks ORDER BY position")]

    def recent(self, before: int | None, count: int) -> list[Pick]:
        """Up to `count` live picks, newest first, from those older than position `before` (None: from the newest on)."""
        rows = self._database.read(
            "SELECT * FROM live_picks WHERE position < coalesce(?, 9e18) ORDER BY position DESC LIMIT ?", (before, count)
        )
        return [_to_pick(row) for row in rows]

    def picked_pairs(self) -> list[PickedPair]:
        """Every pair the live picks make, oldest first, also those whose files are gone.

        Where the same images were shown twice, the later pick counts. A file that was moved is found by its content, if a
        scan has seen it where it is now.
        """
        newest = {}
        for row in self._database.read("SELECT * FROM live_picks WHERE op != 'skip' ORDER BY position"):
            pick = _to_pick(row)
            newest[pick.op, frozenset(pick.keys)] = (pick, dict(zip(pick.keys, json.loads(row["paths"]), strict=True)))
        pairs = []
        for pick, paths in sorted(newest.values(), key=lambda item: item[0].position):
            if pick.chosen:
                chosen, rejected = (self._locate(key, paths[key]) for key in (pick.chosen, pick.rejected))
                missing = tuple(path for path in (chosen, rejected) if not Path(path).exists())
                pairs.append(PickedPair(pick, Pair(pick.prompt, chosen, rejected, source=pick.op), missing))
        return pairs

    def pairs(self) -> list[Pair]:
        """The pairs to train on: of live picks that prefer one image, with both files there."""
        return [picked.pair for picked in self.picked_pairs() if not picked.missing]

    def next_screens(self, library: Library, view: View, mode: str, want: int, have: set[str], first: str = "") -> NextScreens:
        """Up to `want` further screens of a view, in the order of its groups' first paths; those of group `first` before all
        others. `have`: the keys of screens that the page holds. See `Progress` for what is open."""
        with self._asking:
            return self._brought_up_to_date(library, view, mode).next_screens(library, want, have, first)

    def unpicked(self, library: Library, view: View, mode: str) -> dict[str, int]:
        """Group key -> screens still open, of the groups that have picks; of all others every screen is."""
        with self._asking:
            return self._brought_up_to_date(library, view, mode).unpicked()

    def _brought_up_to_date(self, library: Library, view: View, mode: str) -> Progress:
        progress = self._progress.pop((view, mode), None) or Progress(view, mode)
        self._progress[view, mode] = progress
        while len(self._progress) > MOST_KEPT:
            del self._progress[next(iter(self._progress))]
        position = self.revision()
        rows = self._database.read(
            "SELECT pick.op, pick.group_key, pick.keys, entry.op = 'undo' AS is_undo FROM picks AS entry "
            "JOIN picks AS pick ON pick.position = coalesce(entry.undoes, entry.position) "
            "WHERE entry.position > ? AND entry.position <= ?",
            (progress.position, position),
        )
        changes = [Change(row["op"], row["group_key"], tuple(row["keys"].split()), -1 if row["is_undo"] else 1) for row in rows]
        progress.bring_up_to_date(library, changes, position)
        return progress

    def _store(self, connection: sqlite3.Connection, operation: dict) -> int:
        """Insert one operation; 1 if it was new. Raises Refused."""
        client, number, op = _check_shape(operation)
        if connection.execute("SELECT 1 FROM picks WHERE client = ? AND number = ?", (client, number)).fetchone():
            return 0
        row = {"client": client, "number": number, "op": op, "received": time.time()}
        if op == "undo":
            row["undoes"] = self._check_undo(connection, operation["undoes"])
        else:
            row |= self._check_pick(op, operation)
        names = ", ".join(row)
        connection.execute(f"INSERT INTO picks ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        return 1

    def _check_undo(self, connection: sqlite3.Connection, undoes) -> int:
        if not (isinstance(undoes, list) and len(undoes) == 2 and _is_client(undoes[0]) and _is_number(undoes[1])):
            raise Refused(f"undoes={undoes!r} does not name a pick")
        row = connection.execute("SELECT position FROM live_picks WHERE client = ? AND number = ?", undoes).fetchone()
        if row is None:
            raise Refused(f"pick {undoes[1]} of {undoes[0]} is unknown or taken back already")
        return row["position"]

    def _check_pick(self, op: str, operation: dict) -> dict:
        group, keys = operation["group"], operation["images"]
        if not _is_key(group):
            raise Refused(f"group={group!r} is not a group's key")
        if not isinstance(keys, list) or not all(map(_is_key, keys)) or len(set(keys)) != len(keys):
            raise Refused("images is not a list of different image keys")
        if len(keys) < 2 or (op == "duel" and len(keys) != 2):
            raise Refused(f"a {op} of {len(keys)} images")
        images = [self._find_image(key) for key in keys]
        if None in images:
            raise Refused(f"image {keys[images.index(None)]!r} is not in the index; scan its folder again")
        # A view may leave LoRA tags and case aside; nothing makes different words comparable.
        if len({forms and forms.both for forms in (prompt_forms(image.record.prompt) for image in images)}) != 1:
            raise Refused("the images have different prompts")
        result, chosen, rejected = _check_result(op, keys, operation["result"])
        prompt = _prompt_of_pick(images, keys.index(chosen) if chosen else 0)
        paths = json.dumps([image.path for image in images])
        return {
            "group_key": group, "prompt": prompt, "keys": " ".join(keys), "paths": paths,
            "result": result, "chosen": chosen, "rejected": rejected,
        }  # fmt: skip

    def _locate(self, key: str, path: str) -> str:
        if not Path(path).exists():
            image = self._find_image(key)
            return image.path if image else path
        return path


class GivenPrompts:
    """What people said about prompts: which stand-ins a folder may use, and prompts they typed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def choices(self) -> dict[str, StandIns]:
        """Absolute folder -> what was chosen for it."""
        rows = self._database.read("SELECT * FROM stand_ins")
        return {
            row["folder"]: StandIns(bool(row["sidecar"]), bool(row["folder_name"]), row["csv"], bool(row["pixels"]))
            for row in rows
        }

    def choose(self, folder: str, choice: StandIns) -> None:
        with self._database.write() as connection:
            values = folder, choice.sidecar, choice.folder_name, choice.table, choice.pixels
            connection.execute("INSERT OR REPLACE INTO stand_ins VALUES (?, ?, ?, ?, ?)", values)

    def typed(self) -> dict[str, str]:
        """Content key -> prompt."""
        return {row["key"]: row["prompt"] for row in self._database.read("SELECT * FROM typed_prompts")}

    def give(self, key: str, prompt: str) -> None:
        """Keep a prompt somebody typed; one that says nothing takes it back."""
        prompt = prompt.encode("utf-8", "replace").decode().strip()
        with self._database.write() as connection:
            if normalise_prompt(prompt):
                connection.execute("INSERT OR REPLACE INTO typed_prompts VALUES (?, ?)", (key, prompt))
            else:
                connection.execute("DELETE FROM typed_prompts WHERE key = ?", (key,))


def _prompt_of_pick(images: list[IndexedImage], first: int) -> str:
    """The prompt that all have; where they differ in LoRA tags or case, that of image `first` without its tags."""
    prompts = [normalise_prompt(image.record.prompt) for image in images]
    return prompts[0] if len(set(prompts)) == 1 else without_loras(prompts[first])


def _check_shape(operation: dict) -> tuple[str, int, str]:
    if not isinstance(operation, dict):
        raise Refused(f"{operation!r} is not an operation")
    op = operation.get("op")
    if not isinstance(op, str) or op not in _FIELDS:
        raise Refused(f"op={op!r} is not known")
    if operation.keys() != _FIELDS[op]:
        raise Refused(f"a {op} has {', '.join(sorted(_FIELDS[op]))}, not {', '.join(sorted(map(str, operation)))}")
    client, number = operation["client"], operation["number"]
    if not _is_client(client):
        raise Refused(f"client={client!r} is not a client's name")
    if not _is_number(number):
        raise Refused(f"number={number!r} is not a count")
    return client, number, op


def _is_client(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{4,64}", value) is not None


def _is_number(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_key(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8,64}", value) is not None


def _check_result(op: str, keys: list[str], result) -> tuple[str, str, str]:
    """The result as stored, the chosen key and the rejected key ("" where nothing is preferred)."""
    if op == "skip":
        if result not in MODES:
            raise Refused(f"result={result!r} of a skip is not the mode it was shown in")
        return result, "", ""
    if op == "duel":
        if result not in DUEL_RESULTS:
            raise Refused(f"result={result!r} of a duel is not one of {', '.join(DUEL_RESULTS)}")
        left, right = keys
        return result, *{"left": (left, right), "right": (right, left)}.get(result, ("", ""))
    if not (isinstance(result, list) and len(result) == 2 and result[0] != result[1] and all(key in keys for key in result)):
        raise Refused(f"result={result!r} does not name a best and another worst of the images shown")
    return "", *result


def _to_pick(row: sqlite3.Row) -> Pick:
    return Pick(
        row["position"], row["client"], row["number"], row["op"], row["group_key"], row["prompt"],
        tuple(row["keys"].split()), row["result"], row["chosen"], row["rejected"],
    )  # fmt: skip


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


PICK_MIGRATIONS = [_create_picks, _create_given_prompts]
