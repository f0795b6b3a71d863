"""Who may reach the page: where it listens, which Host and Origin it answers, who logs in, and what `launch` turns off.

Any web page a person visits can send requests to 127.0.0.1, and a hostile name can be made to point there; so even a
local page checks that it was addressed by its own name (Host) and called by itself (Origin). Who may do what: ui/gate.py.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dpo import StudioError
from dpo.users import ROLES, User, Users, check_name, hash_password, is_open_to_others
from ui.gate import Gate
from ui.login import Login, SpaceLogin

FIRST_PORT, PORTS_TRIED = 7860, 100
EVERY_ADDRESS = ("0.0.0.0", "::", "")
# In bytes, of one file and of one request: a person's own zips; what comes through a tunnel.
LARGEST_UPLOAD, LARGEST_SHARED_UPLOAD = (4 << 30, 64 << 30), (512 << 20, 2 << 30)
HOST_NAME, BYTES_OF_A_PASSWORD = "owner", 15  # of a login that is made up
GRADIO_STORE = "https://gradio.s3-us-west-2.amazonaws.com"


class DoorError(StudioError):
    """A way of starting that would let strangers in, or a port that is taken."""


@dataclass(frozen=True)
class Doors:
    """How the page may be reached, and by whom. Made by `check_doors`, which refuses what is not safe. `login` is None where
    nobody has to log in; `password` is one that was made up because none was given, to be printed once; `own_names` are host
    names it has besides those it knows of."""

    host: str
    login: Login | SpaceLogin | None
    share: bool
    on_space: bool
    password: str = field(default="", repr=False)
    own_names: tuple[str, ...] = ()

    @property
    def lets_others_in(self) -> bool:
        return self.share or self.on_space or not is_loopback(self.host)

    @property
    def names(self) -> tuple[str, ...]:
        """Host names the page answers to; `*.` in front means any name under it."""
        names = ["127.0.0.1", "localhost", "::1", *map(str.lower, self.own_names)]
        if self.host in EVERY_ADDRESS:
            names.append(socket.gethostname().lower())
        else:
            names.append(self.host.lower())
        return (*names, *(["*.gradio.live"] if self.share else []), *(["*.hf.space"] if self.on_space else []))


def check_doors(
    host: str,
    auth: str | None,
    share: bool,
    on_space: bool = False,
    users_file: Path | None = None,
    space_login: SpaceLogin | None = None,
    own_names: Sequence[str] = (),
) -> Doors:
    """Raises DoorError where strangers could come in without a login, or where `auth` is not user:password, and UsersError for a
    file of users that cannot be read. A public link for which no login was given gets one; on a Space, those that are given go
    before its own."""
    login, password = None, ""
    if auth is not None or users_file is not None:
        login = Login(Users([parse_auth(auth)] if auth is not None else [], users_file))
        if users_file is not None and is_open_to_others(users_file):
            print(f"{users_file} can be read by other accounts of this machine. Close it to them: chmod 600 {users_file}")
    elif on_space:
        login = space_login
    elif share:
        password = secrets.token_urlsafe(BYTES_OF_A_PASSWORD)
        login = Login(Users([User(HOST_NAME, ROLES[-1], hash_password(password))]))
    doors = Doors(host, login, share, on_space, password, tuple(own_names))
    if login is None and on_space:
        raise DoorError(
            "A Space is open to strangers: set the Space secret STUDIO_AUTH to user:password, or write hf_oauth: true into its "
            "README, and restart it."
        )
    if login is None and doors.lets_others_in:
        raise DoorError(f"--host {host} lets other machines in: add --auth user:password or --users FILE, or leave --host away.")
    return doors


def parse_auth(text: str) -> User:
    """The owner of "user:password"; the password may hold colons."""
    name, colon, password = text.partition(":")
    if not (name.strip() and colon and password):
        raise DoorError("--auth wants user:password, both not empty, such as --auth me:a-long-password.")
    return User(check_name(name.strip()), ROLES[-1], hash_password(password))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
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
            refusal = PlainTextResponse(
                "The app does not answer to this name. If it is yours, start it with --name.", status_code=400
            )
        elif (origin is not None and urlsplit(origin).netloc.lower() != host.lower()) or _is_from_elsewhere(headers):
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


def _is_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks, other than by leading a person here."""
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def launch_settings(doors: Doors, port: int, routes: Sequence[Route]) -> dict:
    """Arguments of `Blocks.launch` that shut the doors: no API page, no history, no monitoring, no path ever served."""
    largest_file, largest_upload = LARGEST_SHARED_UPLOAD if doors.lets_others_in else LARGEST_UPLOAD
    return {
        "server_name": doors.host, "server_port": port, "share": doors.share,
        **(doors.login.settings if doors.login else {}),
        "ssr_mode": False, "mcp_server": False, "pwa": False, "run_history": False, "enable_monitoring": False,
        "footer_links": [], "show_error": False, "allowed_paths": [], "quiet": True, "num_workers": 0,
        "_frontend": False,  # Gradio's own knock, which takes an answer later than 3 s, as on a busy machine, for a closed door
        "max_file_size": largest_file,
        "app_kwargs": {
            "middleware": [
                Middleware(Guard, names=doors.names, any_address=doors.host in EVERY_ADDRESS),
                Middleware(Gate, login=doors.login, routes=routes, largest_upload=largest_upload, headers=_headers(doors)),
            ],
            "routes": list(routes),
            "openapi_url": None, "docs_url": None, "redoc_url": None,
        },
    }  # fmt: skip


def _headers(doors: Doors) -> dict[str, str]:
    """What every answer says to the browser: run nothing from elsewhere, send nothing elsewhere, show the page in no other one.

    Gradio writes scripts into its page and makes functions of templates, so both are allowed; text out of images reaches neither.
    For a public link it fetches its own scripts from its store, for the tunnel is slow; a Space stands in a frame of the Hub's.
    """
    store = f" {GRADIO_STORE}" if doors.share else ""
    frame = "'self' https://huggingface.co https://*.huggingface.co" if doors.on_space else "'self'"
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' 'unsafe-inline' 'unsafe-eval'{store}",
        "style-src": f"'self' 'unsafe-inline'{store}",
        "font-src": f"'self' data:{store}",
        "img-src": f"'self' data: blob:{store}",
        "worker-src": "'self' blob:",
        "connect-src": f"'self'{store}",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": frame,
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        **({} if doors.on_space else {"X-Frame-Options": "SAMEORIGIN"}),
    }
