"""What the tabs share: the one process-wide object, what one browser tab looks at, and what a tab hands back.

A `Session` holds ids and choices only. It lives in a `gr.State` and is mirrored in the browser (`gr.BrowserState`), because
Gradio wipes `gr.State` on every reload; whatever comes back from the browser is untrusted and goes through `restore_session`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.disk import hold
from dpo.groups import MODES, View
from dpo.jobs import JobRegistry
from dpo.runs import Run, list_runs
from ui.gate import caller_of
from ui.places import ANYWHERE, PlaceError, Places
from ui.rights import HOST, OWNER, open_to
from ui.uploads import Uploads

if TYPE_CHECKING:
    from dpo.project import Project
    from dpo.space import Space

log = logging.getLogger(__name__)
SECRET_BYTES = 32
LONGEST_ID = 4096  # a folder's path is the longest thing a session names
LONGEST_SEARCH = 1000
SORTS = {
    "path": "Folder order", "unpicked": "Fewest picked", "size": "Most images", "newest": "Newest",
    "uncertain": "Least certain first",
}  # fmt: skip


@dataclass
class Studio:
    """The open project and the job registry: made once, in app.py. `secret` signs what the page may ask for. `roots` and `models`
    are what a shared page reaches besides the project and the demo model."""

    project: Project
    jobs: JobRegistry
    secret: bytes
    is_shared: bool = False  # people on other machines may be at the page
    roots: tuple[Path, ...] = ()
    models: frozenset[str] = frozenset()
    uploads: Uploads = field(default_factory=Uploads)
    space: Space | None = None  # that the app runs on, if it is one

    @property
    def has_jobs(self) -> bool:
        """Whether work can go on in the background, with a device of its own."""
        return self.space is None or not self.space.has_zero_gpu

    @property
    def places(self) -> Places:
        """What may be named on the page."""
        roots = tuple(root.resolve() for root in (self.project.path, *self.roots))
        return Places(roots if self.is_shared else None, self.models)

    @property
    def seconds_between_looks(self) -> float:
        """How often a page asks what is new: seldom over a tunnel, which answers many requests with an error."""
        return 3.0 if self.is_shared else 1.0

    def check_place(self, text: str, is_model: bool = True) -> None:
        """Raises PlaceError if the page may not reach the place that `text` names. A model may also be "demo" or a hub id."""
        self.places.check(text, is_model)

    def sign(self, purpose: str, message: str) -> str:
        """32 hex digits that only this project can make. `purpose` keeps a token of one kind from opening another."""
        return hmac.new(self.secret, f"{purpose}\0{message}".encode(), hashlib.sha256).hexdigest()[:32]

    def is_signed(self, purpose: str, message: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(purpose, message).encode(), signature.encode())


@dataclass(frozen=True)
class Session:
    """What one browser tab looks at. Ids and choices only, each checked where it is used."""

    folder: str = ""  # the folder of images being picked from
    run: str = ""  # the run shown in Train and offered in Compare; empty: the newest
    other: str = ""  # the run whose curves are drawn beside those of the shown one; empty: none
    mode: str = "best_worst"  # how picks are made, one of MODES
    way: str = "look"  # what Compare shows, "look" or "test"
    sort: str = "path"  # the order of the list of groups, one of SORTS
    view: View = field(default_factory=lambda: View(""))  # what is chosen of the folder's groups; its own folder stays empty
    # Who logged in, "" where nobody has to, and their role. Told by the server, so a browser neither keeps them nor sends them.
    login: str = ""
    role: str = OWNER

    @property
    def is_owner(self) -> bool:
        return self.role == OWNER


_TOLD = ("login", "role")


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


def folder_of(studio: Studio, session: Session) -> str:
    """The folder this page picks from: its own choice, or the project's candidates."""
    return session.folder or str(studio.project.path / "candidates")


def view_of(studio: Studio, session: Session) -> View:
    """What this page picks from: its folder, and what is chosen of it."""
    return replace(session.view, folder=folder_of(studio, session))


def clean_view(stored: object, folder: str = "") -> View:
    """A view of the folder with the choices that a browser sent. Other types, oversized texts, and dates and sizes that are
    none are dropped."""
    if not isinstance(stored, dict):
        return View(folder)
    defaults = {entry.name: entry.default for entry in fields(View) if entry.name != "folder"}
    kept = {name: stored[name] for name, default in defaults.items() if type(stored.get(name)) is type(default)}
    return View(folder, **{name: value for name, value in kept.items() if value == defaults[name] or _is_choice(name, value)})


