"""`python -m tests.screenshots [--steps N] [--out DIR]`: the README's pictures, out of the real app in a real Chromium.

A fresh demo project in a temporary folder; pairs picked by keys, always the larger object over the smaller; a run on them;
a comparison. So the pictures show what anyone sees who does the same, and they are made anew after the page changes.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dpo.blind import list_tests
from dpo.demo.candidates import demo_prompts, prepare_demo
from dpo.demo.measures import MEASURES, read_scene
from dpo.groups import Group
from dpo.jobs import JobRegistry
from dpo.project import Project, open_project
from dpo.votes import SIDES
from tests.browser.conftest import App, find_chromium, free_port
from ui.images import file_url
from ui.session import Studio, project_secret

SIZE = {"width": 1440, "height": 900}
PICTURES = Path(__file__).resolve().parent.parent / "docs"
LARGEST_FILE = 400_000  # bytes
PICKS_BEFORE_THE_PICTURE = 24
SHOWN_PROMPTS, SHOWN_SEEDS = 8, (1, 2)  # of base beside adapter
VOTES = 24
LONGEST_WAIT = 3600  # seconds, for a run or a comparison; the machine may be busy with other things


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__.split("\n\n")[1])
    parser.add_argument("--steps", type=int, help="training steps (default: the demo preset's)")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures (default: docs)")
    flags = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        parser.exit(2, "No Chromium was found: install chromium or run `python -m playwright install chromium`.\n")
    flags.out.mkdir(exist_ok=True)

    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        project = open_project(Path(folder) / "demo")
        prepare_demo(project)
        app = App(project.path, free_port()).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"])
        try:
            page = browser.new_page(viewport=SIZE, color_scheme="dark")
            page.set_default_timeout(60_000)
            page.goto(app.url)
            pick(page, project, flags.out)
            review(page, flags.out)
            browse(page, flags.out)
            train(page, flags.steps, flags.out)
            prompts = demo_prompts(SHOWN_PROMPTS, 200, exclude=frozenset(pair.prompt for pair in project.picks.pairs()))
            compare(page, prompts, flags.out)
            vote(page, project, flags.out)
            show_base_and_adapter(page, project, prompts, flags.out)
        finally:
            browser.close()
            app.kill()


def pick(page, project: Project, out: Path) -> None:
    """Scan, then pick best and worst of every group; the picture is taken on the way, one pick half done."""
    page.locator("#scan").click()
    page.locator("#picker .cell:not([hidden]) img").first.wait_for()
    page.locator("#picker .later").click()  # the name is asked for once
    groups = len(read_groups(project))
    for number in range(groups):
        page.locator("#picker .cell:not([hidden]) img").first.wait_for()
        images = page.locator("#picker .cell:not([hidden]) img")
        keys = images.evaluate_all("images => images.map((image) => image.src.split('-').at(-2))")
        sizes = [size_of(project, key) for key in keys]
        page.keyboard.press(str(int(np.argmax(sizes)) + 1))
        if number == PICKS_BEFORE_THE_PICTURE:
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)  # the last pick's edge goes out
            save(page, out / "pairs.png")
        page.keyboard.press(str(int(np.argmin(sizes)) + 1))
        if number == PICKS_BEFORE_THE_PICTURE:
            show_duel(page, out)
    page.locator("#picker .count", has_text=f"{groups} of {groups}").wait_for()
    page.locator("#to-train", has_text=f"{groups} pairs").wait_for()
    say(f"{groups} pairs")


def read_groups(project: Project) -> list[Group]:
    """All of the demo's groups, once the scan has read all of its images."""
    folder = project.path / "candidates"
    images = len(list(folder.glob("**/*.png")))
    while True:
        groups = project.library.groups(folder)
        if sum(len(group.images) for group in groups) == images:
            return groups
        time.sleep(0.2)


