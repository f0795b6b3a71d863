"""A process that has imported what training and exporting import, and becomes a command whenever it is asked to: in a fork of its
own, which can be killed as any command can. Importing torch and diffusers takes seconds, and hundreds of commands are killed.

Run by `Warm`, which sends one JSON line per command and reads one with its process id, as tests/browser/nursery.py does.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from tests.browser.nursery import REPOSITORY, Child

SCAN = "scan-into-project"  # PROJECT FOLDER: what the page's Scan does; no command does it alone


class Warm:
    def __init__(self, log: Path) -> None:
        """`log`: where all commands write what they say."""
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks._warm"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout.readline() == b"warm\n"

    def start(self, *command: str, largest_file: int = 0) -> Child:
        """A command, as after `python -m dpo`. `largest_file`: bytes past which the system refuses to write, 0 for no limit."""
        self._process.stdin.write(json.dumps([command, str(self._log), largest_file]).encode() + b"\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()))

    def run(self, *command: str, largest_file: int = 0) -> None:
        """The same, until it has ended."""
        self.start(*command, largest_file=largest_file).wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _warm_up() -> None:
    """Import what is imported late; nothing is computed, for threads do not survive a fork."""
    import diffusers
    import torch
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    import dpo.adapters
    import dpo.families.stable_diffusion
    import dpo.formats.writing
    import dpo.models
    import dpo.strip
    import dpo.trainer
    import dpo.training  # noqa: F401

    for name in ("StableDiffusionPipeline", "UNet2DConditionModel", "AutoencoderKL", "DDIMScheduler"):
        getattr(diffusers, name)
    torch.set_num_threads(1)


def _become(command: list[str], largest_file: int) -> int:
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    if command[0] == SCAN:
        from dpo.project import open_project

        open_project(Path(command[1])).library.scan(command[2])
        return 0
    from dpo.__main__ import main

    return main(command)


def main() -> None:
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    print("warm", flush=True)
    for line in sys.stdin:
        command, log, largest_file = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            status = _become(command, largest_file)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
