"""Picks: what people said about groups, kept as rows that are only ever added; taking back is a row too.

A pick arrives from a page as an operation (`dpo.operations`). `client` and `number` name it for good: sent twice, it counts
once. Prompt and paths are stored with it, because the index of images may be thrown away. A row is live unless an undo names
it, or its group was opened again later. What live picks come to is worked out by `Book`, in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from dpo.book import Book
from dpo.groups import IndexedImage, View, normalise_prompt, prompt_forms, without_loras
from dpo.judging import LEAST_RANKED
from dpo.metadata.records import Course
from dpo.operations import OWN_OPS, Pick, Refused, check_name, check_result, check_shape
from dpo.pairs import Like, Pair, Ranking
from dpo.picked import PickedPair, pick_pairs, round_of
from dpo.progress import Asking, NextScreens, Progress
from dpo.ranking import cohens_kappa
from dpo.rules import PickRules

if TYPE_CHECKING:
    from dpo.leases import Leases
    from dpo.library import Library
    from dpo.project import Database

MOST_KEPT = 8  # views whose progress is kept; a page asks for one
IMPORTED = "import"  # the client of rows that no page sent
_COLUMNS = (
    "position, client, number, op, group_key, prompt, keys, result, chosen, rejected, rater, received, is_clear, is_second, "
    "source, confidence, size, coalesce(undoes, about, 0), paths, courses"
)


@dataclass(frozen=True)
class Applied:
    """What became of some operations: how many were new, and why others were refused. The rest had arrived before."""

    new: int
    refused: tuple[str, ...]


@dataclass(frozen=True)
class ImportedPair:
    """A pair from elsewhere, its images by content key. `rejected_key` is "" where a reject is still needed; `paths` are then
    one. `origin` says what it was imported from, `source` names that for people."""

    prompt: str
    chosen_key: str
    rejected_key: str
    paths: tuple[str, ...]
    confidence: float
    source: str
    origin: str
    courses: tuple[Course | None, ...] = ()  # as of a Pick


@dataclass(frozen=True)
class Sides:
    """How often the left image won a duel, the right one, and neither."""

    left: int
    right: int
    ties: int


@dataclass(frozen=True)
class Agreement:
    """Of `count` groups that two people saw, in how many both said the same; `kappa` takes chance out of it (Cohen), None
    where that is not defined."""

    count: int
    agreed: int
    kappa: float | None


class PickStore:
    """The picks of a project. `find_image(key)` answers what the index knows of an image, or None."""

    def __init__(self, database: Database, find_image: Callable[[str], IndexedImage | None], leases: Leases) -> None:
        self._database = database
        self._find_image = find_image
        self._leases = leases
        self._rounds = database.path.parent / "rounds"
        self._progress: dict[tuple[View, str], Progress] = {}  # the oldest first
        self._asking = threading.Lock()
        self._book = Book()
        self._reading = threading.Lock()
        # What the pairs were worked out from, and they.
        self._picked: tuple[tuple, list[PickedPair]] = ((), [])

    def project_id(self) -> str:
        return self._database.read("SELECT value FROM facts WHERE name = 'project'")[0]["value"]

    def revision(self) -> int:
        """Grows with every operation stored and every change of the rules: cheap to ask, so that a page redraws only then."""
        changes = "coalesce((SELECT value FROM facts WHERE name = 'rules_changed'), 0)"
        return self._database.read(f"SELECT coalesce(max(position), 0) + {changes} AS last FROM picks")[0]["last"]

    def rules(self) -> PickRules:
        rows = self._database.read("SELECT value FROM facts WHERE name = 'rules'")
        return PickRules.from_json(rows[0]["value"]) if rows else PickRules()

    def set_rules(self, rules: PickRules) -> None:
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('rules', ?)", (rules.to_json(),))
            connection.execute("INSERT INTO facts VALUES ('rules_changed', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")

    # --- storing

    def apply(self, operations: Iterable[dict], rater: str = "", only_own: bool = False) -> Applied:
        """Store operations in one transaction; when this returns they are on disk. `rater`: the login, which goes before the
        names that operations give; with `only_own` it may pick, and take back its own picks and those without a name.

        A malformed one is refused with a reason and the others are kept; one that is known already changes nothing.
        Raises ProjectError if the disk refuses: then none was stored.
        """
        new, refused = 0, []
        with self._database.write() as connection:
            for operation in operations:
                try:
                    new += self._store(connection, operation, rater, only_own)
                except Refused as reason:
                    refused.append(str(reason))
        return Applied(new, tuple(refused))

    def import_pairs(self, rows: Sequence[ImportedPair]) -> int:
        """Store pairs from elsewhere in one transaction; returns how many were new. The same images under the same prompt
        count once, wherever they came from; what was taken back comes again. Raises ProjectError if the disk refuses."""
        with self._database.write() as connection:
            return sum(_import(connection, row) for row in rows)

    # --- asking

    def book(self) -> Book:
        """The picks in memory, as they are now."""
        with self._reading:
            rows = self._database.tuples(
                f"SELECT {_COLUMNS} FROM picks WHERE position > ? ORDER BY position", (self._book.position,)
            )
            self._book.take_in(map(_to_pick, rows), self.rules())
        return self._book

    def live(self) -> list[Pick]:
        """All live picks and imports, oldest first."""
        return self.book().live()

    def recent(self, before: int | None, count: int) -> list[Pick]:
        """Up to `count` live picks that pages made, newest first, from those older than position `before` (None: from the
        newest on)."""
        return self.book().recent(before, count)

    def picked_pairs(self) -> list[PickedPair]:
        """Every pair the live picks make, oldest first, also those whose files are gone. Nobody may change the list.

        A file that was moved is found by its content, if a scan has seen it where it is now.
        """
        book = self.book()
        judged = book.pairs()
        elsewhere = {}  # what is not where it was: key -> where it is now, "" for nowhere
        for key in (key for pair in judged for key in (pair.chosen, pair.rejected) if key):
            if not os.path.exists(book.path_of(key)):
                elsewhere[key] = self._find_path(key)
        state = (judged, elsewhere)
        kept, picked = self._picked
        if not (kept and kept[0] is judged and kept[1] == elsewhere):
            picked = pick_pairs(book, judged, elsewhere, self._rounds)
            self._picked = (state, picked)
        return picked

    def pairs(self) -> list[Pair]:
        """The pairs to train on: not deleted, whole, with both files there."""
        return [picked.pair for picked in self.picked_pairs() if picked.state == "used" and not picked.missing]

    def rankings(self) -> list[Ranking]:
        """The groups that duels have ranked to the end, without the images whose files are gone."""
        book = self.book()
        found = []
        for ranked in book.rankings():
            files = tuple(filter(None, (self._file_of(book, key) for key in ranked.images)))
            if len(files) >= LEAST_RANKED:
                told = ranked.made_by, round_of(files, self._rounds), book.highest_place(ranked.images)
                found.append(Ranking(ranked.prompt, files, ranked.confidence, "duel", *told))
        return found

    def likes(self) -> list[Like]:
        """The images called good or bad in triage that never became a pair and are still there; one for everybody who said so,
        so that people who disagree cancel each other."""
        book = self.book()
        said = ((pick, self._file_of(book, pick.keys[0])) for pick in book.labels())
        return [
            Like(pick.prompt, file, pick.result == "good", rater=pick.rater, round=round_of([file], self._rounds))
            for pick, file in said
            if file
        ]

    def sides(self) -> Sides:
        """Of all live duels, second opinions too."""
        results = [pick.result for pick in self.book().live() if pick.op == "duel"]
        return Sides(*map(results.count, ("left", "right", "tie")))

    def agreement(self) -> Agreement:
        """Of the pairs about which somebody else gave a second opinion: on which side the first saw the better image (as the
        second was shown them), against what the second said."""
        book = self.book()
        opinions = {}
        for pick in book.live():
            if pick.is_second and pick.result != "skip":
                for pair in book.pairs_of(pick.keys):
                    if set(pair.keys) == set(pick.keys) and pair.rater != pick.rater:
                        preferred = pair.rejected if pair.is_swapped else pair.chosen
                        first = "left" if preferred == pick.keys[0] else "right"
                        opinions[pair.keys] = first, "tie" if pick.result == "both_bad" else pick.result
        first, second = zip(*opinions.values(), strict=True) if opinions else ((), ())
        agreed = sum(one == other for one, other in opinions.values())
        return Agreement(len(opinions), agreed, cohens_kappa(first, second))

    def next_screens(self, library: Library, view: View, asking: Asking) -> NextScreens:
        """What is to be shown next of a view; see `Progress`."""
        with self._asking:
            return self._progress_of(view, asking.mode).next_screens(library, self.book(), asking)

    def unpicked(self, library: Library, view: View, mode: str) -> dict[str, int]:
        """Group key -> 1 if it is open, 0 if it is done, of the groups that have picks; all others are open."""
        with self._asking:
            return self._progress_of(view, mode).unpicked(library, self.book())

    # --- inside

    def _progress_of(self, view: View, mode: str) -> Progress:
        progress = self._progress.pop((view, mode), None) or Progress(view, mode, self.project_id(), self._leases)
        self._progress[view, mode] = progress
        while len(self._progress) > MOST_KEPT:
            del self._progress[next(iter(self._progress))]
        return progress

    def _store(self, connection: sqlite3.Connection, operation: dict, rater: str, only_own: bool) -> int:
        """Insert one operation; 1 if it was new. Raises Refused."""
        client, number, op = check_shape(operation)
        if only_own and op not in OWN_OPS:
            raise Refused(f"a {op} takes the role owner")
        by = rater if only_own else None
        if connection.execute("SELECT 1 FROM picks WHERE client = ? AND number = ?", (client, number)).fetchone():
            return 0
        row = {"client": client, "number": number, "op": op, "received": time.time()}
        row["rater"] = rater or operation.get("rater", "").strip()
        match op:
            case "undo":
                row["undoes"] = _find_live(connection, operation["undoes"], by)["position"]
            case "clearly":
                pick = _find_live(connection, operation["of"], by)
                if pick["op"] != "duel":
                    raise Refused(f"a {pick['op']} cannot be said clearly, only a duel")
                row |= {"about": pick["position"], "group_key": pick["group_key"]}
            case "reopen":
                row["group_key"] = operation["group"]
            case "drop" | "swap" | "confirm":
                row |= {"group_key": operation["group"], "keys": " ".join(operation["images"])}
                self._check_known(connection, operation["images"])
            case _:
                row |= self._check_pick(operation)
        _insert(connection, row)
        return 1

    def _check_pick(self, operation: dict) -> dict:
        keys = operation["images"]
        result, chosen, rejected = check_result(operation)
        images = [self._find_image(key) for key in keys]
        if None in images:
            raise Refused(f"image {keys[images.index(None)]!r} is not in the index; scan its folder again")
        # A view may leave LoRA tags and case aside; nothing makes different words comparable.
        if len({forms and forms.both for forms in (prompt_forms(image.record.prompt) for image in images)}) != 1:
            raise Refused("the images have different prompts")
        prompt = _prompt_of_pick(images, keys.index(chosen) if chosen else 0)
        paths = json.dumps([image.path for image in images])
        return {
            "group_key": operation["group"], "prompt": prompt, "keys": " ".join(keys), "paths": paths,
            "result": result, "chosen": chosen, "rejected": rejected, "is_clear": operation.get("clearly", False),
            "is_second": operation.get("second", False), "size": operation.get("size", 0),
            "source": operation.get("scorer", ""), "confidence": operation.get("confidence", 1.0),
            "courses": _courses_json([image.record.course for image in images]),
        }  # fmt: skip

    def _check_known(self, connection: sqlite3.Connection, keys: list[str]) -> None:
        for key in keys:
            seen = "SELECT 1 FROM picks WHERE instr(keys, ?) LIMIT 1"
            if self._find_image(key) is None and not connection.execute(seen, (key,)).fetchone():
                raise Refused(f"image {key!r} is not known")

    def _file_of(self, book: Book, key: str) -> str:
        """Where the image is now, "" for nowhere."""
        path = book.path_of(key)
        return path if os.path.exists(path) else self._find_path(key)

    def _find_path(self, key: str) -> str:
        image = self._find_image(key)
        return image.path if image and os.path.exists(image.path) else ""


def _prompt_of_pick(images: list[IndexedImage], first: int) -> str:
    """The prompt that all have; where they differ in LoRA tags or case, that of image `first` without its tags."""
    prompts = [normalise_prompt(image.record.prompt) for image in images]
    return prompts[0] if len(set(prompts)) == 1 else without_loras(prompts[first])


def _find_live(connection: sqlite3.Connection, name, by: str | None) -> sqlite3.Row:
    """The pick of that name. `by`: who must have made it, unless nobody is named; None: anybody. Raises Refused."""
    client, number = check_name(name)
    row = connection.execute("SELECT * FROM live_picks WHERE client = ? AND number = ?", (client, number)).fetchone()
    if row is None:
        raise Refused(f"pick {number} of {client} is unknown, taken back already, or its group was opened again")
    if by is not None and row["rater"] not in ("", by):
        raise Refused(f"pick {number} of {client} is somebody else's")
    return row


def _import(connection: sqlite3.Connection, pair: ImportedPair) -> int:
    """Insert one pair; 1 if it was new."""
    assert pair.chosen_key and pair.chosen_key != pair.rejected_key, pair
    keys = [key for key in (pair.chosen_key, pair.rejected_key) if key]
    assert len(keys) == len(pair.paths), pair
    prompt = normalise_prompt(pair.prompt)
    number = int(_digest(prompt, pair.chosen_key, pair.rejected_key)[:13], 16)  # 52 bits
    for attempt in count():  # a name is used once, so a pair that was taken back comes again under the next one
        client = f"{IMPORTED}-{attempt}"
        name = client, number
        if connection.execute("SELECT 1 FROM live_picks WHERE client = ? AND number = ?", name).fetchone():
            return 0
        if not connection.execute("SELECT 1 FROM picks WHERE client = ? AND number = ?", name).fetchone():
            break
    row = {
        "client": client, "number": number, "op": "import", "received": time.time(),
        "group_key": _digest(pair.origin, prompt)[:32], "prompt": prompt, "keys": " ".join(keys),
        "paths": json.dumps(pair.paths), "chosen": pair.chosen_key, "rejected": pair.rejected_key,
        "source": pair.source, "confidence": pair.confidence, "courses": _courses_json(pair.courses),
    }  # fmt: skip
    _insert(connection, row)
    return 1


def _digest(*words: str) -> str:
    return hashlib.blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _insert(connection: sqlite3.Connection, row: dict) -> None:
    names = ", ".join(row)
    connection.execute(f"INSERT INTO picks ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _to_pick(row: tuple) -> Pick:
    *said, rater, made, is_clear, is_second, source, confidence, size, about, paths, courses = row
    said[6] = tuple(said[6].split())
    return Pick(
        *said, rater, made, bool(is_clear), bool(is_second), source, confidence, size, about, tuple(json.loads(paths)),
        tuple(course and Course(*course) for course in json.loads(courses)) if courses else (),
    )  # fmt: skip


def _courses_json(courses: Sequence[Course | None]) -> str:
    return json.dumps(courses) if any(courses) else ""
