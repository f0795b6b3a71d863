"""What the votes of a blind test come to: the verdict, prompt by prompt, person by person, and the pairs they make.

A person's first vote on an item is theirs. The verdict takes the first decisive one of each item, whoever gave it: several people
make it no surer than one would, they give second opinions. A pair is made of what most of them said.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpo.blind import SOURCE, BlindItem, BlindTest, find_test, list_tests
from dpo.compare import win_rate_interval
from dpo.pairs import same_words
from dpo.picks import ImportedPair
from dpo.runs import Run
from dpo.verdict import Verdict, judge
from dpo.votes import Vote

if TYPE_CHECKING:
    from dpo.project import Project


@dataclass(frozen=True)
class PromptResult:
    """How often the adapter won on a prompt, of so many decisive items; `ties`: items on which nobody decided."""

    prompt: str
    wins: int
    votes: int
    ties: int


@dataclass(frozen=True)
class VoterResult:
    """One person: decisive `votes`, of which the adapter won `wins`, and `ties`. `agreed` of `shared`: as often as the others,
    by majority, said the same, of the items on which this person and some other decided."""

    name: str
    wins: int
    votes: int
    ties: int
    agreed: int
    shared: int


@dataclass(frozen=True)
class Outcome:
    """Of one question of a test. `by_prompt`: (win rate, low, high), a tie for half, 95% by drawing whole prompts again; None
    before anybody voted. `decisions`: item number -> the side that most people preferred, where most did, and their share."""

    test: BlindTest
    question: str
    verdict: Verdict
    prompts: tuple[PromptResult, ...]
    voters: tuple[VoterResult, ...]
    by_prompt: tuple[float, float, float] | None
    decisions: dict[int, tuple[str, float]]


@dataclass(frozen=True)
class MadePairs:
    """What became of the votes: `new` pairs and those known `already`; `contrary`: the project has them the other way round;
    `undecided`: items on which people voted, but no majority said which. `trained`: on how many of the new pairs' prompts a later
    run will train; the others stay held out."""

    new: int
    already: int
    contrary: int
    undecided: int
    trained: int


def find_outcome(project: Project, name: str, question: str) -> Outcome:
    """Raises BlindError for a test that is not there."""
    return count_votes(find_test(project, name), question, project.votes.votes(name, question))


def latest_outcome(project: Project, run: Run) -> Outcome | None:
    """Of the newest test of this very run on which anybody voted, its first question."""
    for test in list_tests(project):
        if (test.run, test.run_made) == (run.name, run.made):
            votes = project.votes.votes(test.name, test.questions[0])
            if votes:
                return count_votes(test, test.questions[0], votes)
    return None


def count_votes(test: BlindTest, question: str, votes: Sequence[Vote]) -> Outcome:
    """`votes` in the order in which they came."""
    items = {item.number: item for item in test.items}
    own: dict[tuple[str, int], Vote] = {}  # the first of every person on every item
    for vote in votes:
        if vote.item in items:
            own.setdefault((vote.rater, vote.item), vote)
    first: dict[int, Vote] = {}  # the first decisive one of every item, in order
    for vote in own.values():
        if vote.preferred:
            first.setdefault(vote.item, vote)
    tied = {number for _, number in own} - first.keys()
    verdict = judge((vote.preferred == "adapter" for vote in first.values()), ties=len(tied))
    prompts = _by_prompt(test, first, tied)
    voters = tuple(_voter(name, list(own.values())) for name in sorted({name for name, _ in own}))
    return Outcome(test, question, verdict, prompts, voters, _interval(prompts), _majorities(own.values()))


def drawn_by_lot(outcome: Outcome, count: int) -> list[BlindItem]:
    """Up to `count` decided items, of different prompts as far as there are: the same at every call, and no one's choice."""
    name = outcome.test.name
    decided = [item for item in outcome.test.items if item.number in outcome.decisions and outcome.test.is_ready(item)]
    decided.sort(key=lambda item: hashlib.blake2b(f"{name} {item.number}".encode()).digest())
    seen: Counter[str] = Counter()
    turns = []
    for place, item in enumerate(decided):
        turns.append((seen[item.prompt], place))
        seen[item.prompt] += 1
    return [decided[place] for _, place in sorted(turns)[:count]]


