"""Kill -9 at whatever the app does, 210 times: nothing said is lost, a resumed run ends as one left alone, to the bit.

    scan       a process that reads 300 images into the index; the next scan must find all of them
    picking    the app, while a page picks (kills.py), and
    votes      the same while a page votes in a blind test: every operation must be in the store exactly once
    caching    `python -m dpo train`, while it encodes images and prompts
    training   the same at any moment from its first step on
    saving     the same within milliseconds of beginning to write a checkpoint or the adapter file
    exporting  `python -m dpo export`: what is in the exports is whole, and a second export is the one left alone

The processes are real and are killed by the system; most of them are forks of one that has imported torch already. A run, on a
tiny model, is killed in all its phases, one after the other, before it may end. After each kill the project is opened as the app
opens it, and must have no half-written file left.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dpo.config import TrainConfig
from dpo.events import RunStarted, StepEnd
from dpo.leftovers import PATTERNS
from dpo.project import open_project
from dpo.runs import Run, create_run, unfinished_parts
from tests.benchmarks import kills
from tests.benchmarks._protocol import find_picker
from tests.benchmarks._voter import Voter, as_vote, read_votes
from tests.benchmarks._warm import SCAN, Warm
from tests.blind import make_test
from tests.browser.conftest import App, free_port
from tests.browser.nursery import Child, Nursery
from tests.pictures import paint_folder

KILLS = {"scan": 34, "picking": 40, "votes": 40, "caching": 24, "training": 24, "saving": 24, "exporting": 24}
STEPS = 8
PROMPTS, PER_PROMPT = 75, 4  # scanned; more than dpo.scan.FEW files, so that other processes read them
VOTES_PER_KILL = 12
PATIENCE = 120.0  # seconds
LOOK = 0.0003
SEED = 0


@dataclass
class Tally:
    """What became of the kills. `torn`: files that had their names and were not whole; `left`: those half-written that stayed."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    said: int = 0
    not_resumed: int = 0
    resumed: int = 0
    not_scanned: int = 0
    not_exported: int = 0
    torn: int = 0
    left: int = 0
    caught_writing: int = 0  # kills that left something half-written


