"""What scores say of groups: how often a scorer and a person agree, and in which groups nothing is certain. No torch.

Scores compare images of one group only: two scorers have two units, and one scorer rates one prompt above another.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

from dpo.groups import View, identify, without_loras
from dpo.intervals import mean_interval, share_interval
from dpo.jobs import Job, JobRegistry
from dpo.judging import AI, CONFIRMED, IMPORT, PROPOSAL
from dpo.pairs import same_words
from dpo.scorer_choice import ScorerChoice
from dpo.scores import Ask
from dpo.votes import SIDES

if TYPE_CHECKING:
    from dpo.blind import BlindTest
    from dpo.catalogue import Catalogue
    from dpo.picks import PickedPair
    from dpo.project import Project

GroupScores = Mapping[str, Mapping[str, float]]  # group -> image -> score


@dataclass(frozen=True)
class Share:
    """`wins` of `count` comparisons, ties as a half. `low` to `high`: the 95% interval of the share over prompts
    (dpo/intervals.py), 0 to 1 with fewer than two of them."""

    wins: float
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        if not self.count:
            return "none"
        return f"{self.wins:g} of {self.count:,}, {self.wins / self.count:.0%} [{self.low:.0%}, {self.high:.0%}]"


@dataclass(frozen=True)
class ComparisonScores:
    """What a scorer says of an adapter's images beside the base's: how often it prefers the adapter's, and the mean difference
    of its scores with the 95% interval over prompts (None with fewer than two prompts). It is no vote."""

    scorer: str
    preferred: Share
    mean_difference: float
    interval: tuple[float, float] | None

    @property
    def sentence(self) -> str:
        share = self.preferred
        return f"{self.scorer} prefers the adapter in {share.wins:g} of {share.count:,}."


def group_scores(project: Project, view: View, scorer: str) -> dict[str, dict[str, float]]:
    """The groups of the view of which two images or more are scored: each image's key -> its score. `scorer`: its identity."""
    known = project.scores.of(scorer)
    keys = {key for key, _ in known}
    numbers = _texts(project, scorer, keys)
    found = {}
    for group, images in project.library.members(view, keys).items():
        scores = {copies[0]: known.get((copies[0], numbers.get(copies[0]))) for copies in images}
        scored = {key: score for key, score in scores.items() if score is not None}
        if len(scored) > 1:
            found[group] = scored
    return found


def agreement_with_person(project: Project, scorer: str) -> Share:
    """Over the pairs that people made by picking or voting: how often the scorer rates the chosen image above the rejected one.

    Imports do not count, for nobody knows who made them, and neither do confirmed proposals: whoever is shown a proposal is
    led by it.
    """
    return _share(person_gaps(project, scorer))


def person_gaps(project: Project, scorer: str) -> list[tuple[float, str]]:
    """(score of chosen less that of rejected, prompt) of every pair that a person made by picking and that is scored."""
    known = project.scores.of(scorer)
    pairs = [picked for picked in project.picks.picked_pairs() if is_by_picking(picked)]
    numbers = _texts(project, scorer, {key for picked in pairs for key in (picked.chosen, picked.rejected)})
    found = []
    for picked in pairs:
        chosen, rejected = (known.get((key, numbers.get(key))) for key in (picked.chosen, picked.rejected))
        if chosen is not None and rejected is not None:
            found.append((chosen - rejected, picked.pair.prompt))
    return found


def is_by_picking(picked: PickedPair) -> bool:
    """Whether people made this pair themselves, by picks or by votes in a blind test, and it counts."""
    from dpo.blind import SOURCE  # which imports the project, and that imports us

    source = picked.pair.source
    is_vote = source.startswith(IMPORT + SOURCE)
    return picked.state == "used" and (is_vote or not source.startswith((AI, PROPOSAL, CONFIRMED, IMPORT)))


def uncertain_groups(project: Project, view: View) -> list[str]:
    """The scored groups of the view, the least certain first; see `order_by_disagreement`."""
    standing = project.library.revision(), project.scores.revision()

    def find() -> list[str]:
        scorers = project.scores.scorers()
        return order_by_disagreement({scorer: group_scores(project, view, scorer) for scorer in scorers})

    return project.scores.kept(("uncertain", view), standing, find)


