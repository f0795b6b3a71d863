"""What is still to be asked of one group: whether it is done in a mode, and the screens to show next.

Pure functions of a group and of what its picks say (`Judgement`). The pool are the images that no pair has used up; a screen
shows images of it by their keys.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

from dpo.groups import SCREEN_SIZE, Group, Screen, identify
from dpo.judging import Judgement
from dpo.operations import Pick
from dpo.ranking import BAR, next_duels, stand
from dpo.rules import PickRules

SECOND_IN = 10


def is_done(judgement: Judgement, mode: str, rules: PickRules, elsewhere: int = 0) -> bool:
    """Whether nothing more is asked of a group in this mode. `elsewhere`: picks for which `is_answered_elsewhere`."""
    if judgement.is_skipped or len(judgement.pool) < 2:
        return True
    pairs = [pair for pair in judgement.pairs if pair.rejected]
    if mode == "duel":
        # Pairs that a ranking is sure of early may still change while it goes on.
        pairs = [pair for pair in pairs if pair.chosen not in judgement.pool]
    if len(pairs) + elsewhere >= rules.pairs_per_group:
        return True
    return _is_ranked(judgement, rules) if mode == "duel" else not open_images(judgement, mode)


def is_answered_elsewhere(pick: Pick, images: Collection[str]) -> bool:
    """Whether a pick that made a pair showed at least two of these images, but the pair itself is of others as well: a filter
    or another way to group brings nothing back that was answered."""
    shown = set(images).intersection(pick.keys)
    return len(shown) > 1 and not shown.issuperset((pick.chosen, pick.rejected))


def is_asked_twice(project: str, group: str) -> bool:
    """Whether two people are asked about this group where agreement is measured: one group in ten."""
    return identify(f"{project} {group}") % SECOND_IN == 0


def _is_ranked(judgement: Judgement, rules: PickRules) -> bool:
    size, votes = len(judgement.pool), judgement.votes
    if len({vote.worse for vote in votes if vote.better == BAR}) == size:  # all are bad: none can be chosen
        return True
    if judgement.labelled.issuperset(judgement.pool) and len(judgement.pairs) < rules.pairs_per_group:
        # Labels leave equals: what they do not decide, duels can.
        is_asked = (size == 2 and judgement.duels) or len(judgement.avoid) == size * (size - 1) // 2
        return is_asked or stand(size, votes, judgement.duels, rules.pairing).is_finished
    return judgement.is_finished


def open_images(judgement: Judgement, mode: str) -> list[str]:
    """The images of the pool that a screen of this mode may show, in the order of the group; none where too few are left."""
    if mode == "triage":
        return [key for key in judgement.pool if key not in judgement.labelled]
    if mode == "duel":
        return list(judgement.pool)
    unused = [key for key in judgement.pool if key not in judgement.used]
    return unused if len(unused) > 1 else []


def make_screens(
    group: Group,
    judgement: Judgement,
    mode: str,
    rules: PickRules,
    held: Sequence[Collection[str]],
    seen: Collection[str],
    ahead: int,
) -> list[Screen]:
    """Further screens of a group of which a page holds those with the images `held`.

    A grid is for a page that holds none; images in `seen` come into it only where there are too few others. Of duels a page
    gets up to `ahead`, those it holds included. Single images all come at once.
    """
    keys = open_images(judgement, mode)
    if mode == "duel":
        return _make_duels(group, judgement, rules, held, ahead - len(held))
    if mode == "triage":
        held_keys = {key for screen in held for key in screen}
        left = [key for key in keys if key not in held_keys]
        return [
            _show(group, mode, [key], rest=len(left) - number, finishes=number == len(left)) for number, key in enumerate(left, 1)
        ]
    if not keys:
        return []
    shown = sorted(keys, key=lambda key: key in seen)[:SCREEN_SIZE]
    pairs = [pair for pair in judgement.pairs if pair.rejected]
    finishes = len(pairs) + 1 >= rules.pairs_per_group or len(keys) < 4
    return [_show(group, mode, shown, len(keys) - len(shown), finishes)]


def show_pair(group: Group, keys: Collection[str]) -> Screen:
    """The two images of a pair, for a second opinion."""
    return _show(group, "duel", keys, 0, True, 1, is_second=True)


def _make_duels(
    group: Group, judgement: Judgement, rules: PickRules, held: Sequence[Collection[str]], count: int
) -> list[Screen]:
    pool, votes = judgement.pool, judgement.votes
    place = {key: number for number, key in enumerate(pool)}
    waiting = {tuple(sorted(place[key] for key in keys)) for keys in held if place.keys() >= set(keys)}
    seed = zlib.crc32(group.key.encode()) + len(votes)
    screens = []
    for i, j in next_duels(len(pool), votes, judgement.avoid | waiting, max(0, count), seed, rules.pairing):
        before = len(held) + len(screens)
        left = max(1, judgement.likely_left - before)
        # Whatever the answer, it is one duel more; all that are ahead of it will have been answered.
        duels = judgement.duels + before + 1
        finishes = len(pool) == 2 or (left == 1 and stand(len(pool), votes, duels, rules.pairing).is_finished)
        screens.append(_show(group, "duel", [pool[i], pool[j]], len(pool) - 2, finishes, left))
    return screens


def _show(
    group: Group, mode: str, keys: Collection[str], rest: int, finishes: bool, likely_left: int = 0, is_second: bool = False
) -> Screen:
    images = tuple(image for image in group.images if image.key in keys)
    return Screen(group, mode, images, rest, finishes, likely_left, is_second)
