"""A page of a blind test without a browser, as `_protocol.Page` is one of the picker: a vote is sent until an answer came."""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dpo.jobs import JobRegistry
from dpo.project import Project
from dpo.votes import RESULTS
from tests.benchmarks._protocol import UNDO_SHARE, call
from tests.browser.conftest import App
from ui.session import Session, Studio, page_session, project_secret

PAIRS_AHEAD = 6


@dataclass
class Voter:
    """Somebody who votes at random."""

    project: Project
    rng: random.Random
    made: list[dict] = field(default_factory=list)  # every operation, in order
    outbox: list[dict] = field(default_factory=list)  # those that no answer has come for
    refused: list[str] = field(default_factory=list)
    screens: list[dict] = field(default_factory=list)
    client: str = ""
    session: dict = field(default_factory=dict)
    seconds: float = 0.0  # how long the last answer took

    def __post_init__(self) -> None:
        studio = Studio(self.project, JobRegistry(), project_secret(self.project.path))
        self.session = page_session(studio, Session())
        self.load()

    def load(self, _: str = "") -> None:
        """As after a reload."""
        self.client, self.screens = secrets.token_hex(12), []

    def talk(self, app: App, part: int) -> None:
        """One request, as of `_protocol.Page`."""
        sent, asked = list(self.outbox), time.monotonic()
        answer = call(app, part, "vote", {
            "token": self.session["token"], "view": self.session["view"], "operations": sent, "rater": "", "test": "",
            "question": "", "recent": False, "want": max(0, PAIRS_AHEAD - len(self.screens)),
            "have": [screen["item"] for screen in self.screens],
        })  # fmt: skip
        assert "error" not in answer, answer
        del self.outbox[: len(sent)]
        self.seconds = time.monotonic() - asked
        self.refused += answer["refused"]
        self.screens += [screen | {"test": answer["test"], "question": answer["question"]} for screen in answer["screens"]]

    def pick(self) -> None:
        """Vote on the next pair, or take the last vote back."""
        votes = [operation for operation in self.made if operation["op"] == "vote" and operation["client"] == self.client]
        if votes and self.made[-1] is votes[-1] and self.rng.random() < UNDO_SHARE:
            self._lay_down({"op": "undo", "undoes": [votes[-1]["client"], votes[-1]["number"]]})
        elif self.screens:
            screen = self.screens.pop(0)
            shown = {name: screen[name] for name in ("test", "question", "item")}
            images = [image["key"] for image in screen["images"]]
            self._lay_down({"op": "vote", **shown, "images": images, "result": self.rng.choice(RESULTS)})

    def _lay_down(self, operation: dict) -> None:
        operation = {"client": self.client, "number": len(self.made), **operation}
        self.made.append(operation)
        self.outbox.append(operation)


def read_votes(project: Path) -> list[tuple]:
    """Every row of a project's votes, as `as_vote` tells an operation."""
    with closing(sqlite3.connect(project / "picks.sqlite")) as store:
        return store.execute("""
            SELECT row.client, row.number, row.item, row.result, coalesce(undone.client, ''), coalesce(undone.number, -1)
            FROM votes AS row LEFT JOIN votes AS undone ON undone.position = row.undoes""").fetchall()


def as_vote(operation: dict) -> tuple:
    undone = operation.get("undoes", ("", -1))
    return operation["client"], operation["number"], operation.get("item", 0), operation.get("result", ""), *undone
