"""Signing in on a Space: the app as a Space starts it, and a provider that speaks OpenID Connect as the Hub does."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.browser.conftest import free_port
from ui.login import LoginError, find_space_login
from ui.security import DoorError, check_doors

REPOSITORY = Path(__file__).resolve().parents[1]
HOST = "ada-studio.hf.space"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
IDS = {"ada": "id-of-ada", "grace": "id-of-grace"}


class Provider(ThreadingHTTPServer):
    """Lets whoever is `account` in without asking."""

    account, nonce = "ada", ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def claims(self) -> dict:
        now = int(time.time())
        about = dict.fromkeys(("name", "preferred_username"), self.account) | dict.fromkeys(("profile", "picture"), "")
        said = {"iss": self.url, "aud": "client", "sub": IDS[self.account], "nonce": self.nonce, "iat": now, "exp": now + 600}
        return about | said


class Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        url, path = self.server.url, urlsplit(self.path)
        asked = {name: value[0] for name, value in parse_qs(path.query).items()}
        match path.path:
            case "/.well-known/openid-configuration":
                names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
                places = {name: f"{url}/{place}" for name, place in names.items()}
                self._say(places | {"issuer": url, "id_token_signing_alg_values_supported": ["RS256"]})
            case "/authorize":
                self.server.nonce = asked.get("nonce", "")
                back = f"{asked['redirect_uri']}{'&' if '?' in asked['redirect_uri'] else '?'}"
                self.send_response(302)
                self.send_header(
                    "Location", f"{back}{'&' if '?' in back else '?'}{urlencode({'code': 'x', 'state': asked['state']})}"
                )
                self.end_headers()
            case "/keys":
                self._say({"keys": [KEY.as_dict(private=False)]})
            case _:
                self._say(self.server.claims())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = jwt.encode({"alg": "RS256", "kid": "one"}, self.server.claims(), KEY)
        self._say({"access_token": "t", "token_type": "bearer", "expires_in": 600, "id_token": token})

    def _say(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider(("127.0.0.1", 0), Answers)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    yield provider
    provider.shutdown()


@pytest.fixture(scope="module")
def port(provider, tmp_path_factory) -> Iterator[int]:
    """Where the app of ada's Space answers, which lets visitors look."""
    environment = {name: value for name, value in os.environ.items() if name != "STUDIO_AUTH"} | {
        "SYSTEM": "spaces", "SPACE_ID": "ada/studio", "SPACE_HOST": HOST, "SPACE_AUTHOR_NAME": "ada",
        "SPACE_CREATOR_USER_ID": IDS["ada"],
        "OAUTH_CLIENT_ID": "client", "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid profile",
        "OPENID_PROVIDER_URL": provider.url, "STUDIO_VISITORS": "viewer",
    }  # fmt: skip
    port, folder = free_port(), tmp_path_factory.mktemp("space")
    command = [sys.executable, "app.py", "--project", str(folder / "project"), "--port", str(port), "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        app = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + 60
    while True:
        try:
            ask(port, "/")
            break
        except OSError:
            assert time.monotonic() < end and app.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
    yield port
    app.terminate()
    app.wait()


def ask(port: int, path: str, cookie: str = "") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": HOST, "Cookie": cookie})
    response = connection.getresponse()
    answer = response.status, response.read().decode(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    return answer


def sign_in(port: int, provider: Provider, account: str) -> str:
    """The cookie of somebody who went the whole way: to the provider, and back."""
    provider.account = account
    _, _, sent = ask(port, "/login/huggingface")
    there = urlsplit(sent["location"])
    connection = http.client.HTTPConnection("127.0.0.1", provider.server_port, timeout=20)
    connection.request("GET", f"{there.path}?{there.query}")
    back = urlsplit(connection.getresponse().getheader("location"))
    assert (back.scheme, back.netloc) == ("https", HOST)
    status, body, found = ask(port, f"{back.path}?{back.query}", sent["set-cookie"].split(";")[0])
    assert status in (302, 307), body
    assert found["location"].startswith("/")
    return found["set-cookie"].split(";")[0]


def test_whoever_made_the_space_is_its_owner_and_visitors_have_the_role_that_was_given_to_them(port, provider):
    status, page, headers = ask(port, "/")
    assert status == 401 and 'href="/login/huggingface" target="_blank"' in page
    assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
    assert ask(port, "/config")[0] == 401

    ada, grace = (sign_in(port, provider, name) for name in ("ada", "grace"))
    assert (ask(port, "/", ada)[0], ask(port, "/config", ada)[0]) == (200, 200)
    assert json.loads(ask(port, "/config", ada)[1])["username"] == "ada"
    assert ask(port, "/config", grace)[0] == 200
    owners_only = "/studio/export/x/y"
    assert [ask(port, owners_only, cookie)[0] for cookie in (ada, grace, "")] == [404, 403, 401]
    said, signature = ada.rsplit(".", 1)  # of its last character not every bit counts: base64
    forged = f"{said}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    assert ask(port, "/config", forged)[0] == 401


def test_a_space_of_which_nobody_says_who_may_come_is_for_whoever_made_it():
    login = find_space_login({"OAUTH_CLIENT_ID": "x", "SPACE_AUTHOR_NAME": "a-club", "SPACE_CREATOR_USER_ID": "id-of-ada"})

    class Request:
        def __init__(self, name: str, sub: str) -> None:
            self.session = {"oauth_info": {"userinfo": {"preferred_username": name, "sub": sub}, "expires_at": time.time() + 9}}

    assert login.find_caller(Request("ada", "id-of-ada")).role == "owner"
    assert login.find_caller(Request("a-club", "other")).role == "owner"
    stranger = Request("<b>grace", "id-of-grace")
    assert login.find_caller(stranger) is None
    assert "&lt;b&gt;grace" in login.page(stranger) and "/logout" in login.page(stranger)
    late = Request("ada", "id-of-ada")
    late.session["oauth_info"]["expires_at"] = time.time() - 1
    assert login.find_caller(late) is None


def test_a_space_without_any_login_does_not_start_and_says_how_to_have_one():
    assert find_space_login({}) is None
    with pytest.raises(DoorError, match="STUDIO_AUTH.*hf_oauth: true"):
        check_doors("0.0.0.0", None, False, on_space=True)
    with pytest.raises(LoginError, match="none, viewer, rater"):
        find_space_login({"OAUTH_CLIENT_ID": "x", "STUDIO_VISITORS": "owner"})
