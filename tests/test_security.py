"""The doors, over real HTTP: who is answered, who is refused, and what never leaves the machine."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import app
from dpo.config import TrainConfig
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import Run, create_run
from dpo.users import Users
from ui import create_app, launch
from ui.downloads import adapter_url
from ui.login import Login
from ui.places import PlaceError, Places
from ui.security import DoorError, Guard, check_doors, choose_port, is_loopback, parse_auth
from ui.session import Studio, project_secret

REPOSITORY = Path(__file__).resolve().parents[1]
EVIL = "https://evil.example"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(studio: Studio, **doors):
    page, port = create_app(studio), free_port()
    launch(
        page, studio, check_doors(doors.get("host", "127.0.0.1"), doors.get("auth"), doors.get("share", False)), port, wait=False
    )
    try:
        yield port
    finally:
        page.close()


def make_studio(folder: Path) -> Studio:
    project = open_project(folder)
    run = create_run(project.runs, "demo 1", TrainConfig(), [Pair("a", "c.png", "r.png")] * 4)
    run.adapter.write_bytes(b"the adapter")
    return Studio(project, JobRegistry(), project_secret(project.path))


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Studio:
    return make_studio(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def port(studio):
    with served(studio) as port:
        yield port


@pytest.fixture(scope="module")
def guarded_port(studio):
    with served(studio, auth="me:a:long:password") as port:
        yield port


def ask(port: int, path: str, *, method="GET", host=None, origin=None, body=None, content_type="application/json", cookie=None):
    """(status, body, headers) of one request, sent as it is, whatever a browser would have added."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    headers = {"Host": host or f"127.0.0.1:{port}", "Origin": origin, "Cookie": cookie}
    if body is not None:
        headers |= {"Content-Type": content_type, "Content-Length": str(len(body))}
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body.encode() if body is not None else None)
    response = connection.getresponse()
    answer = response.status, response.read(), dict(response.getheaders())
    connection.close()
    return answer


def server_call(port: int, **request):
    """A POST to the address where gradio runs the functions of our own components, in the form that needs no preflight."""
    config = json.loads(ask(port, "/config")[1])
    picker = next(part for part in config["components"] if part["props"].get("server_fns"))
    function = picker["props"]["server_fns"][0]
    call = {"data": {}, "component_id": picker["id"], "fn_name": function, "session_hash": "s"}
    return ask(port, "/gradio_api/component_server", method="POST", body=json.dumps(call), **request)


def test_the_app_opens_on_a_machine_so_busy_that_its_first_answer_is_late(tmp_path, monkeypatch):
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    with served(make_studio(tmp_path)) as port:
        assert ask(port, "/")[0] == 200


def test_the_page_answers_to_its_own_names(port):
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert ask(port, "/", host=host)[0] == 200, host


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "", "[::1", "10.0.0.7"]
)
def test_a_name_that_merely_points_here_gets_400(port, host):
    assert ask(port, "/config", host=host or " ")[0] == 400


def test_another_origin_gets_403_before_anything_runs(port):
    for origin in (EVIL, "null", "http://localhost:1", "http://127.0.0.1.evil.example", f"https://evil.example@127.0.0.1:{port}"):
        assert ask(port, "/config", origin=origin)[0] == 403, origin
        assert server_call(port, origin=origin, content_type="text/plain")[0] == 403, origin


def test_the_pages_own_origin_is_served(port):
    own = f"http://127.0.0.1:{port}"
    assert ask(port, "/config", origin=own)[0] == 200
    assert server_call(port, origin=own)[0] == 200


def test_nothing_is_open_that_the_page_does_not_need(port):
    for path in ("/openapi.json", "/docs", "/redoc", "/monitoring", "/gradio_api/mcp/"):
        assert ask(port, path)[0] in (403, 404), path
    assert ask(port, "/gradio_api/file=" + str(REPOSITORY / "app.py"))[0] in (403, 404)


def test_without_a_login_only_the_login_page_answers(guarded_port, studio):
    for path in ("/config", "/gradio_api/login_check", "/gradio_api/queue/data?session_hash=s"):
        assert ask(guarded_port, path)[0] == 401, path
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/component_server", "/gradio_api/upload"):
        assert ask(guarded_port, path, method="POST", body="{}")[0] == 401, path
    assert ask(guarded_port, "/studio/image/preview-0000-0000")[0] == 401


