"""Which places a page may name. On one's own machine any; on a shared page the project and the folders that its owner opened.

Every text of a page that may become a path goes through `Places.check`, in whatever way the path is written: what counts is
where it leads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpo import StudioError

LONGEST_PLACE = 4096  # characters
_OTHER_MACHINE = ("\\\\", "//")  # of Windows: even to look there tells it who is logged in here


class PlaceError(StudioError):
    """A path that the page may not reach."""


@dataclass(frozen=True)
class Places:
    """`roots`: folders that a shared page reaches, the project among them; None: any place. `models`: hub ids that it may load,
    besides the demo."""

    roots: tuple[Path, ...] | None = None
    models: frozenset[str] = frozenset()

    def check(self, text: str, is_model: bool = False) -> None:
        """Raises PlaceError for a text that can be no path, or that leads somewhere the page may not reach. A model may also be
        "demo" or a hub id, on a shared page one of `models`. An empty text is nowhere."""
        if not text or (is_model and (text == "demo" or text in self.models)):
            return
        if self._holds(_resolve(text)):
            return
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        if is_model and not text.startswith(("/", "~", ".")) and text.count("/") == 1:
            raise PlaceError(
                f"{shown} is not among the models of this page. Whoever started it can allow it with --model {shown}; a model's "
                "folder or file inside the project needs no leave."
            )
        raise PlaceError(
            f"{shown} is outside the project folder, and a shared page reaches nothing else. Move it in there, or have whoever "
            "started the page open its folder with --root."
        )

    def has(self, path: str | Path) -> bool:
        """Whether a file that the project knows of may be shown."""
        try:
            return self._holds(_resolve(str(path)))
        except PlaceError:
            return False

    def _holds(self, place: Path) -> bool:
        return self.roots is None or any(place.is_relative_to(root) for root in self.roots)


ANYWHERE = Places()


def check_roots(folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders as they are reached. Raises PlaceError for one that is none."""
    roots = tuple(folder.expanduser().resolve() for folder in folders)
    for folder in roots:
        if not folder.is_dir():
            raise PlaceError(f"--root {folder} is not a folder.")
    return roots


def _resolve(text: str) -> Path:
    if len(text) > LONGEST_PLACE or "\0" in text or text.startswith(_OTHER_MACHINE):
        raise PlaceError(f"{text[:60]!r} is not a path on this machine.")
    try:
        place = Path(text).expanduser().resolve()
        place.exists()  # a name that is too long is found out only by looking
    except PermissionError:
        return place
    except (OSError, RuntimeError, ValueError) as error:  # no such user's home; a character that no name can have
        raise PlaceError(f"{text[:60]!r} is not a path on this machine.") from error
    return place
