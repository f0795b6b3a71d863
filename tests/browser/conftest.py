"""A real Chromium, and the real app in a process of its own.

Browser tests skip, saying why, where no Chromium is found; with STUDIO_REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 60


@dataclass
class App:
    """The app as a process. `kill` takes it away as a crash would; `start` brings it back on the same port."""

    project: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> App:
        command = [sys.executable, "app.py", "--project", str(self.project), "--port", str(self.port)]
        log = (self.project / "app.log").open("ab")
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
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
    """A browser test that fails is tried once more, and counted as rerun: what fails twice is no accident of timing."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


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


@pytest.fixture
def start_app() -> Iterator[Callable[[Path], App]]:
    """start_app(project folder) -> App, answering; killed at the end of the test."""
    apps = []

    def start(project: Path) -> App:
        project.mkdir(parents=True, exist_ok=True)
        apps.append(App(project, free_port()))
        return apps[-1].start()

    yield start
    for app in apps:
        app.kill()
