"""What the tabs share: the one process-wide object, what one browser tab looks at, and what a tab hands back.

A `Session` holds ids only. It lives in a `gr.State` and is mirrored in the browser (`gr.BrowserState`), because Gradio
wipes `gr.State` on every reload; whatever comes back from the browser is untrusted and goes through `restore_session`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dpo import StudioError
from dpo.jobs import JobRegistry
from dpo.runs import Run, list_runs

if TYPE_CHECKING:
    import gradio as gr

    from dpo.project import Project

SECRET_BYTES = 32
LONGEST_ID = 4096  # a folder's path is the longest thing a session names


class PlaceError(StudioError):
    """A path that the page may not reach."""


@dataclass
class Studio:
    """The open project and the job registry: made once, in app.py. `secret` signs what the page may ask for."""

    project: Project
    jobs: JobRegistry
    secret: bytes
    is_shared: bool = False  # people on other machines may be at the page

    @property
    def seconds_between_looks(self) -> float:
        """How often a page asks what is new: seldom over a tunnel, which answers many requests with an error."""
        return 3.0 if self.is_shared else 1.0

    def check_place(self, text: str, is_model: bool = True) -> None:
        """Raises PlaceError if others may be at the page and `text` names a file or folder outside the project.

        A model may also be "demo" or a hub id.
        """
        is_name = is_model and (text == "demo" or re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text))
        if not self.is_shared or not text or is_name:
            return
        if not Path(text).expanduser().resolve().is_relative_to(self.project.path.resolve()):
            raise PlaceError(f"{text} is outside the project folder, and a shared page reaches nothing else. Move it in there.")

    def sign(self, purpose: str, message: str) -> str:
        """32 hex digits that only this project can make. `purpose` keeps a token of one kind from opening another."""
        return hmac.new(self.secret, f"{purpose}\0{message}".encode(), hashlib.sha256).hexdigest()[:32]

    def is_signed(self, purpose: str, message: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(purpose, message).encode(), signature.encode())


@dataclass(frozen=True)
class Session:
    """What one browser tab looks at. Ids only, each checked where it is used."""

    folder: str = ""  # the folder of images being picked from
    run: str = ""  # the run shown in Train and offered in Compare; empty: the newest
    mode: str = "best_worst"  # how picks are made: "best_worst" or "duel"


class Tab(NamedTuple):
    """What a tab gives to `create_app`: `refresh(session)` returns one update for each of `outputs`, in order; `next` is the
    button that leads to the tab on its right."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    next: gr.Button | None = None


def chosen_run(studio: Studio, session: Session) -> Run | None:
    """The run the session names, while it exists; else the newest; None if there is none."""
    runs = list_runs(studio.project.runs)
    return next((run for run in runs if run.name == session.run), runs[0] if runs else None)


def restore_session(stored: object) -> Session:
    """The session a browser remembers, or a fresh one. Unknown names, other types and oversized values are dropped."""
    if not isinstance(stored, dict):
        return Session()
    names = {field.name for field in fields(Session)}
    known = {name: value for name, value in stored.items() if name in names}
    return Session(**{name: value for name, value in known.items() if isinstance(value, str) and len(value) <= LONGEST_ID})


def stored_session(session: Session) -> dict[str, str]:
    """The form `restore_session` reads."""
    return asdict(session)


def project_secret(folder: Path) -> bytes:
    """The project's secret, made on first use and readable by its owner alone, so that signed links outlive a restart."""
    path = folder / "secret"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    return path.read_bytes()