def test_a_login_opens_the_page(guarded_port):
    def login(password):
        form = urllib.parse.urlencode({"username": "me", "password": password})
        return ask(guarded_port, "/login", method="POST", body=form, content_type="application/x-www-form-urlencoded")

    assert login("wrong")[0] == 400
    status, _, headers = login("a:long:password")
    assert status == 200
    assert ask(guarded_port, "/config", cookie=headers["set-cookie"].split(";")[0])[0] == 200


def test_an_adapter_comes_by_signed_address_only(port, studio):
    address = adapter_url(studio, Run(studio.project.runs / "demo 1"))
    status, body, headers = ask(port, address)
    assert (status, body) == (200, b"the adapter") and "demo 1.safetensors" in urllib.parse.unquote(
        headers["content-disposition"]
    )
    signature = address.split("/")[3]
    forged = address.replace(signature, ("0" if signature[0] != "0" else "1") + signature[1:])
    assert ask(port, forged)[0] == 404
    assert ask(port, f"/studio/adapter/{signature}/..%2F..%2Fpicks.sqlite")[0] == 404
    assert ask(port, f"/studio/adapter/{studio.sign('image', 'demo 1')}/demo%201.safetensors")[0] == 404


def test_a_machine_with_many_addresses_answers_to_each_but_not_to_strange_names(studio):
    with served(studio, host="0.0.0.0", auth="me:password") as port:
        assert ask(port, "/", host=f"192.168.1.7:{port}")[0] == 200
        assert ask(port, "/", host="evil.example")[0] == 400


@pytest.mark.parametrize(
    ("host", "share", "flag"),
    [("0.0.0.0", False, "--host 0.0.0.0"), ("192.168.1.7", False, "--host")],
)
def test_opening_to_strangers_needs_a_password(host, share, flag):
    with pytest.raises(DoorError, match=f"^{flag}.*add --auth user:password"):
        check_doors(host, None, share)
    assert check_doors(host, "me:password", share).lets_others_in
    assert not check_doors("127.0.0.1", None, share=False).lets_others_in


def test_a_public_link_without_a_login_gets_one_that_nobody_guesses():
    one, other = check_doors("127.0.0.1", None, share=True), check_doors("127.0.0.1", None, share=True)
    assert len(one.password) >= 20 and one.password != other.password
    assert one.login.users.is_password("owner", one.password) and not one.login.users.is_password("owner", other.password)
    assert one.password not in repr(one)
    assert check_doors("127.0.0.1", "me:password", share=True).password == ""


def test_a_public_link_answers_to_names_under_its_domain_only():
    async def page(scope, receive, send):
        await PlainTextResponse("the page")(scope, receive, send)

    names = check_doors("127.0.0.1", "me:password", share=True).names
    client = TestClient(Guard(page, names, any_address=False))
    hosts = ("abc.gradio.live", "gradio.live", "evilgradio.live", "gradio.live.evil.example", "abc.hf.space")
    answers = {host: client.get("/", headers={"host": host}).status_code for host in hosts}
    assert answers.pop("abc.gradio.live") == 200
    assert set(answers.values()) == {400}, answers


def test_a_space_needs_its_secret_and_answers_to_its_public_name():
    with pytest.raises(DoorError, match="STUDIO_AUTH"):
        check_doors("0.0.0.0", None, False, on_space=True)
    assert "*.hf.space" in check_doors("0.0.0.0", "me:password", False, on_space=True).names


@pytest.mark.parametrize("auth", ["", "me", "me:", ":password", " :x"])
def test_a_malformed_auth_is_refused(auth):
    with pytest.raises(DoorError, match="user:password"):
        check_doors("127.0.0.1", auth, False)


def test_what_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.7", "example.org", "localhost.example.org", "")))


def guess(login: Login, name: str, password: str, times: int = 1) -> bool:
    """What the last of so many tries at once came to."""

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(login.check(name, password) for _ in range(times)))

    with ThreadPoolExecutor(1) as apart:  # a browser test before may have left a loop in this one
        return apart.submit(asyncio.run, all_of_them()).result()[-1]


def test_ten_wrong_passwords_close_a_name_for_a_minute_and_no_other_one():
    now = [100.0]
    login = Login(Users([parse_auth("me:password"), parse_auth("you:other word")]), clock=lambda: now[0])
    assert guess(login, "me", "password") and not guess(login, "me", "passwörd") and not guess(login, "you", "password")
    guess(login, "me", "a guess", times=30)
    assert not guess(login, "me", "password"), "closed to the right one too"
    assert guess(login, "you", "other word"), "somebody else notices nothing"
    now[0] += 61
    assert guess(login, "me", "password")


