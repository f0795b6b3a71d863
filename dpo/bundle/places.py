"""Where a project's files are in its zip, and how paths are written there: MARK and the way from the project's folder.

Only what the project's own JSON keeps under certain keys is taken for a path: no prompt is, whatever it begins with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from dpo import StudioError
from dpo.bundle.contents import ADAPTERS, ELSEWHERE, ROUNDS, RUNS, TESTS, is_portable, portable

MARK = "in-this-project:"
# Keys of run, round and test files: what is a file of the project, and what may be of anywhere (of models also a hub id).
OWN_KEYS = {"chosen", "rejected", "image", "images", "path", "folder"}
MODEL_KEYS = {"model", "components", "base_adapter", "starting_adapter", "reference_adapter", "adapter"}
WITH_PATHS = (RUNS, ROUNDS, TESTS)  # folders whose .json and .jsonl are looked through
GONE = "gone"  # in images/ and adapters/: where a file would be that did not come along
Move = Callable[[str], str]


class Places:
    """Of packing: which file gets which name. `folder`: the project's; `images`: those outside of it that come along."""

    def __init__(self, folder: Path, images: Iterable[str]) -> None:
        self._folder = folder
        self._bases = _bases([path for path in images if not self.is_inside(path)])
        self._known: dict[str, str] = {}
        self._taken: set[str] = set()

    def is_inside(self, path: str) -> bool:
        return path.startswith(f"{self._folder}{os.sep}")

    def add(self, path: str, folder: str = "") -> str:
        """Give a file its name; `folder`: of files outside the project that are no images. Two names that differ in nothing but
        case become different, for not every system tells them apart."""
        if path in self._known:
            return self._known[path]
        if self.is_inside(path):
            parts = portable(Path(path).relative_to(self._folder).parts)
        else:
            parts = portable((folder, Path(path).name) if folder else (ELSEWHERE, *self._from_base(path)))
        last, number, name = PurePosixPath(parts[-1]), 1, "/".join(parts)
        while name.casefold() in self._taken:
            number += 1
            name = "/".join((*parts[:-1], f"{last.stem}-{number}{last.suffix}"))
        self._taken.add(name.casefold())
        self._known[path] = name
        return name

    def add_former(self, path: str, now: str) -> None:
        """A file is named by a path where it was, too."""
        self._known[path] = self._known[now]

    def name(self, path: str) -> str:
        """The file's name in the zip, whether it is there or not; "" for one that has none."""
        if path not in self._known and self.is_inside(path):
            return "/".join(portable(Path(path).relative_to(self._folder).parts))
        return self._known.get(path, "")

    def own(self, path: str) -> str:
        """What is written for the path of an image, or of a file of a run."""
        if not _is_absolute(path):
            return path
        return MARK + (self.name(path) or "/".join((ELSEWHERE, *portable(self._from_base(path)))))

    def model(self, path: str) -> str:
        """What is written for a model or an adapter: one that does not come along keeps its path."""
        name = self.name(os.path.expanduser(path)) if path else ""
        return MARK + name if name else path

    def table(self, path: str) -> str:
        """What is written for a folder with stand-ins, or for their table."""
        if self.name(path):
            return MARK + self.name(path)
        for base, name in self._bases.items():
            if path == base or base.startswith(path.rstrip(os.sep) + os.sep):
                return f"{MARK}{ELSEWHERE}/{name}" if path == base else MARK + ELSEWHERE
            if path.startswith(base + os.sep):
                return MARK + "/".join((ELSEWHERE, *portable(self._from_base(path))))
        return path

    def _from_base(self, path: str) -> tuple[str, ...]:
        for base, name in self._bases.items():
            if path.startswith(base.rstrip(os.sep) + os.sep):
                return (name, *Path(path).relative_to(base).parts)
        return (GONE, PurePosixPath(path.replace("\\", "/")).name)


def arrive(root: Path, check: Callable[[str], None], is_own: bool) -> Move:
    """How a path of the zip becomes one on this machine, for keys of one of the two kinds. `check` raises StudioError for a place
    that whoever unpacks may not reach.

    A file of the project is in it; a model may be anywhere that `check` allows, and is else looked for where it could be put.
    """

    def move(text: str) -> str:
        if text.startswith(MARK):
            parts = [part for part in text.removeprefix(MARK).split("/") if part]
            if all(map(is_portable, parts)):
                return str(root.joinpath(*parts))
        elif not is_own:
            try:
                if _is_absolute(text) or ".." in PurePosixPath(text.replace("\\", "/")).parts:
                    check(text)
                return text
            except StudioError:
                pass  # it is looked for below
        elif not text:
            return text
        name = PurePosixPath(text.replace("\\", "/")).name
        return str(root.joinpath(ELSEWHERE if is_own else ADAPTERS, GONE, *portable([name or "file"])))

    return move


def move_paths(text: str, is_lines: bool, own: Move, model: Move) -> str:
    """JSON, or one of it a line, with every path moved; what names none, and what is no JSON, stays as it is."""
    if is_lines:
        return "".join(_moved(line, own, model, None) for line in text.splitlines(keepends=True))
    return _moved(text, own, model, 1)


def _moved(text: str, own: Move, model: Move, indent: int | None) -> str:
    try:
        value = json.loads(text)
        moved = _walk(value, own, model)
    except (ValueError, RecursionError):  # a line torn by a crash
        return text
    return text if moved == value else json.dumps(moved, indent=indent) + ("" if indent else "\n")


def _walk(value: object, own: Move, model: Move) -> object:
    if isinstance(value, list):
        return [_walk(entry, own, model) for entry in value]
    if not isinstance(value, dict):
        return value
    moved: dict[str, object] = {}
    for key, entry in value.items():
        move = own if key in OWN_KEYS else model if key in MODEL_KEYS else None
        if move and isinstance(entry, str):
            moved[key] = move(entry)
        elif move and isinstance(entry, list):
            moved[key] = [move(item) if isinstance(item, str) else _walk(item, own, model) for item in entry]
        else:
            moved[key] = _walk(entry, own, model)
    return moved


def _is_absolute(text: str) -> bool:
    return text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _bases(paths: list[str]) -> dict[str, str]:
    """The folder that holds all of these files, of each drive, and its name in images/."""
    by_drive: dict[str, list[str]] = {}
    for path in paths:
        by_drive.setdefault(Path(path).anchor, []).append(os.path.dirname(path))
    found: dict[str, str] = {}
    for folders in by_drive.values():
        base = os.path.commonpath(folders)
        name = portable([Path(base).name or "files"])[0]
        found[base] = name if name not in found.values() else f"{name}-{len(found) + 1}"
    return found
