"""The security suite, second part: every text that may become a path, in every event, server function and address, written as it
must not be. A canary lies outside the project; whatever touches it, or tells what it says, is a leak. One is planted, and found.
"""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import pytest

from dpo.groups import View
from tests.asking import Page
from tests.strangers import SENT, TYPED, Canary, Event, Site, fields_of_payloads, open_site
from tests.test_strangers import OPEN_EVENTS, told
from ui.rights import open_to


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("strangers")


@pytest.fixture(scope="module")
def canary(place) -> Canary:
    return Canary(place / "canary")


@pytest.fixture(scope="module")
def site(place, canary):
    with open_site(place) as site:
        project = site.studio.project
        (project.path / "link").symlink_to(canary.folder)
        person = Page(project, View(str(project.path / "candidates")))
        person.ask()
        while person.queue:  # enough pairs for a run: then a form looks further
            person.answer()
        yield site


def spellings(canary: Canary, project: Path) -> list[str]:
    """Ways to write a place outside the project."""
    up = "../" * 12
    outside = str(canary.folder)
    return [
        f"{outside}/adapter.safetensors", f"{project}/link", f"{project}/../{canary.folder.name}/secret.txt", outside,
        f"{up}{outside[1:]}/table.csv", f"{project}/link/settings.json", f"//{outside}/0.png", f"file://{outside}/secret.txt",
    ]  # fmt: skip


def leaks_of(site: Site, canary: Canary, events: list[Event], texts: list[str]) -> list[str]:
    """Every handler, with two of the texts in each of its inputs that a person types or sends, and in all that it may be told
    besides. A leak is an answer that holds what stands in the canary's files, or anything at all that touched one."""
    tried, leaks = 0, []
    names = fields_of_payloads()
    with canary.watched() as seen:
        for event in {event.handler: event for event in events}.values():
            places = [place for place, (kind, _) in enumerate(event.inputs) if kind in (*TYPED, *SENT, "browserstate")]
            # A form of settings is whole as it begins; another wants texts to go on with.
            usual = [_usual(kind, value, is_filled=len(places) < 9) for kind, value in event.inputs]
            for place in places or [None]:
                for text in (texts[0], texts[1 + tried % (len(texts) - 1)])[: 1 if place is None else 2]:
                    besides = {name: [text] if name == "files" else text for name in names}
                    data = list(usual)
                    if place is not None:
                        data[place] = _filled(event.inputs[place][0], text, names)
                    leaks += _try(site, canary, event, data, besides, seen)
                    tried += 1
    told("paths sent to events", tried)
    return leaks


def _try(site: Site, canary: Canary, event: Event, data: list, besides: dict, seen: list[str]) -> list[str]:
    said = site.run(event, "olga", data, besides)
    leaks = [f"{event.name} touched it: {touch}" for touch in seen]
    if canary.secret.encode() in said:
        leaks.append(f"{event.name} told it")
    for job in site.studio.jobs.active():
        if job.key != "hold":
            if str(canary.folder) in repr(job.request) or "link" in repr(job.request):
                leaks.append(f"{event.name} asked for {job.request}")
            site.studio.jobs.cancel(job)
    seen.clear()
    return leaks


def _usual(kind: str, value: object, is_filled: bool) -> object:
    """What a page sends of an input that nobody touched; of one that wants a text, with `is_filled` something to go on with."""
    if kind == "textbox" and not value and is_filled:
        return "demo"
    return "" if kind == "open dropdown" and value is None else value


def _filled(kind: str, text: str, names: list[str]) -> object:
    if kind in SENT:
        return {"path": text, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
    if kind == "browserstate":
        return dict.fromkeys([*names, "folder", "run", "mode"], text)
    return [text] if kind == "open dropdowns" else text


def test_no_text_of_an_event_leads_outside_the_project(site, canary):
    assert leaks_of(site, canary, site.events, spellings(canary, site.studio.project.path)) == []


def test_no_text_of_a_server_function_leads_outside_the_project(site, canary):
    token = site.page_token("olga")
    own = {"token": token["token"], "view": token["view"]}
    texts, tried, leaks = spellings(canary, site.studio.project.path), 0, []
    with canary.watched() as seen:
        for function in site.functions:
            names = fields_of_payloads(function.module)
            payloads = [dict.fromkeys(names, text) for text in texts]
            payloads += [{name: text} for name in names for text in texts[:2]]
            payloads += [
                {name: {**dict.fromkeys(names, text), "sidecar": True, "pixels": True}}
                for name in ("chosen", "wanted")
                for text in texts
            ]
            for payload in payloads:
                said = site.call(function, payload | own, "olga").body
                leaks += [f"{function.name} touched it: {touch}" for touch in seen]
                leaks += [f"{function.name} told it"] if canary.secret.encode() in said else []
                seen.clear()
                tried += 1
        assert site.call(function, {"token": "x"}, "olga").status == 200  # the server is still there
    told("paths sent to server functions", tried)
    assert leaks == []


def test_no_address_leads_outside_the_project(site, canary):
    tried = 0
    forms = (
        "{}",
        "/{}",
        "..%2f..%2f..%2f..%2f{}",
        "%2e%2e/%2e%2e/%2e%2e/{}",
        "..\\..\\{}",
        "{}%00.png",
        "file:///{}",
        "....//....//{}",
    )
    with canary.watched() as seen:
        for method, path in site.routes:
            for parameter in re.findall(r"\{([^}]*)\}", path):
                for form in forms:
                    text = form.format(f"{canary.folder}/secret.txt".lstrip("/"))
                    asked = re.sub(r"\{[^}]*\}", "x", path.replace("{" + parameter + "}", text))
                    assert canary.secret.encode() not in site.ask(method, asked, "olga").body, (method, asked)
                    tried += 1
    told("paths in addresses", tried)
    assert seen == []


def test_nothing_that_was_tried_is_in_the_project(site, canary):
    """After all of the above: no index, run or plan knows a place outside."""
    for path in site.studio.project.path.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix in (".json", ".jsonl", ".sqlite", ".txt", ".csv"):
            assert canary.secret.encode() not in path.read_bytes(), path


def test_a_leak_that_is_planted_is_found(tmp_path, canary):
    """A box that reads whatever path is typed, open to all who log in, and a route that does so."""

    def plant(page: gr.Blocks) -> None:
        box = gr.Textbox()

        @open_to("viewer")
        def planted(path: str) -> str:
            try:
                return Path(path).read_text()
            except OSError as error:
                return str(error)

        box.submit(planted, box, box)

    with open_site(tmp_path, plant) as site:
        (leak,) = [event for event in site.events if event.name.endswith("planted")]
        assert leak.name not in OPEN_EVENTS, "the list of what was looked at does not have it"
        found = leaks_of(site, canary, [leak], spellings(canary, site.studio.project.path))
    assert any("told it" in line for line in found) and any("touched it" in line for line in found)