def show_duel(page, out: Path) -> None:
    page.locator("#picker [data-mode=duel]").click()
    page.wait_for_function("document.querySelectorAll('#picker .cell:not([hidden]) img').length === 2")
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    save(page, out / "duel.png")
    page.locator("#picker [data-mode=best_worst]").click()
    page.wait_for_function("document.querySelectorAll('#picker .cell:not([hidden]) img').length > 2")


def review(page, out: Path) -> None:
    """Unfold the review, with what it says of the pairs' health."""
    page.locator("#review-step > button").click()
    page.locator("#review .card img").first.wait_for()
    page.wait_for_timeout(3000)
    page.locator("#review-step").evaluate("step => window.scrollTo(0, step.getBoundingClientRect().top + window.scrollY - 60)")
    page.wait_for_timeout(500)
    save(page, out / "review.png")
    page.locator("#review-step > button").click()
    page.evaluate("window.scrollTo(0, 0)")


def browse(page, out: Path) -> None:
    """Unfold the list of groups and open one."""
    page.locator("#images-step > button").click()
    page.locator("#shelf .list [role=option]").nth(2).click()
    page.locator("#shelf .pane img").first.wait_for()
    page.wait_for_timeout(1000)  # its images come one by one
    page.locator("#folder textarea, #folder input").first.fill(
        "~/image-dpo/demo/candidates"
    )  # not where this copy happens to lie
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    save(page, out / "library.png")
    page.locator("#images-step > button").click()


def size_of(project: Project, key: str) -> float:
    """How large the object is; nothing recognisable is smaller than anything."""
    return size_in(Path(project.library.image(key).path))


def size_in(path: Path) -> float:
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    return MEASURES["larger"][0](picture) if read_scene(picture).color else 0.0


def train(page, steps: int | None, out: Path) -> None:
    """Train as the form stands, take the picture when two thirds are done, and wait for the end."""
    page.locator("#to-train").click()
    page.locator("#start-training").wait_for()
    if steps is not None:
        page.locator("#setting-max_steps input").fill(str(steps))
        page.locator("#setting-max_steps input").blur()
    page.wait_for_timeout(500)
    page.locator("#start-training").click()
    picture_taken = False
    end = time.monotonic() + LONGEST_WAIT
    while not page.locator("#download-adapter").is_visible() or page.locator("#stop-training").is_visible():
        bar = page.locator("#run-report .bar b").evaluate("bar => parseFloat(bar.style.width) || 0")
        if bar > 66 and not picture_taken and "train" in page.locator("#run-report h3").inner_text():
            save(page, out / "train.png")
            picture_taken = True
        problem = page.locator("#train-problem p").inner_text() if page.locator("#train-problem p").is_visible() else ""
        if problem or time.monotonic() > end:
            raise SystemExit(problem or f"The run did not end within {LONGEST_WAIT} s.")
        page.wait_for_timeout(500)
    if not picture_taken:
        save(page, out / "train.png")
    say(page.locator("#run-report h3").inner_text())


def compare(page, prompts: list[str], out: Path) -> None:
    """Compare prompts that training never saw, with the run's adapter, as the tab offers it."""
    page.get_by_role("tab", name="Compare").click()
    page.locator("#adapter .token").first.wait_for()
    page.locator("#prompts textarea").fill("\n".join(prompts))
    page.locator("#seeds textarea, #seeds input").first.fill(", ".join(map(str, SHOWN_SEEDS)))
    page.locator("#start-compare").click()
    count = len(prompts) * len(SHOWN_SEEDS)
    page.wait_for_function(f"document.querySelectorAll('#results .result').length === {count}", timeout=LONGEST_WAIT * 1000)
    page.locator("#save-compare").wait_for()
    page.locator("#job", has_text="idle").wait_for()
    page.mouse.move(0, 0)
    save(page, out / "compare.png")
    say(f"{count} comparisons")


