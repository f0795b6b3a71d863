"""The security suite, first part: strangers, and people with a lesser role, try everything that the running page has.

Nothing here is listed by hand but what is meant to be open: a function or a route that somebody adds is tried by itself, and has
to be the owner's, or be looked at and put on a list below. Counts are printed (`pytest -s`).
"""

from __future__ import annotations

import json
import re

import pytest

from dpo.runs import list_runs
from dpo.users import User, hash_password, read_users, write_users
from tests.strangers import HOSTILE, PEOPLE, REPOSITORY, below, open_site
from ui.downloads import adapter_url
from ui.gate import LARGEST_QUESTION

# What others than the owner may call; each was looked at: it reads no path that is sent, and changes nothing of other people's.
OPEN_EVENTS = {
    "ui.train_tab._wire_memory.restore", "ui.train_tab._wire_memory.is_there", "ui.train_tab._wire_memory.describe",
    "ui.compare_tab._wire_offers.offer", "ui.blind.create_blind_part.offer",
    "ui.session.attaching.attach", "ui.session.stored_session", "ui.create_app.restore", "ui.train_tab.create_train_tab.look",
    "ui.create_app.go", "ui._refreshing.refresh", "ui.pairs_tab.create_pairs_tab.refresh", "ui.pairs_tab.create_pairs_tab.look",
    "ui.pairs_tab.create_pairs_tab.narrow", "ui.pairs_tab.create_pairs_tab.pick_group", "ui.pairs_tab.create_pairs_tab.<lambda>",
    "ui.picker.create_picker.switch_mode", "ui.train_tab.create_train_tab.refresh", "ui.train_form.create_form.<lambda>",
    "ui.compare_tab.create_compare_tab.refresh", "ui.compare_tab.create_compare_tab.choose_way",
    "ui.compare_tab.create_compare_tab.restore",
    "ui.blind.create_blind_part.show", "ui.rounds.create_rounds_part.refresh", "ui.rounds.create_rounds_part.choose",
}  # fmt: skip
OPEN_FUNCTIONS = {
    "sync", "beat", "vote", "list_facts", "list_lines", "open_group", "list_files", "read_raw_text", "list_pairs", "check_pairs",
    "look_state", "look_difference",
}  # fmt: skip
OPEN_ROUTES = {"/studio/image/{token}", "/studio/sample/{signature}/{run}/{folder}/{name}"}  # to whoever is logged in
# What somebody who has not logged in may have: the page that asks for it, and what it is made of.
BEFORE_A_LOGIN = re.compile(
    r"/|/login/?|/logout|/(assets|static|svelte)/.*|/(gradio_api/)?theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|"
    r"/gradio_api/startup-events"
)
SHUT = (401, 403, 404, 405, 411)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with open_site(tmp_path_factory.mktemp("strangers")) as site:
        yield site


def told(what: str, number: int) -> None:
    print(f"\n{what}: {number}", end="")


# ------------------------------------------------------------------------------------------------ who may call what


def test_what_is_open_to_others_than_the_owner_was_looked_at(site):
    assert {event.name for event in site.events if event.role != "owner"} - OPEN_EVENTS == set()
    assert {function.name for function in site.functions if function.role != "owner"} - OPEN_FUNCTIONS == set()


def test_every_event_refuses_strangers_and_lesser_roles(site):
    refused = [(event, who, site.join(event, who).status) for event in site.events for who in below(event.role)]
    assert [(event.name, who, status) for event, who, status in refused if status != (403 if who else 401)] == []
    told("events refused to lesser roles", len(refused))
    direct = [
        site.ask("POST", f"/gradio_api/run/{name}", who, {"data": [], "fn_index": event.number, "session_hash": who}).status
        for event in site.events if event.role == "owner" for who in ("", "vera") for name in ("predict", "call")
    ]  # fmt: skip
    assert set(direct) <= set(SHUT)