def make_pairs(project: Project, outcome: Outcome) -> MadePairs:
    """Keep what most people said of each item as a pair, with the picks. Made again, only what is new is added.

    Raises ProjectError if the disk refuses: then no pair was kept.
    """
    test = outcome.test
    decided = {item: outcome.decisions[item.number] for item in test.items if item.number in outcome.decisions}
    files = {item: [str(test.image(item, side)) for side in _chosen_first(side)] for item, (side, _) in decided.items()}
    keys = project.library.add_files(path for pair in files.values() for path in pair)
    known = {(picked.chosen, picked.rejected) for picked in project.picks.picked_pairs()}
    rows, already, contrary = [], 0, 0
    for item, (_, share) in decided.items():
        found = [keys[path] for path in files[item] if path in keys]
        if len(found) < 2 or found[0] == found[1]:
            continue
        if (found[0], found[1]) in known:
            already += 1
        elif (found[1], found[0]) in known:
            contrary += 1
        else:
            origin = str(test.path)
            rows.append(ImportedPair(item.prompt, *found, tuple(files[item]), share, f"{SOURCE}{test.name}", origin))
    new = project.picks.import_pairs(rows)
    prompts = {same_words(row.prompt) for row in rows}
    trained = {
        same_words(picked.pair.prompt)
        for picked in project.picks.picked_pairs()
        if same_words(picked.pair.prompt) in prompts and not picked.is_validation
    }
    undecided = outcome.verdict.votes + outcome.verdict.ties - len(outcome.decisions)
    return MadePairs(new, already + len(rows) - new, contrary, undecided, len(trained))


def _chosen_first(chosen: str) -> tuple[str, str]:
    return ("adapter", "base") if chosen == "adapter" else ("base", "adapter")


def _by_prompt(test: BlindTest, first: dict[int, Vote], tied: set[int]) -> tuple[PromptResult, ...]:
    """In the order of the test; those without a vote are left out."""
    counts: dict[str, list[int]] = {}
    for item in test.items:
        if item.number in first or item.number in tied:
            line = counts.setdefault(item.prompt, [0, 0, 0])
            if item.number in tied:
                line[2] += 1
            else:
                line[0] += first[item.number].preferred == "adapter"
                line[1] += 1
    return tuple(PromptResult(prompt, *line) for prompt, line in counts.items())


def _interval(prompts: Sequence[PromptResult]) -> tuple[float, float, float] | None:
    if not prompts:
        return None
    shares = [(line.wins + line.ties / 2) / (line.votes + line.ties) for line in prompts]
    return win_rate_interval(np.array(shares)[:, None])


def _voter(name: str, votes: Sequence[Vote]) -> VoterResult:
    """`votes`: everybody's, one a person and item."""
    mine = {vote.item: vote.preferred for vote in votes if vote.rater == name}
    others = _majorities(vote for vote in votes if vote.rater != name)
    decided = {item: side for item, side in mine.items() if side}
    shared = [item for item in decided if item in others]
    agreed = sum(decided[item] == others[item][0] for item in shared)
    wins = sum(side == "adapter" for side in decided.values())
    return VoterResult(name, wins, len(decided), len(mine) - len(decided), agreed, len(shared))


def _majorities(votes) -> dict[int, tuple[str, float]]:
    """Item -> (side, share) where more than half of those who decided prefer one side."""
    counts: dict[int, Counter[str]] = {}
    for vote in votes:
        if vote.preferred:
            counts.setdefault(vote.item, Counter())[vote.preferred] += 1
    found = {}
    for item, sides in sorted(counts.items()):
        (side, most), total = sides.most_common(1)[0], sides.total()
        if 2 * most > total:
            found[item] = side, most / total
    return found
