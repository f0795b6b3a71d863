"""Writing pairs for other programs: a folder with images, captions or tables, and a card. Originals are copied, never moved.

    onetrainer            chosen|rejected/{train,val}/00001.png with .txt captions, concepts.json of patterns over both
    onetrainer_concepts   the same folders, concepts.json of the four explicit types
    onetrainer_pattern    {train,val}/{chosen,rejected}/00001.png with captions: a concept of chosen/{} and rejected/{} each
    csv, jsonl            train.csv and validation.csv: prompt, chosen, rejected, confidence, source; the images in images/
    rankings              train.jsonl and validation.jsonl: prompt, images, ranks, confidence, source; the images in images/
    parquet               train-0001.parquet, ...: Pick-a-Pic's columns, the images inside

Everything is written into a folder beside the one asked for, which gets its name at the end: it is whole, or not there.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dpo.exchange.card import CARD, card_text
from dpo.exchange.concepts import CONCEPTS, concepts_json, explicit_concepts, pattern_concepts, rooted_concepts
from dpo.exchange.dataset import ExchangeError, guarded, one_line
from dpo.exchange.pickapic import write_parquet
from dpo.pairs import Pair, Ranking, split_pairs

EXPORT_KINDS = ("onetrainer", "onetrainer_concepts", "onetrainer_pattern", "csv", "jsonl", "rankings", "parquet")
TABLE_COLUMNS = ("prompt", "chosen", "rejected", "confidence", "source")
_LAYOUTS = {
    "onetrainer": "Files of one stem in chosen/SPLIT and rejected/SPLIT are a pair, the text beside them is its prompt.",
    "onetrainer_pattern": "Files of one stem in SPLIT/chosen and SPLIT/rejected are a pair, the text beside them is its prompt.",
    "csv": "A row is a pair; its paths are relative to the table.",
    "rankings": "A row is a ranking: its images, and their ranks, of which 1 is best; paths are relative to the table. The "
    "confidence is that of the best against the worst.",
    "parquet": "A row is a pair, with Pick-a-Pic's columns: label_0 is 1 where jpg_0 is preferred, 0 where jpg_1 is.",
}
_LAYOUTS |= {"onetrainer_concepts": _LAYOUTS["onetrainer"], "jsonl": _LAYOUTS["csv"]}


def new_export_folder(exports: Path) -> Path:
    """The path of a new folder exports/<date-time>, which is made; a second one within a second gets a number. Raises
    ExchangeError."""
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


def export_dataset(
    pairs: Sequence[Pair],
    folder: str | Path,
    kind: str,
    share: float,
    report: Callable[[int, int], None] = lambda done, total: None,
    rankings: Iterable[Ranking] = (),
) -> Path:
    """Write pairs into a folder that is new or empty, one of EXPORT_KINDS, about `share` of the prompts for validation.

    `rankings` are for the kind of that name: a pair that is the best and the worst of one is written as all of it.
    `report(done, total)` counts pairs; what it raises ends the export, as an error does. Returns the absolute path of the
    folder. Raises ExchangeError if there are no pairs, the folder has something in it, an image cannot be read, or the disk is
    full: then nothing was written.
    """
    folder = Path(folder).expanduser().resolve()
    if kind not in EXPORT_KINDS:
        raise ExchangeError(f"kind={kind!r} is not known. Use one of {', '.join(EXPORT_KINDS)}.")
    check_share(share)
    if not pairs:
        raise ExchangeError("There are no pairs to export yet. Pick some first.")
    training, validation = split_pairs(list(pairs), share)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExchangeError(f"{folder} is there already and not an empty folder. Choose a new one: nothing is overwritten.")
        unfinished.mkdir(parents=True)
        whole = {(ranking.images[0], ranking.images[-1]): ranking.images for ranking in rankings}
        files = _write(kind, {"train": training, "val": validation}, whole, unfinished, folder, report)
        card = card_text(folder.name, training, validation, share, files, _LAYOUTS[kind])
        (unfinished / CARD).write_text(card, encoding="utf-8")
        with suppress(FileNotFoundError):
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise export_failure(error, folder) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def check_share(share: float) -> None:
    """Raises ExchangeError for a share of prompts that cannot be kept for validation."""
    if not 0 <= share <= 0.5:
        raise ExchangeError(
            f"share={share} is not between 0 and 0.5. Set it to 0.1 to keep a tenth of the prompts for validation."
        )


def export_failure(error: OSError, target: Path) -> ExchangeError:
    """What to tell a person of an export that the disk refused."""
    return ExchangeError(
        f"The export to {target} failed at {error.filename or target}: {error.strerror or error}. "
        "Nothing was left half-written; free some space or mend that file, then export again."
    )


def _write(
    kind: str,
    splits: dict[str, list[Pair]],
    whole: dict[tuple[str, ...], tuple[str, ...]],
    folder: Path,
    final: Path,
    report: Callable[[int, int], None],
) -> dict[str, str]:
    """Write the pairs; returns split -> glob of what the hub can show as a table. `whole`: the images of a pair -> those of its
    ranking, the best first."""
    total = sum(map(len, splits.values()))
    splits = {split: pairs for split, pairs in splits.items() if pairs}
    digits = max(5, len(str(total)))
    begun = itertools.count()

    def told(pairs: list[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            report(next(begun), total)
            yield pair

    names = {"train": "train", "val": "validation"}
    if kind == "parquet":
        for split, pairs in splits.items():
            write_parquet(told(pairs), folder, names[split])
        return {names[split]: f"{names[split]}-*.parquet" for split in splits}
    if kind in ("csv", "jsonl", "rankings"):
        copied: dict[str, str] = {}
        write, ending = (_write_csv, "csv") if kind == "csv" else (_write_lines, "jsonl")
        for split, pairs in splits.items():
            rows = []
            for pair in told(pairs):
                images = whole.get(pair.images, pair.images) if kind == "rankings" else pair.images
                paths = [_copy_once(image, folder, copied, digits) for image in images]
                rows.append(_ranked(pair, paths) if kind == "rankings" else _row(pair, *paths))
            write(rows, folder / f"{names[split]}.{ending}")
        return {names[split]: f"{names[split]}.{ending}" for split in splits}
    number = 0
    for split, pairs in splits.items():
        sides = [f"{split}/{side}" if kind == "onetrainer_pattern" else f"{side}/{split}" for side in ("chosen", "rejected")]
        for side in sides:
            (folder / side).mkdir(parents=True)
        for pair in told(pairs):
            number += 1
            for side, source in zip(sides, (pair.chosen, pair.rejected), strict=True):
                copy_captioned(source, folder / side / f"{number:0{digits}}{Path(source).suffix.lower()}", pair.prompt)
    make = {"onetrainer": pattern_concepts, "onetrainer_concepts": explicit_concepts, "onetrainer_pattern": rooted_concepts}
    (folder / CONCEPTS).write_text(concepts_json(make[kind](final, list(splits))), encoding="utf-8")
    return {}


def copy_captioned(source: str, target: Path, prompt: str) -> None:
    """Copy an image and write its prompt beside it, on one line."""
    shutil.copyfile(source, target)
    target.with_suffix(".txt").write_text(one_line(prompt), encoding="utf-8")


def _copy_once(source: str, folder: Path, copied: dict[str, str], digits: int) -> str:
    """The path of an image in images/. `copied`: source -> path there; an image in two pairs is copied once."""
    if source not in copied:
        copied[source] = f"images/{len(copied) + 1:0{digits}}{Path(source).suffix.lower()}"
        (folder / "images").mkdir(exist_ok=True)
        shutil.copyfile(source, folder / copied[source])
    return copied[source]


def _row(pair: Pair, chosen: str, rejected: str) -> dict:
    row = {name: getattr(pair, name) for name in TABLE_COLUMNS}
    return {**row, "prompt": one_line(pair.prompt), "chosen": chosen, "rejected": rejected}


def _ranked(pair: Pair, images: list[str]) -> dict:
    ranks = list(range(1, len(images) + 1))
    return {
        "prompt": one_line(pair.prompt), "images": images, "ranks": ranks, "confidence": pair.confidence, "source": pair.source,
    }  # fmt: skip


def _write_csv(rows: list[dict], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, TABLE_COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: guarded(value) if isinstance(value, str) else value for name, value in row.items()})


def _write_lines(rows: list[dict], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
