"""Pairs to and from other programs' layouts: OneTrainer's two folders, and CSV. Originals are copied, never moved.

    FOLDER/chosen/0001.png  FOLDER/chosen/0001.txt  FOLDER/rejected/0001.png  FOLDER/rejected/0001.txt

Files with the same stem are a pair; the .txt is its prompt.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from dpo import StudioError
from dpo.pairs import Pair

CSV_COLUMNS = ("prompt", "chosen", "rejected", "confidence", "source")


class ExchangeError(StudioError):
    """An export that could not be written. Nothing half-written is left behind."""


def new_export_folder(exports: Path) -> Path:
    """Make exports/<date-time> and return it; a second export within one second gets a number. Raises ExchangeError."""
    stem = time.strftime("%Y%m%d-%H%M%S")
    try:
        for number in range(1, 100):
            folder = exports / (stem if number == 1 else f"{stem}-{number}")
            if not folder.exists():
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        raise ExchangeError(f"{exports} cannot be written: {error.strerror}. Free some space, then export again.") from error
    raise ExchangeError(f"{exports} has a hundred exports of this second. Wait a moment, then export again.")


def export_onetrainer(pairs: Sequence[Pair], folder: Path) -> Path:
    """Copy the pairs as chosen/ and rejected/ with matching stems, each image with its prompt beside it.

    Every file keeps its own ending: OneTrainer matches by stem. Raises ExchangeError if there are no pairs, a file
    cannot be read, or the disk is full; the two folders are then removed again.
    """
    _require_pairs(pairs)
    sides = [folder / "chosen", folder / "rejected"]
    digits = max(4, len(str(len(pairs))))
    try:
        for side in sides:
            side.mkdir(parents=True)
        for number, pair in enumerate(pairs, start=1):
            for side, source in zip(sides, (pair.chosen, pair.rejected), strict=True):
                target = side / f"{number:0{digits}}{Path(source).suffix.lower()}"
                shutil.copyfile(source, target)
                target.with_suffix(".txt").write_text(pair.prompt, encoding="utf-8")
    except OSError as error:
        for side in sides:
            shutil.rmtree(side, ignore_errors=True)
        raise _failure(error, folder) from error
    return folder


def export_csv(pairs: Sequence[Pair], path: Path) -> Path:
    """Write one row per pair: prompt, chosen, rejected, confidence, source. Paths are as they are, nothing is copied.

    Raises ExchangeError if there are no pairs or the disk refuses.
    """
    _require_pairs(pairs)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            writer.writerows([getattr(pair, column) for column in CSV_COLUMNS] for pair in pairs)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _failure(error, path) from error
    return path


def _require_pairs(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise ExchangeError("There are no pairs to export yet. Pick some first.")


def _failure(error: OSError, target: Path) -> ExchangeError:
    return ExchangeError(
        f"The export to {target} failed at {error.filename or target}: {error.strerror}. "
        "Nothing was left half-written; free some space or mend that file, then export again."
    )
