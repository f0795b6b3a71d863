"""What the index tells of a folder, without opening a file: its groups as lines, what is left out and why, what to filter by.

Groups are counted by SQLite, by prompt and exact size, out of one index that holds all it takes; nearly equal shapes are put
together here. Functions of a database and a `View` whose folder is absolute; `Library` keeps their last answers.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from dpo.groups import Group, GroupLine, View, cluster_shapes, group_key, prompt_of_key
from dpo.rows import to_image
from dpo.scan import LibraryError

if TYPE_CHECKING:
    from dpo.project import Database

MOST_FACETS = 50
ALONE = "No other image has its prompt and shape, so there is nothing to compare it with."
COPY = "The same picture is there under another name, which is used in its place."
# A range instead of LIKE: it uses an index, and % or _ in a folder's name mean themselves.
IN_FOLDER = "path > ? AND path < ?"
_ORDERS = {"path": None, "size": lambda line: -line.size, "newest": lambda line: -line.newest}
# The number a view compares prompts by, for (ignore_loras, ignore_case): a column of prompts, see PromptForms.
_FORMS = {(False, False): "exact", (True, False): "bare", (False, True): "caseless", (True, True): "both"}
# SQLite would choose the index of paths for a folder's range, and look up every row.
_USABLE = "FROM images INDEXED BY images_by_group"


class LeftOut(NamedTuple):
    """A file that is in no group. `key` is "" where there is no content; `sentence` says why and what to do."""

    path: str
    key: str
    sentence: str


@dataclass
class Catalogue:
    """A view in numbers. `lines`: the groups of two images or more, by first path. `images` counts files, `prompts`
    different prompts. `reasons`: code of REASONS -> files left out for it, where there are any; `example` is the sentence
    of a file that is no usable image, "" if all are. `alone`: the paths behind that reason."""

    lines: list[GroupLine]
    images: int
    prompts: int
    reasons: dict[str, int]
    example: str
    alone: list[str]

    def sorted(self, by: str) -> list[GroupLine]:
        """The lines by "path", "size" (largest first) or "newest" (latest file first)."""
        order = _ORDERS[by]
        return self.lines if order is None else sorted(self.lines, key=order)


class _Shape(NamedTuple):
    """What SQLite counted of one prompt at one exact size (of one model and seed, where the view asks for that)."""

    prompt: int
    model: str
    seed: str
    width: int
    height: int
    distinct: int  # images
    files: int
    path: str  # the first
    key: str  # of the first image
    newest: float
    arrival: int
    a_prompt: int  # the exact form of one of them


def make_catalogue(database: Database, view: View) -> Catalogue:
    """Raises LibraryError for a filter that says nothing we understand."""
    shapes = _count_shapes(database, view)
    texts = dict(database.tuples("SELECT exact, text FROM prompts"))
    subject = itemgetter(0, 1, 2) if _is_split(view) else itemgetter(0)  # what shares it may be one group
    times = Counter(map(subject, shapes))
    lines, alone, several = [], [], defaultdict(list)
    for shape in shapes:
        prompt, model, seed, width, height, distinct, _, path, key, newest, _, a_prompt = shape
        if times[subject(shape)] > 1:
            several[prompt, model, seed].append(_Shape._make(shape))
        elif distinct > 1:
            name = group_key(prompt, (width, height), view, model, seed)
            lines.append((path, GroupLine(name, texts[a_prompt], width / height, distinct, key, newest)))
        else:
            alone.append(path)
    for (prompt, model, seed), members in several.items():
        for first, cluster in _by_first_shape(members).items():
            path, distinct = min(shape.path for shape in cluster), sum(shape.distinct for shape in cluster)
            if distinct == 1:
                alone.append(path)
                continue
            name, text = group_key(prompt, first, view, model, seed), texts[min(shape.a_prompt for shape in cluster)]
            key, newest = min(shape.key for shape in cluster), max(shape.newest for shape in cluster)
            lines.append((path, GroupLine(name, text, first[0] / first[1], distinct, key, newest)))
    lines.sort(key=itemgetter(0))
    alone.sort()
    files = sum(map(itemgetter(6), shapes))
    reasons, example = _count_left_out(database, view)
    found = {"alone": len(alone), "copy": files - sum(map(itemgetter(5), shapes))}
    return Catalogue(
        lines=[line for _, line in lines],
        images=files + sum(reasons.values()),
        prompts=len(set(map(itemgetter(0), shapes))),
        reasons=reasons | {reason: count for reason, count in found.items() if count},
        example=example,
        alone=alone,
    )


def find_group(database: Database, view: View, key: str) -> Group | None:
    """The group of two images or more with this key in this view; of copies, the one with the first key and path."""
    prompt = prompt_of_key(key)
    if prompt is None:
        return None
    columns = "images.path, record, given, prompts.text"
    rows = _members(database, view, f"prompts.{_form(view)} = ?", (prompt,), columns, "JOIN records ON records.id = images.id")
    found = _by_group(view, rows).get(key)
    if found is None:
        return None
    (width, height), rows = found
    images = {}
    for row in sorted(rows, key=itemgetter(7, 8)):
        images.setdefault(row[6], row)
    if len(images) < 2:
        return None
    text = min((row[1], row[11]) for row in rows)[1]
    ordered = tuple(to_image(*row[7:11]) for row in images.values())
    return Group(key, text, width / height, ordered)


def find_members(database: Database, view: View, keys: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """The groups of two or more that hold any of these images: each group's images in order, each as the keys of its copies."""
    chosen = (
        f"prompts.{_form(view)} IN (SELECT prompts.{_form(view)} FROM images JOIN prompts ON exact = prompt "
        "WHERE key IN (SELECT value FROM json_each(?)))"
    )
    keys = set(keys)
    rows = _members(database, view, chosen, (_json_list(keys),), "''")
    groups = {}
    for name, (_, members) in _by_group(view, rows).items():
        copies: dict[int, set[str]] = defaultdict(set)
        for row in members:
            copies[row[6]].add(row[7])
        images = sorted(tuple(sorted(same)) for same in copies.values())
        if len(images) > 1 and not keys.isdisjoint(row[7] for row in members):
            groups[name] = images
    return groups


