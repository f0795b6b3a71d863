"""manifest.json of a live folder: which pairs are in it, for this program and for others. Written whole or not at all.

    {"format": "image-dpo-studio live pairs", "version": 1, "pairs": [{"stem", "split", "prompt", "group", "chosen_file",
     "rejected_file", "chosen_key", "rejected_key", "chosen_source", "rejected_source", "confidence", "source", "rater", "made"}]}

`stem` names a pair for good; its files are chosen/SPLIT/chosen_file and rejected/SPLIT/rejected_file, each with its prompt
beside it in STEM.txt. `split` is "" until the folder is finalised, then train or val. The names that OneTrainer's tool for
pairs has in its own manifest mean the same here.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from dpo.exchange.concepts import read_json
from dpo.exchange.dataset import Check, DatasetPair, ExchangeError, Left, one_line, read_confidence, require, shown
from dpo.metadata import content_key

MANIFEST = "manifest.json"
FORMAT = "image-dpo-studio live pairs"
SPLITS = ("", "train", "val")
_VERSION = 1
STEM = re.compile(r"pair-[0-9a-f]{16}")
FILE_NAME = re.compile(rf"{STEM.pattern}\.[a-z0-9]{{1,5}}")
_TEXTS = (
    "stem", "split", "prompt", "group", "chosen_file", "rejected_file", "chosen_key", "rejected_key", "chosen_source",
    "rejected_source", "source",
)  # fmt: skip


def is_manifest(path: Path) -> bool:
    """Whether a JSON file is a manifest of ours. Raises ExchangeError if it cannot be read or is no JSON."""
    values = read_json(path)
    return isinstance(values, dict) and values.get("format") == FORMAT


def read_manifest(folder: Path) -> list[dict]:
    """The entries of a live folder's manifest, [] if there is none. Raises ExchangeError for one that is not ours, or that
    cannot be read."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ExchangeError(f"{path} is of another program. Choose another folder for the pairs, or move that file away.")
    if values.get("version") != _VERSION or not isinstance(values.get("pairs"), list):
        raise ExchangeError(f"{path} was written by a newer version of this program. Update it, or choose another folder.")
    for number, entry in enumerate(values["pairs"], start=1):
        if not _is_entry(entry):
            raise ExchangeError(f"{path}: pair {number} is not as this program writes it. Choose another folder, or restore it.")
    return values["pairs"]


def write_manifest(folder: Path, entries: list[dict]) -> None:
    """Put the manifest in place of the one before. Raises OSError."""
    # A line for each: quick to write anew at every pick, and still to be read by people.
    lines = ",\n".join(map(json.dumps, entries))
    write_whole(folder / MANIFEST, f'{{"format": {json.dumps(FORMAT)}, "version": {_VERSION}, "pairs": [\n{lines}\n]}}\n')


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it finds what was there before, or all of this. Raises OSError."""
    try:
        with unfinished(path).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished(path).replace(path)
    finally:
        unfinished(path).unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.unfinished")


def read_manifest_pairs(folder: Path, check: Check) -> tuple[list[DatasetPair], list[Left]]:
    """The pairs of a live folder as its manifest names them: the originals where they still are what they were, else the
    copies. Pairs of which neither is there are left."""
    rows, left = [], []
    for entry in read_manifest(folder):
        try:
            chosen, rejected = (_find(entry, folder, side, check) for side in ("chosen", "rejected"))
            confidence, source = read_confidence(entry["confidence"]), one_line(entry["source"])
            rows.append(DatasetPair(one_line(entry["prompt"]), chosen, rejected, confidence, source, entry["stem"]))
        except ValueError as reason:
            left.append(Left(entry["stem"], str(reason)))
    return rows, left


def _find(entry: dict, folder: Path, side: str, check: Check) -> Path:
    original, name = entry[f"{side}_source"], entry[f"{side}_file"]
    with suppress(OSError, ValueError):  # gone, not to be used, or not even a path
        require(original, check)
        if content_key(original) == entry[f"{side}_key"]:
            return Path(original)
    for split in SPLITS:  # a folder that was being finalised may have it elsewhere than the manifest says
        if os.path.isfile(folder / side / split / name):
            require(folder / side / split / name, check)
            return folder / side / split / name
    raise ValueError(f"Neither {shown(name)} nor its original {shown(original)} is there.")


def _is_entry(entry: object) -> bool:
    """Its names are followed to files, so none may lead out of the folder."""
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in _TEXTS)
        and isinstance(entry.get("confidence"), float | int)
        and entry["split"] in SPLITS
        and STEM.fullmatch(entry["stem"]) is not None
        and all(FILE_NAME.fullmatch(entry[name]) for name in ("chosen_file", "rejected_file"))
    )
