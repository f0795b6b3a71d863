"""Training that only counts, for tests of what the page says of it; and what a person does in the Train tab.

The fixtures are in conftest.py. Real training in a real browser: test_loop.py.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dpo.events import CheckpointSaved, Event, Note, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.runs import Run

HOSTILE = "${window.hit = 1} <img src=x onerror='window.hit = 1'> {{constructor}} a red balloon"
STEPS = 6000  # five minutes: no test waits for them
PICTURE = 16  # pixels a side


def counting(finish: threading.Event) -> Callable[[Run, Path], Iterator[Event]]:
    """What stands in for `dpo.training.execute`: 20 steps a second, until stopped or until `finish` is set. It pauses, validates
    every 10th step, and saves samples as often as the run says."""

    def execute(run: Run, cache: Path) -> Iterator[Event]:
        every = run.config.sample_every
        yield RunStarted(0, STEPS, 6, 2)
        yield Note(0, "Validation rests on 2 pairs.", tone="warning")
        for step in range(1, STEPS + 1):
            while run.pause_requested() and not run.stop_requested():
                time.sleep(0.02)
            time.sleep(0.05)
            yield step_end(step)
            if step % 10 == 0:
                yield ValidationEnd(step, {"rewards/accuracies": 0.75, "errors/chosen_drift": 0.002})
            if every and step % every == 0:
                yield SamplesSaved(step, str(paint_samples(run, step)))
            if run.stop_requested() or finish.is_set():
                break
        run.adapter.write_bytes(b"adapter")
        yield CheckpointSaved(step, "checkpoints/last")
        yield RunEnded(step, "finished" if finish.is_set() else "stopped", "What was learned is kept.")

    return execute


def step_end(step: int) -> StepEnd:
    rewards = {"rewards/accuracies": 0.8, "rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/margins": 0.2}
    return StepEnd(step, 0.05, {"loss": 0.6, **rewards, "errors/chosen_drift": 0.001, "memory_bytes": 2.5e9})


def paint_samples(run: Run, step: int) -> Path:
    """Two pictures of the base, and as many of the step, whose prompt is hostile. Returns the step's folder."""
    folder = run.samples / f"step-{step:06d}"
    for place, red in ((run.base_samples, 0), (folder, 200)):
        place.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            words = PngInfo()
            words.add_text("parameters", f"{HOSTILE}\nSteps: 20, Sampler: DDIM, CFG scale: 3, Seed: {number + 1}, Size: 16x16")
            Image.new("RGB", (PICTURE, PICTURE), (red, 90 * number, 90)).save(
                place / f"00{number}-{number + 1}.png", pnginfo=words
            )
    return folder


def open_tab(page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_role("tab", name=name).click()


def start_training(page, name: str) -> None:
    page.locator("#run-name textarea, #run-name input").first.fill(name)
    page.locator("#start-training").click()


def headline(page, part: str = "#run-report") -> str:
    return page.locator(f"{part} h3").inner_text()


def steps_shown(page) -> int:
    page.locator("#run-report h3", has_text="is training").wait_for()
    return int(re.search(r"step ([\d,]+) of", headline(page)).group(1).replace(",", ""))


def wait_for_steps(page, more_than: int) -> None:
    """Until the page shows a later step: one that was just loaded may show what it began with."""
    end = time.monotonic() + 30
    while steps_shown(page) <= more_than:
        assert time.monotonic() < end, f"the page has shown no step after {more_than}"
        page.wait_for_timeout(200)


def row(page, name: str):
    """A run's line in the list of runs."""
    return page.locator("#runs tbody tr", has=page.get_by_role("button", name=name, exact=True))


def typed(page, setting: str):
    """The input of a setting whose group is open."""
    return page.locator(f"#setting-{setting} input").first
