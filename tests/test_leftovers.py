import os

import pytest

from dpo.claims import DEVICE, Claim
from dpo.config import TrainConfig
from dpo.leftovers import clear_leftovers
from dpo.project import open_project
from dpo.runs import create_run
from tests.test_runs import PAIRS

GONE = 2**22 + 7  # larger than any process id


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of i")
    return path


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


def left_behind(project, run):
    exports, tensors = project.exports, project.cache / "tensors"
    return [
        write(run.checkpoints / "step-000003.partial"),
        write(run.adapter.with_name(f"partial-{run.adapter.name}")),
        write(run.path / f"held_out.json.{GONE}.partial"),
        write(run.samples / "partial-step-000002" / "0.png").parent,
        write(tensors / f"abc-{GONE}.partial"),
        write(exports / "cats-kohya-fp16" / "unchecked-a.safetensors"),
        write(exports / f".pairs.{GONE}.unfinished" / "a.png").parent,
        write(project.rounds / "set" / ".unfinished" / "a.png").parent,
        write(project.path / "tests" / "cats-1" / "unfinished-base.png"),
        write(project.path / f"picks.backup.sqlite.{GONE}"),
        write(tensors / f"mine-{os.getpid()}.partial"),  # of a process of our number, before the machine was started
    ]


def test_what_killed_processes_left_half_written_is_gone_after_the_next_opening_and_nothing_else(project):
    run = create_run(project.runs, "cats", TrainConfig(), PAIRS)
    kept = [write(run.checkpoints / "step-000002.pt"), write(run.adapter), write(project.exports / "cats" / "cats.safetensors")]
    kept.append(write(project.cache / "tensors" / f"abc-{os.getppid()}.partial"))  # being written by a process that is alive
    left = left_behind(project, run)
    assert sorted(clear_leftovers(project.path)) == sorted(left)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    write(left[0])
    open_project(project.path)
    assert not left[0].exists()


def test_nothing_is_cleared_while_somebody_is_at_work(project):
    run = create_run(project.runs, "cats", TrainConfig(), PAIRS)
    left = left_behind(project, run)
    claim = Claim(project.path, DEVICE)
    assert claim.take("training cats") and clear_leftovers(project.path) == []
    claim.give_up()
    with run.held():  # trained by a process that knows nothing of devices
        cleared = clear_leftovers(project.path)
    assert left[0] not in cleared and left[0].exists() and left[-1] in cleared