def vote(page, project: Project, out: Path) -> None:
    """A blind test: always for the larger object, which the app alone knows to be the adapter's or not."""
    studio = Studio(project, JobRegistry(), project_secret(project.path))
    page.locator("#compare-way").get_by_text("Test", exact=True).click()
    page.locator("#blind-comparisons input").fill(str(VOTES))
    page.locator("#start-blind").click()
    page.locator("#job", has_text="making the blind test").wait_for()
    page.locator("#job", has_text="idle").wait_for(timeout=LONGEST_WAIT * 1000)
    (test,) = list_tests(project)
    files = {file_url(studio, test.image(item, side)): test.image(item, side) for item in test.items for side in SIDES}
    for number in range(VOTES):
        page.locator("#blind .count", has_text=f"{number} of {VOTES}").wait_for()
        page.locator("#blind .cell:not([hidden]) img").nth(1).wait_for()
        shown = page.locator("#blind .cell:not([hidden]) img").evaluate_all(
            "images => images.map((image) => new URL(image.src).pathname)"
        )
        left, right = (size_in(files[address]) for address in shown)
        if number == VOTES // 2:
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)
            page.locator("#blind").evaluate("part => window.scrollTo(0, part.getBoundingClientRect().top + window.scrollY - 60)")
            save(page, out / "blind.png")
        page.keyboard.press("ArrowUp" if left == right else "ArrowLeft" if left > right else "ArrowRight")
    page.get_by_role("button", name="Show the result").click()
    page.locator("#blind-card figure img").first.wait_for()
    page.wait_for_timeout(2000)
    page.locator("#blind-card").evaluate("card => window.scrollTo(0, card.getBoundingClientRect().top + window.scrollY - 60)")
    page.wait_for_timeout(500)
    save(page, out / "verdict.png")
    say(page.locator("#blind-card .words").inner_text())


def show_base_and_adapter(page, project: Project, prompts: list[str], out: Path) -> None:
    """All comparisons on one sheet: base on the left, adapter on the right, from the same noise."""
    folder = max((project.path / "compare").iterdir())
    cells = []
    for number, base in enumerate(sorted(folder.glob("*-base.png"))):
        (adapter,) = folder.glob(f"{base.name.removesuffix('-0-base.png')}-1-*.png")
        prompt = html.escape(prompts[number // len(SHOWN_SEEDS)])
        sides = "".join(
            f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">' for path in (base, adapter)
        )
        cells.append(
            f"<figure><div>{sides}</div><figcaption>{prompt}, seed {SHOWN_SEEDS[number % len(SHOWN_SEEDS)]}</figcaption></figure>"
        )
    page.set_content(f"""
        <style>
          body {{ margin: 0; height: 100vh; box-sizing: border-box; padding: 22px 28px; background: #141413; color: #a8a8a2;
                 font: 13px system-ui, sans-serif; display: flex; flex-direction: column; gap: 14px }}
          main {{ flex: 1; display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px 22px; align-content: space-between }}
          figure {{ margin: 0 }}
          figure div {{ display: grid; grid-template-columns: 1fr 1fr; gap: 4px }}
          img {{ width: 100%; image-rendering: pixelated; display: block }}
          img:last-child {{ outline: 2px solid #e0992e }}
          figcaption {{ margin-top: 7px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }}
          b {{ color: #e0992e; font-weight: 600 }}
        </style>
        <p style="margin:0">Left: the base model. Right: <b>with the adapter</b>, from the same noise.
        Picked was: the larger object. Training never saw these prompts.</p>
        <main>{"".join(cells)}</main>""")
    save(page, out / "base-and-adapter.png")


def save(page, path: Path) -> None:
    """A picture of the window in 256 colours or fewer: as many as fit the size that a repository should carry."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colors in (256, 128, 64):
        shot.quantize(colors, method=Image.Quantize.MEDIANCUT).save(path, optimize=True)
        if path.stat().st_size <= LARGEST_FILE:
            break
    say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
