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
from functools import cache, partial
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from dpo.groups import Face, Group, GroupLine, View, cluster_shapes, group_key, key_ending, prompt_of_key
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


class ImageFacts(NamedTuple):
    """What pairs are judged by. `prompt` is normalised, "" for an image without one; `width` and `height` are in pixels, 0 for
    one that cannot be read. Until its pixels were decoded, `digest` is "" and `dhash` (64 bits) is None."""

    path: str
    width: int
    height: int
    prompt: str
    model: str
    generator: str
    digest: str
    dhash: int | None


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


# Columns of what SQLite counts of one prompt at one exact size: the prompt in the form that the view compares by, the size, how
# many files, first path, newest file, an exact prompt; then what a group must share besides (model, seed), where the view asks
# for that.
_PROMPT, _FILES, _PATH, _NEWEST, _EXACT, _SHARED = 0, 3, 4, 5, 6, slice(7, None)
_SIZE = slice(1, 3)


def make_catalogue(database: Database, view: View) -> Catalogue:
    """Raises LibraryError for a filter that says nothing we understand."""
    shapes = _count_shapes(database, view)
    copies = _count_copies(database, view)
    times = Counter(map(itemgetter(_PROMPT), shapes))
    is_split = view.same_model or view.same_seed
    lines, alone, several, ending_of = [], [], defaultdict(list), cache(partial(key_ending, view))
    # Most prompts have one shape: this loop is half of what a catalogue costs besides SQLite's work.
    for shape in shapes:
        if is_split or times[shape[_PROMPT]] > 1 or (copies and shape[:3] in copies):
            several[shape[_PROMPT], *shape[_SHARED]].append(shape)
            continue
        prompt, width, height, files, path, newest, exact = shape
        if files == 1:
            alone.append(path)
        else:
            name = group_key(prompt, ending_of(width, height))
            lines.append((path, GroupLine(name, exact, width / height, files, newest)))
    arrivals = _find_arrivals(database, view, {subject[0] for subject, found in several.items() if len(found) > 1})
    for (prompt, *shared), found in several.items():
        found.sort(key=lambda shape: arrivals.get(_name(shape), 0))
        for (width, height), cluster in _by_first_size(found).items():
            size = sum(shape[_FILES] - copies.get(_name(shape), 0) for shape in cluster)
            path, exact = (min(map(itemgetter(column), cluster)) for column in (_PATH, _EXACT))
            if size == 1:
                alone.append(path)
            else:
                name, newest = group_key(prompt, ending_of(width, height, *shared)), max(map(itemgetter(_NEWEST), cluster))
                lines.append((path, GroupLine(name, exact, width / height, size, newest)))
    lines.sort(key=itemgetter(0))
    alone.sort()
    reasons, example = _count_left_out(database, view)
    images = sum(map(itemgetter(_FILES), shapes)) + sum(reasons.values())
    reasons |= {reason: number for reason, number in (("alone", len(alone)), ("copy", sum(copies.values()))) if number}
    return Catalogue([line for _, line in lines], images, len(times), reasons, example, alone)


def find_faces(database: Database, view: View, lines: Iterable[GroupLine]) -> dict[str, Face]:
    """What is shown of these groups, by their keys."""
    prompts = _json_list({prompt_of_key(line.key) for line in lines})
    rows = _members(database, view, "IN (SELECT value FROM json_each(?))", (prompts,), ", text")
    return {
        name: Face(min((row[4], row[6]) for row in members)[1], min(row[5] for row in members))
        for name, (_, members) in _by_group(view, rows).items()
    }


def find_group(database: Database, view: View, key: str) -> Group | None:
    """The group of two images or more with this key in this view; of copies, the one with the first key and path."""
    prompt = prompt_of_key(key)
    if prompt is None:
        return None
    columns, join = ", path, record, given, text", "JOIN records ON records.id = images.id"
    found = _by_group(view, _members(database, view, "= ?", (prompt,), columns, join)).get(key)
    if found is None:
        return None
    (width, height), rows = found
    images = {}
    for row in sorted(rows, key=itemgetter(5, 6)):
        images.setdefault(row[3], row)
    if len(images) < 2:
        return None
    _, text = min((row[4], row[9]) for row in rows)
    return Group(key, text, width / height, tuple(to_image(*row[5:9]) for row in images.values()))


