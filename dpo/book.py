"""The book: every pick of a project in memory, in the order in which they were stored, and the pairs they make.

It is brought up to date by the rows stored since; what a row does not touch is not looked at again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from threading import RLock

from dpo.judging import JudgedPair, JudgedRanking, Judgement, judge, proposed_pair, rank_pool
from dpo.metadata.records import Course
from dpo.operations import PICK_OPS, Pick
from dpo.rules import PickRules

MOST_UNSEEN = 100  # further images of a group that a ranking is asked to wait for
LARGEST_REMEMBERED = 32  # images of a group
MOST_RANKED = 20_000  # rankings remembered: after the same votes every pool stands the same


class Book:
    """Live picks by image and by group, and the pairs of the project. Threads may share it.

    `position` is that of the last row taken in. `log` grows by one entry with every row: the keys of the images about which
    it changed something. Whoever remembers how long it was knows what is new.
    """

    def __init__(self) -> None:
        self.position = 0
        self.rules = PickRules()
        self.log: list[tuple[str, ...]] = []
        self._lock = RLock()
        self._rows: dict[int, Pick] = {}  # all but undos, live or not
        self._order: list[int] = []  # positions of what PICK_OPS names
        self._undone: set[int] = set()
        self._reopened: dict[str, list[int]] = defaultdict(list)
        self._emphasised: dict[int, list[int]] = defaultdict(list)  # duel -> rows that say "clearly"
        self._of_image: dict[str, list[int]] = defaultdict(list)
        self._paired: dict[str, list[Pick]] = defaultdict(list)  # image -> grids, imports, proposals that make a pair with it
        self._of_group: dict[str, list[int]] = defaultdict(list)
        self._paths: dict[str, str] = {}
        self._courses: dict[str, Course] = {}
        self._rank_small = lru_cache(MOST_RANKED)(rank_pool)
        # Of groups: the pairs that the picks of each make, and those to judge again. Of images: the groups that have a pair
        # with it, and the one pair that it is used in.
        self._judged: dict[str, tuple[JudgedPair, ...]] = {}
        self._rankings: dict[str, JudgedRanking | None] = {}
        self._proposed: dict[str, JudgedPair | None] = {}
        self._stale: set[str] = set()
        self._wanted_by: dict[str, set[str]] = defaultdict(set)
        self._used_in: dict[str, JudgedPair] = {}
        self._pairs: list[JudgedPair] | None = None

    def take_in(self, rows: Iterable[Pick], rules: PickRules) -> None:
        """Further rows, in the order in which they were stored, and the rules as they are now."""
        with self._lock:
            if rules != self.rules:
                self.rules = rules
                self._stale.update(self._of_group)
            for row in rows:
                self._take_in(row)

    def picks_of(self, images: Iterable[str]) -> list[Pick]:
        """The live picks that showed any of these images, oldest first; also imports, drops and swaps, proposals as far as
        a person confirmed them, and the picks that compete with those for an image."""
        with self._lock:
            images = set(images)
            positions = {position for key in images for position in self._of_image.get(key, ())}
            for key in self._linked(images) - images:
                positions.update(pick.position for pick in self._paired[key])
            counts = [self._as_it_counts(position) for position in positions if self._is_said(position)]
            return sorted(counts, key=lambda pick: pick.position)

    def live(self) -> list[Pick]:
        """All live picks and imports, oldest first."""
        with self._lock:
            return [self._as_it_counts(position) for position in self._order if self._is_live(position)]

    def recent(self, before: int | None, count: int) -> list[Pick]:
        """Up to `count` live picks that a page made, newest first, older than position `before` (None: from the newest on)."""
        with self._lock:
            found = []
            for place in range(len(self._order) if before is None else bisect_left(self._order, before), 0, -1):
                position = self._order[place - 1]
                if len(found) == count:
                    break
                if self._rows[position].op in PICK_OPS and self._is_live(position):
                    found.append(self._as_it_counts(position))
            return found

    def proposals(self) -> list[Pick]:
        """The live proposals that no person has answered, oldest first; also dropped ones, and those that gave way."""
        with self._lock:
            live = (row for row in self._rows.values() if row.op == "propose" and self._is_live(row.position))
            return [row for row in live if not self._answer_to(row)]

    def spoken_of(self) -> tuple[set[str], set[str]]:
        """(groups, images) of which anything was said that counts, by a person or a scorer."""
        with self._lock:
            live = [row for row in self._rows.values() if row.keys and self._is_live(row.position)]
            return {row.group for row in live}, {key for row in live for key in row.keys}

    def path_of(self, key: str) -> str:
        """Where the image was when it was last shown; "" for one that never was."""
        return self._paths.get(key, "")

    def highest_place(self, images: Sequence[str]) -> float:
        """Where in the schedule the courses of these images begin to differ, at the noisiest: 1.0 unless all share one."""
        courses = [self._courses.get(key) for key in images]
        if None in courses or len({course.seed for course in courses}) != 1:
            return 1.0
        return max(course.place for course in courses)

    def judge(self, images: Sequence[str], group: str = "") -> Judgement:
        """`dpo.judging.judge` by the picks about these images and the rules of the project, with a memory for rankings."""
        # What is known of a large pool takes megabytes.
        rank = self._rank_small if len(images) <= LARGEST_REMEMBERED else rank_pool
        return judge(images, self.picks_of(images), self.rules, group, rank)

    def pairs(self) -> list[JudgedPair]:
        """All pairs, oldest first, also deleted ones and those that need a reject. Nobody may change the list."""
        with self._lock:
            self._settle()
            if self._pairs is None:
                found = {}
                for pair in sorted(chain.from_iterable(self._judged.values()), key=_order):
                    if pair.is_import and pair.rejected:  # under whatever prompts it was imported, once
                        found.setdefault(frozenset((pair.chosen, pair.rejected)), pair)
                        continue
                    other = self._used_in.get(pair.chosen)
                    if other == pair if pair.rejected else other is None:
                        found[pair.position, pair.chosen] = pair
                claimed: set[str] = set()  # groups of two views may have proposals of one image
                for pair in sorted(filter(None, self._proposed.values()), key=_order):
                    if claimed.isdisjoint((pair.chosen, pair.rejected)):
                        claimed.update((pair.chosen, pair.rejected))
                        found[pair.position, pair.chosen] = pair
                self._pairs = sorted(found.values(), key=_order)
            return self._pairs

    def rankings(self) -> list[JudgedRanking]:
        """All finished rankings, oldest first. Where groups of two views share images, only the longer ranking counts."""
        with self._lock:
            self._settle()
            found, used = [], set()
            for ranking in sorted(
                filter(None, self._rankings.values()), key=lambda ranking: (-len(ranking.images), ranking.position)
            ):
                if not used.intersection(ranking.images):
                    found.append(ranking)
                    used.update(ranking.images)
            return sorted(found, key=lambda ranking: ranking.position)

    def labels(self) -> list[Pick]:
        """What each person last said in triage of the images that never became a pair, if it was good or bad; oldest first."""
        with self._lock:
            paired = {key for pair in self.pairs() if pair.rejected for key in (pair.chosen, pair.rejected)}
            newest = {(pick.keys[0], pick.rater): pick for pick in self.live() if pick.op == "triage"}
            found = (pick for (key, _), pick in newest.items() if key not in paired and pick.result != "skip")
            return sorted(found, key=lambda pick: pick.position)

    def pairs_of(self, images: Iterable[str]) -> list[JudgedPair]:
        """The pairs that use any of these images, oldest first."""
        with self._lock:
            self._settle()
            return sorted({self._used_in[key] for key in images if key in self._used_in}, key=_order)

    def _take_in(self, row: Pick) -> None:
        self.position = row.position
        if row.op == "undo":
            self._undone.add(row.about)
            row = self._rows[row.about]
        else:
            self._rows[row.position] = row
            self._file(row)
        if row.op == "reopen":
            touched = {key for position in self._of_group.get(row.group, ()) for key in self._rows[position].keys}
        else:
            touched = self._rows[row.about].keys if row.op == "clearly" else row.keys
        touched = self._linked(touched)
        is_silent = row.op == "propose" and not self._answer_to(row)  # nothing that is asked depends on it
        self.log.append(() if is_silent else tuple(touched))
        self._stale.update(self._rows[position].group for key in touched for position in self._of_image[key])

    def _file(self, row: Pick) -> None:
        if row.op == "reopen":
            self._reopened[row.group].append(row.position)
        elif row.op == "clearly":
            self._emphasised[row.about].append(row.position)
        else:
            self._of_group[row.group].append(row.position)
            for key in row.keys:
                self._of_image[key].append(row.position)
            if row.op in ("best_worst", "import", "propose"):
                for key in (row.chosen, row.rejected):
                    self._paired[key].append(row)
            if row.op in (*PICK_OPS, "import"):
                self._order.append(row.position)
            if row.paths:
                self._paths.update(zip(row.keys, row.paths, strict=True))
            if row.courses:
                self._courses.update((key, course) for key, course in zip(row.keys, row.courses, strict=True) if course)

    def _linked(self, images: Iterable[str]) -> set[str]:
        """The images, and those that some pick makes a pair with one of them, and so on: who gets one decides who gets the
        next. There are such only where two picks want one image."""
        found = set(images)
        keys = [key for key in found if key in self._paired]
        while keys:
            for pick in self._paired[keys.pop()]:
                further = {pick.chosen, pick.rejected} - found - {""}
                found |= further
                keys += further
        return found

    def _is_live(self, position: int) -> bool:
        row = self._rows[position]
        if position in self._undone:
            return False
        return not any(later > position and later not in self._undone for later in self._reopened.get(row.group, ()))

    def _is_said(self, position: int) -> bool:
        """Whether a row counts, and a person said it: a proposal waits until one has answered."""
        row = self._rows[position]
        return self._is_live(position) and (row.op != "propose" or self._answer_to(row) is not None)

    def _answer_to(self, proposal: Pick) -> Pick | None:
        """What a person said first of a proposal: that they agree, or that it is the other way round."""
        for position in self._of_image[proposal.chosen]:
            said = self._rows[position]
            is_answer = said.op in ("confirm", "swap") and set(said.keys) == set(proposal.keys)
            if is_answer and position > proposal.position and self._is_live(position):
                return said
        return None

    def _as_it_counts(self, position: int) -> Pick:
        row = self._rows[position]
        if row.op == "propose":  # as the person's who answered, from then on
            answer = self._answer_to(row)
            return replace(row, position=answer.position, rater=answer.rater, made=answer.made)
        if not row.is_clear and any(self._is_live(said) for said in self._emphasised.get(position, ())):
            return replace(row, is_clear=True)
        return row

    def _settle(self) -> None:
        """Judge again what has changed. Two groups may want the same image, for what one view puts together another parts:
        the earlier pair has it."""
        if not self._stale:
            return
        moved: set[str] = set()
        for group in self._stale:
            for key in _keys_of(self._judged.get(group, ())):
                self._wanted_by[key].discard(group)
                moved.add(key)
            judgement = self._judge_group(group)
            self._judged[group] = judgement.pairs if judgement else ()
            self._rankings[group] = judgement.ranking if judgement else None
            self._proposed[group] = self._find_proposed(group)
            for key in _keys_of(self._judged[group]):
                self._wanted_by[key].add(group)
                moved.add(key)
        self._stale.clear()
        self._pairs = None
        # Who wins an image decides who wins the other image of the loser, and so on.
        rivals, keys = set(), list(moved)
        while keys:
            key = keys.pop()
            for pair in chain.from_iterable(self._judged[group] for group in self._wanted_by[key]):
                if key in pair.keys and pair not in rivals:
                    rivals.add(pair)
                    keys += set(pair.keys) - moved
                    moved.update(pair.keys)
        for key in moved:
            self._used_in.pop(key, None)
        for pair in sorted(rivals, key=_order):
            if not any(key in self._used_in for key in pair.keys):
                self._used_in.update(dict.fromkeys(pair.keys, pair))

    def _judge_group(self, group: str) -> Judgement | None:
        rows = [self._rows[position] for position in self._of_group[group] if self._is_said(position)]
        images = list(dict.fromkeys(key for row in rows for key in row.keys))
        size = next((row.size for row in reversed(rows) if row.size), 0)
        # The ranking waits for images that were not shown yet. No key is like these names.
        unseen = [f"unseen {number}" for number in range(min(size - len(images), MOST_UNSEEN))]
        return self.judge(images + unseen, group) if images else None

    def _find_proposed(self, group: str) -> JudgedPair | None:
        """The pair that a scorer proposes of a group: the first, where several do. It gives way to whatever a person says of the
        group or of one of its images, and comes back if that is taken back."""
        proposals = [self._rows[position] for position in self._of_group[group] if self._rows[position].op == "propose"]
        proposal = next((row for row in proposals if self._is_live(row.position) and not self._answer_to(row)), None)
        if proposal is None:
            return None
        positions = {*self._of_group[group], *(position for key in proposal.keys for position in self._of_image[key])}
        said = [self._rows[position] for position in positions if self._is_said(position)]
        if any(row.op in (*PICK_OPS, "import", "propose") for row in said):
            return None
        return proposed_pair(proposal, any(row.op == "drop" and set(row.keys) == set(proposal.keys) for row in said))


def _keys_of(pairs: Iterable[JudgedPair]) -> set[str]:
    return {key for pair in pairs for key in pair.keys}


def _order(pair: JudgedPair) -> tuple[int, str]:
    return pair.position, pair.chosen