def test_every_server_function_refuses_strangers_and_lesser_roles(site):
    refused = [
        (function, who, site.call(function, {}, who).status) for function in site.functions for who in below(function.role)
    ]
    assert [(function.name, who, status) for function, who, status in refused if status != (403 if who else 401)] == []
    told("server functions refused to lesser roles", len(refused))


def test_what_a_role_may_call_it_can(site):
    for event in site.events:
        for who in ("vera", "rita"):
            if event.role != "owner" and who not in below(event.role):
                said = site.run(event, who, [value for _, value in event.inputs])
                assert b"process_completed" in said, (event.name, said)
    token = site.page_token("rita")
    for function in site.functions:
        if function.role != "owner":
            assert site.call(function, {"token": token["token"], "view": token["view"]}, "rita").status in (200, 500), (
                function.name
            )


def test_no_route_answers_a_stranger_but_the_login_page(site):
    """Gradio's and ours, by every method they have, with something for each parameter."""
    tried = 0
    for method, path in site.routes:
        asked = re.sub(r"\{[^}]*\}", "x", path)
        if BEFORE_A_LOGIN.fullmatch(asked):
            continue
        for body in (None, {"data": [], "session_hash": "x"}) if method == "POST" else (None,):
            assert site.ask(method, asked, body=body).status in SHUT, (method, path)
            tried += 1
    told("routes that refuse a stranger", tried)


def test_a_route_of_our_own_is_the_owners_unless_it_was_looked_at(site):
    ours = [(method, path) for method, path in site.routes if path.startswith("/studio/")]
    for method, path in ours:
        status = site.ask(method, re.sub(r"\{[^}]*\}", "x", path), "vera").status
        assert status == (404 if path in OPEN_ROUTES else 403), path
    told("routes of our own", len(ours))


def test_a_route_that_the_page_does_not_need_is_there_for_nobody(site):
    for path in (
        "/gradio_api/openapi.json", "/monitoring", "/gradio_api/runs", "/gradio_api/token", "/gradio_api/user",
        "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/file=https://example.org/", "/gradio_api/vibe-code",
        "/gradio_api/proxy=https://example.org/", "/gradio_api/call/look", "/gradio_api/deep_link", "/gradio_api/dev/reload",
        "/gradio_api/process_recording", "/gradio_api/file=" + str(REPOSITORY / "app.py"),
    ):  # fmt: skip
        for method in ("GET", "POST"):
            assert site.ask(method, path, "olga", {} if method == "POST" else None).status == 404, path


def test_a_signed_address_is_worth_nothing_without_a_login(site):
    token = site.page_token("olga")
    lines = next(function for function in site.functions if function.name == "list_lines")
    payload = {"token": token["token"], "view": token["view"], "count": 9}
    address = site.call(lines, payload, "olga").json["lines"][0]["thumb"]
    assert [site.ask("GET", address, who).status for who in ("olga", "vera", "")] == [200, 200, 401]
    address = adapter_url(site.studio, list_runs(site.studio.project.runs)[0])
    assert [site.ask("GET", address, who).status for who in ("olga", "rita", "")] == [200, 403, 401]


# ------------------------------------------------------------------------------------------------ large, hostile, somebody else's


def test_what_is_too_large_or_does_not_say_how_large_it_is_is_refused_unread(site):
    posts = [(method, path) for method, path in site.routes if method == "POST"]
    for _, path in posts:
        asked = re.sub(r"\{[^}]*\}", "predict", path)
        assert site.ask("POST", asked, "olga", Content_Length=str(1 << 50), Content_Type="application/json").status in (
            413,
            404,
        ), path
        assert site.ask("POST", asked, "olga", Content_Length="", Transfer_Encoding="chunked").status in (411, 404), path
    told("doors that refuse what is too large", len(posts))
    deep = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body in (deep, b"[]", b"nothing", b'{"data": NaN', b"\xff\xfe"):
        for path in ("queue/join", "run/predict", "component_server"):
            answer = site.ask("POST", f"/gradio_api/{path}", "olga", body, Content_Type="application/json")
            assert answer.status in (400, 404), (path, body[:20])
    assert LARGEST_QUESTION < 1 << 24


