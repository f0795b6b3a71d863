"""50 sessions picking at once while a run trains: p95 of a pick's acknowledgement under 300 ms, none lost; and a day of visitors.

Each of 48 visitors without a browser (`_visitor.py`) and two people in real Chromium picks every two seconds, and asks besides
for all that an open page asks for: its pulse, screens, their images. A pick is acknowledged when the page may forget it: from
the moment it was due, or in the browser from the key that decided it, until the app has answered that it is on the disk.
Meanwhile the app trains the demo model, begun in the page as a person begins it.

Then a day, compressed: on another app visitors come, load the whole page, pick, and leave, one after the other, four at a
time. What the app's process holds after the last is compared with what it held after the first hundred.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from dpo.groups import View
from dpo.metadata import format_parameters
from dpo.metadata.writer import write_png
from dpo.progress import Asking
from dpo.project import Project, open_project
from dpo.runs import list_runs
from tests.benchmarks._person import new_context, open_browser, sit_down
from tests.benchmarks._protocol import Page
from tests.benchmarks._visitor import Visitor, wait_until
from tests.benchmarks.kills import compare, read_rows
from tests.browser.conftest import App, free_port
from tests.browser.training import open_tab, steps_shown

VISITORS, BROWSERS = 48, 2
PICK_SECONDS = 2.0
BEAT_SECONDS = 3.0  # of a shared page, as fifty people share one; on one's own machine it is one second, as in the two browsers
SECONDS = 120
LIMIT_MS = 300
PER_GROUP, SIDE = 4, 256
FIRST_PAIRS = 60  # to train on, picked before
START_SECONDS = 300  # for the first step, on a busy machine: torch is loaded, and images are encoded
VISITS, FIRST_VISITS, VISITS_AT_ONCE = 1000, 100, 4
MOST_GROWTH = 1.1
PICKS_A_VISIT = 2


def measure() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        crowd = _measure_crowd(Path(folder) / "crowd", VISITORS, SECONDS)
        day = _measure_day(Path(folder) / "day", VISITS)
    return {"benchmark": "load", **crowd, **day, "cores": os.cpu_count()}


# ------------------------------------------------------------------------------------------------ the crowd


def _measure_crowd(path: Path, visitors: int, seconds: float) -> dict:
    picks = int((visitors + BROWSERS) * seconds / PICK_SECONDS)
    project = paint_project(path, FIRST_PAIRS + picks + 16 * (visitors + BROWSERS), PER_GROUP)
    draw_previews(project)
    first = pick_first(project, FIRST_PAIRS)
    app = App(path, free_port()).start()
    server = psutil.Process(app.process.pid)
    try:
        started = memory_mb(server)
        with open_browser() as context:
            people = [sit_down(new_context(context.browser), app.url, is_slow=False) for _ in range(BROWSERS)]
            trainer = context.new_page()
            begin_training(trainer, app.url)
            step = _step(path)
            crowd = Crowd([Visitor(app.url, project, random.Random(number)) for number in range(visitors)])
            crowd.begin(seconds)
            waits = pick_in_browsers(people, crowd.until)
            crowd.end()
            steps = _step(path) - step
            trainer.close()
        ended = memory_mb(server)
        load = os.getloadavg()[0]
    finally:
        app.kill()
    made = [*first.made, *crowd.made, *(operation for person in people for operation in person.made)]
    lost, doubled = compare(made, read_rows(path))
    times = [*crowd.waits, *waits]
    return {
        "sessions": visitors + BROWSERS, "picks": len(times), "seconds": round(seconds),
        "p50_ms": percentile(times, 50), "p95_ms": percentile(times, 95), "max_ms": round(max(times), 1),
        "browser_picks": len(waits), "browser_p95_ms": percentile(waits, 95), "limit_ms": LIMIT_MS,
        "picks_lost": lost, "picks_doubled": doubled, "refused": len(crowd.refused), "beats": crowd.beats,
        "images": sum(visitor.images for visitor in crowd.visitors), "steps_trained_meanwhile": steps,
        "memory_mb_start": started, "memory_mb_training": ended, "load": round(load, 1),
    }  # fmt: skip


@dataclass
class Crowd:
    """Visitors who pick, each in a thread of its own."""

    visitors: list[Visitor]
    pick_seconds: float = PICK_SECONDS
    most: int = 2**31  # picks of each
    until: float = 0.0
    waits: list[float] = field(default_factory=list)  # ms from when a pick was due to its acknowledgement
    beats: int = 0
    refused: list[str] = field(default_factory=list)
    made: list[dict] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)

    def begin(self, seconds: float) -> None:
        """Let them come one after the other, then pick for so long."""
        for visitor in self.visitors:
            visitor.arrive()
        self.until = time.monotonic() + seconds
        self._threads = [threading.Thread(target=self._watch, args=(visitor,)) for visitor in self.visitors]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for them. Raises what went wrong for one of them."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        for visitor in self.visitors:
            self.refused += visitor.page.refused
            self.made += visitor.page.made

    def _watch(self, visitor: Visitor) -> None:
        try:
            self._pick(visitor)
        except BaseException as error:
            self._errors.append(error)

    def _pick(self, visitor: Visitor) -> None:
        visitor.talk()
        now = time.monotonic()
        due, beat = now + visitor.rng.uniform(0, self.pick_seconds), now + visitor.rng.uniform(0, BEAT_SECONDS)
        while min(due, beat) < self.until and len(visitor.page.made) < self.most:
            wait_until(min(due, beat))
            if beat <= due:
                visitor.beat()
                self.beats += 1
                beat += BEAT_SECONDS
                continue
            visitor.page.pick()
            visitor.talk()
            self.waits.append(1000 * (visitor.page.answered - due))
            due += self.pick_seconds
        visitor.leave()


def begin_training(page, url: str) -> None:
    """As a person does it, with more steps than there is time for."""
    page.set_default_timeout(1000 * START_SECONDS)
    open_tab(page, url, "Train")
    page.locator("#setting-max_steps input").first.fill("100000")
    page.locator("#start-training").click()
    while steps_shown(page) == 0:
        time.sleep(1)


def _step(path: Path) -> int:
    return list_runs(path / "runs")[0].status().step


def pick_in_browsers(people: list, until: float) -> list[float]:
    """The people pick in turn, each every PICK_SECONDS. Returns how long their pages waited for each acknowledgement, in ms."""
    now = time.monotonic()
    for number, person in enumerate(people):
        person.due = now + number * PICK_SECONDS / len(people)
    waits = []
    while time.monotonic() < until:
        for person in people:
            person.pick("best_worst")
            person.due += PICK_SECONDS - 0.5  # less the half second it takes itself
            waits += person.page.evaluate("() => person.waits()")
    for person in people:
        person.leave()
        waits += person.page.evaluate("() => person.waits()")
    return waits


# ------------------------------------------------------------------------------------------------ the day


def _measure_day(path: Path, visits: int) -> dict:
    project = paint_project(path, visits * PICKS_A_VISIT + 500, 2)
    draw_previews(project)
    app = App(path, free_port()).start()
    server = psutil.Process(app.process.pid)
    made: list[dict] = []
    started = time.monotonic()
    memory = {0: memory_mb(server)}

    def visit(number: int) -> None:
        visitor = Visitor(app.url, project, random.Random(number))
        visitor.arrive()
        for _ in range(PICKS_A_VISIT):
            visitor.talk()
            visitor.beat()
            visitor.page.pick()
        visitor.talk()
        visitor.leave()
        made.extend(visitor.page.made)

    try:
        for first in range(0, visits, FIRST_VISITS):
            with ThreadPoolExecutor(VISITS_AT_ONCE) as pool:
                list(pool.map(visit, range(first, min(visits, first + FIRST_VISITS))))
            memory[first + FIRST_VISITS] = memory_mb(server)
    finally:
        app.kill()
    lost, doubled = compare(made, read_rows(path))
    first, last = memory[FIRST_VISITS], list(memory.values())[-1]
    return {
        "visits": visits, "visits_s": round(time.monotonic() - started), "visits_picks": len(made), "visits_picks_lost": lost,
        "visits_picks_doubled": doubled, "memory_mb_empty": memory[0], "memory_mb_first_hundred": first,
        "memory_mb_end": last, "growth": round(last / first, 3), "most_growth": MOST_GROWTH,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ what both begin with


def paint_project(path: Path, groups: int, per_group: int) -> Project:
    """A scanned project of so many groups of small images, all different."""
    project = open_project(path)
    folder = project.path / "candidates"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for group in range(groups):
        for number in range(per_group):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            words = format_parameters(
                f"a picture, number {group}", steps=20, sampler="Euler a", guidance=7, seed=number, size=f"{SIDE}x{SIDE}"
            )
            write_png(image, folder / f"{group:05}_{number}.png", words)
    project.library.scan(folder)
    return project


def draw_previews(project: Project) -> None:
    """As the app does in the background once it is opened."""
    folder = project.path / "candidates"
    project.previews.prepare(folder)
    while project.library.unprepared(folder, 1):
        time.sleep(0.2)


def pick_first(project: Project, picks: int) -> Page:
    """Somebody who picked before, and left."""
    page = Page(project, random.Random(-1))
    view = View(str(project.path / "candidates"))
    found = project.picks.next_screens(project.library, view, Asking(mode="best_worst", want=picks))
    for screen in found.screens:
        keys = [image.key for image in screen.images]
        page.made.append({
            "client": page.client, "number": len(page.made), "op": "best_worst", "group": screen.group.key, "images": keys,
            "result": keys[:2], "size": len(keys),
        })  # fmt: skip
    assert project.picks.apply(page.made).new == picks
    return page


def memory_mb(process: psutil.Process) -> float:
    """The resident memory of the process alone, without those it starts to draw images."""
    return round(process.memory_info().rss / 1e6, 1)


def percentile(values: Iterable[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)
