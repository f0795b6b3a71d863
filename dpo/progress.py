"""How far the picks of a view have come in one mode: which of its groups are done, and which screens to show next.

Only groups that have picks are judged; all others are open. What was found is kept between two questions and brought up to
date by what was said since, so that a question costs little however many groups and picks there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from dpo.catalogue import Catalogue
from dpo.groups import MODES, GroupLine, Screen, View
from dpo.judging import Judgement, direct_picks, judge
from dpo.leases import FIRM, Leases
from dpo.rules import PickRules
from dpo.screens import is_answered_elsewhere, is_asked_twice, is_done, make_screens, open_images, show_pair

if TYPE_CHECKING:
    from dpo.book import Book
    from dpo.library import Library
    from dpo.operations import Pick

DUELS_AHEAD = 3  # of one group: the more, the less the next one can depend on the answers
SECOND_EVERY = 8  # rows of picks, at least, between two second opinions of one person while there is other work


class Held(NamedTuple):
    """A screen that a page holds: shown, or waiting to be."""

    group: str
    keys: tuple[str, ...]
    mode: str


@dataclass(frozen=True)
class Asking:
    """What a page asks: `want` further screens of a mode besides those it has (`have`, in its order).

    `first`: the key of a group wanted before all others; with `again` even if it is done. `client` names the page, and ""
    takes no leases; `left` is a page that is gone, whose groups are free from now on. `rater` is who looks at it. `order`:
    groups that come before those it does not name.
    """

    mode: str
    want: int
    have: tuple[Held, ...] = ()
    first: str = ""
    again: bool = False
    client: str = ""
    rater: str = ""
    left: str = ""
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class NextScreens:
    """`screens` to show next; `done` of `total` groups are done.

    `is_complete`: besides these and what the page has, nothing can be handed out until one of them is answered. `waiting`:
    open groups that other pages have; they may come free. `over`: groups of which the page should drop what it has, because
    they need no more, or because another page has them now.
    """

    screens: list[Screen]
    done: int
    total: int
    is_complete: bool
    over: tuple[str, ...] = ()
    waiting: int = 0


@dataclass(frozen=True)
class Known:
    """A group that has picks. `line`: how it stood in the catalogue. `images`: each as the keys of its copies. `due`: the two
    images of a pair that somebody who is none of `raters` is to be asked about; else empty."""

    line: GroupLine
    images: list[tuple[str, ...]]
    judgement: Judgement
    is_done: bool
    due: frozenset[str]
    raters: frozenset[str]

    def first_copies(self) -> dict[str, str]:
        """The key of every file -> that of the copy which is shown."""
        return {key: copies[0] for copies in self.images for key in copies}


class Progress:
    """Of one view in one mode; two threads must not ask it at once. `project` is the id from which the order of groups is
    drawn.

    Images are recognised by what they are, not by the group they were shown in: neither another option nor a file that joins
    a group brings back what was answered.
    """

    def __init__(self, view: View, mode: str, project: str, leases: Leases) -> None:
        self._view = view
        self._mode = mode
        self._project = project
        self._leases = leases
        self._read = 0  # rows of the book's log
        self._touched: set[str] = set()  # images that anything was ever said of
        self._rules = PickRules()
        self._catalogue: Catalogue | None = None  # the one that all below was worked out for
        self._order: list[str] = []
        self._lines: dict[str, GroupLine] = {}
        self._known: dict[str, Known] = {}
        self._done: set[str] = set()  # of those known
        self._due: dict[str, None] = {}  # those known that somebody else is to be asked about
        self._asked_again: dict[str, int] = {}  # rater -> rows read when they last got a second opinion to give

    def next_screens(self, library: Library, book: Book, asking: Asking) -> NextScreens:
        """`book` is up to date."""
        self._bring_up_to_date(library, book)
        if asking.left:
            self._leases.give_up(asking.left)
        leased = self._leases.of_others(asking.client)
        held: dict[str, list[Held]] = {}
        for screen in asking.have:
            held.setdefault(screen.group, []).append(screen)
        over = {group for group, screens in held.items() if group in leased or self._is_over(screens, asking)}
        screens = self._find_screens(library, book, asking, held, leased | over)
        takes = not screens and asking.client != "" and len(held.keys() - over) < FIRM
        if takes:
            stores = leased - self._leases.of_others(asking.client, only_firm=True)
            asking = replace(asking, want=min(asking.want, FIRM))
            screens = self._find_screens(library, book, asking, held, (leased - stores) | over)
        screens = self._find_second(library, asking, held, leased, may_wait=bool(screens or held)) + screens
        # What is dropped may come again in another shape.
        may_be_more = len(screens) > asking.want or not over <= leased
        screens = screens[: asking.want]
        if asking.client:
            wanted = [*(group for group in held if group not in over), *(screen.group.key for screen in screens)]
            mine = self._leases.hold(asking.client, wanted, takes)
            # Somebody else may have been quicker since we looked.
            over |= held.keys() - mine
            may_be_more = may_be_more or any(screen.group.key not in mine for screen in screens)
            screens = [screen for screen in screens if screen.group.key in mine]
        return NextScreens(
            screens=screens,
            done=len(self._done),
            total=len(self._order),
            is_complete=not may_be_more,
            over=tuple(group for group in held if group in over),
            waiting=sum(group in self._lines and self._is_open(group) for group in leased),
        )

    def unpicked(self, library: Library, book: Book) -> dict[str, int]:
        """Group key -> 1 if it is open, 0 if it is done, of the groups that have picks; all others are open."""
        self._bring_up_to_date(library, book)
        return {group: int(not known.is_done) for group, known in self._known.items()}

    # --- what is known

    def _bring_up_to_date(self, library: Library, book: Book) -> None:
        touched = set(chain.from_iterable(book.log[self._read :]))
        self._read = len(book.log)
        self._touched |= touched
        catalogue = library.catalogue(self._view)
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            # Keyed, not a checksum: checksums of equally long names differ by the same bits whatever the seed is.
            seed = hashlib.sha256(self._project.encode()).digest()
            self._order = sorted(
                (line.key for line in catalogue.lines), key=lambda key: hashlib.blake2b(key.encode(), key=seed).digest()
            )
            self._lines = {line.key: line for line in catalogue.lines}
            touched |= self._forget_changed_groups()
        if book.rules != self._rules:
            self._rules = book.rules
            for known in list(self._known.values()):
                self._know(self._judge(book, known.line, known.images))
        if touched:
            for group, images in library.members(self._view, touched).items():
                if group in self._lines:
                    self._know(self._judge(book, self._lines[group], images))

    def _forget_changed_groups(self) -> set[str]:
        """Keep what stands in the catalogue as before, for while a scan runs nearly all does. Returns the images something was
        said of that are in no group that was kept."""
        for group in [group for group, known in self._known.items() if self._lines.get(group) != known.line]:
            del self._known[group]
            self._done.discard(group)
            self._due.pop(group, None)
        return self._touched.difference(key for known in self._known.values() for copies in known.images for key in copies)

    def _know(self, known: Known) -> None:
        group = known.line.key
        self._known[group] = known
        self._done.discard(group)
        self._due.pop(group, None)
        if known.is_done:
            self._done.add(group)
        if known.due:
            self._due[group] = None

    def _judge(self, book: Book, line: GroupLine, images: list[tuple[str, ...]]) -> Known:
        shown = [copies[0] for copies in images]
        first = {key: copies[0] for copies in images for key in copies}
        picks = book.picks_of(first)
        if len(first) > len(shown):
            picks = list(_of_first_copies(picks, first))
            judgement = judge(shown, picks, self._rules, line.key)
        else:
            judgement = book.judge(shown, line.key)
        elsewhere = sum(is_answered_elsewhere(pick, shown) for pick in direct_picks(picks))
        is_finished = is_done(judgement, self._mode, self._rules, elsewhere)
        raters = frozenset(pick.rater for pick in picks if pick.op in MODES)
        pair = next((pair for pair in judgement.pairs if pair.state == "used" and pair.rater), None)
        is_due = self._rules.agreement and is_finished and pair and not any(pick.is_second for pick in picks)
        is_due = is_due and is_asked_twice(self._project, line.key)
        return Known(line, images, judgement, is_finished, frozenset(pair.keys if is_due else ()), raters)

    # --- what to show

    def _is_open(self, group: str) -> bool:
        return group not in self._done

    def _is_due(self, group: str, rater: str) -> bool:
        known = self._known.get(group)
        return rater != "" and known is not None and bool(known.due) and rater not in known.raters

    def _is_over(self, screens: list[Held], asking: Asking) -> bool:
        """Whether a page need not ask these screens of a group any more: it is done, or images of them were used elsewhere.

        Screens of another mode came back by an undo, and those of another view too: they are the person's own wish.
        """
        group = screens[0].group
        known = self._known.get(group)
        if known is None or (group == asking.first and asking.again):
            return False
        first = known.first_copies()
        may_show = set(open_images(known.judgement, self._mode))
        for screen in screens:
            keys = {first[key] for key in screen.keys if key in first}
            if screen.mode == "duel" and keys == known.due and self._is_due(group, asking.rater):
                continue
            if screen.mode == self._mode and (known.is_done or not keys <= may_show):
                return True
        return known.judgement.is_skipped

    def _find_screens(
        self, library: Library, book: Book, asking: Asking, held: dict[str, list[Held]], left_out: set[str]
    ) -> list[Screen]:
        """One more than wanted, at least, if there are. The foremost group is the one from which the page has its first screen,
        or else the first that is open."""
        screens: list[Screen] = []
        head = next((group for group in held if group not in left_out and self._is_open(group)), "")
        named = dict.fromkeys(chain([asking.first] * bool(asking.first), asking.order))
        for group in chain(named, (key for key in self._order if key not in named)):
            if group in left_out or not (self._is_open(group) or (group == asking.first and asking.again)):
                continue
            has = held.get(group, [])
            ahead = DUELS_AHEAD if group == (head or group) else 1
            if has and (self._mode == "best_worst" or (self._mode == "duel" and len(has) >= ahead)):
                continue
            found = self._screens_of(library, book, group, has, ahead)
            screens += found
            head = head or (group if found else "")
            if len(screens) > asking.want:
                break
        return screens

    def _screens_of(self, library: Library, book: Book, key: str, held: list[Held], ahead: int) -> list[Screen]:
        group, known = library.group(self._view, key), self._known.get(key)
        if group is None:  # of another view, or changed since the catalogue was made: the next question knows
            return []
        images = [image.key for image in group.images]
        judgement = known.judgement if known else book.judge(images, key)
        if not set(judgement.pool) <= set(images):
            return []
        first = known.first_copies() if known else {}
        shown = [frozenset(first.get(image, image) for image in screen.keys) for screen in held]
        picks = book.picks_of(first) if self._mode == "best_worst" else []
        seen = {first.get(image, image) for pick in picks if pick.op == "best_worst" for image in pick.keys}
        return make_screens(group, judgement, self._mode, self._rules, shown, seen, ahead)

    def _find_second(
        self, library: Library, asking: Asking, held: dict[str, list[Held]], leased: set[str], may_wait: bool
    ) -> list[Screen]:
        """The pair of a group that somebody else made, now and then; at most one, and none while the page has one."""
        is_soon = self._read - self._asked_again.get(asking.rater, -SECOND_EVERY) < SECOND_EVERY
        if (may_wait and is_soon) or any(self._is_due(group, asking.rater) for group in held):
            return []
        for key in self._due:
            group = library.group(self._view, key) if key not in leased and self._is_due(key, asking.rater) else None
            if group and self._known[key].due <= {image.key for image in group.images}:
                if asking.want:
                    self._asked_again[asking.rater] = self._read
                return [show_pair(group, self._known[key].due)]
        return []


def _of_first_copies(picks: Iterable[Pick], first: Mapping[str, str]) -> Iterator[Pick]:
    """Picks as if of the copies that are shown. A duel of two copies of one image says nothing."""
    for pick in picks:
        keys = tuple(first.get(key, key) for key in pick.keys)
        chosen, rejected = first.get(pick.chosen, pick.chosen), first.get(pick.rejected, pick.rejected)
        if pick.op != "duel" or len(set(keys)) > 1:
            yield replace(pick, keys=keys, chosen=chosen, rejected=rejected)