def _is_choice(name: str, value: str | bool) -> bool:
    if name in ("since", "until"):
        return re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None and _is_day(value)
    if name == "size":
        return re.fullmatch(r"\d{1,6}x\d{1,6}", value) is not None
    return isinstance(value, bool) or len(value) <= LONGEST_SEARCH


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def restore_session(stored: object, places: Places = ANYWHERE) -> Session:
    """The session a browser remembers, or a fresh one. Unknown names, other types, oversized values and a folder outside
    `places` are dropped."""
    if not isinstance(stored, dict):
        return Session()
    names = {entry.name for entry in fields(Session)} - set(_TOLD)
    known = {name: value for name, value in stored.items() if name in names}
    texts = {name: value for name, value in known.items() if isinstance(value, str) and len(value) <= LONGEST_ID}
    try:
        places.check(texts.get("folder", ""))
    except PlaceError:
        del texts["folder"]
    return Session(**texts | {"view": clean_view(stored.get("view"))})


def stored_session(session: Session) -> dict:
    """The form `restore_session` reads."""
    return {name: value for name, value in asdict(session).items() if name not in _TOLD}


def page_session(studio: Studio, session: Session) -> dict:
    """What a part of the page needs to ask the app: a token that says what this page looks at and who logged in, and the
    choices themselves.

    `view` is the signed text; a page sends it back as it is. `choice` and `sort` are what its fields begin with.
    """
    view = json.dumps(asdict(view_of(studio, session)), sort_keys=True)
    name = f"{secrets.token_urlsafe(24)}.{base64.urlsafe_b64encode(session.login.encode()).decode()}"
    return {
        "token": f"{name}.{studio.sign('page', f'{name} {view}')}", "view": view, "folder": folder_of(studio, session),
        "choice": asdict(session.view), "sort": session.sort if session.sort in SORTS else "path",
        "project": studio.project.id, "mode": session.mode if session.mode in MODES else MODES[0], "login": session.login,
        "role": session.role,
    }  # fmt: skip


def told(session: Session, request: gr.Request) -> Session:
    """The session, with who asks: a page that outlived its session says who it is by its cookie alone."""
    caller = caller_of(request)
    return replace(session, login=caller.login, role=caller.role)


def is_owner(request: gr.Request) -> bool:
    return caller_of(request).role == OWNER


def attaching(studio: Studio, show: Callable[[Studio, Session], dict], role: str) -> Callable:
    """The handler of a part's event `attach`: a page whose token is of no use any more asks for another one."""

    @open_to(role)
    def attach(current: Session, request: gr.Request) -> dict:
        return show(studio, told(current, request))

    return attach


def token_view(studio: Studio, payload: object) -> View | None:
    """The view that the payload's token was signed for, or None for a token that is not ours."""
    if not isinstance(payload, dict):
        return None
    token, view = payload.get("token"), payload.get("view")
    if not isinstance(token, str) or not isinstance(view, str):
        return None
    name, _, signature = token.rpartition(".")
    return View(**json.loads(view)) if studio.is_signed("page", f"{name} {view}", signature) else None


def serve(studio: Studio, name: str, answer: Callable[[View, dict], dict], role: str = OWNER) -> Callable[[dict], dict]:
    """A server function of that name for a part of the page: `answer(view, payload)` for a payload with a token of ours, else
    {"error": "token"}; a token is of no use to another login. What is wrong with what was asked comes back as
    {"error": sentence}. `role`: the least that may call it, as in `ui.rights`; the payload's "role" is the caller's own."""

    @open_to(role)
    def function(payload: dict, request: gr.Request | None = None) -> dict:
        caller = caller_of(request) if request else HOST
        view = token_view(studio, payload)
        if view is None or (request and token_login(payload) != caller.login):
            return {"error": "token"}
        try:
            return answer(view, payload | {"role": caller.role})
        except StudioError as error:
            return {"error": str(error)}
        except Exception:  # of which a page hears only that there was one
            log.exception("%s failed", name)
            raise

    function.__name__ = name  # what the page calls it by
    return function


def token_login(payload: dict) -> str:
    """Who had logged in when the payload's token was made; "" where nobody has to. Only for a token that `token_view` took."""
    return base64.urlsafe_b64decode(payload["token"].split(".")[1]).decode()


def limit(value: object, most: int) -> int:
    """A number a page sent, cut to 0..most; 0 for what is no number."""
    return max(0, min(value, most)) if isinstance(value, int) else 0


def project_secret(folder: Path) -> bytes:
    """The project's secret, made on first use and readable by its owner alone, so that signed links outlive a restart."""
    path = folder / "secret"
    with hold(folder / "secret.lock"):  # of two processes one makes it
        if not path.exists() or path.stat().st_size < SECRET_BYTES:  # an empty one would sign what anybody can
            unfinished = path.with_name("secret.partial")
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
    return path.read_bytes()
