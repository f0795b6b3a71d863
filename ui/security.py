"""Who may reach the page: where it listens, which Host and Origin it answers, who logs in, and what `launch` turns off.

Any web page a person visits can send requests to 127.0.0.1, and a hostile name can be made to point there; so even a
local page checks that it was addressed by its own name (Host) and called by itself (Origin).
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from dpo import StudioError

FIRST_PORT, PORTS_TRIED = 7860, 100
EVERY_ADDRESS = ("0.0.0.0", "::", "")
LARGEST_UPLOAD, LARGEST_SHARED_UPLOAD = "4gb", "512mb"  # of one file: a person's own zip; one that comes through a tunnel
WRONG_PASSWORDS, WINDOW_SECONDS = 10, 60.0  # unthrottled, gradio takes 900 guesses a second


class DoorError(StudioError):
    """A way of starting that would let strangers in, or a port that is taken."""


@dataclass(frozen=True)
class Doors:
    """How the page may be reached. Made by `check_doors`, which refuses what is not safe."""

    host: str
    login: Login | None
    share: bool
    on_space: bool

    @property
    def lets_others_in(self) -> bool:
        return self.share or self.on_space or not is_loopback(self.host)

    @property
    def names(self) -> tuple[str, ...]:
        """Host names the page answers to; `*.` in front means any name under it."""
        names = ["127.0.0.1", "localhost", "::1"]
        if self.host in EVERY_ADDRESS:
            names.append(socket.gethostname().lower())
        else:
            names.append(self.host.lower())
        return (*names, *(["*.gradio.live"] if self.share else []), *(["*.hf.space"] if self.on_space else []))


def check_doors(host: str, auth: str | None, share: bool, on_space: bool = False) -> Doors:
    """Raises DoorError where strangers could come in without a password, or where `auth` is not user:password."""
    login = parse_auth(auth) if auth is not None else None
    if login is None and on_space:
        raise DoorError("A Space is open to strangers: set the Space secret STUDIO_AUTH to user:password and restart it.")
    if login is None and share:
        raise DoorError("--share lets anyone with the link in: add --auth user:password.")
    doors = Doors(host, login, share, on_space)
    if login is None and doors.lets_others_in:
        raise DoorError(f"--host {host} lets other machines in: add --auth user:password, or leave --host away.")
    return doors


def parse_auth(text: str) -> Login:
    """The login of "user:password"; the password may hold colons."""
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise DoorError("--auth wants user:password, both not empty, such as --auth me:a-long-password.")
    return Login(user.strip(), password)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass
class Login:
    """Gradio's `auth`: true for the one user. After 10 wrong passwords within a minute, nobody logs in until it is over;
    those who are in stay in."""

    user: str
    password: str = field(repr=False)
    clock: Callable[[], float] = time.monotonic
    wrong: deque[float] = field(default_factory=lambda: deque(maxlen=WRONG_PASSWORDS), repr=False)

    def __call__(self, user: str, password: str) -> bool:
        now = self.clock()
        if len(self.wrong) == WRONG_PASSWORDS and now - self.wrong[0] < WINDOW_SECONDS:
            return False
        same_user = hmac.compare_digest(user.encode(), self.user.encode())
        same_password = hmac.compare_digest(password.encode(), self.password.encode())
        if same_user and same_password:
            return True
        self.wrong.append(now)
        return False


def choose_port(host: str, wanted: int | None) -> int:
    """`wanted` if it is free, else DoorError; without a wish, the first free port from 7860."""
    if wanted is not None:
        if not _is_free(host, wanted):
            raise DoorError(f"Port {wanted} is in use, perhaps by this app in another terminal. Close that, or add --port N.")
        return wanted
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _is_free(host, port):
            if port != FIRST_PORT:
                print(f"Port {FIRST_PORT} is in use, so the page opens on {port}.")
            return port
    raise DoorError(f"No port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} is free. Name another with --port N.")


def _is_free(host: str, port: int) -> bool:
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port still winding down is free to the server too
        try:
            probe.bind((host, port))
        except OverflowError as error:
            raise DoorError(f"--port {port} is not a port. Choose one from 1024 to 65535.") from error
        except OSError:
            return False
    return True


class Guard:
    """ASGI middleware: 400 for a Host that is not ours, 403 for an Origin that is not the page itself.

    CORS would only hide the answer from a foreign page; the request would still have been carried out.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...], any_address: bool) -> None:
        self.app, self.names, self.any_address = app, names, any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            refusal = PlainTextResponse("This address is not one the app answers to.", status_code=400)
        elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            refusal = PlainTextResponse("Another web page may not call the app.", status_code=403)
        else:
            return await self.app(scope, receive, send)
        await refusal(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if any(name == ours or (ours.startswith("*.") and name.endswith(ours[1:])) for ours in self.names):
            return True
        # A bare address cannot be a hostile name that points here, so a machine with many addresses may answer to each.
        return self.any_address and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def launch_settings(doors: Doors, port: int, routes: Iterable[BaseRoute]) -> dict:
    """Arguments of `Blocks.launch` that shut the doors: no API page, no history, no monitoring, no path ever served."""
    return {
        "server_name": doors.host, "server_port": port, "share": doors.share, "auth": doors.login,
        "ssr_mode": False, "mcp_server": False, "pwa": False, "run_history": False, "enable_monitoring": False,
        "footer_links": [], "show_error": False, "allowed_paths": [], "quiet": True,
        "_frontend": False,  # Gradio's own knock, which takes an answer later than 3 s, as on a busy machine, for a closed door
        "max_file_size": LARGEST_SHARED_UPLOAD if doors.lets_others_in else LARGEST_UPLOAD,
        "app_kwargs": {
            "middleware": [Middleware(Guard, names=doors.names, any_address=doors.host in EVERY_ADDRESS)],
            "routes": list(routes),
            "openapi_url": None, "docs_url": None, "redoc_url": None,
        },
    }  # fmt: skip
