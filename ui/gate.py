"""The gate: the one ASGI middleware through which every request goes, and which says who asks and whether they may.

Closed by default. What the page needs of Gradio stands in `DOORS`, each with the role it takes; whatever is not in there is there
for nobody. An event or a server function takes the role its function is marked with (`ui.rights`), found in the running app by
the number or name in the request; so do routes of our own. Besides: a login may name its own Gradio sessions alone, requests
say how long they are and stay within bounds, and every answer carries headers that keep a browser from running what it should
show. Where nobody has to log in, the caller is the owner.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gradio.utils import get_upload_folder
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.login import Login, SpaceLogin
from ui.rights import HOST, OWNER, Caller, least_role, may

LARGEST_QUESTION = 8 << 20  # bytes of a request that is no upload
MOST_SESSIONS = 20_000  # of Gradio, whose logins are remembered
ANYONE = ""  # also before a login
ROLE_WORDS = {"viewer": "look", "rater": "look, pick and vote"}
CALLER = "studio.caller"  # where a request's Caller is kept in its scope


class Refusal(Exception):
    """Why a request goes no further: a status, and a sentence for a person."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Asked(NamedTuple):
    """A request as a door reads it. `found`: the groups of the door's pattern; `body`: what was sent as JSON, else {}."""

    request: Request
    found: dict[str, str]
    body: dict


def _of_event(asked: Asked) -> str:
    """The role of the event handler whose number is in the body. Names are refused: nothing of the page calls by name."""
    blocks, number = asked.request.app.get_blocks(), asked.body.get("fn_index")
    if type(number) is not int or number not in blocks.fns:
        raise Refusal(404, "The page has no such function.")
    return least_role(blocks.fns[number].fn)


def _of_server_function(asked: Asked) -> str:
    blocks, number, name = asked.request.app.get_blocks(), asked.body.get("component_id"), asked.body.get("fn_name")
    part = blocks.blocks.get(number) if type(number) is int else None
    function = getattr(part, name, None) if isinstance(name, str) else None
    if not getattr(function, "_is_server_fn", False):
        raise Refusal(404, "The page has no such function.")
    return least_role(function)


def _of_uploaded_file(asked: Asked) -> str:
    """Gradio also serves addresses elsewhere on the net from there, and files of its own choice: neither is needed."""
    try:
        is_upload = Path(asked.found["path"]).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError):
        is_upload = False
    if not is_upload:
        raise Refusal(404, "There is no such file.")
    return OWNER


class Door(NamedTuple):
    """`methods` and `pattern` say which requests; `role` who may: a role, ANYONE, or a function that finds it. `reads`: it takes
    JSON. `uploads`: what is sent may be large. A group `session` of the pattern is a Gradio session, as `session_hash` is in a
    body or a query."""

    methods: str
    pattern: str
    role: str | Callable[[Asked], str]
    reads: bool = False
    uploads: bool = False


DOORS = (
    Door("GET HEAD", r"/", ANYONE),  # a page that asks for the login, or the page
    Door("POST", r"/login/?", ANYONE),
    Door("GET", r"/login/(huggingface|callback)|/logout", ANYONE),
    Door("GET", r"/(assets|static|svelte)/.*|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json", ANYONE),
    Door("GET", r"/gradio_api/(theme\.css|startup-events|login_check/?)", ANYONE),
    Door("GET", r"/config/?", "viewer"),
    Door("GET", r"/gradio_api/heartbeat/(?P<session>[^/]+)", "viewer"),
    Door("GET", r"/gradio_api/queue/data", "viewer"),
    Door("POST", r"/gradio_api/(queue/join|run/predict)/?", _of_event, reads=True),
    Door("POST", r"/gradio_api/component_server/?", _of_server_function, reads=True),
    Door("POST", r"/gradio_api/upload", OWNER, uploads=True),
    Door("GET", r"/gradio_api/upload_progress", OWNER),
    Door("GET HEAD", r"/gradio_api/file=(?P<path>.+)", _of_uploaded_file),
)


