"""Scores of images under their prompts: kept by content in scores.sqlite, which may be deleted, and how they are made.

A job scores all groups of a view; what is known is not computed again, and a stop keeps what was. What scores say of groups:
dpo/agreement.py; the pairs they propose: dpo/proposals.py.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dpo.groups import View, identify
from dpo.jobs import Job, JobRegistry
from dpo.scorer_choice import ScorerChoice

if TYPE_CHECKING:
    from dpo.project import Database, Project

AT_ONCE = 16  # images a pass, and between two looks at the stop
MOST_KEPT = 8  # answers


class Ask(NamedTuple):
    """An image to be scored: its content key, its file, and what the scorer reads of its prompt."""

    key: str
    path: str
    text: str


@dataclass(frozen=True)
class ScoreReport:
    """What a job did. `images` of the view's groups; `scored` of them now, `new` by this job; `broken` could not be opened;
    `cut` prompts were longer than the scorer reads."""

    images: int
    scored: int
    new: int
    broken: int
    cut: int

    @property
    def sentence(self) -> str:
        parts = [f"{self.scored:,} of {self.images:,} images scored, {self.new:,} of them now."]
        if self.broken:
            parts.append(f"{self.broken:,} could not be opened.")
        if self.cut:
            parts.append(f"{self.cut:,} prompts are longer than the scorer reads; their ends were cut.")
        return " ".join(parts)


class ScoreStore:
    """Scores by scorer (`ScorerChoice.identity`), image and text. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers: dict[tuple, tuple[object, object]] = {}
        self._answering = threading.Lock()

    def put(self, scorer: str, scores: Iterable[tuple[Ask, float]]) -> None:
        rows = [(scorer, ask.key, identify(ask.text), score) for ask, score in scores]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
            connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'revision'")

    def of(self, scorer: str) -> dict[tuple[str, int], float]:
        """(image, number of the text) -> score."""
        rows = self._database.tuples("SELECT key, text, score FROM scores WHERE scorer = ?", (scorer,))
        return {(key, text): score for key, text, score in rows}

    def scorers(self) -> list[str]:
        """Those that have scored anything."""
        return [scorer for (scorer,) in self._database.tuples("SELECT DISTINCT scorer FROM scores ORDER BY scorer")]

    def revision(self) -> int:
        """Grows with every score."""
        return self._database.read("SELECT value FROM facts WHERE name = 'revision'")[0]["value"]

    def kept(self, question: tuple, standing: object, answer: Callable[[], object]):
        """`answer()`, or what it was when `standing` was the same last time."""
        with self._answering:
            kept = self._answers.pop(question, None)
            if kept is None or kept[0] != standing:
                kept = standing, answer()
            self._answers[question] = kept
            while len(self._answers) > MOST_KEPT:
                del self._answers[next(iter(self._answers))]
            return kept[1]


def score_library(project: Project, jobs: JobRegistry, view: View, choice: ScorerChoice) -> Job:
    """Queue the scoring of all groups of a view; the job's result becomes a ScoreReport. Raises AlreadyRunning."""

    def work(job: Job) -> ScoreReport:
        job.report(0, 0, f"loading {choice.name}")
        return score_view(project, view, choice, job.report, job.stop)

    return jobs.submit("score", f"scoring with {choice.name}", choice.identity, work)


def score_view(
    project: Project,
    view: View,
    choice: ScorerChoice,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
    stop: threading.Event | None = None,
) -> ScoreReport:
    """Score every image of the view's groups that has no score yet. `report(done, total, message)` counts images.

    Raises StudioError for a scorer that cannot be loaded; nothing is loaded where all is known.
    """
    library, known = project.library, project.scores.of(choice.identity)
    groups = filter(None, (library.group(view, line.key) for line in library.catalogue(view).lines))
    asks = [
        Ask(image.key, image.path, choice.text_of(image.record.prompt)) for group in groups for image in group.images
    ]  # fmt: skip
    unknown = [ask for ask in asks if (ask.key, identify(ask.text)) not in known]
    new = broken = cut = 0
    if unknown:
        from dpo.scorers import load_scorer

        scorer = load_scorer(choice, project.cache)
        cut = sum(scorer.cut(text) > 0 for text in {ask.text for ask in unknown})
        for start in range(0, len(unknown), AT_ONCE):
            if stop is not None and stop.is_set():
                break
            report(len(asks) - len(unknown) + start, len(asks), "scoring")
            part = unknown[start : start + AT_ONCE]
            found = [(ask, score) for ask, score in zip(part, scorer.score(part), strict=True) if score is not None]
            project.scores.put(choice.identity, found)
            new, broken = new + len(found), broken + len(part) - len(found)
    return ScoreReport(len(asks), len(asks) - len(unknown) + new, new, broken, cut)


def _create_scores(connection: sqlite3.Connection) -> None:
    connection.execute("""
        CREATE TABLE scores (
            scorer TEXT NOT NULL,
            key TEXT NOT NULL,        -- of the image's content
            text INTEGER NOT NULL,    -- what the scorer read of the prompt, as 64 bits of its hash
            score REAL NOT NULL,
            PRIMARY KEY (scorer, key, text)
        ) WITHOUT ROWID""")
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
    connection.execute("INSERT INTO facts VALUES ('revision', 0)")


SCORE_MIGRATIONS = [_create_scores]
