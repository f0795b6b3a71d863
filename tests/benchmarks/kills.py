"""Kill -9 of the app while picks are on their way, 200 times: every pick is in the store exactly once.

Each time the app is started as a person starts it, a page without a browser (`_protocol.py`) sends again what no answer came
for and goes on picking, and the app is killed: half the times at a random moment, half as soon as picks are on the disk, which
is mostly before the page has heard of it. What the app had called saved is not sent again, so it must have been in the store.
Starting the app takes two to three seconds, so this takes ten to fifteen minutes. The same at other work: faults.py.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from dpo.groups import MODES
from dpo.project import open_project
from tests.benchmarks._protocol import NO_ANSWER, Page, find_picker
from tests.browser.conftest import App, free_port
from tests.browser.nursery import Nursery
from tests.pictures import paint_folder

KILLS = 200
PROMPTS_PER_KILL, PER_PROMPT = 2, 4
MOST_ANSWERED = 3  # requests before those that the kill may hit
LATEST = 2.5  # the kill comes at random within so many times what a request takes
LOCKED_SECONDS = 10
RELOAD_SHARE = 0.2  # of the kills after which the page is loaded anew, too
SEED = 0


def measure(kills: int = KILLS, nursery: Nursery | None = None) -> dict:
    """`kills`: fewer than usual for a test that this measures what it says. `nursery`: starts the app in less than a second."""
    rng, started = random.Random(SEED), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        project = open_project(Path(folder))
        paint_folder(project.path / "candidates", 20 + kills * PROMPTS_PER_KILL, PER_PROMPT)
        project.library.scan(project.path / "candidates")
        page, app = Page(project, rng), App(project.path, free_port(), nursery).start()
        stored_unanswered = unanswered = 0
        try:
            page.talk(app, find_picker(app))
            _pick(page, rng)
            app.kill()
            for number in range(kills):
                talk_until_killed(page, app.start(), find_picker(app), "picks", rng)
                waiting = Counter(map(as_row, page.outbox))
                stored_unanswered += (waiting & Counter(read_rows(project.path))).total()
                unanswered += waiting.total()
                if rng.random() < RELOAD_SHARE:
                    page.load(rng.choice(MODES))
                if (number + 1) % 10 == 0:
                    print(f"{number + 1} of {kills} kills, {len(page.made)} picks", file=sys.stderr)
            app.start()
            page.talk(app, find_picker(app))
        finally:
            app.kill()
        lost, doubled = compare(page.made, read_rows(project.path))
    assert not page.refused, page.refused
    return {
        "benchmark": "kills", "kills": kills, "picks_made": len(page.made), "picks_lost": lost,
        "picks_doubled": doubled, "sent_without_answer": unanswered, "of_these_stored": stored_unanswered,
        "seconds": round(time.monotonic() - started), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def talk_until_killed(page: Page, app: App, part: int, table: str, rng: random.Random) -> None:
    """A page talks to its part of the app, and the app is killed; what is said is kept in `table`."""
    for _ in range(rng.randint(0, MOST_ANSWERED)):
        page.talk(app, part)
        _pick(page, rng)
    if rng.random() < 0.5:
        killer = threading.Timer(rng.uniform(0, LATEST * page.seconds), app.process.kill)
    else:
        killer = threading.Thread(target=_kill_at_next_row, args=(app, page.project.path, table))
    killer.start()
    try:
        while True:
            page.talk(app, part)
            _pick(page, rng)
    except NO_ANSWER:
        killer.join()
        app.kill()


def _kill_at_next_row(app: App, project: Path, table: str) -> None:
    """Between the moment a pick is on the disk and that of the answer: the page does not know, and sends it again."""
    rows = f"SELECT max(position) FROM {table}"
    with closing(sqlite3.connect(project / "picks.sqlite", timeout=LOCKED_SECONDS)) as store:
        before = store.execute(rows).fetchone()
        while store.execute(rows).fetchone() == before:
            time.sleep(0.0002)
    app.process.kill()


def _pick(page: Page, rng: random.Random) -> None:
    if not page.screens:  # all of this mode is answered, or nothing was asked for yet
        page.load(rng.choice(MODES))
    for _ in range(rng.randint(1, 3)):
        page.pick()


# --- the store, for this and for pick.py


def read_rows(project: Path) -> list[tuple]:
    """Every row of a project's picks, as `as_row` tells an operation."""
    with closing(sqlite3.connect(project / "picks.sqlite")) as store:
        rows = store.execute("""
            SELECT row.client, row.number, row.op, row.keys, row.result, row.chosen, row.rejected, pick.client, pick.number
            FROM picks AS row LEFT JOIN picks AS pick ON pick.position = row.undoes""").fetchall()
    return [
        (
            client, number, op, tuple(keys.split()),
            json.dumps([best, worst] if op == "best_worst" else [undone, its] if op == "undo" else result),
        )
        for client, number, op, keys, result, best, worst, undone, its in rows
    ]  # fmt: skip


def as_row(operation: dict) -> tuple:
    """(client, number, op, images, what was said of them as JSON) of a pick or an undo."""
    said = operation["undoes"] if operation["op"] == "undo" else operation["result"]
    return operation["client"], operation["number"], operation["op"], tuple(operation.get("images", ())), json.dumps(said)


def compare(made: Iterable[dict], rows: Iterable[tuple]) -> tuple[int, int]:
    """(operations that are no row, rows that are no operation or one more of it). Each counts as often as it is there."""
    operations, found = Counter(map(as_row, made)), Counter(rows)
    return (operations - found).total(), (found - operations).total()
