"""The trainer against the public research script's recipe and against the bare passes: pairs per second and peak memory.

On the demo model and on a UNet of SD 1.5's shape with 94 million random weights, for each execution mode, with fresh draws
(`draws_0`) and with remembered reference errors and all caches warm (`draws_2`), beside the plain recipe
(tests/benchmarks/_plain_recipe.py): same model, pairs, batch, precision and attention kernel, no gradient checkpointing.

Each way runs in a process of its own, for its memory, and waits there between two steps; the parent asks one after the other
for a step, round after round, so that what else the machine does hits all alike. Of each, the median counts.

    pairs_per_second_ratio   ours to the plain recipe's
    ratio_over_bound         that, to the ratio of what the two cannot do without: encodes, forwards and backwards of the plain
                             recipe, over forwards and backwards of ours, all timed in the same rounds
    peak_memory_ratio        ours to the plain recipe's, encoders loaded in both
    step_over_floor          a whole step of the live trainer, over the bare forwards and backwards its mode needs
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median

DEMO, LARGE = "demo", "sd_94m"
DRAWS = 2  # fixed draws a pair, where reference errors are remembered
MODES = ("full_concurrent", "policy_concurrent", "sequential")
ROUNDS = {DEMO: 9, LARGE: 4}
COMPARED = 3  # first steps, whose losses are compared with the plain recipe's
WARM_UP = 2 * DRAWS  # steps after which every pair was visited DRAWS times: all reference errors are known


def measure() -> dict:
    load, found = os.getloadavg()[0], {}
    for model in (DEMO, LARGE):
        found[model] = _measure_model(model)
        _say(json.dumps({model: found[model]}))  # the large one takes long, and may be interrupted
    return {
        "benchmark": "train", "cores": os.cpu_count(), "load": round(load, 1), **found,
        "load_after": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def _measure_model(model: str) -> dict:
    ways = {"plain": ("plain", 0)} | {f"{mode} draws_{draws}": (mode, draws) for draws, mode in product((0, DRAWS), MODES)}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        workers, losses = {}, {}
        for name, (way, draws) in ways.items():
            folder = Path(scratch) / name.replace(" ", "-")
            workers[name] = stack.enter_context(Worker({"model": model, "way": way, "draws": draws, "folder": str(folder)}))
            losses[name] = [workers[name].ask("step")["loss"] for _ in range(WARM_UP if draws else COMPARED)]
            _say(f"{model}: {name} is warm, losses {' '.join(f'{loss:.6f}' for loss in losses[name])}")
        peaks = {name: worker.ask("peak")["bytes"] for name, worker in workers.items()}
        pairs_per_step = workers["plain"].ask("pairs")["pairs_per_step"]
        steps = {name: [] for name in ways}
        floors: dict[str, list[dict]] = {name: [] for name in ways}
        for turn in range(ROUNDS[model]):
            for name, worker in workers.items():
                steps[name].append(worker.ask("step")["seconds"])
                floors[name].append(worker.ask("floor"))
            _say(f"{model}: round {turn + 1} of {ROUNDS[model]}, load {os.getloadavg()[0]:.1f}")
    return summarise(pairs_per_step, steps, floors, peaks, losses)


def summarise(pairs_per_step: int, steps: dict, floors: dict, peaks: dict, losses: dict) -> dict:
    plain_parts = {part: median(each[part] for each in floors["plain"]) for part in floors["plain"][0]}
    plain = {
        "pairs_per_second": _round(pairs_per_step / median(steps["plain"])), "peak_memory_mb": peaks["plain"] // 2**20,
        "step_seconds": _round(median(steps["plain"])),
        **{f"{part}_seconds": _round(value) for part, value in plain_parts.items()},
    }  # fmt: skip
    found = {"pairs_per_step": pairs_per_step, "plain": plain}
    for name in [name for name in steps if name != "plain"]:
        floor = median(each["seconds"] for each in floors[name])
        ratio = _paired(steps["plain"], steps[name])
        bound = sum(plain_parts.values()) / floor
        found[name] = {
            "pairs_per_second": _round(pairs_per_step / median(steps[name])), "pairs_per_second_ratio": _round(ratio),
            "bound": _round(bound), "ratio_over_bound": _round(ratio / bound),
            "peak_memory_mb": peaks[name] // 2**20, "peak_memory_ratio": _round(peaks[name] / peaks["plain"]),
            "step_over_floor": _round(_paired(steps[name], [each["seconds"] for each in floors[name]])),
        }  # fmt: skip
        if name.endswith("draws_0"):
            gaps = [abs(ours / theirs - 1) for ours, theirs in zip(losses[name], losses["plain"], strict=True)]
            found[name]["largest_relative_loss_difference"] = float(f"{max(gaps):.1e}")
    return found


def _paired(above: list[float], below: list[float]) -> float:
    """The median over rounds of the ratio within each round: what slows a round down slows both."""
    return median(one / other for one, other in zip(above, below, strict=True))


class Worker:
    """A child process that does one thing for every line it is sent (tests/benchmarks/_train_worker.py)."""

    def __init__(self, spec: dict):
        self._spec = spec

    def __enter__(self) -> Worker:
        command = [sys.executable, "-m", "tests.benchmarks._train_worker", json.dumps(self._spec)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()

    def ask(self, what: str) -> dict:
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process of {self._spec} ended with {self._process.wait()}; its output is above.")
        return json.loads(answer)


def _round(value: float) -> float:
    return round(value, 3)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
