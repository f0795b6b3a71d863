"""Reading a dataset of pairs from somewhere else, of whatever kind it is.

onetrainer            folders chosen and rejected, matched by stem: OneTrainer's layout, and paired folders in general
onetrainer_concepts   concepts.json with explicit types           onetrainer_pattern   concepts.json with patterns
csv, jsonl            tables of prompt, chosen, rejected          rankings             prompt, images, ranks (JSON, JSON Lines)
parquet               Pick-a-Pic's columns, in files              hub                  the same, streamed: OWNER/NAME
live                  a live folder with its manifest.json
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from dpo.exchange.concepts import CONCEPTS, is_concepts, read_concepts, read_json
from dpo.exchange.dataset import Check, Dataset, DatasetPair, ExchangeError, Left, allow
from dpo.exchange.folders import find_sides, read_folders
from dpo.exchange.manifest import MANIFEST, is_manifest, read_manifest_pairs
from dpo.exchange.pickapic import read_parquet, stream_hub
from dpo.exchange.tables import holds_rankings, read_pairs, read_rankings

IMPORT_KINDS = (
    "auto", "onetrainer", "onetrainer_concepts", "onetrainer_pattern", "csv", "jsonl", "rankings", "parquet", "hub", "live",
)  # fmt: skip
_TABLES = {"csv": ("csv",), "jsonl": ("jsonl", "ndjson", "json"), "parquet": ("parquet",)}
_OURS = (CONCEPTS, MANIFEST)


def read_dataset(
    path: str | Path, kind: str = "auto", images: Path | None = None, limit: int | None = None, check: Check = allow
) -> Dataset:
    """Read pairs from a folder, a file, or the hub (`kind="hub"` and OWNER/NAME for a path).

    `images`: the folder that receives images which are inside the dataset; needed for parquet and the hub. `limit`: the most
    rows to read of those two; needed for the hub. `check(path)` raises StudioError for a file or folder that must not be used:
    a dataset may name any on this machine, and who sent it may be a stranger. Images are looked for, not opened: whether they
    are some is not known yet.

    Raises ExchangeError for what is not there, is of no kind we know, or cannot be read at all.
    """
    if kind not in IMPORT_KINDS:
        raise ExchangeError(f"kind={kind!r} is not known. Use one of {', '.join(IMPORT_KINDS)}.")
    if limit is not None and limit < 1:
        raise ExchangeError(f"limit={limit} is too small. Read one row at least, or leave it out.")
    if kind == "hub":
        rows, left = stream_hub(_hub_name(str(path)), _needed(images), _needed_limit(limit))
        return Dataset(rows, left, kind, str(path))
    place = Path(path).expanduser().resolve()
    if not place.exists():
        raise ExchangeError(
            f"{place} does not exist. Check the spelling; to stream a dataset from the Hugging Face hub, use kind=hub and "
            "OWNER/NAME."
        )
    kind = detect_kind(place) if kind == "auto" else kind
    rows, left = _read(place, kind, images, limit, check)
    if not rows and not left:
        raise ExchangeError(f"{place}: there are no pairs in it. Choose another folder or file.")
    # A file that is named after its kind is known by its folder.
    return Dataset(rows, left, kind, place.parent.name if place.name in _OURS else place.stem if place.is_file() else place.name)


def detect_kind(place: Path) -> str:
    """Which of IMPORT_KINDS a folder or file is. Raises ExchangeError if it is none."""
    if place.is_file():
        return _kind_of_file(place)
    if (place / MANIFEST).is_file() and is_manifest(place / MANIFEST):
        return "live"
    if (place / CONCEPTS).is_file():
        return read_concepts(place / CONCEPTS)[1]
    if find_sides(place):
        return "onetrainer"
    kinds = {_kind_of_file(file) for file in _tables(place, sum(_TABLES.values(), ()))}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds:
        raise ExchangeError(f"{place} has tables of several kinds ({', '.join(sorted(kinds))}). Choose one of the files.")
    raise ExchangeError(
        f"{place}: no pairs found (looked for {MANIFEST}, {CONCEPTS}, folders named chosen and rejected, and tables: "
        f"{', '.join(sum(_TABLES.values(), ()))}). Choose the folder that has them."
    )


def _kind_of_file(file: Path) -> str:
    ending = file.suffix.lower().removeprefix(".")
    if ending == "json":
        if is_manifest(file):
            return "live"
        if is_concepts(read_json(file)):
            return read_concepts(file)[1]
    for kind, endings in _TABLES.items():
        if ending in endings:
            return "rankings" if kind == "jsonl" and holds_rankings(file) else kind
    raise ExchangeError(
        f"{file} is of no kind we read ({', '.join(sum(_TABLES.values(), ()))}). Choose another file or a folder."
    )


def _read(place: Path, kind: str, images: Path | None, limit: int | None, check: Check) -> tuple[list[DatasetPair], list[Left]]:
    match kind:
        case "live":
            return read_manifest_pairs(place if place.is_dir() else place.parent, check)
        case "onetrainer":
            sides = find_sides(place)
            if not sides:
                raise ExchangeError(f"{place}: no folders named chosen and rejected in it. Choose the folder that has both.")
            return read_folders(sides, check)
        case "onetrainer_concepts" | "onetrainer_pattern":
            return read_folders(read_concepts(place / CONCEPTS if place.is_dir() else place)[0], check)
        case "parquet":
            return read_parquet(_files(place, _TABLES[kind]), _needed(images), limit)
        case "rankings":
            return _together(read_rankings, _files(place, _TABLES["jsonl"]), check)
    return _together(read_pairs, _files(place, _TABLES[kind]), check)


def _files(place: Path, endings: tuple[str, ...]) -> list[Path]:
    files = [place] if place.is_file() else _tables(place, endings)
    if not files:
        raise ExchangeError(f"{place}: no file in it ends with {' or '.join(endings)}. Choose the folder that has them.")
    return files


def _tables(folder: Path, endings: Iterable[str]) -> list[Path]:
    """The tables of a folder: those right in it, or else in its folder data, where the hub puts them."""
    for place in (folder, folder / "data"):
        files = sorted(place.iterdir()) if place.is_dir() else []
        found = [
            file for file in files
            if file.is_file() and file.name not in _OURS and file.suffix.lower().removeprefix(".") in endings
        ]  # fmt: skip
        if found:
            return found
    return []


def _together(read: Callable, files: list[Path], check: Check) -> tuple[list[DatasetPair], list[Left]]:
    """What is in several tables; where one was read from is said if there are more."""
    rows, left = [], []
    for file in files:
        found, other = read(file, check)
        before = f"{file.name} " if len(files) > 1 else ""
        rows += found
        left += [Left(before + where, reason) for where, reason in other]
    return rows, left


def _hub_name(path: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", path) or ".." in path:
        raise ExchangeError(f"{path!r} names no dataset of the Hugging Face hub. Write it as OWNER/NAME.")
    return path


def _needed(images: Path | None) -> Path:
    if images is None:
        raise ExchangeError("The images of this dataset are inside it. Import it into a project to look at it.")
    return images


def _needed_limit(limit: int | None) -> int:
    if limit is None:
        raise ExchangeError(
            "A dataset on the hub may be of hundreds of gigabytes. Say how many rows to take, such as limit=1000."
        )
    return limit
