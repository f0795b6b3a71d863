"""A shared page with people of every role, and strangers who try what it has: for the security suite.

What there is to try is read from the running app (`Site.events`, `functions`, `routes`): what is added is tried by itself.
"""

from __future__ import annotations

import ast
import http.client
import inspect
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from dpo.config import TrainConfig
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run
from dpo.users import ROLES, User, hash_password, write_users
from tests.blind import make_test
from tests.browser.conftest import free_port
from tests.pictures import paint_folder, plain, write_prompted
from ui import create_app, launch
from ui.rights import least_role
from ui.security import check_doors
from ui.session import Studio, project_secret

REPOSITORY = Path(__file__).resolve().parents[1]
PASSWORD = "correct horse"
PEOPLE = {"olga": "owner", "rita": "rater", "rolf": "rater", "vera": "viewer"}
HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)} {{alert(3)}} </script><svg onload=alert(4)>"
TYPED = ("textbox", "open dropdown", "open dropdowns", "code", "multimodaltextbox")
SENT = ("uploadbutton", "file", "image", "gallery", "video", "audio")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """A handler that a page can call: its number, its name in the source, the least role it says, its inputs' kinds and values as
    the page begins with, and what tells it from others: one handler may be called by several events."""

    number: int
    name: str
    role: str
    inputs: tuple[tuple[str, object], ...]
    handler: tuple[int, int]


@dataclass(frozen=True)
class Function:
    """A server function of a part of the page, and the module that answers."""

    component: int
    name: str
    role: str
    module: str


@dataclass
class Canary:
    """A folder that no visitor may reach. `secret` stands in every file of it; `seen` says who touched one, and how."""

    folder: Path
    secret: str = field(default_factory=lambda: f"canary-{secrets.token_hex(8)}")
    seen: list[str] = field(default_factory=list)
    is_watched: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir()
        for name in ("secret.txt", "table.csv", "settings.json", "adapter.safetensors", "dump.ckpt"):
            (self.folder / name).write_text(f'prompt,{self.secret}\n{{"model": "{self.secret}"}}')
        for number in range(2):
            write_prompted(self.folder / f"{number}.png", self.secret, plain(f"#00{number}0ff"), seed=number)
        sys.addaudithook(self._hear)  # there is no taking it off again: one of a process

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.is_watched or event not in (
            "open",
            "os.listdir",
            "os.scandir",
            "os.mkdir",
            "os.rename",
            "os.remove",
            "shutil.copyfile",
        ):
            return
        for argument in arguments:
            if isinstance(argument, str | bytes | Path) and self.is_within(argument):
                self.seen.append(f"{event} {argument!s}")

    def is_within(self, place: str | bytes | Path) -> bool:
        text = place.decode("utf-8", "replace") if isinstance(place, bytes) else str(place)
        is_near = self.folder.name in text or "link" in text
        return is_near and "\0" not in text and Path(text).resolve().is_relative_to(self.folder)

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """What touches a file of it meanwhile."""
        self.seen.clear()
        self.is_watched = True
        try:
            yield self.seen
        finally:
            self.is_watched = False


@dataclass
class Site:
    """A shared page that answers at `port`, and the cookies of its people."""

    studio: Studio
    port: int
    page: object
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, who: str = "", body: bytes | dict | None = None, **headers: str) -> Answer:
        """One request, sent as it is. A dict goes as JSON. `headers`: with _ for -; one that is "" is left out."""
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookies.get(who, "")}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        if body is not None or method in ("POST", "PUT", "PATCH", "DELETE"):
            sent["Content-Length"] = str(len(body or b""))
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders()
        if body:
            connection.send(body)
        response = connection.getresponse()
        is_stream = (response.getheader("content-type") or "").startswith("text/event-stream")
        answer = Answer(response.status, b"" if is_stream else response.read(), {k.lower(): v for k, v in response.getheaders()})
        connection.close()
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> int:
        form = urlencode({"username": name, "password": password}).encode()
        answer = self.ask("POST", "/login", body=form, Content_Type="application/x-www-form-urlencoded")
        if answer.status == 200:
            self.cookies[name] = answer.headers["set-cookie"].split(";")[0]
        return answer.status

    # ------------------------------------------------------------------------------------------------ what there is

    @property
    def events(self) -> list[Event]:
        parts = {part["id"]: part for part in self.page.config["components"]}
        found = []
        for number, function in self.page.fns.items():
            if function.fn is not None:
                inputs = tuple((_kind(parts[block._id]), parts[block._id]["props"].get("value")) for block in function.inputs)
                name = f"{function.fn.__module__}.{function.fn.__qualname__}".replace(".<locals>", "")
                handler = id(getattr(function.fn, "__code__", function.fn)), len(inputs)
                found.append(Event(number, name, least_role(function.fn), inputs, handler))
        return found

    @property
    def functions(self) -> list[Function]:
        found = []
        for part in self.page.blocks.values():
            names = [name for name in dir(part) if not name.startswith("__")]
            made = {name: getattr(part, name, None) for name in names if name not in ("parent",)}
            found += [
                Function(part._id, name, least_role(function), _module(function))
                for name, function in made.items()
                if getattr(function, "_is_server_fn", False)
            ]
        return found

    @property
    def routes(self) -> list[tuple[str, str]]:
        """(method, path), with its parameters in braces, of whatever the server has a route for."""
        return sorted({(method, path) for route in self.page.server_app.routes for method, path in _paths(route)})

    # ------------------------------------------------------------------------------------------------ asking it

    def call(self, function: Function, payload: object, who: str, session: str = "", **headers: str) -> Answer:
        body = {
            "data": payload,
            "component_id": function.component,
            "fn_name": function.name,
            "session_hash": session or f"s-{who}",
        }
        return self.ask("POST", "/gradio_api/component_server", who, body, **headers)

    def join(
        self, event: Event, who: str, data: list | None = None, event_data: object = None, session: str = "", **headers
    ) -> Answer:
        """Ask for an event, and no more."""
        data = data if data is not None else [value for _, value in event.inputs]
        body = {"data": data, "fn_index": event.number, "session_hash": session or f"s-{who}", "event_data": event_data}
        return self.ask("POST", "/gradio_api/queue/join", who, body, **headers)

    def run(self, event: Event, who: str, data: list, event_data: object = None) -> bytes:
        """Ask for an event and wait for all that comes of it."""
        session = secrets.token_hex(6)
        joined = self.join(event, who, data, event_data, session)
        if joined.status != 200:
            return joined.body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={session}", headers={"Cookie": self.cookies[who]})
        said = connection.getresponse().read()
        connection.close()
        return said

    def page_token(self, who: str) -> dict:
        """What the page of this person is given to ask with, as it comes to the browser."""
        attach = next(event for event in self.events if event.name.endswith("create_app.restore"))
        refresh = next(event for event in self.events if event.name.endswith("create_pairs_tab.refresh"))
        session = secrets.token_hex(6)
        said = b""
        for event, data in ((attach, [{}]), (refresh, [None])):
            self.join(event, who, data, session=session)
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            connection.request("GET", f"/gradio_api/queue/data?session_hash={session}", headers={"Cookie": self.cookies[who]})
            said = connection.getresponse().read()
            connection.close()
        return _find_token(said.decode())


