"""Pairs that a scorer proposes: the best against the worst of a group of which nobody has said anything.

They are stored beside the picks as what they are (`dpo.operations`, "propose"): to be confirmed by a person, or used as they
are. Either way they give way to whatever a person says of the group (`Book`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from dpo.agreement import GroupScores, group_scores, person_gaps
from dpo.groups import View
from dpo.scorer_choice import ScorerChoice, ScorerError

if TYPE_CHECKING:
    from dpo.project import Project

ENOUGH = 20  # pairs a person made, to learn from them how much a gap of the scorer is worth
# Without them: the slopes at which two images whose scores lie as of a normal distribution are ordered rightly as often as
# Kirstain et al. 2023 (Table 2) found on their test set: PickScore 70.5%, CLIP-H 60.8%, aesthetics 56.8%. Nothing is known of
# a run's reward in general; it is taken for no better than CLIP.
USUAL_SLOPES = {"pickscore": 0.87, "clip": 0.40, "aesthetic": 0.25, "adapter": 0.40}


@dataclass(frozen=True)
class Proposal:
    """Two images of a group by their keys. `gap`: of their scores, in standard deviations of a score within its group.
    `confidence` in (0.5, 1]: the chance that a person would choose the same."""

    group: str
    chosen: str
    rejected: str
    gap: float
    confidence: float


def propose_pairs(project: Project, view: View, choice: ScorerChoice) -> list[Proposal]:
    """One for each scored group of the view that nobody has said anything of, no scorer either; the surest first.

    Raises ScorerError if nothing is scored, or the scorer is right about the person's pairs no more often than chance.
    """
    scores = group_scores(project, view, choice.identity)
    if not scores:
        raise ScorerError(f"Nothing here is scored by {choice.name} yet. Score first.")
    unit = spread_within(scores)
    slope = learn_slope([gap / unit for gap, _ in person_gaps(project, choice.identity)], USUAL_SLOPES[choice.kind])
    if slope <= 0:
        raise ScorerError(f"{choice.name} agrees with your picks no more often than chance, so it has nothing to propose.")
    groups, images = project.picks.book().spoken_of()
    found = []
    for group, scored in scores.items():
        ranked = sorted(scored, key=lambda key: (-scored[key], key))
        gap = (scored[ranked[0]] - scored[ranked[-1]]) / unit
        confidence = 1 / (1 + math.exp(-slope * gap))
        if group not in groups and images.isdisjoint(scored) and confidence > 0.5:
            found.append(Proposal(group, ranked[0], ranked[-1], gap, confidence))
    return sorted(found, key=lambda proposal: (-proposal.gap, proposal.group))


def add_proposals(project: Project, proposals: Iterable[Proposal], choice: ScorerChoice, *, automatic: bool) -> int:
    """Store them, to be confirmed or (`automatic`) used as they are; returns how many were stored. One is left out whose images
    changed meanwhile. Raises ProjectError if the disk refuses."""
    client, result = f"scorer-{secrets.token_hex(8)}", "used" if automatic else "proposed"
    operations = [
        {
            "client": client, "number": number, "op": "propose", "group": proposal.group,
            "images": [proposal.chosen, proposal.rejected], "result": result, "scorer": choice.name,
            "confidence": proposal.confidence,
        }
        for number, proposal in enumerate(proposals)
    ]  # fmt: skip
    return project.picks.apply(operations).new


def discard_proposals(project: Project, *, automatic: bool) -> int:
    """Take back all that nobody has answered, those to be confirmed or the automatic ones; returns how many. One that a person
    deleted stays deleted."""
    book, result = project.picks.book(), "used" if automatic else "proposed"
    client = f"scorer-{secrets.token_hex(8)}"
    waiting = [
        row
        for row in book.proposals()
        if row.result == result
        and not any(said.op == "drop" and set(said.keys) == set(row.keys) for said in book.picks_of(row.keys))
    ]
    return project.picks.apply(
        {"client": client, "number": number, "op": "undo", "undoes": [row.client, row.number]}
        for number, row in enumerate(waiting)
    ).new


def spread_within(scores: GroupScores) -> float:
    """The standard deviation of a score within its group, over all groups; 1 where all are equal."""
    squares = [(score - fmean(images.values())) ** 2 for images in scores.values() for score in images.values()]
    freedom = sum(len(images) - 1 for images in scores.values())
    return math.sqrt(math.fsum(squares) / freedom) or 1.0


def learn_slope(gaps: Sequence[float], usual: float) -> float:
    """How much a gap is worth: the s of P(a person chooses the higher) = 1 / (1 + exp(-s gap)), of greatest likelihood.

    gaps: of pairs that a person made, chosen less rejected, in spreads. Fewer than `ENOUGH` leave it at `usual`. One win and one
    loss of a gap of 1 are added, so that a scorer which was always right is not believed without end. Not below 0.
    """
    if len(gaps) < ENOUGH:
        return usual
    seen = [*gaps, 1.0, -1.0]

    def rise(slope: float) -> float:
        """The derivative of the log-likelihood, which falls as the slope grows."""
        return math.fsum(gap / (1 + math.exp(min(700.0, slope * gap))) for gap in seen)

    low, high = 0.0, 1.0
    if rise(low) <= 0:
        return 0.0
    while rise(high) > 0:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rise(middle) > 0 else (low, middle)
    return low
