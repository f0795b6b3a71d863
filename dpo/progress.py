"""How far the picks of a view have come in one mode: which of its screens are still open.

Only groups that have picks are looked into; of all others every screen is open. What was found is kept between two questions
and brought up to date by the picks made since, so that a question costs little however many groups and picks there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from dpo.catalogue import Catalogue
from dpo.groups import GroupLine, Screen, View, screen_count, split_evenly, split_into_screens

if TYPE_CHECKING:
    from dpo.library import Library


@dataclass(frozen=True)
class NextScreens:
    """`screens` to show next; `done` of `total` are answered; `is_complete`: no more are open than these and those that the
    page has."""

    screens: list[Screen]
    done: int
    total: int
    is_complete: bool


class Change(NamedTuple):
    """A pick made (`by` = 1) or taken back (-1)."""

    op: str
    group: str
    keys: tuple[str, ...]
    by: int


class Progress:
    """Of one view in one mode. Images are recognised by what they are, not by the group they were shown in: neither another
    option nor a file that joins a group brings back what was answered.

    A grid is answered when at most one of its images is new, a duel when both were seen; so images added to a group later
    bring it back. A skipped group is answered in both modes, and so are the images that were shown when it was skipped.
    """

    def __init__(self, view: View, mode: str) -> None:
        self.position = 0  # of the last pick that is counted here
        self._view = view
        self._mode = mode
        self._seen: Counter[str] = Counter()  # image key -> picks that showed it
        self._skipped: Counter[str] = Counter()  # group key -> skips
        self._catalogue: Catalogue | None = None  # the one that all below was worked out for
        self._total = 0
        # Of groups with picks: how they stood in the catalogue, their images, and which of their screens are open.
        self._lines: dict[str, GroupLine] = {}
        self._images: dict[str, list[tuple[str, ...]]] = {}
        self._open: dict[str, list[int]] = {}

    def bring_up_to_date(self, library: Library, changes: Iterable[Change], position: int) -> None:
        touched = set()
        for change in changes:
            if change.op in ("skip", self._mode):
                for key in change.keys:
                    self._seen[key] += change.by
                touched.update(change.keys)
                if change.op == "skip":
                    self._skipped[change.group] += change.by
        self.position = position
        catalogue = library.catalogue(self._view)
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._total = sum(screen_count(line.size, self._mode) for line in catalogue.lines)
            touched |= self._forget_changed_groups()
        if touched:
            found = library.members(self._view, touched)
            for line in catalogue.lines:
                if line.key in found:
                    self._lines[line.key], self._images[line.key] = line, found[line.key]
                    self._open[line.key] = self._find_open(line.key, found[line.key])

    def _forget_changed_groups(self) -> set[str]:
        """Keep what stands in the catalogue as before, for while a scan runs nearly all does. Returns the images seen that are
        in no group that was kept."""
        lines = {line.key: line for line in self._catalogue.lines}
        for group in [group for group, line in self._lines.items() if lines.get(group) != line]:
            del self._lines[group], self._images[group], self._open[group]
        kept = {key for images in self._images.values() for copies in images for key in copies}
        return self._seen.keys() - kept

    def unpicked(self) -> dict[str, int]:
        return {group: len(screens) for group, screens in self._open.items()}

    def next_screens(self, library: Library, want: int, have: set[str], first: str) -> NextScreens:
        done = sum(screen_count(len(self._images[group]), self._mode) - len(found) for group, found in self._open.items())
        screens: list[Screen] = []
        for key in chain([first] * bool(first), (line.key for line in self._catalogue.lines if line.key != first)):
            still_open = self._open.get(key)
            if still_open == []:
                continue
            group = library.group(self._view, key)
            if group is None:  # of another view, or changed since the catalogue was made: the next question knows
                continue
            parts = split_into_screens(group, self._mode)
            screens += [
                screen
                for number, screen in enumerate(parts)
                if screen.key not in have and (still_open is None or number in still_open)
            ]
            if len(screens) > want:
                break
        return NextScreens(screens[:want], done, self._total, len(screens) <= want)

    def _find_open(self, group: str, images: list[tuple[str, ...]]) -> list[int]:
        if self._skipped[group] > 0:
            return []
        unseen = [all(self._seen[key] <= 0 for key in copies) for copies in images]
        needed = 1 if self._mode == "duel" else 2
        parts = split_evenly(len(images), self._mode)
        return [number for number, part in enumerate(parts) if sum(unseen[index] for index in part) >= needed]
