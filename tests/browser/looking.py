"""A look that stands still half-way, in an app of this very process, for the browser tests of Compare. Nothing is sampled here.

Never two such apps at a time: what Gradio makes for the page of one, while another is built, becomes a part of that other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from dpo.compare import BASE, LookRequest, LookRow, Variant
from dpo.jobs import Job, JobRegistry
from dpo.project import open_project
from dpo.sample_settings import SampleSettings
from tests.browser.conftest import free_port
from tests.browser.training import HOSTILE, open_tab
from ui import create_app, launch
from ui.security import check_doors
from ui.session import Studio, project_secret

SIDE = 64  # pixels of an image
RED, BLUE, DARK_RED = (200, 30, 30), (30, 30, 200), (150, 30, 30)
VARIANTS = (BASE, Variant("cats at 0.5", Path("cats"), 0.5), Variant("cats at 1", Path("cats"), 1.0))
COLOURS = [(RED, BLUE, RED), (DARK_RED, BLUE, BLUE), (RED, BLUE, BLUE)]  # of each row's images; the last is still to come


class Looking:
    """The app, in this process: a look of three rows, of which the last is held back until `go_on`."""

    def __init__(self, folder: Path) -> None:
        project = open_project(folder)
        self.studio = Studio(project, JobRegistry(), project_secret(project.path))
        self.go_on, self.is_shown = threading.Event(), threading.Event()
        rows = [self._paint(number, colours) for number, colours in enumerate(COLOURS)]
        asked = LookRequest("demo", VARIANTS, (HOSTILE,), (1, 2, 3), SampleSettings())

        def work(job: Job) -> list[LookRow]:
            job.result.extend(rows[:2])
            job.report(2, 3, "sampling")
            self.is_shown.set()
            while not (self.go_on.wait(0.05) or job.stop.is_set()):
                pass
            job.result.extend(rows[2:])
            return job.result

        self.job = self.studio.jobs.submit("compare", f"comparing {HOSTILE}", "x", work, result=[], request=asked)
        assert self.is_shown.wait(10)

    def _paint(self, number: int, colours) -> LookRow:
        folder = self.studio.project.path / "compare" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number}-{column}.png" for column in range(len(colours))]
        for path, colour in zip(paths, colours, strict=True):
            image = Image.new("RGB", (SIDE, SIDE), colour)
            image.putpixel((number, 0), (0, 255, 0))  # no two rows are one file
            image.save(path)
        return LookRow(HOSTILE, number + 1, tuple(paths))


@contextmanager
def opened(browser, folder: Path) -> Iterator[Looking]:
    """That app, and a page of it on Compare with the first two rows."""
    made = Looking(folder)
    port = free_port()
    app = create_app(made.studio)
    launch(app, made.studio, check_doors("127.0.0.1", None, False), port, wait=False)
    made.url = f"http://127.0.0.1:{port}/"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made.page = context.new_page()
    made.page.set_default_timeout(30_000)
    open_tab(made.page, made.url, "Compare")
    made.page.locator("#results .result").nth(1).wait_for()
    yield made
    made.go_on.set()
    made.job.finished.wait(10)
    context.close()
    app.close()


def choose(page, row: int, variant: int) -> None:
    page.locator("#results .result").nth(row).locator(".cell").nth(variant).click()
    page.locator(f"#results .stage[data-shown='{row} {variant}']").wait_for()
