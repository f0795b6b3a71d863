"""A page without a browser: it asks the app over HTTP what the picker's page asks, and keeps its promises.

An operation has a name of its own, and is sent again under that name until an answer has come. The token is made from the
project's secret, as the app makes it, so that it stays good over a restart.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from dpo.jobs import JobRegistry
from dpo.project import Project
from tests.browser.conftest import App
from ui.session import Session, Studio, page_session, project_secret

ANSWER_SECONDS = 30
SCREENS_AHEAD = 12
UNDO_SHARE = 0.1
RESULTS = {"duel": ("left", "right", "tie", "both_bad", "skip"), "triage": ("good", "bad", "skip")}
NO_ANSWER = (OSError, http.client.HTTPException)


@dataclass
class Page:
    """A page on the project's own folder, and somebody who picks there at random."""

    project: Project
    rng: random.Random
    mode: str = "best_worst"
    made: list[dict] = field(default_factory=list)  # every operation, in order
    outbox: list[dict] = field(default_factory=list)  # those that no answer has come for
    refused: list[str] = field(default_factory=list)  # what the app said of operations it did not take
    screens: list[dict] = field(default_factory=list)  # to be shown next
    history: list[tuple[dict, dict]] = field(default_factory=list)  # (operation, screen) that this load of the page can undo
    client: str = ""
    left: str = ""  # what it was called before it was loaded anew
    session: dict = field(default_factory=dict)
    seconds: float = 0.0  # how long the last answer took
    answered: float = 0.0  # when it came

    def __post_init__(self) -> None:
        studio = Studio(self.project, JobRegistry(), project_secret(self.project.path))
        self.session = page_session(studio, Session())
        self.load()

    def load(self, mode: str = "") -> None:
        """As after a reload, perhaps in another mode: a new name, no screens, and the outbox as it was."""
        self.client, self.left, self.mode = secrets.token_hex(12), self.client, mode or self.mode
        self.screens, self.history = [], []

    def talk(self, app: App, picker: int) -> None:
        """One request: what waits goes there, screens come back. Raises one of NO_ANSWER where none comes."""
        self.exchange(lambda data: call(app, picker, "sync", data))

    def exchange(self, ask: Callable[[dict], dict]) -> None:
        """The same by `ask(payload)`, which returns the answer to it."""
        sent, asked = list(self.outbox), time.monotonic()
        answer = ask({
            "token": self.session["token"], "view": self.session["view"], "client": self.client, "left": self.left,
            "rater": "", "mode": self.mode, "first": "", "again": False, "operations": sent,
            "want": max(0, SCREENS_AHEAD - len(self.screens)), "recent": 0, "before": None, "rules": None, "facts": False,
            "have": [{name: screen[name] for name in ("group", "mode")} | {"images": _keys(screen)} for screen in self.screens],
        })  # fmt: skip
        assert "error" not in answer, answer
        del self.outbox[: len(sent)]
        self.answered = time.monotonic()
        self.seconds = self.answered - asked
        self.left = ""
        self.refused += answer["refused"]
        self.screens = [screen for screen in self.screens if screen["group"] not in answer["over"]] + answer["screens"]

    def pick(self) -> None:
        """Answer the next screen, or take the last answer back. Nothing, if no screen is there."""
        if self.history and self.rng.random() < UNDO_SHARE:
            undone, screen = self.history.pop()
            self.screens.insert(0, screen)
            self._lay_down({"op": "undo", "undoes": [undone["client"], undone["number"]]})
        elif self.screens:
            screen = self.screens.pop(0)
            images, mode = _keys(screen), screen["mode"]
            result = self.rng.sample(images, 2) if mode == "best_worst" else self.rng.choice(RESULTS[mode])
            operation = {"op": mode, "group": screen["group"], "images": images, "result": result, "size": screen["size"]}
            self.history.append((self._lay_down(operation), screen))

    def _lay_down(self, operation: dict) -> dict:
        operation = {"client": self.client, "number": len(self.made), **operation}
        self.made.append(operation)
        self.outbox.append(operation)
        return operation


def find_picker(app: App, elem_id: str = "picker") -> int:
    """The number Gradio gave to the picker, or to another part, in this start of the app."""
    with urllib.request.urlopen(f"{app.url}config", timeout=ANSWER_SECONDS) as answer:
        parts = json.load(answer)["components"]
    return next(part["id"] for part in parts if part["props"].get("elem_id") == elem_id)


def call(app: App, component: int, function: str, data: dict) -> dict:
    """What a server function of a component answers. Raises one of NO_ANSWER where no answer comes."""
    body = {"data": data, "component_id": component, "fn_name": function, "session_hash": "benchmark"}
    request = urllib.request.Request(
        f"{app.url}gradio_api/component_server", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def _keys(screen: dict) -> list[str]:
    return [image["key"] for image in screen["images"]]