@contextmanager
def open_site(folder: Path, plant=None) -> Iterator[Site]:
    """A shared page with somebody of every role. `plant(page)` may add to the page what should not be there."""
    project = open_project(folder / "project")
    paint_folder(project.path / "candidates", prompts=3, per_prompt=3)
    write_prompted(project.path / "candidates" / "hostile 1.png", HOSTILE, plain("#123456"), seed=1)
    write_prompted(project.path / "candidates" / "hostile 2.png", HOSTILE, plain("#654321"), seed=2)
    project.library.scan(project.path / "candidates")
    run = create_run(project.runs, "demo-1", TrainConfig(), [Pair("a", "c.png", "r.png")] * 4)
    run.adapter.parent.mkdir(exist_ok=True)
    run.adapter.write_bytes(b"the adapter")
    make_test(project, items=2, adapter=str(run.adapter))
    users = folder / "users"
    hashed = hash_password(PASSWORD)
    write_users(users, [User(name, role, hashed) for name, role in PEOPLE.items()])
    jobs, let_go = JobRegistry(), threading.Event()
    jobs.submit("export", "holding the device", "hold", lambda job: let_go.wait())  # whatever is asked for waits
    studio = Studio(project, jobs, project_secret(project.path), is_shared=True, models=frozenset({"allowed/model"}))
    page, port = create_app(studio), free_port()
    if plant:
        with page:
            plant(page)
    launch(page, studio, check_doors("127.0.0.1", None, False, users_file=users), port, wait=False)
    site = Site(studio, port, page)
    try:
        for name in PEOPLE:
            assert site.log_in(name) == 200
        yield site
    finally:
        let_go.set()
        page.close()


def below(role: str) -> list[str]:
    """Somebody of each role that may less, and "" for a stranger."""
    lower = ROLES[: ROLES.index(role)]
    return ["", *(next(name for name, its in PEOPLE.items() if its == each) for each in lower)]


def fields_of_payloads(module: str = "*") -> list[str]:
    """Every name that a module of `ui` looks for in what a browser sends: keys in the source, and what events hold."""
    found: set[str] = set()
    for path in sorted((REPOSITORY / "ui").glob(f"{module}.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
                    found.add(name)
                case ast.Call(func=ast.Name(id="_text" | "_list"), args=[_, ast.Constant(value=str(name))]):
                    found.add(name)
                case ast.Subscript(value=ast.Name(id="payload" | "operation" | "stored"), slice=ast.Constant(value=str(name))):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="event"), attr=name):
                    found.add(name)
    return sorted(found - {"token", "view", "role"})


def _kind(part: dict) -> str:
    """Its component's; a dropdown that takes only what it offers is held to that by Gradio itself, another may take several."""
    if part["type"] != "dropdown":
        return part["type"]
    if not part["props"].get("allow_custom_value"):
        return "closed dropdown"
    return "open dropdowns" if part["props"].get("multiselect") else "open dropdown"


def _module(function) -> str:
    """The module of `ui` in which the function's answer stands, which `serve` and its callers wrap."""
    answer = inspect.getclosurevars(function).nonlocals.get("answer", function)
    if isinstance(answer, partial):
        answer = answer.func
    answer = (answer.__defaults__ or (answer,))[0] if answer.__name__ == "<lambda>" else answer
    return answer.__module__.removeprefix("ui.")


def _paths(route) -> Iterator[tuple[str, str]]:
    for method in getattr(route, "methods", None) or ():
        yield method, route.path
    inside = getattr(route, "original_router", route)  # FastAPI keeps a router that is put into another one as it was
    for inner in getattr(inside, "routes", None) or ():
        yield from _paths(inner)


def _find_token(said: str) -> dict:
    """The first page session in a stream of events."""
    for line in said.splitlines():
        if line.startswith("data: ") and '"token"' in line:
            waiting = [json.loads(line[6:])]
            while waiting:
                value = waiting.pop()
                if isinstance(value, dict):
                    if isinstance(value.get("token"), str) and isinstance(value.get("view"), str):
                        return value
                    waiting += value.values()
                elif isinstance(value, list):
                    waiting += value
    raise AssertionError(said[:2000])
