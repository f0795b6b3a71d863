"""From picks to pairs: what the picks about the images of one group come to. Pure functions.

A best/worst pick is a pair at once, and so is an import. The images that are left are the pool: duels and labels are votes
about their order (`dpo.ranking`), which gives a pair when it is sure enough, and a ranking when it is finished. An image is used
in one picked pair only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from dpo.groups import without_loras
from dpo.operations import Pick
from dpo.ranking import (
    BAR,
    CLEAR_WEIGHT,
    LEAST_CONFIDENCE,
    Posterior,
    Standing,
    Vote,
    fit,
    grid_confidence,
    order_confidence,
    rank_pairs,
    stand,
)
from dpo.rules import PickRules

IMPORT = "import: "  # how the source of an imported pair begins
BASE_REJECT = "base-model reject"  # the rest of it where the base model made the rejected image (dpo/rejects.py)
AI, PROPOSAL = "AI: ", "AI proposal: "  # of a pair that a scorer proposed: used as it is, or waiting for a person
CONFIRMED = "confirmed: "  # of one that a person agreed with, or turned round

MOST_ALIKE = 32
LEAST_RANKED = 3  # images of a ranking: two are a pair


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Two images by their keys; `rejected` is "" where an import has none yet. `position`, `rater`, `made` (seconds since
    1970) and `group` are those of the newest pick that showed one of them, for a ranked pair, else of the pick itself.

    `made_by`: who alone gave all the answers that it rests on, "" where that is nobody with a name, or not one person alone.
    `is_swapped`: a person turned it round; chosen and rejected are as they are after that.
    """

    group: str
    prompt: str
    chosen: str
    rejected: str
    confidence: float
    source: str  # as Pair.source
    position: int
    rater: str
    made: float
    made_by: str
    state: str = "used"  # "used", "deleted", "needs_reject" or "proposed"
    is_swapped: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the images that no other pair may use. One that waits for a reject claims none, and neither does an import: a
        dataset may compare an image with several others, as Pick-a-Pic does."""
        return (self.chosen, self.rejected) if self.rejected and not self.is_import else ()

    @property
    def is_import(self) -> bool:
        return self.source.startswith(IMPORT)


@dataclass(frozen=True, slots=True)
class JudgedRanking:
    """Images in order, the best first, by their keys. `confidence`: mean over any two that the earlier one is better. `position`
    and `group` are those of the newest pick behind it, `made_by` as of a pair."""

    group: str
    prompt: str
    images: tuple[str, ...]
    confidence: float
    position: int
    made_by: str


@dataclass(frozen=True)
class Judgement:
    """What the picks say of a group's images.

    `pool`: the images that no best/worst pick or import has used, in the order given; indices in `votes` and `avoid` follow it.
    `used`: images of the group that are in a pair, also in a ranked one, whose images stay in the pool. Deleted pairs count:
    who takes a pair out does not ask for another.
    `duels`: answered ones of the pool, also ties and skipped ones. `avoid`: skipped duels (i < j). `labelled`: keys with an
    answer in triage. `likely_left`: duels until the ranking is finished. `ranking`: the order of those of the pool that were in
    duels, once that is finished.
    """

    pairs: tuple[JudgedPair, ...]
    pool: tuple[str, ...]
    used: frozenset[str]
    is_skipped: bool
    is_finished: bool
    votes: tuple[Vote, ...]
    duels: int
    avoid: frozenset[tuple[int, int]]
    labelled: frozenset[str]
    likely_left: int
    ranking: JudgedRanking | None


def rank_pool(size: int, votes: tuple[Vote, ...], duels: int, pairing: str) -> tuple[Posterior, Standing]:
    """How the images of a pool stand after these votes: what takes time, and depends on nothing else."""
    return fit(size, votes), stand(size, votes, duels, pairing)


def judge(
    images: Sequence[str],
    picks: Sequence[Pick],
    rules: PickRules,
    group: str = "",
    rank: Callable[[int, tuple[Vote, ...], int, str], tuple[Posterior, Standing]] = rank_pool,
) -> Judgement:
    """What the live `picks` about the images of a group, oldest first, come to.

    `picks` may be of other groups and show other images too: images are known by what they are. `group`: the group's key; one
    that was skipped under this key is skipped whole, one that was skipped under another loses the images that were shown.
    `rank`: `rank_pool`, or the same with a memory.
    """
    turned = _turned(picks)
    direct = direct_picks(picks)
    members = set(images)
    own = [pick for pick in direct if members.issuperset(filter(None, (pick.chosen, pick.rejected)))]
    taken = {key for pick in direct if pick.rejected for key in (pick.chosen, pick.rejected)}
    pool = tuple(key for key in images if key not in taken)
    skipped = {key for pick in picks if pick.op == "skip" for key in pick.keys}
    is_skipped = any(pick.op == "skip" and pick.group == group for pick in picks) or (bool(pool) and skipped.issuperset(pool))
    if not is_skipped:
        pool = tuple(key for key in pool if key not in skipped)

    said = _listen(pool, picks)
    posterior, standing = _rank(said, len(pool), rules.pairing, rank) if len(pool) > 1 else (None, None)
    is_finished, likely_left = _how_far(pool, said, standing)
    pairs = [_direct_pair(pick) for pick in own]
    wanted = rules.pairs_per_group - sum(bool(pair.rejected) for pair in pairs)
    if wanted > 0 and said.votes and posterior is not None:
        pairs += _ranked_pairs(pool, said, posterior, wanted, is_finished)
    pairs = [_review(pair, turned) for pair in pairs]
    # Who turns a ranked pair round, or takes it out, does not believe the order it came from.
    is_believed = not any(pair.is_swapped or pair.state == "deleted" for pair in pairs if {*pair.keys} & {*pool})
    ranking = _ranking(pool, said, posterior) if is_finished and is_believed and posterior is not None else None
    used = frozenset(key for pair in pairs for key in pair.keys) | (taken & members)
    return Judgement(
        tuple(pairs), pool, used, is_skipped, is_finished, said.votes, said.duels, said.avoid, said.labelled, likely_left, ranking
    )


def direct_picks(picks: Iterable[Pick]) -> list[Pick]:
    """Best/worst picks, confirmed proposals and imports that are pairs, oldest first.

    Of two picks of the same images by the same rater the later counts; after that the earlier one has an image that two want.
    An import that needs a reject is left out when its image is in a pair.
    """
    newest = {}
    for pick in picks:
        if pick.op in ("best_worst", "propose"):
            newest[frozenset(pick.keys), pick.rater] = pick
        elif pick.op == "import":
            newest[pick.position] = pick
    found, used = [], set()
    imported = set()  # images that imports compare: they have the same right to each
    for pick in sorted(newest.values(), key=lambda pick: (not pick.rejected, pick.position)):
        keys = {pick.chosen, pick.rejected}
        if pick.op == "import" and pick.rejected:
            found.append(pick)
            imported |= keys
        elif not (used & keys or (not pick.rejected and imported & keys)):
            found.append(pick)
            used |= keys
    return sorted(found, key=lambda pick: pick.position)


@dataclass(frozen=True)
class _Said:
    """What duels and labels say of a pool. `voices`: the picks behind it, oldest first. `bad`: indices of images called bad."""

    votes: tuple[Vote, ...]
    duels: int
    avoid: frozenset[tuple[int, int]]
    labelled: frozenset[str]
    bad: frozenset[int]
    voices: tuple[Pick, ...]

    def seen(self) -> list[int]:
        """Indices of the images with votes, in the order in which they come up."""
        return [index for index in dict.fromkeys(index for vote in self.votes for index in vote[:2]) if index != BAR]

    def made_by(self) -> str:
        raters = {pick.rater for pick in self.voices}
        return raters.pop() if len(raters) == 1 else ""

    def prompt_of(self, key: str, newest: Pick) -> str:
        """The prompt for a comparison in which the image of this key is the best: that of its newest pick, or where the prompts
        of the pool differ in LoRA tags or case, as for a pick of such images."""
        if len({pick.prompt for pick in self.voices}) == 1:
            return newest.prompt
        return without_loras(_prompt_of(key, self.voices))


def _listen(pool: Sequence[str], picks: Iterable[Pick]) -> _Said:
    place = {key: index for index, key in enumerate(pool)}
    heard = {}  # a label given again replaces the first, a duel asked again counts again
    for pick in picks:
        if pick.op not in ("duel", "triage") or pick.is_second or not place.keys() >= set(pick.keys):
            continue
        if pick.op == "duel":
            heard[pick.position] = pick
        else:
            heard.pop((pick.keys, pick.rater), None)
            heard[pick.keys, pick.rater] = pick
    votes, avoid, verdicts = [], set(), {}
    for pick in heard.values():
        indices = [place[key] for key in pick.keys]
        votes += _votes(pick, indices)
        if pick.op == "triage" or pick.result == "both_bad":
            verdicts |= dict.fromkeys(indices, pick.result)
        elif pick.result == "skip":
            avoid.add((min(indices), max(indices)))
    return _Said(
        votes=tuple(votes),
        duels=sum(pick.op == "duel" for pick in heard.values()),
        avoid=frozenset(avoid),
        labelled=frozenset(pick.keys[0] for pick in heard.values() if pick.op == "triage"),
        bad=frozenset(index for index, result in verdicts.items() if result in ("bad", "both_bad")),
        voices=tuple(heard.values()),
    )


def _votes(pick: Pick, indices: Sequence[int]) -> list[Vote]:
    weight = CLEAR_WEIGHT if pick.is_clear else 1.0
    match pick.result:
        case "left":
            return [Vote(indices[0], indices[1], weight)]
        case "right":
            return [Vote(indices[1], indices[0], weight)]
        case "tie":
            return [Vote(*indices, is_tie=True)]
        case "both_bad":
            return [Vote(*indices, is_tie=True), *(Vote(BAR, index) for index in indices)]
        case "good":
            return [Vote(indices[0], BAR)]
        case "bad":
            return [Vote(BAR, indices[0])]
    return []  # a skip


def _rank(said: _Said, size: int, pairing: str, rank: Callable) -> tuple[Posterior, Standing]:
    """By the order in which images come up, not the one in which they were given: whoever lists the group otherwise, or knows
    of those not yet shown only that they are there, must come to the very same standing."""
    seen = said.seen()
    if not said.duels and not seen:
        if size <= MOST_ALIKE:
            return rank(size, (), 0, pairing)
        posterior, standing = rank(MOST_ALIKE, (), 0, pairing)  # nothing tells them apart: they stand as fewer would
        return posterior, replace(standing, likely_left=standing.likely_left * size // MOST_ALIKE)
    place = {index: number for number, index in enumerate(seen)} | {BAR: BAR}
    votes = tuple(vote._replace(better=place[vote.better], worse=place[vote.worse]) for vote in said.votes)
    posterior, standing = rank(size, votes, said.duels, pairing)
    # Only images of which something was said: no others are in a pair, wherever the ranking would put them.
    known = slice(len(seen))
    return Posterior(posterior.mean[known], posterior.covariance[known, known]), standing


def _how_far(pool: Sequence[str], said: _Said, standing: Standing | None) -> tuple[bool, int]:
    """Whether the ranking is finished, and how many duels are likely left until then."""
    size = len(pool)
    if standing is None or said.labelled.issuperset(pool) or len(said.avoid) == size * (size - 1) // 2:
        return True, 0
    if size == 2:  # to ask the same again is tedious, and the confidence says what one answer is worth
        return said.duels > 0, 0 if said.duels else 1
    return standing.is_finished, 0 if standing.is_finished else max(1, standing.likely_left)


def _ranked_pairs(pool: Sequence[str], said: _Said, posterior: Posterior, wanted: int, is_finished: bool) -> list[JudgedPair]:
    seen = said.seen()
    barred = frozenset(place for place, index in enumerate(seen) if index in said.bad)
    is_by_duel = any(pick.op == "duel" for pick in said.voices)
    pairs = []
    for ranked in rank_pairs(posterior, wanted, barred, is_finished):
        chosen, rejected = pool[seen[ranked.chosen]], pool[seen[ranked.rejected]]
        newest = max((pick for pick in said.voices if {chosen, rejected} & set(pick.keys)), key=lambda pick: pick.position)
        source = "duel" if is_by_duel else "triage"
        pairs.append(
            JudgedPair(
                newest.group, said.prompt_of(chosen, newest), chosen, rejected, float(ranked.confidence), source,
                newest.position, newest.rater, newest.made, said.made_by(),
            )
        )  # fmt: skip
    return pairs


def _ranking(pool: Sequence[str], said: _Said, posterior: Posterior) -> JudgedRanking | None:
    """Labels alone put images into two heaps, not in order: those that were in no duel are left out."""
    duels = [pick for pick in said.voices if pick.op == "duel" and pick.result != "skip"]
    compared = {key for pick in duels for key in pick.keys}
    seen = said.seen()
    order = [place for place in (-posterior.mean).argsort(kind="stable").tolist() if pool[seen[place]] in compared]
    if len(order) < LEAST_RANKED or (confidence := order_confidence(posterior, order)) < LEAST_CONFIDENCE:
        return None
    newest = max(duels, key=lambda pick: pick.position)
    images = tuple(pool[seen[place]] for place in order)
    prompt = said.prompt_of(images[0], newest)
    return JudgedRanking(newest.group, prompt, images, confidence, newest.position, said.made_by())


def _prompt_of(key: str, voices: Collection[Pick]) -> str:
    """The prompt of the newest pick that is most about this image: that chose it, or else showed it."""
    return max((pick.chosen == key, pick.position, pick.prompt) for pick in voices if key in pick.keys)[2]


def proposed_pair(proposal: Pick, is_dropped: bool) -> JudgedPair:
    """The pair of a proposal that no person has answered."""
    begins = AI if proposal.result == "used" else PROPOSAL
    return JudgedPair(
        proposal.group, proposal.prompt, proposal.chosen, proposal.rejected, proposal.confidence, begins + proposal.source,
        proposal.position, proposal.rater, proposal.made, "", state="deleted" if is_dropped else proposal.result,
    )  # fmt: skip


def _direct_pair(pick: Pick) -> JudgedPair:
    is_import = pick.op == "import"
    source = {"import": IMPORT, "propose": CONFIRMED}.get(pick.op, pick.op)
    return JudgedPair(
        pick.group, pick.prompt, pick.chosen, pick.rejected,
        pick.confidence if is_import else grid_confidence(len(pick.keys)),
        source + pick.source,
        pick.position, pick.rater, pick.made, pick.rater,
        state="used" if pick.rejected else "needs_reject",
    )  # fmt: skip


def _turned(picks: Iterable[Pick]) -> dict[frozenset[str], tuple[bool, bool]]:
    """Two keys -> whether their pair was dropped, and whether it was turned round an odd number of times."""
    found: dict[frozenset[str], tuple[bool, bool]] = {}
    for pick in picks:
        if pick.op in ("drop", "swap"):
            is_dropped, is_swapped = found.get(frozenset(pick.keys), (False, False))
            found[frozenset(pick.keys)] = (is_dropped or pick.op == "drop", is_swapped != (pick.op == "swap"))
    return found


def _review(pair: JudgedPair, turned: dict[frozenset[str], tuple[bool, bool]]) -> JudgedPair:
    """The pair after what was said of it in the review."""
    is_dropped, is_swapped = turned.get(frozenset({pair.chosen, pair.rejected} - {""}), (False, False))
    if is_swapped:
        pair = replace(pair, chosen=pair.rejected, rejected=pair.chosen, is_swapped=True)
    return replace(pair, state="deleted") if is_dropped else pair
