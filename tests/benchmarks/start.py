"""From `python app.py` to the page's first answer: at most 4 s on a warm disk, with no torch loaded.

The process is started three times on the demo project; the first start warms the disk and unpacks the images.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from dpo.demo.candidates import prepare_demo
from dpo.project import open_project
from tests.browser.conftest import App, free_port

STARTS = 3
LIMIT_SECONDS = 4.0


def measure() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        project = open_project(Path(folder))
        prepare_demo(project)
        seconds = []
        for _ in range(STARTS + 1):
            app = App(project.path, free_port())
            started = time.perf_counter()
            app.start()
            seconds.append(round(time.perf_counter() - started, 2))
            app.kill()
    warm = seconds[1:]
    return {
        "benchmark": "start", "first_s": seconds[0], "warm_s": warm, "limit_s": LIMIT_SECONDS,
        "within_limit": max(warm) <= LIMIT_SECONDS, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