def list_left_out(database: Database, view: View, reason: str, start: int, count: int, alone: Sequence[str]) -> list[LeftOut]:
    """Files `start` to `start + count` of those left out for a reason, by path. `alone`: as the view's catalogue has it."""
    if reason == "alone":
        page = alone[start : start + count]
        keys = dict(
            database.tuples("SELECT path, key FROM images WHERE path IN (SELECT value FROM json_each(?))", (_json_list(page),))
        )
        return [LeftOut(path, keys[path], ALONE) for path in page if path in keys]
    where, values = _filters(view)
    if reason == "copy":
        form, split = _form(view), ", ".join(["width", "height", *_split_columns(view)])
        rows = database.tuples(
            f"SELECT path, key FROM (SELECT path, key, row_number() OVER (PARTITION BY prompts.{form}, {split}, content "
            f"ORDER BY key, path) AS number {_USABLE} JOIN prompts ON exact = prompt WHERE reason = '' AND {where}) "
            "WHERE number > 1 ORDER BY path LIMIT ? OFFSET ?",
            (*values, count, start),
        )
        return [LeftOut(path, key, COPY) for path, key in rows]
    rows = database.tuples(
        f"SELECT key, path, record, given FROM images JOIN records ON records.id = images.id "
        f"WHERE reason = ? AND reason != '' AND {where} ORDER BY path LIMIT ? OFFSET ?",
        (reason, *values, count, start),
    )
    return [LeftOut(row[1], row[0], to_image(*row).record.error or "") for row in rows]


def count_facets(database: Database, folder: str) -> dict[str, list[tuple[str, int]]]:
    """The values a view of the folder can be filtered by, with how many usable files have them, most first."""
    where, values = _filters(View(folder))
    facets = {"generator": "generator", "model": "model", "size": "width || 'x' || height"}
    return {
        name: database.tuples(
            f"SELECT {column} AS value, count(*) {_USABLE} WHERE reason = '' AND value != '' AND {where} "
            "GROUP BY value ORDER BY 2 DESC, 1 LIMIT ?",
            (*values, MOST_FACETS),
        )
        for name, column in facets.items()
    }


def range_of(folder: str) -> tuple[str, str]:
    """The values of `IN_FOLDER`."""
    prefix = folder.rstrip(os.sep) + os.sep
    return prefix, prefix[:-1] + chr(ord(os.sep) + 1)


def _count_shapes(database: Database, view: View) -> list[tuple]:
    """Rows as `_Shape`."""
    form, (where, values) = _form(view), _filters(view)
    join = "" if form == "exact" else "JOIN prompts ON exact = prompt"
    prompt = "prompt" if form == "exact" else f"prompts.{form}"
    by = ", ".join(["1", *_split_columns(view), "width", "height"])
    return database.tuples(
        f"SELECT {prompt}, {_or_nothing(view)}, width, height, count(DISTINCT content), count(*), min(path), min(key), "
        f"max(made), min(images.id), min(prompt) {_USABLE} {join} WHERE reason = '' AND {where} GROUP BY {by}",
        values,
    )


