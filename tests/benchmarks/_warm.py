"""A process that has imported what training and exporting import, and becomes a command whenever it is asked to: in a fork of its
own, which can be killed as any command can (tests/browser/nursery.py). Importing torch and diffusers takes seconds, and hundreds
of commands are killed. Run by `Warm`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.browser.nursery import REPOSITORY, Child, ask_fork, serve_forks

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
        return ask_fork(self._process, [command, largest_file], self._log)

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


def _become(what: list) -> int:
    command, largest_file = what
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
    print("warm", flush=True)
    serve_forks(_become)


if __name__ == "__main__":
    main()