@pytest.mark.parametrize("number", ["1", 1.0, True, None, -1, 10**9, [1], "predict"])
def test_a_function_is_called_by_its_number_or_not_at_all(site, number):
    """What Gradio would take for another number than the gate read would be called with the wrong role."""
    body = {"data": [], "fn_index": number, "session_hash": "s-vera"}
    for who in ("vera", "olga"):
        assert site.ask("POST", "/gradio_api/queue/join", who, body).status == 404
        assert site.ask("POST", "/gradio_api/run/predict", who, body).status == 404
        function = {"data": {}, "component_id": number, "fn_name": "sync", "session_hash": "s-vera"}
        assert site.ask("POST", "/gradio_api/component_server", who, function).status == 404


def test_hostile_text_out_of_images_reaches_the_page_as_data_alone(site):
    page = site.ask("GET", "/", "vera")
    assert "text/html" in page.headers["content-type"] and b"onerror=alert" not in page.body
    config = json.dumps(site.ask("GET", "/config", "vera").json)
    assert "onerror=alert" not in config
    token, tried = site.page_token("vera"), 0
    for function in site.functions:
        if function.role == "viewer":
            payload = {"token": token["token"], "view": token["view"], "count": 50, "start": 0, "wanted": {"search": HOSTILE}}
            answer = site.call(function, payload, "vera")
            assert answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
            tried += 1
    told("answers that are data alone", tried)


def test_every_answer_tells_the_browser_to_run_nothing_from_elsewhere(site):
    for who, path in (
        ("", "/"),
        ("vera", "/"),
        ("vera", "/config"),
        ("", "/config"),
        ("vera", "/nowhere"),
        ("vera", "/studio/image/x"),
    ):
        headers = site.ask("GET", path, who).headers
        assert (
            "object-src 'none'" in headers["content-security-policy"]
            and "connect-src 'self'" in headers["content-security-policy"]
        )
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")


def test_what_is_somebody_elses_is_of_no_use(site):
    """Another login's session, the token of their page, and the names of their picks."""
    theirs, own = site.page_token("rita"), site.page_token("rolf")
    site.join(next(event for event in site.events if event.role == "viewer"), "rita", session="s-of-rita")
    tried = 0
    for event in site.events:
        if event.role != "owner":
            assert site.join(event, "rolf", session="s-of-rita").status == 403
            tried += 1
    for path in ("/gradio_api/queue/data?session_hash=s-of-rita", "/gradio_api/heartbeat/s-of-rita",
                 "/gradio_api/queue/data?session_hash=s-rolf&session_hash=s-of-rita"):  # fmt: skip
        assert site.ask("GET", path, "rolf").status == 403
        tried += 1
    for function in site.functions:
        if function.role != "owner" and function.name != "beat":
            assert site.call(function, {"token": theirs["token"], "view": theirs["view"]}, "rolf").json == {"error": "token"}
            assert site.call(function, {"token": own["token"], "view": theirs["view"] + " "}, "rolf").json == {"error": "token"}
            tried += 2
    told("uses of what is somebody else's", tried)