class Gate:
    """See above. `login` is None where nobody has to log in; `routes` are those of our own; `largest_upload` is in bytes, of one
    request; `headers` go with every answer."""

    def __init__(
        self,
        app: ASGIApp,
        login: Login | SpaceLogin | None,
        routes: Sequence[Route],
        largest_upload: int,
        headers: dict[str, str],
    ) -> None:
        self.app, self.login, self.routes = app, login, routes
        self.largest_upload, self.headers = largest_upload, headers
        self.sessions: OrderedDict[str, str] = OrderedDict()  # Gradio's session -> whose it is

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page opens no socket
            return await send({"type": "websocket.close", "code": 1008})
        try:
            receive = await self._admit(Request(scope, receive))
        except Refusal as refusal:
            return await self._refuse(Request(scope), refusal)(scope, receive, self._with_headers(scope, send))
        await self.app(scope, receive, self._with_headers(scope, send))

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        if refusal.status == 401 and request.scope["path"] == "/":  # Gradio would show no more than the number
            return HTMLResponse(self.login.page(request), 401)
        return JSONResponse({"detail": refusal.sentence, "error": refusal.sentence}, refusal.status)

    async def _admit(self, request: Request) -> Receive:
        """Put the caller into the request's scope, or raise Refusal. Returns what the app is to read the request from."""
        scope = request.scope
        caller = self.login.find_caller(request) if self.login else HOST
        scope[CALLER] = caller or Caller("", ANYONE)
        route = next((route for route in self.routes if route.matches(scope)[0] is Match.FULL), None)
        if route is not None:
            _check(caller, least_role(route.endpoint))
            _check_length(request, self.largest_upload if caller.role == OWNER else LARGEST_QUESTION)
            return request.receive
        door, found = _door(request)
        if caller is None and (door.role != ANYONE or (self.login.has_own_page and scope["path"] == "/")):
            raise Refusal(401, "Not authenticated")
        _check_length(request, self.largest_upload if door.uploads else LARGEST_QUESTION)
        body = await _read_json(request) if door.reads else {}
        if door.role != ANYONE:
            _check(caller, door.role if isinstance(door.role, str) else door.role(Asked(request, found, body)))
            self._check_session(caller, request, found, body)
        return _again(request, await request.body()) if door.reads else request.receive

    def _check_session(self, caller: Caller, request: Request, found: dict[str, str], body: dict) -> None:
        """A session belongs to whoever names it first: its number is made up by their page."""
        if self.login is None:
            return
        for session in (body.get("session_hash"), found.get("session"), *request.query_params.getlist("session_hash")):
            if session is None:
                continue
            if not isinstance(session, str) or len(session) > 100:
                raise Refusal(400, "This is no session. Load the page again.")
            if self.sessions.setdefault(session, caller.login) != caller.login:
                raise Refusal(403, "This session is somebody else's. Load the page again.")
            self.sessions.move_to_end(session)
        while len(self.sessions) > MOST_SESSIONS:
            self.sessions.popitem(last=False)

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        is_file = scope["path"].startswith("/gradio_api/file=")

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
                if is_file:  # somebody's own upload, shown to themselves: nothing in it may run
                    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
            await send(message)

        return sender


def caller_of(request: object) -> Caller:
    """Who made a request: Starlette's own, or Gradio's around it. Raises KeyError for one that did not come through the gate."""
    return getattr(request, "request", request).scope[CALLER]


def _door(request: Request) -> tuple[Door, dict[str, str]]:
    for door in DOORS:
        found = re.fullmatch(door.pattern, request.scope["path"], re.DOTALL)
        if found and request.method in door.methods.split():
            return door, found.groupdict()
    raise Refusal(404, "There is nothing here.")


def _check(caller: Caller | None, least: str) -> None:
    if caller is None:
        raise Refusal(401, "Not authenticated")
    if not may(caller.role, least):
        raise Refusal(403, f"You may {ROLE_WORDS[caller.role]} here. This is for a login with the role {least}.")


def _check_length(request: Request, most: int) -> None:
    """A request has to say how long it is: the server holds it to that."""
    if request.method in ("GET", "HEAD"):
        return
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        raise Refusal(411, "A request has to say how long it is.")
    if int(length) > most:
        raise Refusal(413, f"This is larger than {most >> 20} MB. Send less at a time.")


async def _read_json(request: Request) -> dict:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "This door takes JSON.")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refusal(400, "This is no JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "This is not what the page sends.")
    return body


def _again(request: Request, body: bytes) -> Receive:
    """A request whose body was read, to be read once more by the app."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await request.receive()

    return receive