def find_members(database: Database, view: View, keys: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """The groups of two or more that hold any of these images: each group's images in order, each as the keys of its copies."""
    keys = set(keys)
    form = _FORMS[view.ignore_loras, view.ignore_case]
    chosen = f"IN (SELECT {form} FROM images JOIN prompts ON exact = prompt WHERE key IN (SELECT value FROM json_each(?)))"
    groups = {}
    for name, (_, members) in _by_group(view, _members(database, view, chosen, (_json_list(keys),), "")).items():
        copies: dict[int, set[str]] = defaultdict(set)
        for row in members:
            copies[row[3]].add(row[5])
        if len(copies) > 1 and not keys.isdisjoint(row[5] for row in members):
            groups[name] = sorted(tuple(sorted(same)) for same in copies.values())
    return groups


def find_facts(database: Database, keys: Iterable[str]) -> dict[str, ImageFacts]:
    """Of those of these images that are known; of copies, the file that came first."""
    # Cross joins keep SQLite from passing over a whole index for a handful of keys.
    rows = database.tuples(
        "SELECT asked.value, images.path, width, height, coalesce(text, ''), model, generator, coalesce(digest, ''), dhash "
        "FROM json_each(?) AS asked CROSS JOIN images INDEXED BY images_by_key ON images.key = asked.value "
        "LEFT JOIN prompts ON exact = prompt LEFT JOIN pixels ON pixels.key = asked.value ORDER BY images.id DESC",
        (_json_list(keys),),
    )
    return {key: ImageFacts(*facts, None if dhash is None else int(dhash, 16)) for key, *facts, dhash in rows}


def find_models(database: Database, paths: Iterable[str]) -> dict[str, str]:
    """What each of these files says of the model that made it, "" for nothing; a file that no scan has seen is missing."""
    return dict(
        database.tuples("SELECT path, model FROM images WHERE path IN (SELECT value FROM json_each(?))", (_json_list(paths),))
    )


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
        form, join = _form(view)
        rows = database.tuples(
            f"SELECT path, key FROM (SELECT path, key, row_number() OVER (PARTITION BY {form}, content{_shared(view)} "
            f"ORDER BY key, path) AS number FROM images INDEXED BY images_shared {join} "
            f"WHERE is_shared = 1 AND reason = '' AND {where}) "
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
    rows = database.tuples(
        f"SELECT generator, model, width, height, count(*) FROM images NOT INDEXED WHERE reason = '' AND {where} "
        "GROUP BY 1, 2, 3, 4",
        values,
    )
    counts: dict[str, Counter[str]] = {"generator": Counter(), "model": Counter(), "size": Counter()}
    for generator, model, width, height, files in rows:
        for name, value in (("generator", generator), ("model", model), ("size", f"{width}x{height}")):
            if value:
                counts[name][value] += files
    return {name: sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:MOST_FACETS] for name, counter in counts.items()}


def range_of(folder: str) -> tuple[str, str]:
    """The values of `IN_FOLDER`."""
    prefix = folder.rstrip(os.sep) + os.sep
    return prefix, prefix[:-1] + chr(ord(os.sep) + 1)


def _count_shapes(database: Database, view: View) -> list[tuple]:
    """Rows of the columns above."""
    form, join = _form(view)
    where, values = _filters(view)
    return database.tuples(
        f"SELECT {form} AS form, width, height, count(*), min(path), max(made), "
        f"{'min(prompt)' if join else 'prompt'}{_shared(view)} {_USABLE} {join} WHERE reason = '' AND {where} "
        f"GROUP BY form, width, height{_shared(view)}",
        values,
    )


def _count_copies(database: Database, view: View) -> dict[tuple, int]:
    """`_name` of a shape -> how many of its files are copies of another of them, where there are any."""
    found = _measure(database, view, "count(*) - count(DISTINCT content)", "images_shared", "is_shared = 1")
    return {name: copies for name, copies in found.items() if copies}


def _find_arrivals(database: Database, view: View, prompts: set[int]) -> dict[tuple, int]:
    """`_name` of each shape of these prompts -> a number that grows with the arrival of its first image."""
    if not prompts:
        return {}
    chosen = f"{_form(view)[0]} IN (SELECT value FROM json_each(?))"
    return _measure(database, view, "min(images.id)", "images_by_group", chosen, json.dumps(list(prompts)))


def _measure(database: Database, view: View, what: str, index: str, condition: str, *values: str) -> dict[tuple, int]:
    form, join = _form(view)
    where, filters = _filters(view)
    rows = database.tuples(
        f"SELECT {form} AS form, width, height{_shared(view)}, {what} FROM images INDEXED BY {index} {join} "
        f"WHERE {condition} AND reason = '' AND {where} GROUP BY form, width, height{_shared(view)}",
        (*values, *filters),
    )
    return {row[:-1]: row[-1] for row in rows}


def _name(shape: tuple) -> tuple:
    """What tells a shape from all others."""
    return shape[:3] + shape[_SHARED]


def _count_left_out(database: Database, view: View) -> tuple[dict[str, int], str]:
    where, values = _filters(view)
    counts = dict(
        database.tuples(
            f"SELECT reason, count(*) FROM images INDEXED BY images_left_out WHERE reason != '' AND {where} "
            "GROUP BY reason ORDER BY reason",
            values,
        )
    )
    # An image that is whole says more of a folder than one that is broken.
    whole = [reason for reason in counts if reason.endswith(("metadata", "prompt"))]
    examples = [row for reason in [*whole, *counts][:1] for row in list_left_out(database, view, reason, 0, 1, ())]
    return counts, examples[0].sentence if examples else ""


def _members(database: Database, view: View, chosen: str, values: tuple, columns: str, join: str = "") -> list[tuple]:
    """(form, width, height, content, exact prompt, key, *columns, *shared) of usable files, in the order of their arrival.

    `chosen` is a condition on the form, which is the prompt as the view compares it."""
    where, filters = _filters(view)
    return database.tuples(
        f"SELECT prompts.{_FORMS[view.ignore_loras, view.ignore_case]} AS form, width, height, content, exact, key{columns}"
        f"{_shared(view)} FROM prompts CROSS JOIN images INDEXED BY images_by_group ON prompt = exact {join} "
        f"WHERE form {chosen} AND reason = '' AND {where} ORDER BY images.id",
        (*values, *filters),
    )


def _by_group(view: View, rows: list[tuple]) -> dict[str, tuple[tuple[int, int], list[tuple]]]:
    """Group key -> its first shape and its rows, of rows as `_members` gives them."""
    shared = slice(-(view.same_model + view.same_seed) or 10**6, None)
    subjects = defaultdict(list)
    for row in rows:
        subjects[row[0], row[shared]].append(row)
    groups = {}
    for (prompt, values), members in subjects.items():
        firsts = cluster_shapes(row[_SIZE] for row in members)
        for row in members:
            first = firsts[row[_SIZE]]
            groups.setdefault(group_key(prompt, key_ending(view, *first, *values)), (first, []))[1].append(row)
    return groups


def _by_first_size(shapes: list[tuple]) -> dict[tuple[int, int], list[tuple]]:
    """Shapes in the order of their arrival, by the first of those that are nearly equal."""
    if len(shapes) == 1:
        return {shapes[0][_SIZE]: shapes}
    firsts = cluster_shapes(shape[_SIZE] for shape in shapes)
    clusters = defaultdict(list)
    for shape in shapes:
        clusters[firsts[shape[_SIZE]]].append(shape)
    return clusters


def _form(view: View) -> tuple[str, str]:
    """The number a view compares prompts by, and the join it takes."""
    form = _FORMS[view.ignore_loras, view.ignore_case]
    return ("prompt", "") if form == "exact" else (f"prompts.{form}", "JOIN prompts ON exact = prompt")


def _shared(view: View) -> str:
    """What a group of the view must share besides, to go behind other columns."""
    return ", model" * view.same_model + ", coalesce(seed, '')" * view.same_seed


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


def _json_list(values: Iterable) -> str:
    return json.dumps(list(values))
