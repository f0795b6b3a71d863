"""Win rates over the base on the demo, by loss: preference losses, the supervised baseline, swapped labels, the safeguard.

Every run trains on the same pairs: those that a measure of size finds among the shipped candidates, images of prompts that are
not judged. Base and adapter then paint 48 other prompts with 2 seeds from the same noise in 12 steps, and another measure of
size, which never chose a pair, says which of the two is larger. `win_rate_low` and `win_rate_high` are a 95% bootstrap over
prompts. `following` is the share of pictures with the colour and background that the prompt names.

Nothing guards a run here: damage is reported and not stopped, and the last step counts, not the best. All but the loss, beta and
learning rate are the demo preset. They were chosen on 24 prompts and 2 seeds that are not judged here.
With `--folder` what is finished is kept, and not done again when asked another time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PREFERENCE = "larger"
JUDGED_PROMPTS, JUDGED_FROM = 48, 200  # how many, and the seed they are drawn from
SAMPLING_STEPS = 12
UNGUARDED = {"on_damage": "warn", "keep_best": False, "validate_every": 0}


@dataclass(frozen=True)
class Setting:
    """One run: what it changes of the demo preset, and why so."""

    why: str
    changes: dict = field(default_factory=dict)
    swap: bool = False


# Win rates in these reasons are of the 48 pictures that settings were chosen on, none of which is judged.
SETTINGS = {
    "sigmoid": Setting("The preset as it is: 0.88, and nothing suffers."),
    "ipo": Setting(
        "Its goal of a margin of one half is near at beta 100: 0.75. At 30 it is further: 0.90.", {"loss": "ipo", "beta": 30.0}
    ),
    "exo_pair": Setting(
        "Has the slope of sigmoid at a margin of 0 times 3.5, so it takes the preset's beta.", {"loss": "exo_pair"}
    ),
    "mapo": Setting("T = 4 beta = 100: 0.98. No other was tried.", {"loss": "mapo", "beta": 25.0}),
    "sft": Setting("The baseline has nothing to choose: 0.94.", {"loss": "sft"}),
    "swapped": Setting("The preset with chosen and rejected exchanged.", swap=True),
    "destructive": Setting(
        "Four times the preset's learning rate: 0.79 by size alone, but only 0.62 follow their prompt.", {"learning_rate": 0.004}
    ),
    "destructive_safeguard": Setting(
        "The same, held back as advised for SD 1.x: 0.83, and all follow.", {"learning_rate": 0.004, "safeguard_mu": 0.9}
    ),
}


def measure(folder: Path | None = None) -> dict:
    started, load = time.perf_counter(), os.getloadavg()[0]
    if folder is not None:
        runs = _measure_in(folder)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            runs = _measure_in(Path(scratch))
    return {
        "benchmark": "losses", **runs, **_asked(runs), "seconds": round(time.perf_counter() - started),
        "cores": os.cpu_count(), "load": round(load, 1), "load_after": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def _asked(runs: dict) -> dict:
    """Whether what is asked of these runs holds."""
    learned = [name for name in runs if name not in ("sft", "swapped") and "destructive" not in name]
    guarded = runs["destructive_safeguard"]
    return {
        "preference_losses_win": all(runs[name]["win_rate_low"] > 0.5 for name in learned),
        "swapped_labels_lose": runs["swapped"]["win_rate_high"] < 0.5,
        "safeguard_follows": guarded["following"] >= guarded["following_base"] - 0.03,
    }


def _measure_in(folder: Path) -> dict:
    from dpo.demo.candidates import demo_prompts, prepare_demo
    from dpo.demo.loop import DemoOptions, pick_by_measure
    from dpo.project import open_project

    folder.mkdir(parents=True, exist_ok=True)
    project = open_project(folder / "project")
    prepare_demo(project)
    pairs = pick_by_measure(project, DemoOptions(preference=PREFERENCE), project.path / "candidates")
    judged = demo_prompts(JUDGED_PROMPTS, JUDGED_FROM, exclude=frozenset(pair.prompt for pair in pairs))
    _paint(folder / "base", judged, "base", None)
    results = {}
    for name, setting in SETTINGS.items():
        asked = {"changes": setting.changes, "swap": setting.swap}
        path = folder / name / "result.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if not asked.items() <= found.items():
            _say(f"{name}: training")
            found = asked | _measure_one(name, setting, project, pairs, judged, folder)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.replace(path)
        results[name] = found
        _say(f"{name}: {results[name]}")
    return results


def _measure_one(name: str, setting: Setting, project, pairs: list, judged: list[str], folder: Path) -> dict:
    from dpo.config_files import load_preset
    from dpo.demo.loop import judge, swap_pairs, train_pairs

    for unfinished in (project.runs / name, folder / name):
        shutil.rmtree(unfinished, ignore_errors=True)
    started = time.perf_counter()
    config = load_preset("demo", **UNGUARDED | setting.changes)
    run, end = train_pairs(project, config, swap_pairs(pairs) if setting.swap else pairs, name)
    if end.reason != "finished":
        raise RuntimeError(f"The run {name} ended with {end.reason}: {end.message}")
    trained = time.perf_counter() - started
    _paint(folder / name, judged, "adapter", run.adapter)
    return {
        "why": setting.why, "steps": end.step, **judge(folder / "base", folder / name, judged, PREFERENCE),
        "chosen_drift": _late(run, "errors/chosen_drift"), "accuracy": _late(run, "rewards/accuracies"),
        "train_seconds": round(trained), "seconds": round(time.perf_counter() - started),
    }  # fmt: skip


def _late(run, metric: str) -> float | None:
    """The mean over the last 20 steps; None where the loss has no reference to say."""
    from dpo.events import StepEnd

    values = [event.metrics[metric] for event in run.events() if isinstance(event, StepEnd) and metric in event.metrics][-20:]
    return round(sum(values) / len(values), 4) if values else None


def _paint(folder: Path, prompts: list[str], side: str, adapter: Path | None) -> None:
    from dpo.demo.loop import JUDGED_SEEDS, sample_side
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler, SampleSettings

    if len(list(folder.glob("*.png"))) == len(prompts) * len(JUDGED_SEEDS):
        return
    sampler = Sampler(load_pipeline("demo"), "demo", adapter)
    sample_side(sampler, prompts, folder, side, 1.0 if adapter else None, SampleSettings(sampling_steps=SAMPLING_STEPS))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
