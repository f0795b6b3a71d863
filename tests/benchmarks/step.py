"""Seconds per training step of the demo, by execution mode, as ratios to the fastest within this run.

All modes compute the same step (16 pairs); what differs is how many images' activations are held at once.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

MODES = ("full_concurrent", "policy_concurrent", "sequential")
STEPS = 6


def measure() -> dict:
    from dpo.config import load_preset
    from dpo.demo.candidates import prepare_demo
    from dpo.demo.loop import DemoOptions, pick_by_measure
    from dpo.events import StepEnd
    from dpo.project import open_project
    from dpo.runs import create_run
    from dpo.training import execute

    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        project = open_project(Path(folder))
        prepare_demo(project)
        pairs = pick_by_measure(project, DemoOptions())[:64]
        config = replace(load_preset("demo"), max_steps=STEPS, validate_every=0)
        for mode in MODES:
            run = create_run(project.runs, mode, replace(config, execution=mode), pairs)
            steps = [event.seconds for event in execute(run, project.cache) if isinstance(event, StepEnd)]
            seconds[mode] = min(steps)
    fastest = min(seconds.values())
    return {
        "benchmark": "step", "pairs_per_step": config.batch_size, "seconds": round(seconds["full_concurrent"], 3),
        **{f"{mode}_ratio": round(value / fastest, 2) for mode, value in seconds.items()},
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