def catalogue_of_unsure(project: Project, view: View) -> Catalogue:
    """The catalogue of a view without the half of its scored groups of which the scorers are more certain. What is not scored
    stays: nobody is certain of it."""
    order = uncertain_groups(project, view)
    sure = set(order[(len(order) + 1) // 2 :])
    standing = project.library.revision(), project.scores.revision()

    def find() -> Catalogue:
        whole = project.library.catalogue(view)
        return replace(whole, lines=[line for line in whole.lines if line.key not in sure])

    return project.scores.kept(("unsure", view), standing, find)


def order_by_disagreement(scores: Mapping[str, GroupScores]) -> list[str]:
    """Groups by what is least certain: first those that scorers rank most differently, then those whose best and worst image
    are the nearest. `scores`: scorer -> group -> image -> score.

    How differently: the mean over any two scorers of Kendall's distance, the share of images two by two that they order the
    other way round (a tie of one of them is half). How near: best less worst, over the median of that over the scorer's groups.
    """
    usual = {scorer: median(_width(images) for images in groups.values()) or 1.0 for scorer, groups in scores.items() if groups}

    def certainty(group: str) -> tuple[float, float, str]:
        rankings = [(scorer, groups[group]) for scorer, groups in scores.items() if group in groups]
        distances = [kendall_distance(one, other) for (_, one), (_, other) in combinations(rankings, 2)]
        widths = [_width(images) / usual[scorer] for scorer, images in rankings]
        return -sum(distances) / max(1, len(distances)), sum(widths) / len(widths), group

    return sorted({group for groups in scores.values() for group in groups}, key=certainty)


def kendall_distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The share of the pairs of images that both scored which they order differently, in [0, 1]; a tie of one alone is half."""
    pairs = list(combinations(sorted(one.keys() & other.keys()), 2))
    apart = sum(abs(_sign(one[a] - one[b]) - _sign(other[a] - other[b])) / 2 for a, b in pairs)
    return apart / len(pairs) if pairs else 0.0


def start_score_test(project: Project, jobs: JobRegistry, test: BlindTest, choice: ScorerChoice) -> Job:
    """Queue what a scorer says of a blind test's images; the job's result becomes ComparisonScores. Raises AlreadyRunning."""
    rows = [(item.prompt, *(str(test.image(item, side)) for side in SIDES)) for item in test.ready()]

    def work(job: Job) -> ComparisonScores:
        job.report(0, 0, f"loading {choice.name}")
        return score_comparison(project, rows, choice, job.report, job.stop)

    return jobs.submit("score_test", f"scoring {test.name} with {choice.name}", f"{test.name} {choice.identity}", work)


def score_comparison(
    project: Project,
    rows: Sequence[tuple[str, str, str]],
    choice: ScorerChoice,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
    stop: threading.Event | None = None,
) -> ComparisonScores:
    """Judge base beside adapter. `rows`: (prompt, the base's image, the adapter's image), files. Files that cannot be opened are
    left out with their row, and after a stop those that were not reached. Raises StudioError for a scorer that cannot be loaded.
    Loads torch."""
    from dpo.scorers import load_scorer
    from dpo.scores import AT_ONCE

    scorer = load_scorer(choice, project.cache)
    asks = [Ask("", str(path), choice.text_of(prompt)) for prompt, *paths in rows for path in paths]
    scores: list[float | None] = []
    for start in range(0, len(asks), AT_ONCE):  # an even number at once: both images of a row
        if stop is not None and stop.is_set():
            break
        report(start, len(asks), "scoring")
        scores += scorer.score(asks[start : start + AT_ONCE])
    gaps = [
        (adapter - base, prompt)
        for (prompt, _, _), base, adapter in zip(rows, scores[::2], scores[1::2], strict=False)
        if base is not None and adapter is not None
    ]
    differences, prompts = [gap for gap, _ in gaps], [same_words(prompt) for _, prompt in gaps]
    mean = math.fsum(differences) / max(1, len(differences))
    return ComparisonScores(choice.name, _share(gaps), mean, mean_interval(differences, prompts) if gaps else None)


def _share(gaps: Sequence[tuple[float, str]]) -> Share:
    values = [(_sign(gap) + 1) / 2 for gap, _ in gaps]
    low, high = share_interval(values, [same_words(prompt) for _, prompt in gaps]) if gaps else (0.0, 1.0)
    return Share(sum(values), len(values), low, high)


def _texts(project: Project, scorer: str, keys: set[str]) -> dict[str, int]:
    """Image -> number of what the scorer reads of its prompt as it is now (`ScorerChoice.text_of`)."""
    reads_none = scorer.startswith("aesthetic ")
    facts = project.library.image_facts(keys)
    return {key: identify("" if reads_none else without_loras(fact.prompt)) for key, fact in facts.items()}


def _width(images: Mapping[str, float]) -> float:
    return max(images.values()) - min(images.values())


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
