"""A visitor without a browser: loads the page as Gradio's own client does, keeps its line open, picks, and leaves.

What a page asks for by itself happens here too: the events of loading with all that follows from them, the pulse, the images of
the screens. Not what a browser keeps from an earlier visit: scripts and styles.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from dpo.project import Project
from tests.benchmarks._protocol import ANSWER_SECONDS, Page

REUSED_SECONDS = 3.0  # a connection: the server closes one that was silent for five


@dataclass
class Visitor:
    """One page that is open. `page` is its picker: what it holds, what was picked there and is not stored yet. `headers` go
    with every request; `told` holds the properties that each component was last given."""

    url: str
    project: Project
    rng: random.Random
    headers: dict[str, str] = field(default_factory=dict)
    told: dict[int, dict] = field(default_factory=dict)
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    images: int = 0  # fetched
    page: Page = None
    config: dict = None
    _line: socket.socket | None = None
    _seen: set[str] = field(default_factory=set)
    _fresh_until: float = 0.0

    @cached_property
    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS)

    # ---------------------------------------------------------------- coming and going

    def arrive(self, mode: str = "best_worst") -> None:
        """Load the page: afterwards it has a token, and nothing of it is on its way any more."""
        found = re.search(r"window\.gradio_config = (\{.*?\});</script>", self._ask("GET", "").decode())
        self.config = json.loads(found.group(1))
        self._line = self._open_line()
        loads = [event["id"] for event in self._events() if "load" in [name for _, name in event["targets"]]]
        self.run(loads)
        self.page = Page(self.project, self.rng, mode)
        self.page.session = self.told[self.part("picker")]["session"]

    def leave(self) -> None:
        """As when the tab is closed: its lines are cut, and nothing is said."""
        if self._line:
            self._line.close()
        self._connection.close()

    def _open_line(self) -> socket.socket:
        parts = urlsplit(self.url)
        line = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS)
        headers = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": parts.netloc} | self.headers).items())
        line.sendall(f"GET /gradio_api/heartbeat/{self.session} HTTP/1.1\r\n{headers}\r\n".encode())
        assert b" 200 " in line.recv(4096).split(b"\r\n", 1)[0]
        return line

    # ---------------------------------------------------------------- what the page does

    def talk(self) -> None:
        """One question of the picker, as `Page.talk`, and the images of the screens that come."""
        self.page.exchange(lambda data: self.serve("picker", "sync", data))
        for screen in self.page.screens:
            for image in screen["images"]:
                if image["url"] not in self._seen:
                    self._seen.add(image["url"])
                    self._ask("GET", image["url"])
                    self.images += 1

    def beat(self) -> dict:
        return self.serve("pulse", "beat", {})

    def serve(self, elem_id: str, function: str, data: dict) -> dict:
        """What a server function of a part of the page answers."""
        body = {"data": data, "component_id": self.part(elem_id), "fn_name": function, "session_hash": self.session}
        return json.loads(self._ask("POST", "gradio_api/component_server", body))

    def part(self, elem_id: str) -> int:
        return next(part["id"] for part in self.config["components"] if part["props"].get("elem_id") == elem_id)

    # ---------------------------------------------------------------- events

    def click(self, elem_id: str, values: dict[str, object]) -> None:
        """Press a button, with these values in the components of these names; all others stand as they were made."""
        pressed = [self.part(elem_id), "click"]
        typed = {self.part(name): value for name, value in values.items()}
        self.run([event["id"] for event in self._events() if pressed in event["targets"]], typed)

    def run(self, numbers: list[int], typed: dict[int, object] | None = None) -> None:
        """Have these events happen, and all that follows from them."""
        waiting = list(numbers)
        while waiting:
            ended = self._happen(waiting, typed or {})
            waiting = []
            for number, output in ended:
                event = self.config["dependencies"][number]
                for part, update in zip(event["outputs"], output["data"], strict=True):
                    if isinstance(update, dict):
                        self.told.setdefault(part, {}).update(update.get("props", {}))
                waiting += self._following(number, output.get("changed_state_ids") or [])

    def _following(self, number: int, changed: list[int]) -> list[int]:
        """The events that the page starts once `number` is over and these states have changed."""
        return [
            event["id"]
            for event in self._events()
            if event["trigger_after"] == number or any([part, "change"] in event["targets"] for part in changed)
        ]

    def _events(self) -> list[dict]:
        return [event for event in self.config["dependencies"] if event["backend_fn"]]

    def _happen(self, numbers: list[int], typed: dict[int, object]) -> list[tuple[int, dict]]:
        """(number, output) of each event, in the order in which they end."""
        queued, ended = {}, []
        for number in numbers:
            event = self.config["dependencies"][number]
            values = {part["id"]: part["props"].get("value") for part in self.config["components"] if part["type"] != "state"}
            values |= typed
            body = {
                "data": [values.get(part) for part in event["inputs"]], "event_data": None, "fn_index": number,
                "trigger_id": None, "session_hash": self.session,
            }  # fmt: skip
            if event["queue"] is False:
                ended.append((number, json.loads(self._ask("POST", "gradio_api/run/predict", body))))
            else:
                queued[json.loads(self._ask("POST", "gradio_api/queue/join", body))["event_id"]] = number
        if queued:
            stream = http.client.HTTPConnection(self._connection.host, self._connection.port, timeout=ANSWER_SECONDS)
            stream.request("GET", f"/gradio_api/queue/data?session_hash={self.session}", headers=self.headers)
            for line in stream.getresponse():
                message = json.loads(line[len(b"data:") :]) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    ended.append((queued.pop(message["event_id"]), message["output"]))
                if message.get("msg") == "close_stream":
                    break
            stream.close()
        assert not queued, f"no end of {queued}"
        return ended

    def _ask(self, method: str, path: str, body: dict | None = None) -> bytes:
        if time.monotonic() > self._fresh_until:
            self._connection.close()  # and it is opened anew below
        self._fresh_until = time.monotonic() + REUSED_SECONDS
        headers = self.headers | ({"Content-Type": "application/json"} if body is not None else {})
        self._connection.request(method, f"/{path.lstrip('/')}", json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status == 200, (method, path, answer.status, data[:300])
        return data


def wait_until(due: float) -> None:
    time.sleep(max(0.0, due - time.monotonic()))
