import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from dpo.config import TrainConfig
from dpo.events import Note, RunEnded, RunStarted, StepEnd
from dpo.launch import launch
from dpo.records import record
from dpo.runs import create_run
from dpo.training import execute
from tests.tiny import build_pipeline, make_pairs

# What the launched program writes; `dpo` is found although it runs elsewhere, and so is the run.
PROGRAM = """
import sys, time
from pathlib import Path
from dpo.events import Note, RunEnded, RunStarted, StepEnd
from dpo.runs import Run
run = Run(Path(sys.argv[1]))
"""
# What torch's launcher writes when a process has died, without its own traceback.
REPORT = """\
W0101 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 2936 closing signal SIGTERM
E0101 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 1 (pid: 2937) of binary: python
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:"""


@pytest.fixture
def run(tmp_path):
    config = TrainConfig(
        model=str(tmp_path / "model"), beta=20.0, learning_rate=5e-3, max_steps=3, batch_size=2, accumulation=4, gpus=2,
        lora_rank=2, warmup_steps=2, resolution=16, validate_every=3, validation_share=0.13, max_chosen_drift=10.0,
        adaptive_beta=1.0,
    )  # fmt: skip
    return create_run(tmp_path / "project" / "runs", "several", config, make_pairs(tmp_path / "images"))


@pytest.fixture
def program(monkeypatch, tmp_path):
    """program(text): the launcher is a program that does this."""

    def start(text: str) -> None:
        monkeypatch.chdir(tmp_path)
        command = [sys.executable, "-c", PROGRAM + text]
        monkeypatch.setattr("dpo.launch._command", lambda run, gpus: [*command, str(run.path)])

    return start


def test_what_the_processes_report_is_followed_and_what_was_there_before_is_not_told_again(run, program):
    old = [RunStarted(0, 3, 8, 0), StepEnd(1, 0.1), RunEnded(1, "stopped", "Stopped.")]
    for event in old:
        run.append(event)
    new = [Note(0, "Loading"), RunStarted(1, 3, 8, 0), StepEnd(2, 0.1, {"loss": float("nan")}), RunEnded(3, "finished", "Done.")]
    program(f"nan = float('nan')\nfor event in {new}:\n    run.append(event)\n    time.sleep(0.3)")
    told = list(launch(run, 2))
    assert repr(told) == repr(new)
    assert repr(run.events()) == repr([*old[:2], *new])  # nothing was written here


def test_processes_that_die_end_the_run_with_what_they_said_last(run, program):
    program("run.append(StepEnd(7, 0.1))\nprint('all went well until', file=sys.stderr)\nopen('no such file')")
    *_, end = launch(run, 2)
    assert (end.step, end.reason) == (7, "failed")
    assert end.message.startswith("The training processes ended. What they said last:\n")
    assert "all went well until" in end.message and end.message.endswith("No such file or directory: 'no such file'")
    assert run.events()[-1] == end


def test_a_first_process_that_lost_another_lets_that_one_say_why(run, program):
    lost = "Process 0 of 2 has lost the others: Connection closed by peer."
    program(
        f"run.append(RunEnded(4, 'failed', {lost!r}))\nprint('ValueError: the reason', file=sys.stderr)\n"
        f"print({REPORT!r}, file=sys.stderr)\nsys.exit(1)"
    )
    *_, end = launch(run, 2)
    assert (end.step, end.reason) == (4, "failed")
    assert end.message == "Process 1 of the run ended with exit code 1. What they said last:\nValueError: the reason"
    assert run.status().message == end.message


def test_a_process_that_was_killed_is_told_from_one_that_failed(run, program):
    program(f"print({REPORT.replace('exitcode: 1', 'exitcode: -9')!r}, file=sys.stderr)\nsys.exit(1)")
    (end,) = launch(run, 2)
    assert end.message.startswith("Process 1 of the run ended with exit code -9: something killed it, as systems do that run out")


def test_a_failure_that_says_what_to_do_is_passed_on_as_it_is(run, program):
    program("run.append(RunEnded(2, 'failed', 'The loss became nan.'))\nprint('noise', file=sys.stderr)\nsys.exit(1)")
    assert list(launch(run, 2)) == [RunEnded(2, "failed", "The loss became nan.")]


def test_who_stops_listening_ends_the_processes(run, program, tmp_path):
    program("run.append(Note(0, 'Loading'))\ntime.sleep(60)\n")
    events = launch(run, 2)
    assert next(events) == Note(0, "Loading")
    started = time.monotonic()
    events.close()
    assert time.monotonic() - started < 30


def test_more_gpus_than_there_are_is_a_sentence(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    (end,) = launch(run, 2)
    assert (end.reason, end.message) == ("failed", "gpus=2 and this machine has 1. Set gpus to 1 or less.")
    assert run.events() == [end]


@pytest.mark.slow
def test_two_launched_processes_train_the_adapter_that_one_trains(run, tmp_path):
    """The whole command: `accelerate launch -m dpo train --run`. The same micro-batches are added up in another order, which
    in float32 is worth 1e-7 of a gradient; Adam's division makes more of it where a gradient is nearly 0."""
    build_pipeline().save_pretrained(run.config.model)
    events = list(launch(run, 2))
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "finished", events[-1]
    several, state = load_file(run.adapter), torch.load(run.checkpoints / "step-000003.pt", weights_only=True)
    assert state["step"] == 3

    alone = create_run(tmp_path / "project" / "runs", "alone", run.config, run.items)
    cache = tmp_path / "project" / "cache"
    assert record(alone, execute(alone, cache), alone.config).reason == "finished"
    expected = load_file(alone.adapter)
    assert several.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(several[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    # Beta follows the margins from the third step on, and every process must know all of them.
    adapted, alike = (steps(one)[2]["beta"] - run.config.beta for one in (run, alone))
    assert adapted == pytest.approx(alike, rel=0.02) != 0
    for ours, theirs in zip(steps(run), steps(alone), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"memory_bytes"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def steps(run):
    return [event.metrics for event in run.events() if isinstance(event, StepEnd)]
