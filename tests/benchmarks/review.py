"""Reviewing 20,000 pairs of 2,000 prompts: open in less than 1 s, their health told in less than 5 s.

In headless Chromium, from the click that unfolds the review until the cards in sight have their images decoded, and until the
sentences of health are there; after a start of the app, and again after a reload of the page. The images are 40,000 files,
scanned and decoded as ever: small ones, and photographs for the pairs that are seen first. A pair is a prompt and a seed: four of
five were picked as best and worst, one by a duel. Beside it, in a process of its own, what the page waits for: the pairs from a
project just opened and once more, what is known of their images, and the checks of their health.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from dpo.config import TrainConfig
from dpo.groups import View
from dpo.health import check_health
from dpo.metadata import format_parameters
from dpo.pixels import difference_hash, open_pixels, pixel_digest
from dpo.project import Project, open_project
from tests.benchmarks._photos import photograph_folder
from tests.browser.conftest import App, find_chromium, free_port
from tests.metadata.files import SIGNATURE, chunk

PAIRS, PROMPTS = 20_000, 2_000
SEEN = 48  # the newest pairs: as many as the page asks for at first
SIDE = 16  # pixels of the small files
DUEL_EVERY = 5
BATCH = 500  # operations in a transaction
LIMIT_OPEN_MS, LIMIT_HEALTH_MS = 1_000, 5_000
SETTLE_SECONDS = 5

# From a click on the review's line: milliseconds until its first cards are there with their images, and until health is told.
STOPWATCH = """
() => new Promise((resolve, reject) => {
  const started = performance.now(), times = {};
  const look = () => {
    const sheet = document.querySelector("#review .sheet").getBoundingClientRect();
    const cards = [...document.querySelectorAll("#review .card")].filter((card) => {
      const box = card.getBoundingClientRect();
      return box.bottom > sheet.top && box.top < sheet.bottom;
    });
    const images = cards.flatMap((card) => [...card.querySelectorAll("img")]);
    const isOpen = images.length > 1 && images.every((image) => image.complete && image.naturalWidth > 0);
    if (isOpen && !times.open && cards.every((card) => !card.classList.contains("loading"))) {
      times.open = performance.now() - started;
      times.cards = cards.length;
    }
    if (document.querySelector("#review .health li")) times.health = performance.now() - started;
    if (times.open && times.health) resolve(times);
    else if (performance.now() - started > 60_000) reject(new Error(`after a minute only ${JSON.stringify(times)}`));
    else requestAnimationFrame(look);
  };
  document.querySelector("#review-step > button, #review-step .label-wrap").click();
  requestAnimationFrame(look);
})
"""


def measure(pairs: int = PAIRS, prompts: int = PROMPTS) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        made = _prepare(path, pairs, prompts)
        asked = _ask(path)
        seen = _open_in_browser(path)
    return {
        "benchmark": "review", "pairs": pairs, "prompts": prompts, **seen, "limit_open_ms": LIMIT_OPEN_MS,
        "limit_health_ms": LIMIT_HEALTH_MS, **asked, **made,
        "within_limit": seen["review_open_ms"] < LIMIT_OPEN_MS and seen["health_ms"] < LIMIT_HEALTH_MS,
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


# --- a project with so many pairs


def _prepare(path: Path, pairs: int, prompts: int, seen: int = SEEN) -> dict:
    """Everything that was there before the review is opened. Returns seconds of the parts that take long."""
    started = time.perf_counter()
    project = open_project(path)
    folder = path / "candidates"
    _write_small_files(folder, pairs - seen, prompts)
    photographs = photograph_folder(folder / "photographs", [2] * seen + [4])  # the last group is left to pick from
    project.library.scan(folder)
    scanned = time.perf_counter()
    _decode_all(project, folder)
    for photograph in photographs[: 2 * seen]:
        for kind in ("thumb", "preview"):
            project.previews.get_file(photograph, kind)
    decoded = time.perf_counter()
    _pick_all(project, folder, pairs)
    return {"scan_s": round(scanned - started, 1), "pick_all_s": round(time.perf_counter() - decoded, 1)}


def _write_small_files(folder: Path, pairs: int, prompts: int) -> None:
    """Two PNGs of noise for each pair, of one prompt and seed, made with different samplers; in folders of a thousand."""
    rng = random.Random(pairs)
    header = chunk(b"IHDR", SIDE.to_bytes(4) * 2 + bytes((8, 2, 0, 0, 0)))
    for number in range(2 * pairs):
        place = folder / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        sampler = ("Euler a", "DPM++ 2M")[number % 2]
        prompt = f"a lighthouse no {number // 2 % prompts}, oil painting, thick brush strokes, morning mist, muted palette"
        text = format_parameters(prompt, steps=28, sampler=sampler, seed=number // 2, size=f"{SIDE}x{SIDE}", model="demo")
        noise = b"".join(b"\0" + rng.randbytes(3 * SIDE) for _ in range(SIDE))
        parts = [chunk(b"tEXt", b"parameters\0" + text.encode()), chunk(b"IDAT", zlib.compress(noise, 0)), chunk(b"IEND", b"")]
        (place / f"{number:06}.png").write_bytes(b"".join([SIGNATURE, header, *parts]))


def _decode_all(project: Project, folder: Path) -> None:
    """What the maker of previews finds out, without the previews."""
    rows = []
    for image in project.library.images(folder):
        pixels: Image.Image = open_pixels(image.path)
        rows.append((image.key, pixel_digest(pixels), difference_hash(pixels)))
    project.library.note_pixels(rows)


def _pick_all(project: Project, folder: Path, pairs: int) -> None:
    """A pick of every group of one prompt and seed, by two people in turn; of photographs last."""
    operations = list(_operations(project, folder))
    for start in range(0, pairs, BATCH):
        applied = project.picks.apply(operations[start : min(start + BATCH, pairs)])
        assert not applied.refused, applied.refused[0]


def _operations(project: Project, folder: Path) -> Iterator[dict]:
    rng = random.Random(0)
    for number, (group, keys) in enumerate(_groups(project, folder)):
        rng.shuffle(keys)
        pick = {"client": "benchmark", "number": number, "group": group, "images": keys, "rater": ("Ada", "Bo")[number % 2]}
        if number % DUEL_EVERY:
            yield pick | {"op": "best_worst", "result": keys[:2]}
        else:
            yield pick | {"op": "duel", "result": rng.choice(("left", "right"))}


def _groups(project: Project, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(key, keys of its images) of the small files' groups, then of the photographs', in the order of their paths."""
    for view in (View(str(folder), model="demo", same_seed=True), View(str(folder / "photographs"))):
        paths = {image.key: image.path for image in project.library.images(view.folder)}
        found = project.library.members(view, paths)
        groups = [(group, [copies[0] for copies in members]) for group, members in found.items()]
        yield from sorted(groups, key=lambda group: paths[group[1][0]])


