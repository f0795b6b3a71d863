"""A project into a zip. Files are stored as they are, in the order of their names: images and weights are packed already."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.blind import list_tests
from dpo.bundle.contents import (
    ADAPTERS,
    ELSEWHERE,
    FOLDERS,
    FORMAT,
    IMAGES,
    MANIFEST,
    MOST_FILES,
    PICKS,
    PICTURES,
    RUNS,
    TABLES,
    TESTS,
    BundleError,
    is_content,
)
from dpo.bundle.places import WITH_PATHS, Places, move_paths
from dpo.bundle.said import copy_said, list_tables
from dpo.runs import list_runs
from dpo.scan import IMAGE_ENDINGS
from dpo.standins import ENDINGS as BESIDE

if TYPE_CHECKING:
    from dpo.project import Project

PIECE = 1 << 20
SPARE = 64 << 20  # bytes of the disk that are left free
LARGE = 1 << 30  # bytes from which on a file is announced to the zip as one that may grow past 4 GB
FIRST_TIME, LAST_TIME = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # of a zip
Report = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class Packed:
    """`left`: (name, reason) of what was to come along and could not."""

    file: Path
    files: int
    bytes: int
    left: tuple[tuple[str, str], ...]


def pack(
    project: Project, target: Path, images: str = "used", checkpoints: bool = False,
    report: Report = lambda done, total: None,
) -> Packed:  # fmt: skip
    """Write the project into `target`, whole or not at all. Picking and training may go on meanwhile.

    `images`: one of IMAGES. `checkpoints`: also what runs are resumed from; without them runs can be looked at, cloned, compared
    and exported. What `report` raises ends it. Raises BundleError.
    """
    if images not in IMAGES:
        raise BundleError(f"images={images!r} is not known. Choose one of {', '.join(IMAGES)}.")
    target = Path(target).expanduser().resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    said = target.with_name(f".{target.name}.picks.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        places, files = _gather(project, images, checkpoints)
        copy_said(project, said, places.own, places.table)
        files[PICKS] = said
        total = _check_room(files, target)
        left: list[tuple[str, str]] = []
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST), _manifest(project, images, checkpoints, files))
            done = 0
            for name, path in sorted(files.items()):
                report(done, total)
                try:
                    done += _add(archive, name, path, places, lambda more, done=done: report(done + more, total))
                except FileNotFoundError:  # a run goes on, and deletes older checkpoints
                    left.append((name, "It was gone when its turn came."))
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as error:
        raise BundleError(
            f"The project cannot be packed: {error.filename or target}: {error.strerror or error}. Free some space, mend that "
            "file, or choose another place; nothing was left half-written."
        ) from error
    finally:
        for path in (unfinished, said):
            path.unlink(missing_ok=True)
    return Packed(target, len(files) - len(left), target.stat().st_size, tuple(left))


def _gather(project: Project, images: str, checkpoints: bool) -> tuple[Places, dict[str, Path]]:
    """What goes into the zip, by its name there."""
    used = _used_images(project) if images != "none" else {}
    pictures = set(used.values())
    if images == "all":
        pictures |= {image.path for image in project.library.images(project.path.anchor) if os.path.isfile(image.path)}
    places = Places(project.path, pictures)
    beside = {text for path in pictures for text in _texts_beside(path)}  # which may say its prompt
    found = sorted([*pictures, *beside, *_inside(project.path, images, checkpoints)])
    files = {places.add(path): Path(path) for path in found}
    files |= {places.add(path, ADAPTERS): Path(path) for path in sorted(_adapters(project))}
    files |= {places.add(path, TABLES): Path(path) for path in sorted(list_tables(project))}
    for former, now in used.items():
        places.add_former(former, now)
    return places, {name: path for name, path in files.items() if is_content(name.split("/"))}


def _used_images(project: Project) -> dict[str, str]:
    """Of all images that pairs, rankings, likes and runs are about: where they were when it was said -> where they are."""
    book = project.picks.book()
    keys = {key for pair in book.pairs() for key in (pair.chosen, pair.rejected) if key}
    keys |= {key for ranking in book.rankings() for key in ranking.images}
    keys |= {key for like in book.labels() for key in like.keys}
    found: dict[str, str] = {}
    for key in keys:
        path = book.path_of(key)
        if not os.path.isfile(path):
            image = project.library.image(key)
            found[path] = image.path if image else ""
        else:
            found[path] = path
    for run in list_runs(project.runs):
        if not run.problem:
            found |= {path: path for item in run.items for path in item.images if path not in found}
    return {former: now for former, now in found.items() if os.path.isfile(now)}


def _adapters(project: Project) -> set[str]:
    """Files outside the project that runs started from, and that blind tests judge."""
    found: set[str] = set()
    for run in list_runs(project.runs):
        if not run.problem:
            config = run.config
            found |= {config.base_adapter, config.starting_adapter, config.reference_adapter}
    found |= {test.adapter for test in list_tests(project)}
    return {path for path in map(os.path.expanduser, found) if os.path.isfile(path)}


def _inside(folder: Path, images: str, checkpoints: bool) -> Iterator[str]:
    """The files of the project itself. Of folders of images, and of blind tests, what is no image comes along anyway."""
    for top in sorted(FOLDERS):
        for place, folders, names in os.walk(folder / top):
            folders.sort()
            for name in names:
                path = Path(place, name)
                is_picture = name.lower().endswith(IMAGE_ENDINGS)
                is_wanted = images == "all" or not is_picture or top not in (*PICTURES, ELSEWHERE, TESTS)
                is_wanted = is_wanted or (images == "used" and top == TESTS)
                if is_wanted and is_content(path.relative_to(folder).parts, checkpoints) and not path.is_symlink():
                    yield str(path)


def _texts_beside(path: str) -> Iterator[str]:
    for ending in BESIDE:
        for text in (os.path.splitext(path)[0] + ending, path + ending):
            if os.path.isfile(text):
                yield text


def _check_room(files: dict[str, Path], target: Path) -> int:
    """Bytes of all files. Raises BundleError if the disk has less, or there are more than can be unpacked again."""
    if len(files) > MOST_FILES:
        raise BundleError(f"There are {len(files):,} files, and at most {MOST_FILES:,} go into one zip. Take fewer images along.")
    total = sum(path.stat().st_size for path in files.values() if path.exists())
    free = shutil.disk_usage(target.parent).free
    if total + SPARE > free:
        raise BundleError(
            f"The zip would take {total / 1e9:.1f} GB, and {target.parent} has {free / 1e9:.1f} GB free. Take fewer images "
            "along, or leave checkpoints out."
        )
    return total


def _manifest(project: Project, images: str, checkpoints: bool, files: dict[str, Path]) -> str:
    """What is in the zip. `times`: when files of runs were made, for by these one run is told from another."""
    runs = {name: path for name, path in sorted(files.items()) if name.startswith(f"{RUNS}/") and path.exists()}
    times = {name: path.stat().st_mtime_ns for name, path in runs.items()}
    said = {"format": FORMAT, "name": project.path.name, "images": images, "checkpoints": checkpoints, "times": times}
    return json.dumps(said, indent=1)


def _add(archive: zipfile.ZipFile, name: str, path: Path, places: Places, report: Callable[[int], None]) -> int:
    """Returns the bytes that were added."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        made = min(max(time.localtime(status.st_mtime)[:6], FIRST_TIME), LAST_TIME)
        info = zipfile.ZipInfo(name, FIRST_TIME if name == PICKS else made)  # its copy is of now, and says nothing
        info.external_attr = 0o644 << 16
        if name.split("/")[0] in WITH_PATHS and name.endswith((".json", ".jsonl")):
            try:
                text = file.read().decode()
            except UnicodeDecodeError as error:
                raise BundleError(f"{path} is damaged: it is no text. Delete it, or bring it back from a copy.") from error
            moved = move_paths(text, name.endswith(".jsonl"), places.own, places.model)
            archive.writestr(info, moved.encode())
            return status.st_size
        done = 0
        with archive.open(info, "w", force_zip64=status.st_size > LARGE) as packed:
            while piece := file.read(PIECE):
                packed.write(piece)
                done += len(piece)
                report(done)
    return done
