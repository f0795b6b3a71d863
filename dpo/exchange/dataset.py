"""What was read from somewhere else: pairs as they are written there, and what is no pair, each with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dpo import StudioError

LONGEST_NAME = 100  # characters of a path in a sentence
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what they begin with
Check = Callable[[str], None]


class ExchangeError(StudioError):
    """An import of which nothing can be read, or an export that could not be written. Nothing half-written is left behind."""


class Left(NamedTuple):
    """Something that is not taken, or not as it is: where, and a sentence that says why."""

    where: str
    reason: str


@dataclass(frozen=True)
class DatasetPair:
    """A pair as somebody wrote it. `prompt` is "" where only the images can say it; `rejected` is None for a pair that still
    needs one. `confidence` in (0.5, 1], 1 where nothing is said. `source`: how the pair came to be, "" where nothing is said.
    `where`: the line, row or stem it was read from."""

    prompt: str
    chosen: Path
    rejected: Path | None
    confidence: float = 1.0
    source: str = ""
    where: str = ""


@dataclass(frozen=True)
class Dataset:
    """`kind` is how it was read: one of `dpo.exchange.reading.IMPORT_KINDS`."""

    rows: list[DatasetPair]
    left: list[Left]
    kind: str
    name: str


def one_line(text: object) -> str:
    """A text as one line of valid UTF-8: trainers that read caption files take one line of several at random."""
    return " ".join(str(text).encode("utf-8", "replace").decode().split())


def guarded(text: str) -> str:
    """A text as a cell of a CSV: a spreadsheet would take one that begins like a formula for one, and carry it out."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULAS) else text


def unguarded(text: str) -> str:
    """The text that was guarded, or any other as it is."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULAS) else text


def shown(name: object) -> str:
    """A name out of somebody's file as part of a sentence: on one line and not long."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(name))
    return text if len(text) <= LONGEST_NAME else f"...{text[-LONGEST_NAME:]}"


def allow(path: str) -> None:
    """The check of whoever may use every file of this machine; see `read_dataset`."""


def find_image(written: str, folder: Path, check: Check) -> Path:
    """The file that a dataset in `folder` means by a path. Raises ValueError with a sentence if there is none to be used.

    Whether the file is an image is for the index to say. Paths with backslashes are tried as both.
    """
    if re.match(r"[a-z][a-z0-9+.-]+://", written, re.IGNORECASE):
        raise ValueError(f"{shown(written)} is an address on the web. Download the file and write its path.")
    possible = "\0" not in written and written.encode("utf-8", "replace").decode() == written
    for spelling in dict.fromkeys((written, written.replace("\\", "/"))) if possible else ():
        path = os.path.join(folder, os.path.expanduser(spelling))
        require(path, check)
        if os.path.isfile(path):
            return Path(path)
    raise ValueError(f"{shown(written)} is not there. Paths are relative to {shown(folder)}.")


def require(path: str | Path, check: Check) -> None:
    """Raises ValueError with the check's sentence for a path that must not be used, wherever links lead from it."""
    try:
        check(os.path.realpath(path))
    except StudioError as error:
        raise ValueError(str(error)) from error


def read_confidence(value: object) -> float:
    """A confidence as written, 1 where there is none. Raises ValueError with a sentence for what is no confidence."""
    if value is None or not str(value).strip():
        return 1.0
    try:
        confidence = float(str(value))
    except ValueError:
        confidence = 0.0
    if not 0.5 < confidence <= 1:
        raise ValueError(f"Its confidence {shown(value)} is not above 0.5 and at most 1.")
    return confidence


def count(number: int, what: str) -> str:
    """1 pair, 2 pairs."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """a, b and c; of many, the first few and how many more there are."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