# --- what is waited for


def _ask(path: Path) -> dict:
    """Milliseconds of what the page asks a project just opened."""
    project = open_project(path)
    times = {}

    def clock(name: str, action: Callable):
        started = time.perf_counter()
        found = action()
        times[name] = round((time.perf_counter() - started) * 1000, 1)
        return found

    picks, config = project.picks, TrainConfig()
    pairs = clock("picked_pairs_ms", picks.picked_pairs)
    clock("picked_pairs_warm_ms", picks.picked_pairs)
    keys = {key for picked in pairs for key in (picked.chosen, picked.rejected)}
    facts = clock("image_facts_ms", lambda: project.library.image_facts(keys))
    sides, agreement, live = clock("opinions_ms", lambda: (picks.sides(), picks.agreement(), picks.live()))
    findings = clock(
        "check_health_ms",
        lambda: check_health(pairs, facts, sides, agreement, config.model, config.validation_share, live),
    )
    return times | {"findings": len(findings), "used": sum(picked.state == "used" for picked in pairs)}


def _open_in_browser(path: Path) -> dict:
    from playwright.sync_api import sync_playwright

    app = App(path, free_port()).start()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1440, "height": 900})
            first = _time_opening(page, app.url)
            again = _time_opening(page, app.url)
            chromium.close()
    finally:
        app.kill()
    return {
        "review_open_ms": round(first["open"]), "health_ms": round(first["health"]), "cards": first["cards"],
        "review_again_ms": round(again["open"]), "health_again_ms": round(again["health"]),
    }  # fmt: skip


def _time_opening(page, url: str) -> dict:
    page.goto(url)
    page.wait_for_selector("#picker .cell:not([hidden]) img", timeout=120_000)
    time.sleep(SETTLE_SECONDS)  # the page is up: what is measured is the review
    return page.evaluate(STOPWATCH)