def measure(wanted: Mapping[str, int] = KILLS) -> dict:
    """`wanted`: kills by phase; fewer than usual for a test that this measures what it says."""
    started, rng, tally = time.monotonic(), random.Random(SEED), Tally()
    nursery = Nursery()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            with closing(Warm(place / "commands.log")) as warm:
                _kill_scans(place / "scanned", warm, wanted.get("scan", 0), tally, rng)
                _kill_runs(place, warm, wanted, tally, rng)
            _kill_votes(place / "voted", nursery, wanted.get("votes", 0), tally, rng)
            if wanted.get("picking"):
                _tell("picking")
                picked = kills.measure(wanted["picking"], nursery)
                tally.kills["picking"] = picked["kills"]
                tally.lost, tally.doubled = tally.lost + picked["picks_lost"], tally.doubled + picked["picks_doubled"]
                tally.said += picked["picks_made"]
        finally:
            nursery.close()
    return {
        "benchmark": "faults", "kills": dict(tally.kills), "kills_total": tally.kills.total(), "picks_and_votes": tally.said,
        "picks_lost": tally.lost, "picks_doubled": tally.doubled, "runs_resumed": tally.resumed,
        "runs_not_resumed": tally.not_resumed, "scans_not_finished": tally.not_scanned, "exports_not_made": tally.not_exported,
        "killed_while_writing": tally.caught_writing, "files_torn": tally.torn, "files_left_half_written": tally.left,
        "seconds": round(time.monotonic() - started), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ scan


def _kill_scans(folder: Path, warm: Warm, wanted: int, tally: Tally, rng: random.Random) -> None:
    if not wanted:
        return
    _tell("scan")
    images = folder / "candidates"
    paint_folder(images, PROMPTS, PER_PROMPT)
    command = SCAN, str(folder), str(images)
    begun = time.monotonic()
    warm.run(*command)
    seconds, expected = time.monotonic() - begun, _indexed(folder, images)
    assert len(expected) == PROMPTS * PER_PROMPT
    while tally.kills["scan"] < wanted:
        if rng.random() < 0.5:  # else the scan goes on where the one before was killed
            for path in folder.glob("index.sqlite*"):
                path.unlink()
        if _kill(warm.start(*command), rng.uniform(0, seconds)):
            tally.kills["scan"] += 1
            warm.run(*command)
            tally.not_scanned += _indexed(folder, images) != expected


def _indexed(folder: Path, images: Path) -> list[tuple]:
    return sorted((image.path, image.key, image.record.prompt) for image in open_project(folder).library.images(images))


# ------------------------------------------------------------------------------------------------ runs and exports


def _kill_runs(place: Path, warm: Warm, wanted: Mapping[str, int], tally: Tally, rng: random.Random) -> None:
    if not any(wanted.get(phase) for phase in (*PHASES, "exporting")):
        return
    from tests.tiny import build_pipeline, make_pairs

    build_pipeline().save_pretrained(place / "model")
    project, pairs = open_project(place / "trained"), make_pairs(place / "images")
    config = TrainConfig(
        model=str(place / "model"), resolution=16, max_steps=STEPS, batch_size=2, accumulation=1, validate_every=3, save_every=1,
        keep_checkpoints=2, reference_draws=2, learning_rate=1e-3, lora_rank=2, warmup_steps=0,
    )  # fmt: skip
    alone = create_run(project.runs, "alone", config, pairs)
    warm.run("train", "--run", str(alone.path))
    expected = digest_of(alone.adapter)
    _tell("caching, training, saving")
    tries = 0
    while any(tally.kills[phase] < wanted.get(phase, 0) for phase in PHASES):
        tries += 1
        assert tries < 5 * max(wanted.values()) + 20, f"runs are over before they can be killed: {tally.kills}"
        shutil.rmtree(project.cache)
        run = create_run(project.runs, f"killed-{tries}", config, pairs)
        for phase, until in PHASES.items():
            if tally.kills[phase] < wanted.get(phase, 0):
                child = warm.start("train", "--run", str(run.path))
                until(run, project.cache / "tensors", child, rng)
                tally.kills[phase] += _kill(child, 0.0)
                _open_again(project.path, tally)
        warm.run("train", "--run", str(run.path))
        is_same = run.adapter.exists() and digest_of(run.adapter) == expected and run.status().state == "finished"
        tally.resumed += is_same
        tally.not_resumed += not is_same
        shutil.rmtree(run.path)
    _kill_exports(project.path, alone, warm, wanted.get("exporting", 0), tally, rng)


def _kill_exports(project: Path, run: Run, warm: Warm, wanted: int, tally: Tally, rng: random.Random) -> None:
    if not wanted:
        return
    _tell("exporting")
    folder, learned = project / "exports" / "alone-kohya", digest_of(run.adapter)
    command = "export", str(run.path), "--format", "kohya", "--dtype", "fp32", "--out", str(folder)
    begun = time.monotonic()
    warm.run(*command)
    seconds, file = time.monotonic() - begun, folder / "alone.safetensors"
    expected = digest_of(file)
    while tally.kills["exporting"] < wanted:
        shutil.rmtree(folder, ignore_errors=True)
        if not _kill(warm.start(*command), rng.uniform(0.3, 1.0) * seconds):
            continue
        tally.kills["exporting"] += 1
        _open_again(project, tally)
        tally.torn += file.exists() and digest_of(file) != expected
        warm.run(*command)
        tally.not_exported += not file.exists() or digest_of(file) != expected or digest_of(run.adapter) != learned


def _until_caching(run: Run, tensors: Path, child: Child, rng: random.Random) -> None:
    """Some of the sixteen images and four prompts are encoded."""
    wanted = rng.randint(0, 19)
    _wait(child, lambda: tensors.is_dir() and len(list(tensors.glob("*.safetensors"))) >= wanted)


def _until_a_step(run: Run, tensors: Path, child: Child, rng: random.Random) -> None:
    wanted = max(0, _steps(run)) + rng.randint(0, STEPS // 2)
    _wait(child, lambda: _steps(run) >= wanted)
    time.sleep(rng.uniform(0, 0.1))


def _until_saving(run: Run, tensors: Path, child: Child, rng: random.Random) -> None:
    """A file is being written: a checkpoint after some step, or at last the adapter's."""
    wanted = rng.randint(max(0, _steps(run)), STEPS)
    _wait(child, lambda: _steps(run) >= wanted and unfinished_files(run))
    time.sleep(rng.uniform(0, 0.003))


PHASES = {"caching": _until_caching, "training": _until_a_step, "saving": _until_saving}  # of a run, in their order


def unfinished_files(run: Run) -> list[Path]:
    return [*run.checkpoints.glob("*.partial"), *run.adapter.parent.glob("partial-*")]


def _steps(run: Run) -> int:
    """Steps done since the run was started; -1 before that."""
    events = run.events()
    return max((event.step for event in events if isinstance(event, StepEnd | RunStarted)), default=-1)


def digest_of(file: Path) -> str:
    """Of all tensors in a file. The order of the notes in its head is left to chance."""
    from safetensors.torch import load_file

    found = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return found.hexdigest()


# ------------------------------------------------------------------------------------------------ votes


def _kill_votes(folder: Path, nursery: Nursery, wanted: int, tally: Tally, rng: random.Random) -> None:
    if not wanted:
        return
    _tell("votes")
    project = open_project(folder)
    make_test(project, items=20 + VOTES_PER_KILL * wanted)
    voter, app = Voter(project, rng), App(folder, free_port(), nursery)
    try:
        for _ in range(wanted):
            kills.talk_until_killed(voter, app.start(), find_picker(app, "blind"), "votes", rng)
            tally.kills["votes"] += 1
            if rng.random() < kills.RELOAD_SHARE:
                voter.load()
        app.start()
        voter.talk(app, find_picker(app, "blind"))
    finally:
        app.kill()
    assert not voter.refused, voter.refused
    made, found = Counter(map(as_vote, voter.made)), Counter(read_votes(folder))
    tally.said += made.total()
    tally.lost, tally.doubled = tally.lost + (made - found).total(), tally.doubled + (found - made).total()


# ------------------------------------------------------------------------------------------------ for all


def _kill(child: Child, after: float) -> bool:
    """Kill a process after so many seconds; False if it had ended by itself."""
    time.sleep(after)
    was_alive = child.poll() is None
    child.kill()
    child.wait()
    return was_alive


def _wait(child: Child, condition: Callable[[], object]) -> None:
    """Until it is so, or the process has ended."""
    deadline = time.monotonic() + PATIENCE
    while child.poll() is None and not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(LOOK)


def _open_again(project: Path, tally: Tally) -> None:
    """As the app would: what was left half-written is gone afterwards."""
    tally.caught_writing += bool(half_written(project))
    opened = open_project(project)
    tally.left += len(half_written(project))
    tally.torn += sum(bool(run.problem) for run in map(Run, opened.runs.glob("[!.]*")))


def half_written(project: Path) -> list[Path]:
    return [*unfinished_parts(project / "runs"), *(path for pattern in PATTERNS for path in project.glob(pattern))]


def _tell(phase: str) -> None:
    print(json.dumps({"phase": phase, "at": time.strftime("%H:%M:%S")}), file=sys.stderr, flush=True)
