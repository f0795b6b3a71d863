"""Train a run in several processes on this machine, one for each GPU, and follow what they report.

The processes know nothing of who started them: they train the run of a folder, as `python -m dpo train --run` does, and its
events file is all that is read. So a page that is closed, or a program that is started anew, misses nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dpo.events import Event, RunEnded
from dpo.parallel import LOST
from dpo.runs import Run

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 300.0  # from the last event, or from being told to end, until the processes are gone: trackers still upload
LINES_TOLD = 15  # of what a process said before it died
LAUNCHER = "torch/distributed/elastic/multiprocessing/api.py:"  # in the lines with which the launcher reports that one died
FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")


def launch(run: Run, gpus: int) -> Iterator[Event]:
    """Start the run, or go on with it, in `gpus` processes; yield its events as they are written. The last one is its end.

    A process that dies ends the run, with what it said last. Closing the generator ends the processes.
    """
    _, place = run.events_since(0)
    step, end = 0, None
    problem = _missing_gpus(gpus)
    if not problem:
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(_command(run, gpus), env=_environment(), stdout=subprocess.DEVNULL, stderr=said)
            try:
                deadline = None
                while deadline is None or time.monotonic() < deadline:
                    is_over = process.poll() is not None  # asked first: what was written last is read all the same
                    events, place = run.events_since(place)
                    for event in events:
                        step = event.step
                        if isinstance(event, RunEnded):
                            end, deadline = event, time.monotonic() + SECONDS_TO_END
                        else:
                            yield event
                    if is_over:
                        break
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            finally:
                _end(process)
            if end is None or LOST in end.message:  # the reason is with another process
                problem = _last_words(said)
    if problem:
        end = RunEnded(step, "failed", problem)
        run.append(end)
    yield end


def _command(run: Run, gpus: int) -> list[str]:
    # --multi_gpu starts the processes, with or without GPUs: --cpu would start one. Everything a default config of accelerate
    # might say otherwise is said.
    options = {
        "num_processes": gpus, "num_machines": 1, "machine_rank": 0, "main_process_port": 0, "gpu_ids": "all",
        "mixed_precision": "no", "dynamo_backend": "no",
    }  # fmt: skip
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        "-m", "dpo", "train", "--run", str(run.path.resolve()),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Ours, with this package to be found wherever we are: the working directory stays, for paths in settings."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _missing_gpus(gpus: int) -> str:
    """Why there are too few GPUs, or "". A machine without any runs the processes on its CPU."""
    import torch

    from dpo.models import default_device

    places = {"cuda": torch.cuda.device_count(), "mps": 1}.get(default_device(), gpus)
    return "" if places >= gpus else f"gpus={gpus} and this machine has {places}. Set gpus to {places} or less."


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()  # the launcher passes it on
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(said: IO[bytes]) -> str:
    """Which process failed first, and the last lines before the launcher's own report, which names no reason."""
    said.seek(0)
    text = said.read().decode("utf-8", errors="replace")
    lines = text.splitlines()
    own = next((number for number, line in enumerate(lines) if LAUNCHER in line), len(lines))
    failed = FAILED.search(text)
    first = f"Process {failed[2]} of the run ended with exit code {failed[1]}" if failed else "The training processes ended"
    killed = ": something killed it, as systems do that run out of memory" if failed and failed[1] == "-9" else ""
    return f"{first}{killed}. What they said last:\n" + "\n".join(lines[:own][-LINES_TOLD:])