def _count_left_out(database: Database, view: View) -> tuple[dict[str, int], str]:
    where, values = _filters(view)
    counts = dict(
        database.tuples(
            f"SELECT reason, count(*) FROM images WHERE reason != '' AND {where} GROUP BY reason ORDER BY reason", values
        )
    )
    silent = [
        reason for reason in counts if reason.endswith(("metadata", "prompt"))
    ]  # a readable image says more than a broken one
    for reason in [*silent, *counts][:1]:
        (first,) = list_left_out(database, view, reason, 0, 1, ())
        return counts, first.sentence
    return counts, ""


def _members(database: Database, view: View, chosen: str, values: tuple, columns: str, join: str = "") -> list[tuple]:
    """(arrival, prompt, model, seed, width, height, content, key, *columns) of usable files, in the order of their arrival."""
    where, filters = _filters(view)
    return database.tuples(
        f"SELECT images.id, prompt, {_or_nothing(view)}, width, height, content, key, {columns}, prompts.{_form(view)} "
        f"FROM prompts CROSS JOIN images INDEXED BY images_by_group ON prompt = exact {join} "
        f"WHERE {chosen} AND reason = '' AND {where} ORDER BY images.id",
        (*values, *filters),
    )


def _by_group(view: View, rows: list[tuple]) -> dict[str, tuple[tuple[int, int], list[tuple]]]:
    """Group key -> its first shape and its rows, of rows as `_members` gives them."""
    subjects = defaultdict(list)
    for row in rows:
        subjects[row[-1], row[2], row[3]].append(row)
    groups = {}
    for (prompt, model, seed), members in subjects.items():
        firsts = cluster_shapes(row[4:6] for row in members)
        for row in members:
            first = firsts[row[4:6]]
            groups.setdefault(group_key(prompt, first, view, model, seed), (first, []))[1].append(row)
    return groups


def _by_first_shape(shapes: list[_Shape]) -> dict[tuple[int, int], list[_Shape]]:
    shapes = sorted(shapes, key=lambda shape: shape.arrival)
    firsts = cluster_shapes((shape.width, shape.height) for shape in shapes)
    clusters = defaultdict(list)
    for shape in shapes:
        clusters[firsts[shape.width, shape.height]].append(shape)
    return clusters


def _form(view: View) -> str:
    return _FORMS[view.ignore_loras, view.ignore_case]


def _is_split(view: View) -> bool:
    return view.same_model or view.same_seed


def _split_columns(view: View) -> list[str]:
    return ["model"] * view.same_model + ["coalesce(seed, '')"] * view.same_seed


def _or_nothing(view: View) -> str:
    """Model and seed where the view tells groups apart by them, else two empty texts."""
    return ("model" if view.same_model else "''") + ", " + ("coalesce(seed, '')" if view.same_seed else "''")


def _filters(view: View) -> tuple[str, tuple]:
    """What a WHERE says for the view's folder and filters, with its values."""
    parts, values = [IN_FOLDER], [*range_of(view.folder)]
    for column, value in (("generator", view.generator), ("model", view.model)):
        if value:
            parts.append(f"{column} = ?")
            values.append(value)
    if view.size:
        size = re.fullmatch(r"\s*([0-9]{1,6})\s*[xX×]\s*([0-9]{1,6})\s*", view.size)
        if not size:
            raise LibraryError(f"size={view.size!r} is no size. Write it as width x height in pixels, like 1024x1024.")
        parts.append("width = ? AND height = ?")
        values += int(size[1]), int(size[2])
    if view.since:
        parts.append("made >= ?")
        values.append(_day("since", view.since).timestamp())
    if view.until:
        parts.append("made < ?")
        values.append((_day("until", view.until) + timedelta(days=1)).timestamp())
    words = view.search.casefold().split()
    if words:
        parts.append(f"prompt IN (SELECT exact FROM prompts WHERE {' AND '.join(['instr(folded, ?)'] * len(words))})")
        values += words
    return " AND ".join(parts), tuple(values)


def _day(name: str, text: str) -> datetime:
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d")
    except ValueError:
        raise LibraryError(f"{name}={text!r} is no day. Write it as year-month-day, like 2026-11-20.") from None


def _json_list(values: Iterable[str]) -> str:
    return json.dumps(list(values))
