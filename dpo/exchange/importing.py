"""Bringing a dataset into a project: its images are indexed where they lie, its pairs kept with the picks.

Every row of the dataset is accounted for: taken, known already, or left with its reason. Its pairs are taken as they are: an
image may be in several of them, as in Pick-a-Pic, but no pair in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpo.exchange.dataset import Check, Dataset, DatasetPair, Left, allow, count, listed, shown
from dpo.exchange.reading import read_dataset
from dpo.groups import normalise_prompt
from dpo.intake import safe_name
from dpo.metadata.records import Course
from dpo.picks import ImportedPair

if TYPE_CHECKING:
    from dpo.project import Project

LONGEST_NAME = 60  # bytes of a dataset's name


@dataclass(frozen=True)
class ImportReport:
    """What became of a dataset, in pairs: `taken` are new and whole, `needs_reject` are new and have no rejected image yet,
    `already` were in the project before. `left` has everything else. `sentence` says it all, with the first few reasons."""

    taken: int
    already: int
    needs_reject: int
    left: list[Left]
    sentence: str


class _Row(NamedTuple):
    """A row whose images are known by their keys; `rejected_key` is "" where there is none."""

    row: DatasetPair
    prompt: str
    chosen_key: str
    rejected_key: str
    courses: tuple[Course | None, ...]


def import_dataset(
    project: Project,
    path: str | Path,
    kind: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
    limit: int | None = None,
    check: Check = allow,
) -> ImportReport:
    """Read a dataset (see `read_dataset`) and keep its pairs. Images that are inside it go to PROJECT/imports/NAME.

    `report(done, total)` counts image files. Raises ExchangeError if nothing of it can be read, ProjectError if the disk
    refuses: then no pair was kept.
    """
    images = project.path / "imports" / safe_name(Path(path).stem, LONGEST_NAME)
    dataset = read_dataset(path, kind, images, limit, check)
    rows, left = _know(project, dataset, report)
    rows, already, left = _without_known(project, rows, left)
    name = shown(dataset.name)
    new = project.picks.import_pairs([
        ImportedPair(
            prompt=row.prompt,
            chosen_key=row.chosen_key,
            rejected_key=row.rejected_key,
            paths=tuple(str(path) for path in (row.row.chosen, row.row.rejected) if path),
            confidence=row.row.confidence,
            source=name,
            origin=str(path),
            courses=row.courses,
        )
        for row in rows
    ])  # fmt: skip
    already += len(rows) - new
    needing = sum(not row.rejected_key for row in rows)
    taken = max(0, new - needing)
    return ImportReport(taken, already, needing, left, _sentence(name, taken, already, needing, left))


def _know(project: Project, dataset: Dataset, report: Callable) -> tuple[list[_Row], list[Left]]:
    """The rows whose files are images and whose prompt is known."""
    paths = {str(path) for row in dataset.rows for path in (row.chosen, row.rejected) if path}
    keys = project.library.add_files(paths, report)
    images = project.library.images_at(paths)
    rows, left = [], list(dataset.left)
    for row in dataset.rows:
        files = [str(path) for path in (row.chosen, row.rejected) if path]
        broken = [path for path in files if path not in keys]
        said = [images[path].record.prompt for path in files if path in images]
        prompt = normalise_prompt(row.prompt) or next(filter(None, map(normalise_prompt, said)), "")
        if broken:
            error = images[broken[0]].record.error if broken[0] in images else None
            left.append(Left(row.where, error or f"{shown(broken[0])} cannot be read."))
        elif not prompt:
            left.append(Left(row.where, f"No prompt: neither the dataset nor {shown(row.chosen.name)} says one."))
        elif len(files) == 2 and keys[files[0]] == keys[files[1]]:
            left.append(Left(row.where, f"{shown(row.chosen.name)} and {shown(row.rejected.name)} are the same image."))
        else:
            courses = tuple(images[path].record.course for path in files)
            rows.append(_Row(row, prompt, keys[files[0]], keys[files[1]] if len(files) == 2 else "", courses))
    return rows, left


def _without_known(project: Project, rows: list[_Row], left: list[Left]) -> tuple[list[_Row], int, list[Left]]:
    """Leave what the project has: the same pairs are counted, those that contradict are named."""
    pairs = {(picked.chosen, picked.rejected) for picked in project.picks.picked_pairs()}
    kept, already = [], 0
    for row in rows:
        mine = (row.chosen_key, row.rejected_key)
        if mine in pairs:
            already += 1
        elif mine[::-1] in pairs:
            left.append(Left(row.row.where, "This project has the pair the other way round. Turn it round in the review."))
        else:
            pairs.add(mine)
            kept.append(row)
    return kept, already, left


def _sentence(name: str, taken: int, already: int, needing: int, left: Iterable[Left]) -> str:
    parts = [f"{count(taken, 'pair')} taken from {name}."]
    if needing:
        parts.append(f"{count(needing, 'more pair')} {'needs' if needing == 1 else 'need'} a rejected image: see the review.")
    if already:
        parts.append(f"{count(already, 'pair')} {'was' if already == 1 else 'were'} here before.")
    reasons = [f"{where}: {reason}" for where, reason in left]
    if reasons:
        parts.append(f"{len(reasons):,} left out. {listed(reasons, 3)}")
    return " ".join(parts)
