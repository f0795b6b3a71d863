"""What goes wrong around a run and around picks, for real where that can be: killed processes, a disk that refuses, folders that
go away. Each ends in a sentence that says what, where and what to do, and what was kept is as it was."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dpo.events import Note, RunEnded, StepEnd
from dpo.project import ProjectError, open_project
from dpo.records import record
from dpo.runs import create_run
from dpo.training import execute
from tests.benchmarks import faults
from tests.benchmarks._warm import Warm
from tests.operations import make
from tests.test_trainer import CONFIG
from tests.tiny import build_pipeline, make_pairs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("images"))


@pytest.fixture
def start(tmp_path, model, pairs):
    """start(name, **changes) -> a new run on the tiny model, checkpointed after every step."""
    project = open_project(tmp_path / "project")
    usual = {"model": str(model), "max_steps": 5, "save_every": 1, "validate_every": 0}
    return lambda name="cats", **changes: create_run(project.runs, name, replace(CONFIG, **usual | changes), pairs)


def train(run, cache=None):
    return record(run, execute(run, cache or run.path.parent.parent / "cache"), run.config)


def learned(run):
    return faults.digest_of(run.adapter)


@pytest.mark.slow
@pytest.mark.thorough
def test_kills_lose_nothing_that_was_said_and_every_run_goes_on_to_the_same_bits():
    found = faults.measure({"scan": 1, "picking": 1, "votes": 2, "caching": 1, "training": 2, "saving": 2, "exporting": 1})
    assert found["kills"] == {"scan": 1, "picking": 1, "votes": 2, "caching": 1, "training": 2, "saving": 2, "exporting": 1}
    bad = "lost", "doubled", "not_resumed", "not_finished", "not_made", "torn", "half_written"
    assert {name: value for name, value in found.items() if name.endswith(bad)} == dict.fromkeys(
        [
            "picks_lost", "picks_doubled", "runs_not_resumed", "scans_not_finished", "exports_not_made", "files_torn",
            "files_left_half_written",
        ],
        0,
    )  # fmt: skip
    assert found["runs_resumed"] == 2 and found["picks_and_votes"] > 0


@pytest.mark.slow
def test_a_disk_that_takes_no_checkpoint_ends_the_run_with_what_to_do_and_the_one_before_resumes(tmp_path, start):
    """The system refuses every file longer than so many bytes, in a process of its own: more than a checkpoint of the small
    adapter has, less than one with the moments of the optimizer, which the second step brings."""
    alone, run = start("alone"), start()
    assert train(alone).reason == "finished"
    sizes = [path.stat().st_size for path in alone.checkpoints.glob("step-*.pt")]
    said = tmp_path / "said.log"
    warm = Warm(said)
    try:
        warm.run("train", "--run", str(run.path), "--json", largest_file=max(sizes) - 1000)
    finally:
        warm.close()
    end = run.status()
    assert end.state == "failed" and run.problem == ""
    assert f"cannot be written to {run.checkpoints}" in end.message and "Free some space and resume" in end.message
    assert not list(run.checkpoints.glob("*.partial"))
    assert train(run).reason == "finished" and learned(run) == learned(alone)


def test_a_disk_that_takes_no_more_events_ends_the_run_and_says_where_it_goes_on(start):
    run = start()

    def events():
        for event in execute(run, run.path.parent.parent / "cache"):
            yield event
            if isinstance(event, StepEnd) and event.step == 3:
                log = next(run.path.glob("*.jsonl"))
                log.rename(log.with_suffix(".whole"))
                log.symlink_to("/dev/full")

    end = record(run, events(), run.config)
    assert (end.step, end.reason) == (3, "failed")
    assert end.message.startswith("cats cannot be written (") and "No space left on device). Free some space." in end.message
    log = next(run.path.glob("*.jsonl"))
    log.unlink()
    log.with_suffix(".whole").rename(log)
    assert run.resume_words == "Resume goes on from the checkpoint of step 3."
    assert train(run).message == "Finished after 5 steps."


@pytest.mark.parametrize("what", ["checkpoints", "run"])
def test_a_folder_that_goes_away_under_a_run_is_named_with_what_to_do(start, what):
    run = start()
    events, told = execute(run, run.path.parent.parent / "cache"), []
    for event in events:
        told.append(event)
        if isinstance(event, StepEnd) and event.step == 2:
            break
    away = run.path.with_name("away")
    (run.checkpoints if what == "checkpoints" else run.path).rename(away)
    *_, end = events
    assert end.reason == "failed" and str(run.path) in end.message and "Bring its folder back" in end.message
    away.rename(run.checkpoints if what == "checkpoints" else run.path)
    assert run.resume_step == 1
    assert train(run).message == "Finished after 5 steps."


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    ],
    ids=["accelerator", "runtime"],
)
def test_a_device_that_fails_in_the_middle_of_a_step_is_told_and_the_run_goes_on_to_the_same_bits(start, monkeypatch, error):
    """Simulated: the denoiser raises what PyTorch raises then."""
    from diffusers import UNet2DConditionModel

    alone, run = start("alone"), start()
    train(alone)
    forward = UNet2DConditionModel.forward

    def fail(self, *arguments, **options):
        if sum(isinstance(event, StepEnd) for event in run.events()) == 3:
            raise error
        return forward(self, *arguments, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", fail)
    end = train(run)
    assert (end.step, end.reason) == (3, "failed")
    assert end.message.startswith("The device failed after step 3: CUDA error: ") and "\n" not in end.message
    assert end.message.endswith("answers nothing in the same process. Resume goes on from the checkpoint of step 3.")
    monkeypatch.undo()
    assert train(run).reason == "finished" and learned(run) == learned(alone)


def test_damaged_checkpoints_are_passed_over_and_the_run_ends_the_same(start):
    """A flipped bit, which PyTorch would load without a word, and a file that was torn."""
    alone, run = start("alone"), start()
    train(alone)
    for event in (events := execute(run, run.path.parent.parent / "cache")):
        run.append(event)
        if isinstance(event, StepEnd) and event.step == 4:
            break
    events.close()
    newest, before = sorted(run.checkpoints.glob("step-*.pt"), reverse=True)[:2]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    before.write_bytes(before.read_bytes()[:-100])
    end = train(run)
    warned = [event.message for event in run.events() if isinstance(event, Note) and event.tone == "warning"]
    assert warned[0].startswith("step-000004.pt cannot be read (")
    assert "is damaged): step-000003.pt, the checkpoint before it, is used" in warned[0]
    assert warned[1].startswith("step-000003.pt cannot be read (")
    assert end == RunEnded(5, "finished", "Finished after 5 steps.") and learned(run) == learned(alone)


# ------------------------------------------------------------------------------------------------ picks


def reopen(number):
    return make("reopen", number, group=f"{number:032x}")


def test_picks_are_refused_while_their_folder_is_away_and_kept_again_when_it_is_back(tmp_path):
    """SQLite would go on writing into a file that nobody will ever see again, and call it saved."""
    project = open_project(tmp_path / "project")
    project.picks.apply([reopen(0)])
    project.path.rename(tmp_path / "away")
    with pytest.raises(ProjectError, match=r"picks.sqlite is not there any more. Bring its folder back as it was"):
        project.picks.apply([reopen(1)])
    (tmp_path / "away").rename(project.path)
    assert project.picks.apply([reopen(1)]).new == 1
    shutil.rmtree(project.path)
    with pytest.raises(ProjectError, match="is not there any more"):
        project.picks.apply([reopen(2)])
    open_project(tmp_path / "project")
    with pytest.raises(ProjectError, match="is another file than when it was opened"):
        project.picks.apply([reopen(2)])


def test_a_disk_that_takes_no_picks_says_so_and_keeps_those_it_has(tmp_path):
    """The system refuses, in a process of its own, whatever is longer than the store is now."""
    program = """
import json, resource, sys
from pathlib import Path
from dpo import StudioError
from dpo.project import open_project
from tests.operations import make
project = open_project(Path(sys.argv[1]))
stored = [project.picks.apply([make("reopen", 0, group="0" * 32)]).new]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    for number in range(1, 3000):
        stored.append(project.picks.apply([make("reopen", number, group="0" * 32)]).new)
except StudioError as error:
    print(json.dumps([sum(stored), str(error)]))
"""
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120)
    stored, message = json.loads(said.stdout)
    assert "picks.sqlite cannot be written: " in message and message.endswith("nothing saved so far is lost.")
    project = open_project(tmp_path)
    rows = project.picks._database.read("SELECT count(*) AS rows FROM picks")[0]["rows"]
    assert (rows, project.mended) == (stored, "") and stored > 1
    assert project.picks.apply([reopen(5000)]).new == 1
