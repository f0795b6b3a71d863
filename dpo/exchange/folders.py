"""Reading folders of pairs: two folders whose files are matched by stem, as OneTrainer does, with or without its concepts.json.

A stem is the path inside its folder, without the ending and with / between its parts: chosen/cats/1.png and
rejected/cats/1.webp are a pair. The prompt is the caption beside the chosen image (cats/1.txt). Files that say no prompt
that way may do so inside themselves: that is for the index to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from dpo.exchange.concepts import ConceptPair
from dpo.exchange.dataset import Check, DatasetPair, Left, listed, one_line, require, shown
from dpo.groups import prompt_forms
from dpo.scan import list_folder

SIDES = ("chosen", "rejected")
MOST_CAPTION = 1 << 20  # bytes; a longer text is no caption


def find_sides(folder: Path) -> list[ConceptPair]:
    """The pairs of folders named chosen and rejected in a folder, or else in the folders right inside it."""
    try:
        inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:  # whoever reads its files will say so
        return []
    for places in ([folder], [entry for entry in inside if entry.is_dir()]):
        found = [place for place in places if all((place / side).is_dir() for side in SIDES)]
        if found:
            return [ConceptPair(place / "chosen", place / "rejected", True) for place in found]
    return []


def read_folders(sides: Iterable[ConceptPair], check: Check) -> tuple[list[DatasetPair], list[Left]]:
    """The pairs of these pairs of folders, by stem, and what is none. Files that links lead to are checked, too."""
    rows: list[DatasetPair] = []
    left: list[Left] = []
    for pair in sides:
        try:
            for folder in pair.folders:
                require(folder, check)
        except ValueError as reason:
            left.append(Left(shown(folder), str(reason)))
            continue
        chosen, rejected = (_stems(*side, pair.with_subfolders, left) for side in zip(pair.folders, pair.patterns, strict=True))
        if pair.is_pattern:
            chosen, rejected = _untangle(chosen, rejected)
        for stem in sorted(chosen.keys() | rejected.keys()):
            try:
                rows.append(_match(stem, chosen.get(stem, []), rejected.get(stem, []), check))
            except ValueError as reason:
                left.append(Left(stem, str(reason)))
    return rows, left


def read_caption(image: Path) -> str:
    """The text beside an image, as one line; "" if there is none. Raises ValueError with a sentence if it cannot be read."""
    path = image.with_suffix(".txt")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CAPTION + 1)
        if len(text) > MOST_CAPTION:
            raise ValueError(f"{shown(path.name)} is too long for a caption: more than {MOST_CAPTION:,} bytes.")
        return one_line(text.decode("utf-8-sig"))
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path.name)} is not UTF-8 text. Save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"{shown(path.name)} cannot be read: {error.strerror}.") from error


def _stems(folder: Path, pattern, with_subfolders: bool, left: list[Left]) -> dict[str, list[Path]]:
    """Stem -> the images that have it. `pattern` finds the stem in a path inside the folder."""
    stems: dict[str, list[Path]] = {}
    for path in _images(folder, with_subfolders, left):
        stem = pattern(PurePath(os.path.relpath(path, folder)))
        if stem is not None:
            stems.setdefault(stem, []).append(path)
    return stems


def _images(folder: Path, with_subfolders: bool, left: list[Left]) -> Iterator[Path]:
    for found in list_folder(str(folder)):
        if found.problem:
            left.append(Left(shown(found.path), found.problem))
        elif with_subfolders or os.path.dirname(found.path) == str(folder):
            yield Path(found.path)


def _untangle(*sides: dict[str, list[Path]]) -> list[dict[str, list[Path]]]:
    """Patterns such as `{}` and `{}_bad` both fit the file of one side: one that has its partner is not missing another."""
    matched = sides[0].keys() & sides[1].keys()
    taken = {path for side in sides for stem in matched for path in side[stem]}
    return [{stem: found for stem, found in side.items() if stem in matched or not taken & set(found)} for side in sides]


def _match(stem: str, chosen: list[Path], rejected: list[Path], check: Check) -> DatasetPair:
    for side, files, other in (("chosen", chosen, rejected), ("rejected", rejected, chosen)):
        if len(files) > 1:
            names = listed(shown(path.name) for path in files)
            raise ValueError(f"{len(files)} files have this stem on the {side} side: {names}. Keep one, or rename the others.")
        if not files:
            raise ValueError(f"{shown(other[0].name)} has no {side} image: no file has its stem there.")
    for path in (*chosen, *rejected):
        for beside in (path, path.with_suffix(".txt")):
            require(beside, check)
    prompt, other = read_caption(chosen[0]), read_caption(rejected[0])
    forms, others = prompt_forms(prompt), prompt_forms(other)
    if forms and others and forms.both != others.both:
        raise ValueError(f"Its captions differ: “{shown(prompt)}” and “{shown(other)}”. A pair is of one prompt.")
    return DatasetPair(prompt or other, chosen[0], rejected[0], where=stem)
