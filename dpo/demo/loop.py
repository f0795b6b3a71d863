"""The whole loop on the demo, with a measure in the place of a person: candidates, picks, training, verdict.

It goes the way a person's images go: files with metadata, the scan, groups, the store of picks, a run folder. One measure
chooses pairs; another, which never chose one, compares base and adapter on prompts that training never saw.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dpo.compare import win_rate_interval
from dpo.config import TrainConfig
from dpo.config_files import load_preset
from dpo.demo.candidates import demo_prompts, make_candidates
from dpo.demo.measures import MEASURES, read_scene
from dpo.demo.world import COLORS, background_phrase
from dpo.pairs import Pair
from dpo.project import Project, open_project
from dpo.records import record
from dpo.runs import Run, create_run

if TYPE_CHECKING:
    from dpo.sampling import Sampler, SampleSettings

JUDGED_SEEDS = (9001, 9002)


@dataclass(frozen=True)
class DemoOptions:
    """What the loop is asked. `swap` trains the opposite of the preference."""

    preference: str = "larger"
    steps: int | None = None
    pairs: int = 160
    swap: bool = False
    prompts: int = 80
    seeds: int = 6
    judged_prompts: int = 48
    seed: int = 0


def run_demo(options: DemoOptions, folder: Path, say: Callable[[str], None] = lambda text: None) -> dict:
    """Run the loop in a new project at `folder`; returns what `python -m dpo demo --json` prints."""
    seconds: dict[str, float] = {}
    named = options.preference != "warm"
    project = open_project(folder)
    config = load_preset("demo", seed=options.seed, validation_share=0.1)
    if options.steps is not None:
        config = replace(config, max_steps=options.steps)

    with _timed("candidates", seconds, say):
        prompts = demo_prompts(options.prompts, 100 + options.seed, named=named)
        make_candidates(prompts, options.seeds, folder / "candidates")
    with _timed("picking", seconds, say):
        pairs = pick_by_measure(project, options, folder / "candidates")[: options.pairs]
    with _timed("training", seconds, say):
        asked = swap_pairs(pairs) if options.swap else pairs
        run, end = train_pairs(project, config, asked, options.preference + ("-swapped" if options.swap else ""))
        say(end.message)
    with _timed("sampling", seconds, say):
        judged = demo_prompts(options.judged_prompts, 200 + options.seed, named=named, exclude=frozenset(prompts))
        images = folder / "judged"
        sample_both(run, judged, images)
    with _timed("judging", seconds, say):
        verdict = judge(images, images, judged, options.preference)
    seconds["total"] = sum(seconds.values())
    return {
        "preference": options.preference,
        "swap": options.swap,
        **verdict,
        "pairs": len(pairs),
        "steps": end.step,
        "ended": end.reason,
        "chosen_drift": run.last_metric("errors/chosen_drift"),
        "images": str(images),
        "run": str(run.path),
        "seconds": {part: round(value, 1) for part, value in seconds.items()},
    }


def pick_by_measure(project: Project, options: DemoOptions, folder: Path, client: str = "demo") -> list[Pair]:
    """Best against worst, then the next best against the next worst, of the images in each group of the folder that follow
    their prompt; returns the pairs these picks make. `client` names them: who picks from another folder has another name."""
    measure = MEASURES[options.preference][0]
    known = set(project.picks.pairs())
    project.library.scan(folder)
    operations = []
    for group in project.library.groups(folder):
        pictures = {image.key: _picture(Path(image.path)) for image in group.images}
        following = [key for key, picture in pictures.items() if follows(picture, group.prompt)]
        ranked = sorted(following, key=lambda key: measure(pictures[key]), reverse=True)
        while len(ranked) >= 2 and len(following) - len(ranked) < 4:
            best, *between, worst = ranked
            if measure(pictures[best]) > measure(pictures[worst]):
                pick = {"op": "best_worst", "group": group.key, "images": ranked, "result": [best, worst]}
                operations.append({"client": client, "number": len(operations), **pick})
            ranked = between
    project.picks.apply(operations)
    pairs = [pair for pair in project.picks.pairs() if pair not in known]
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    return [replace(pairs[index], source="demo", confidence=1.0) for index in order]  # a measurement does not waver


def train_pairs(project: Project, config: TrainConfig, pairs: list[Pair], name: str):
    """(run, its last event)."""
    from dpo.training import execute

    run = create_run(project.runs, name, config, pairs)
    return run, record(run, execute(run, project.cache), config)


def swap_pairs(pairs: list[Pair]) -> list[Pair]:
    """The opposite preference."""
    return [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]


def sample_both(run: Run, prompts: list[str], folder: Path) -> None:
    """Base and adapter from the same noise, as `NNN-SEED-base.png` and `NNN-SEED-adapter.png`."""
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler, SampleSettings

    sampler = Sampler(load_pipeline("demo"), "demo", run.adapter)
    for side, strength in (("base", None), ("adapter", 1.0)):
        sample_side(sampler, prompts, folder, side, strength, SampleSettings())


def sample_side(
    sampler: Sampler, prompts: list[str], folder: Path, side: str, strength: float | None, settings: SampleSettings
) -> None:
    """Every prompt with the judged seeds, as `NNN-SEED-SIDE.png`. strength: of the sampler's adapter; None is the base."""
    rows = [(prompt, seed) for prompt in prompts for seed in JUDGED_SEEDS]
    for start, batch in sampler.batches(rows, settings):
        for offset, image in enumerate(sampler.sample(batch, settings, strength=strength)):
            prompt, seed = batch[offset]
            path = folder / f"{(start + offset) // len(JUDGED_SEEDS):03d}-{seed}-{side}.png"
            sampler.save(image, path, prompt, seed, settings, strength)


def judge(base: Path, adapter: Path, prompts: list[str], preference: str) -> dict:
    """Compare what `sample_side` left in the two folders by the measure that never chose a pair."""
    measure = MEASURES[preference][1]
    wins = np.zeros((len(prompts), len(JUDGED_SEEDS)))
    followed = {"base": [], "adapter": []}
    for number, prompt in enumerate(prompts):
        for column, seed in enumerate(JUDGED_SEEDS):
            pictures = {
                side: _picture(folder / f"{number:03d}-{seed}-{side}.png")
                for side, folder in (("base", base), ("adapter", adapter))
            }
            gap = measure(pictures["adapter"]) - measure(pictures["base"])
            wins[number, column] = 0.5 if gap == 0 else float(gap > 0)
            for side, picture in pictures.items():
                followed[side].append(follows(picture, prompt))
    win_rate, low, high = win_rate_interval(wins)
    return {
        "win_rate": round(win_rate, 4),
        "win_rate_low": round(low, 4),
        "win_rate_high": round(high, 4),
        "samples": wins.size,
        "following_base": round(float(np.mean(followed["base"])), 4),
        "following": round(float(np.mean(followed["adapter"])), 4),
    }


def follows(picture: np.ndarray, prompt: str) -> bool:
    """Whether colour and background are what the prompt names, if it names them."""
    reading = read_scene(picture)
    named_color = next((word for word in prompt.split() if word in COLORS), None)
    return (
        reading.color is not None
        and named_color in (None, reading.color)
        and prompt.endswith(background_phrase(reading.background))
    )


def default_folder() -> Path:
    return Path.home() / "image-dpo" / f"demo-loop-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def _timed(part: str, seconds: dict[str, float], say: Callable[[str], None]) -> Iterator[None]:
    say(f"{part} ...")
    started = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - started
    say(f"{part}: {seconds[part]:.1f} s")
