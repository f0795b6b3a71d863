"""A real Chromium, and the real app in a process of its own.

Browser tests skip, saying why, where no Chromium is found; with STUDIO_REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.picks import PickStore
from dpo.project import open_project
from dpo.runs import Run
from dpo.training import stop_training
from tests.browser.nursery import REPOSITORY, Child, Nursery
from tests.browser.picking import group_order, open_picker
from tests.browser.training import counting
from tests.pictures import paint_folder
from ui import create_app, launch
from ui.security import check_doors
from ui.session import Studio, project_secret

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 60


@dataclass
class App:
    """The app as a process. `kill` takes it away as a crash would; `start` brings it back on the same port."""

    project: Path
    port: int
    nursery: Nursery | None = None  # where it comes from, if it need not start from nothing
    process: subprocess.Popen | Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> App:
        arguments, log = ["--project", str(self.project), "--port", str(self.port)], self.project / "app.log"
        if self.nursery:
            self.process = self.nursery.give_birth(arguments, log)
        else:
            command = [sys.executable, "app.py", *arguments]
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log.open("ab"), stderr=subprocess.STDOUT)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return self
            except OSError:
                time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"The app did not answer at {self.url}:\n{(self.project / 'app.log').read_text()[-3000:]}")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser test that fails is tried twice more, and counted as rerun: what fails three times is no accident of timing."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome on this machine, or of the one Playwright installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
            return path if Path(path).exists() else None
    except ImportError:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def browser() -> Iterator:
    reason = "no Chromium was found: install chromium or run `python -m playwright install chromium`"
    chromium = find_chromium()
    if chromium is None:
        if os.environ.get("STUDIO_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)  # a job loads torch first, which takes long on a busy machine
    yield page
    context.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery | None]:
    if not hasattr(os, "pidfd_open"):  # Linux alone; elsewhere every app starts from nothing
        yield None
        return
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def start_app(nursery) -> Iterator[Callable[[Path], App]]:
    """start_app(project folder) -> App, answering; killed at the end of the test."""
    apps = []

    def start(project: Path) -> App:
        project.mkdir(parents=True, exist_ok=True)
        apps.append(App(project, free_port(), nursery))
        return apps[-1].start()

    yield start
    for app in apps:
        app.kill()


@pytest.fixture
def project(tmp_path):
    """A scanned project of 12 prompts with 4 images each."""
    paint_folder(tmp_path / "project" / "candidates", prompts=12, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(project.path / "candidates")
    return project


@pytest.fixture
def groups(project):
    """Its groups, in the order in which they are handed out."""
    return group_order(project)


@pytest.fixture
def app(start_app, project):
    return start_app(project.path)


@pytest.fixture
def picking(page, app, groups):
    """The page with the first screen on it. The order of the groups was asked for before: a page has what it holds alone."""
    open_picker(page, app)
    return page


@pytest.fixture
def studio(tmp_path) -> Studio:
    """For an app in this very process, in which tests put something else in the place of what takes long."""
    project = open_project(tmp_path / "project")
    return Studio(project, JobRegistry(), project_secret(project.path))


@pytest.fixture
def url(studio) -> Iterator[str]:
    port = free_port()
    app = create_app(studio)
    launch(app, studio, check_doors("127.0.0.1", None, False), port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    for job in studio.jobs.active():
        studio.jobs.cancel(job)
        job.stop.set()
        if job.kind == "train":
            stop_training(studio.jobs, Run(studio.project.runs / job.key))
        job.finished.wait(10)
    app.close()


@pytest.fixture
def pairs(studio, monkeypatch, tmp_path) -> list[Pair]:
    """Eight pairs of four prompts, as if picked, two of them by duels."""
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64)).save(image)
    picked = [
        Pair(f"prompt {number // 2}", str(image), str(image), source="best_worst" if number < 6 else "duel")
        for number in range(8)
    ]
    monkeypatch.setattr(PickStore, "pairs", lambda self: picked)
    return picked


@pytest.fixture
def slow_training(monkeypatch) -> threading.Event:
    """Training that only counts, until stopped or until the event says to finish."""
    finish = threading.Event()
    monkeypatch.setattr("dpo.training.execute", counting(finish))
    return finish
