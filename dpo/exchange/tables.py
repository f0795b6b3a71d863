"""Reading tables of pairs (CSV, JSON, JSON Lines) and rankings: rows of a prompt and paths, relative to the file.

    pair      prompt, chosen, rejected [, confidence, source]   `reject` and `caption` are understood, too; no rejected image
                                                                makes a pair that still needs one
    ranking   prompt, images, ranks [, confidence, source]      1 is best; the best against the worst, equal ranks never
                                                                (`image_path` and `rank` are understood, too)

A prompt may be missing: then the image says it. One line that cannot be meant is left out with its reason.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dpo.exchange.concepts import read_json
from dpo.exchange.dataset import (
    Check,
    DatasetPair,
    ExchangeError,
    Left,
    find_image,
    one_line,
    read_confidence,
    shown,
    unguarded,
)

LARGEST = 1 << 30  # bytes of a table
_NAMES = {
    "prompt": ("prompt", "caption"),
    "chosen": ("chosen",),
    "rejected": ("rejected", "reject"),
    "images": ("images", "image_path"),
    "ranks": ("ranks", "rank"),
    "confidence": ("confidence",),
    "source": ("source",),
}
_LINES = ("jsonl", "ndjson")

Rows = Iterator[tuple[str, dict]]  # (where, {name: value}) with names as in _NAMES


def read_pairs(path: Path, check: Check) -> tuple[list[DatasetPair], list[Left]]:
    """The pairs of a CSV, JSON or JSON Lines file. Raises ExchangeError for a file that cannot be read, or has no column of
    chosen images."""
    return _read(path, check, _pair, ("chosen",), "prompt,chosen,rejected")


def read_rankings(path: Path, check: Check) -> tuple[list[DatasetPair], list[Left]]:
    """One pair of each ranking in a JSON or JSON Lines file. Raises ExchangeError as `read_pairs`."""
    return _read(path, check, _ranking, ("images", "ranks"), "prompt, images and ranks")


def holds_rankings(path: Path) -> bool:
    """Whether the first row of a JSON or JSON Lines file is a ranking. False also where it is nothing at all."""
    try:
        return {"images", "ranks"} <= next(_rows(path), ("", {}))[1].keys()
    except (ExchangeError, ValueError):
        return False


def _read(
    path: Path, check: Check, read: Callable[[dict, Path, Check], DatasetPair], needed: tuple, says: str
) -> tuple[list, list[Left]]:
    rows, left, met = [], [], set()
    for where, values in _rows(path):
        met |= values.keys()
        try:
            if "broken" in values:
                raise ValueError(values["broken"])
            row = read(values, path.parent, check)
            rows.append(replace(row, where=where))
        except ValueError as reason:
            left.append(Left(where, str(reason)))
    if not set(needed) <= met:
        raise ExchangeError(f"{path}: no row has {says}. Name the columns so, or choose another file.")
    return rows, left


def _pair(values: dict, folder: Path, check: Check) -> DatasetPair:
    if not values.get("chosen"):
        raise ValueError("It has no chosen image.")
    chosen, rejected = (_text(values, name) for name in ("chosen", "rejected"))
    return DatasetPair(
        one_line(values.get("prompt") or ""),
        find_image(chosen, folder, check),
        find_image(rejected, folder, check) if rejected else None,
        read_confidence(values.get("confidence")),
        one_line(values.get("source") or ""),
    )


def _ranking(values: dict, folder: Path, check: Check) -> DatasetPair:
    images, ranks = values.get("images"), values.get("ranks")
    if not (isinstance(images, list) and isinstance(ranks, list) and len(images) == len(ranks) > 1):
        raise ValueError("It does not have two images or more, and a rank for each.")
    if not all(isinstance(image, str) for image in images) or not all(_is_number(rank) for rank in ranks):
        raise ValueError("Its images are not all paths, or its ranks not all numbers.")
    if min(ranks) == max(ranks):
        raise ValueError(f"All {len(images)} images have the same rank: a tie, which prefers none.")
    best, worst = images[ranks.index(min(ranks))], images[ranks.index(max(ranks))]
    prompt = one_line(values.get("prompt") or "")
    chosen, rejected = (find_image(path, folder, check) for path in (best, worst))
    confidence, source = read_confidence(values.get("confidence")), one_line(values.get("source") or "")
    return DatasetPair(prompt, chosen, rejected, confidence, source)


def _text(values: dict, name: str) -> str:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"Its {name} image is {shown(value)}, not a path.")
    return (value or "").strip()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _rows(path: Path) -> Rows:
    ending = path.suffix.lower().removeprefix(".")
    if ending == "csv":
        yield from _csv_rows(path)
    elif ending in _LINES:
        for number, line in enumerate(io.StringIO(_read_text(path)), start=1):
            if line.strip():
                try:
                    yield f"line {number}", _named(json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield f"line {number}", {"broken": f"It is no valid JSON ({shown(error)})."}
    else:
        values = read_json(path)
        if not isinstance(values, list):
            raise ExchangeError(f"{path} is no list of rows. Choose another file, or write one object per row.")
        for number, value in enumerate(values, start=1):
            yield f"row {number}", _named(value)


def _csv_rows(path: Path) -> Rows:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""))
    try:
        head = next(reader, [])
        for cells in reader:
            if cells:
                yield f"line {reader.line_num}", _named(dict(zip(head, map(unguarded, cells), strict=False)))
    except csv.Error as error:
        raise ExchangeError(
            f"{path}: line {reader.line_num} cannot be read ({error}). Mend it, or save the table again."
        ) from error


def _named(values: object) -> dict:
    if not isinstance(values, dict):
        return {"broken": "It is no object with names and values."}
    folded = {str(name).strip().casefold(): value for name, value in values.items()}
    return {name: folded[other] for name, others in _NAMES.items() for other in reversed(others) if other in folded}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise ExchangeError(f"{path} has more than {LARGEST >> 30} GB. Split it, then read one part after the other.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8, then try again.") from error
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror}. Check the path and who may read it.") from error
