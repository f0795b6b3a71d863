"""A zip that says it is a project becomes one again, at another place. It may come from anybody: nothing is written before all of
its names are checked, and nothing is left where one part of it is not as it must be."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.archive import ArchiveError, Entry, list_entries, open_archive, read_entry
from dpo.bundle.contents import (
    ELSEWHERE,
    FORMAT,
    MANIFEST,
    MOST_DIRECTORY,
    MOST_FILES,
    PICKS,
    PICTURES,
    RUNS,
    BundleError,
    is_content,
    is_portable,
)
from dpo.bundle.packing import SPARE, Report
from dpo.bundle.places import WITH_PATHS, Move, arrive, move_paths
from dpo.bundle.said import check_meaning, check_said, is_empty, place_said, take_in_said
from dpo.exchange.dataset import shown
from dpo.library import LibraryError
from dpo.runs import list_runs
from dpo.standins import StandInError

if TYPE_CHECKING:
    from dpo.project import Project

LARGEST_MANIFEST = 64 << 20  # bytes
Check = Callable[[str], None]


@dataclass(frozen=True)
class Unpacked:
    """What is there now. `gone`: pairs whose images did not come along."""

    folder: Path
    pairs: int
    runs: int
    gone: int


def allow(path: str) -> None:
    """The check of whoever may use every file of this machine."""


def unpack(path: Path, folder: Path, check: Check = allow, report: Report = lambda done, total: None) -> Unpacked:
    """Make a project of the zip, in a folder that is not there yet, and read its images into the index.

    `check` raises StudioError for a model or an adapter outside the project that whoever unpacks may not use: it is not used.
    What `report` raises ends it. Raises BundleError: then there is no folder.
    """
    from dpo.project import open_project

    folder = Path(folder).expanduser().resolve()
    if os.path.lexists(folder):
        raise BundleError(f"{folder} is there already. Choose a folder that is not: nothing is written over.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _workplace(folder.parent, f".{folder.name}") as work:
            inside = work / "project"
            _write_all(path, inside, folder, check, report)
            inside.rename(folder)
    except (OSError, ArchiveError) as error:
        raise _failure(path, folder, error) from error
    try:
        return _read(open_project(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def take_over(project: Project, path: Path, check: Check = allow, report: Report = lambda done, total: None) -> Unpacked:
    """Put what is in the zip into an open project in which nobody has said anything and nothing was trained. Files of both stay
    one; raises BundleError where they differ, as for all that `unpack` refuses: then the project is as it was."""
    if not is_empty(project) or list_runs(project.runs):
        raise BundleError(f"{project.path.name} has picks or runs of its own. The zip is unpacked beside it instead.")
    placed: list[Path] = []
    try:
        with _workplace(project.path, ".unpacking") as work:
            inside = work / "project"
            _write_all(path, inside, project.path, check, report)
            files = [file for file in sorted(inside.rglob("*")) if file.is_file() and file.parent != inside]
            for file in files:
                there = project.path / file.relative_to(inside)
                if os.path.lexists(there) and not _is_same(file, there):
                    raise BundleError(
                        f"{there.relative_to(project.path)} is in this project already, and another in the zip. Unpack it into a "
                        "new folder: python -m dpo project unpack FILE.zip FOLDER."
                    )
            try:
                for file in files:
                    there = project.path / file.relative_to(inside)
                    if not os.path.lexists(there):
                        there.parent.mkdir(parents=True, exist_ok=True)
                        file.rename(there)
                        placed.append(there)
                take_in_said(project, inside / PICKS)
                project.picks.set_rules(project.picks.rules())  # written through the project, so that its backups hear of it
                return _read(project)
            except BaseException:
                for there in placed:
                    there.unlink(missing_ok=True)
                raise
    except (OSError, ArchiveError) as error:
        raise _failure(path, project.path, error) from error


@contextmanager
def _workplace(folder: Path, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards. It names its process, so that one left by a killed process is known for what it is."""
    place = folder / f"{name}-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write_all(path: Path, work: Path, root: Path, check: Check, report: Report) -> None:
    """Unpack into `work`, with the paths of a project at `root`."""
    with open_archive(path, MOST_FILES, MOST_DIRECTORY) as archive:
        entries = _check_names(list(list_entries(archive, path.stat().st_size)))
        manifest = _read_manifest(archive, entries)
        total = sum(entry.size for entry in entries.values())
        work.mkdir()
        free = shutil.disk_usage(work).free
        if total + SPARE > free:
            raise BundleError(f"It unpacks to {total / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free. Free some space.")
        done = 0
        for entry in entries.values():
            place = work.joinpath(*entry.parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                for piece in read_entry(archive, entry):
                    file.write(piece)
                    done += len(piece)
                    report(done, total)
    own, model = arrive(root, check, is_own=True), arrive(root, check, is_own=False)
    check_said(work / PICKS)
    place_said(work / PICKS, own, lambda file: _in(work, root, file).is_file())
    check_meaning(work / PICKS, work.with_name("check"))
    times = manifest.get("times")
    for name, entry in entries.items():
        place = work.joinpath(*entry.parts)
        if entry.parts[0] in WITH_PATHS and name.endswith((".json", ".jsonl")):
            _move_paths(place, own, model)
        made = times.get(name) if isinstance(times, dict) else None
        if isinstance(made, int) and 0 < made < 1 << 62:
            os.utime(place, ns=(made, made))
        elif entry.made:
            os.utime(place, (entry.made, entry.made))


def _check_names(found: list[Entry | tuple[str, str]]) -> dict[str, Entry]:
    """The files of the zip by name. Raises BundleError for the first that has no place in a project."""
    entries: dict[str, Entry] = {}
    taken: dict[str, str] = {}
    folders: set[str] = set()
    for entry in found:
        if isinstance(entry, tuple):
            raise BundleError(f"{shown(entry[0])}: {entry[1]}")
        name = "/".join(entry.parts)
        if not is_content(entry.parts):
            raise BundleError(f"{shown(name)} is no part of a project. Pack the project again with this program.")
        if not all(map(is_portable, entry.parts)):
            raise BundleError(f"{shown(name)} is a name that not every system can have. Pack the project again.")
        if name.casefold() in taken:
            other = shown(taken[name.casefold()])
            raise BundleError(f"{shown(name)} and {other} are one file on some systems. It is not unpacked.")
        taken[name.casefold()] = name
        folders |= {"/".join(entry.parts[:deep]).casefold() for deep in range(1, len(entry.parts))}
        entries[name] = entry
    both = next((name for folded, name in taken.items() if folded in folders), None)
    if both is not None:
        raise BundleError(f"{shown(both)} is a file and a folder at once. It is not unpacked.")
    if not {MANIFEST, PICKS} <= entries.keys():
        raise BundleError(f"It is no project: {MANIFEST} and {PICKS} are not in it. Choose a zip that this program packed.")
    return dict(sorted(entries.items()))


def _read_manifest(archive: zipfile.ZipFile, entries: dict[str, Entry]) -> dict:
    if entries[MANIFEST].size > LARGEST_MANIFEST:
        raise BundleError(f"Its {MANIFEST} is too large to be one.")
    try:
        manifest = json.loads(b"".join(read_entry(archive, entries[MANIFEST])))
        number = manifest["format"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BundleError(f"Its {MANIFEST} cannot be read. Choose a zip that this program packed.") from error
    if number != FORMAT:
        raise BundleError("It was packed by another version of this program. Update this one, then open it again.")
    return manifest


def _move_paths(place: Path, own: Move, model: Move) -> None:
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{shown(place.name)} is no text. Pack the project again.") from error
    moved = move_paths(text, place.suffix == ".jsonl", own, model)
    if moved != text:
        place.write_text(moved, encoding="utf-8")


def _read(project: Project) -> Unpacked:
    """Read the images that came along into the index, and count what there is."""
    for folder in (ELSEWHERE, *PICTURES):
        try:
            project.library.scan(project.path / folder)
        except (LibraryError, StandInError):
            continue  # no such folder, or no image in it
    used = [pair for pair in project.picks.picked_pairs() if pair.state == "used"]
    return Unpacked(project.path, len(used), len(list_runs(project.runs)), sum(bool(pair.missing) for pair in used))


def _in(work: Path, root: Path, file: str) -> Path:
    """Where a file that will be at a place in `root` is now."""
    place = Path(os.path.normpath(file))
    return work / place.relative_to(root) if place.is_relative_to(root) else work / RUNS / ".nowhere"


def _is_same(one: Path, other: Path) -> bool:
    return other.is_file() and one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _failure(path: Path, folder: Path, error: Exception) -> BundleError:
    if isinstance(error, OSError):
        problem = f"cannot be unpacked into {folder}: {error.strerror or error}"
        return BundleError(f"{shown(path.name)} {problem}. Free some space, or choose another folder.")
    return BundleError(f"{shown(path.name)}: {error}")