def test_names_that_nobody_has_are_guessed_a_hundred_times_a_minute_and_shut_nobody_out(monkeypatch):
    users = Users([parse_auth("me:password")])
    tried = []
    monkeypatch.setattr(users, "is_password", lambda name, password: tried.append(name) or (name, password) == ("me", "password"))
    login = Login(users)
    for number in range(150):
        guess(login, f"nobody-{number}", "password")
    assert len(tried) == 100
    assert guess(login, "me", "password")


def test_right_passwords_do_not_count_as_guesses():
    login = Login(Users([parse_auth("me:password")]))
    assert all(guess(login, "me", "password") for _ in range(12))


def test_a_password_is_not_printed():
    assert "hunter22" not in repr(parse_auth("me:hunter22"))


def test_a_shared_page_reaches_the_project_and_what_its_owner_opened(studio, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path)
    shared = replace(studio, is_shared=True, roots=(tmp_path / "open",), models=frozenset({"owner/name"}))
    project = studio.project.path
    outside = (
        str(tmp_path), "/etc/passwd", "~/x", "../x", f"{project}/../x", f"{tmp_path}/open/link", f"{tmp_path}/open/../x",
        f"{tmp_path}/opened", f"{tmp_path}/OPEN/../x", "file:///etc/passwd", "runs/cats", ".", "~",
    )  # fmt: skip
    for place in outside:
        for is_model in (False, True):
            with pytest.raises(PlaceError, match="outside the project|not among the models"):
                shared.check_place(place, is_model)
    for place in ("demo", "", "owner/name", str(project / "runs"), str(tmp_path / "open" / "x")):
        shared.check_place(place)
    for place in ("owner/name", "demo"):
        with pytest.raises(PlaceError):
            shared.check_place(place, is_model=False)
    studio.check_place(str(tmp_path))  # on one's own machine, anything one can read


def test_a_model_that_a_shared_page_may_not_load_is_refused_with_how_to_allow_it(studio):
    with pytest.raises(PlaceError, match="other/name is not among the models.*--model other/name"):
        replace(studio, is_shared=True).check_place("other/name")


@pytest.mark.parametrize("text", ["a\0b", "x" * 300, "x" * 5000, "~nobody-of-this-name/x", "\\\\server\\share", "//server/share"])
def test_what_can_be_no_path_is_said_and_not_looked_for(text, tmp_path):
    for places in (Places(), Places((tmp_path,))):
        with pytest.raises(PlaceError, match="not a path on this machine"):
            places.check(text)


def test_the_projects_secret_is_kept_and_private(tmp_path):
    secret = project_secret(tmp_path)
    assert len(secret) == 32 and project_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_a_port_in_use_is_named_with_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DoorError, match=f"Port {port} is in use.*--port"):
            choose_port("127.0.0.1", port)
    with pytest.raises(DoorError, match="70000 is not a port"):
        choose_port("127.0.0.1", 70000)


def test_without_a_wish_the_next_free_port_is_taken_and_said(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("ui.security.FIRST_PORT", port)
        assert choose_port("127.0.0.1", None) > port
    assert f"Port {port} is in use" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [(("--host", "0.0.0.0"), "--auth"), (("--auth", "nonsense"), "--auth"), (("--auth", "me:short"), "8 or more"),
     (("--users", "nowhere"), "python -m dpo users"), (("--root", "nowhere"), "--root")],
)  # fmt: skip
def test_the_app_refuses_with_one_sentence_and_status_2(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != "STUDIO_AUTH"})
    with pytest.raises(SystemExit) as refused:
        app.main(["--project", str(tmp_path / "project"), *flags])
    told = capsys.readouterr().err
    assert refused.value.code == 2 and len(told.strip().splitlines()) == 1 and said in told
    assert not (tmp_path / "project").exists(), "nothing is made before the doors are checked"


def test_a_public_link_that_could_not_be_made_is_said_plainly_and_its_password_once(tmp_path, monkeypatch, capsys):
    def fail(**settings):
        raise RuntimeError("the tunnel is down")

    monkeypatch.setattr("gradio.networking.setup_tunnel", fail)
    with served(make_studio(tmp_path), share=True) as port:
        said = capsys.readouterr().out
        assert ask(port, "/config")[0] == 401
    assert said.count("No public link could be made; the page is on this machine only.") == 1
    password = re.search(r"Log in as owner with the password (\S+) ", said)[1]
    assert said.count(password) == 1 and len(password) >= 20


def test_a_page_behind_a_proxy_answers_to_the_name_it_was_given(studio):
    doors = check_doors("0.0.0.0", "me:password", False, own_names=["Gpu-1.Example.net"])
    assert "gpu-1.example.net" in doors.names and "example.net" not in doors.names
