"""Two rounds on the demo with a measure as the person: does the second round's adapter beat the first's?

Round 1 learns from candidates of the base model. Round 2 learns from candidates that the first adapter and the base painted of
other prompts, starting from the first adapter, with itself as the reference. One measure picks; another, which picked nothing,
judges on prompts that neither round saw: the second adapter against the first from the same noise, and both against the base.
Besides, how many of the images still show what their prompt says.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

PREFERENCE = "larger"
PROMPTS, PER_PROMPT, PAIRS = 80, 6, 160
JUDGED = 48
MOST_LOST = 0.03  # of the images that follow their prompt


def measure(folder: Path | None = None) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        return _measure(Path(folder or scratch))


def _measure(folder: Path) -> dict:
    from dpo.candidates import CandidatesRequest, make_candidates_of
    from dpo.config_files import load_preset
    from dpo.demo.candidates import demo_prompts
    from dpo.demo.loop import DemoOptions, judge, pick_by_measure, sample_side, train_pairs
    from dpo.models import load_pipeline
    from dpo.project import open_project
    from dpo.rounds import next_config
    from dpo.sample_settings import SampleSettings
    from dpo.sampling import Sampler

    started, load = time.monotonic(), os.getloadavg()[0]
    project = open_project(folder)
    prompts = demo_prompts(2 * PROMPTS + JUDGED, 300)
    judged = prompts[2 * PROMPTS :]
    runs, config = [], load_preset("demo", validation_share=0.1)
    for number in (1, 2):
        name = f"round-{number}"
        parent = runs[-1] if runs else None
        request = CandidatesRequest(
            name=name, model="demo", adapter=parent.adapter if parent else None, both=parent is not None,
            prompts=tuple(prompts[(number - 1) * PROMPTS : number * PROMPTS]), seed=number,
            per_prompt=PER_PROMPT // (1 + (parent is not None)),
        )  # fmt: skip
        made = make_candidates_of(project, request)
        pairs = pick_by_measure(project, DemoOptions(PREFERENCE), made.folder, client=name)
        if parent:
            config = next_config(parent, name)
        run, end = train_pairs(project, config, pairs[:PAIRS], name)
        print(f"{name}: {len(pairs)} pairs, {end.message}", file=sys.stderr, flush=True)
        runs.append(run)

    images = {}
    for side, run in (("base", None), ("first", runs[0]), ("second", runs[1])):
        sampler = Sampler(load_pipeline("demo"), "demo", run.adapter if run else None)
        for name in ("base", "adapter"):  # `judge` looks for the names of the two sides
            images[side, name] = folder / "judged" / f"{side}-{name}"
            sample_side(sampler, judged, images[side, name], name, 1.0 if run else None, SampleSettings())
    against = {
        name: judge(images[one, "base"], images[other, "adapter"], judged, PREFERENCE)
        for name, one, other in (
            ("second_over_first", "first", "second"),
            ("first_over_base", "base", "first"),
            ("second_over_base", "base", "second"),
        )
    }
    verdict = against["second_over_first"]
    lost = against["second_over_base"]["following_base"] - against["second_over_base"]["following"]
    return {
        "benchmark": "rounds", "preference": PREFERENCE, **against,
        "second_beats_first": verdict["win_rate_low"] > 0.5,
        "following_lost": round(lost, 4), "within_limits": verdict["win_rate_low"] > 0.5 and lost <= MOST_LOST,
        "seconds": round(time.monotonic() - started), "cores": os.cpu_count(), "load": round(load, 1),
    }  # fmt: skip