def test_a_rater_takes_back_their_own_picks_alone_and_changes_no_pair(site):
    sync = next(function for function in site.functions if function.name == "sync")
    tokens = {who: site.page_token(who) for who in ("rita", "rolf", "olga")}

    def say(who: str, *operations: dict, **more) -> dict:
        token = {name: tokens[who][name] for name in ("token", "view")}
        return site.call(
            sync, {**token, "client": f"page-of-{who}", "mode": "duel", "operations": list(operations), **more}, who
        ).json

    screen = say("rita", want=1)["screens"][0]
    keys = [image["key"] for image in screen["images"]]
    pick = {"client": "page-of-rita", "number": 0, "op": "duel", "group": screen["group"], "images": keys, "result": "left"}
    assert say("rita", pick)["refused"] == []
    undo = {"client": "page-of-rolf", "number": 0, "op": "undo", "undoes": ["page-of-rita", 0]}
    assert "somebody else's" in say("rolf", undo)["refused"][0]
    drop = {"client": "page-of-rolf", "number": 1, "op": "drop", "group": screen["group"], "images": keys}
    assert "role owner" in say("rolf", drop)["refused"][0]
    assert "owner" in say("rolf", rules={"pairs_per_group": 8})["problem"]
    listed = next(function for function in site.functions if function.name == "list_pairs")
    for who in ("vera", "rolf"):
        token = site.page_token(who)
        asked = {"token": token["token"], "view": token["view"], "operations": [drop]}
        assert "role owner" in site.call(listed, asked, who).json["refused"][0]
    assert say("rita", undo | {"client": "page-of-rita", "number": 1})["refused"] == []


def test_a_viewer_gets_nothing_to_vote_on_and_no_vote_in(site):
    vote = next(function for function in site.functions if function.name == "vote")

    def ask(who: str, **more) -> dict:
        token = site.page_token(who)
        return site.call(vote, {"token": token["token"], "view": token["view"], "want": 2, **more}, who).json

    screen = ask("rita")["screens"][0]
    said = {"client": "page-of-vera", "number": 0, "op": "vote", "test": "cats-1", "item": screen["item"], "question": "overall",
            "images": [image["key"] for image in screen["images"]], "result": "left"}  # fmt: skip
    answer = ask("vera", operations=[said])
    assert answer["screens"] == [] and answer["refused"] and answer["verdict"]["any"] is False
    kept = ask("rita", operations=[said | {"client": "page-of-rita"}])
    assert kept["refused"] == [] and kept["verdict"]["any"] is True
    undo = {"client": "page-of-rolf", "number": 0, "op": "undo", "undoes": ["page-of-rita", 0]}
    assert "somebody else's" in ask("rolf", operations=[undo])["refused"][0]


# ------------------------------------------------------------------------------------------------ from elsewhere


def test_no_other_web_page_can_call_anything(site):
    """Every function and route, as a browser sends what another site's page asks for, with the owner's cookie."""
    foreign = (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    )
    tried = 0
    for headers in foreign:
        for event in site.events:
            assert site.join(event, "olga", **headers).status == 403
            tried += 1
        for function in site.functions:
            assert site.call(function, {}, "olga", **headers).status == 403
            tried += 1
        for method, path in site.routes:
            assert site.ask(method, re.sub(r"\{[^}]*\}", "x", path), "olga", **headers).status == 403, (method, path)
            tried += 1
    assert site.ask("GET", "/", "olga", Host="evil.example").status == 400
    told("calls from elsewhere refused", tried)


# ------------------------------------------------------------------------------------------------ logins


def test_one_who_is_taken_out_of_the_file_is_out_at_once_and_a_new_role_counts_at_once(tmp_path):
    with open_site(tmp_path) as site:
        users = read_users(tmp_path / "users")
        event = next(event for event in site.events if event.role == "owner")
        write_users(tmp_path / "users", [user for user in users.values() if user.name not in ("rita", "olga")])
        assert site.ask("GET", "/config", "rita").status == 401 and site.join(event, "olga").status == 401
        assert site.ask("GET", "/config", "rolf").status == 200
        assert set(PEOPLE) - {"rita", "olga"} == {"rolf", "vera"}


def test_a_new_password_ends_the_logins_that_the_old_one_opened(tmp_path):
    with open_site(tmp_path) as site:
        users = read_users(tmp_path / "users")
        assert site.ask("GET", "/config", "rita").status == 200
        users["rita"] = User("rita", "rater", hash_password("another horse"))
        write_users(tmp_path / "users", users.values())
        assert site.ask("GET", "/config", "rita").status == 401 and site.ask("GET", "/config", "rolf").status == 200
