"""`python -m dpo train`: which run it trains, what it says, how it stops, and what it returns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dpo.train_command
from dpo.__main__ import main
from dpo.config import TrainConfig
from dpo.events import Note, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.parallel import Processes
from dpo.project import open_project
from dpo.runs import create_run, find_run
from tests.tiny import build_pipeline, make_pairs

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


def ends_with(monkeypatch, *events):
    """Let every run report these events instead of training."""
    monkeypatch.setattr("dpo.training.execute", lambda run, cache, processes: iter(events))


def is_same(one, other):
    """To the bit. Files are not: the order of the notes in their head is left to chance."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def new_run(project, tmp_path, **values):
    return create_run(project.runs, "cats", TrainConfig(**values), make_pairs(tmp_path / "images"))


@pytest.mark.slow
def test_a_run_goes_on_from_its_folder_as_accelerate_starts_it(project, tmp_path, capsys):
    build_pipeline().save_pretrained(tmp_path / "model")
    values = dict(model=str(tmp_path / "model"), resolution=16, accumulation=1, validate_every=1, sample_every=2)
    run = new_run(project, tmp_path, max_steps=2, **values)
    assert main(["train", "--run", str(run.path), "--json"]) == 0
    captured = capsys.readouterr()
    end = json.loads(captured.out)
    assert (end["step"], end["reason"], end["run"]) == (2, "finished", str(run.path))
    assert "StepEnd 2  loss 0." in captured.err and "ValidationEnd 2 " in captured.err
    assert run.adapter.exists() and not run.is_held
    assert [path.name for path in sorted(run.samples.iterdir())] == ["base", "step-000000", "step-000002"]
    assert run.status().samples.endswith("step-000002") and run.held_out

    # Killed before its last step was reported, it does that step again and ends the same.
    before = load_file(run.adapter)
    (run.checkpoints / "step-000002.pt").unlink()
    run.best.unlink()
    assert main(["train", "--resume", "--name", "cats", "--project", str(project.path)]) == 0
    assert is_same(load_file(run.adapter), before)


def test_a_preset_a_file_and_a_onetrainer_config_can_be_trained_from(project, tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr("dpo.training.make_run", lambda project, config, name: made.append((config, name)))
    monkeypatch.setattr(dpo.train_command, "Run", lambda path: new_run(project, tmp_path / str(len(made)), max_steps=len(made)))
    ends_with(monkeypatch, RunEnded(1, "finished", "Finished."))
    (tmp_path / "mine.json").write_text('{"beta": 300, "keep_best": true}')
    (tmp_path / "theirs.json").write_text('{"training_method": "LORA", "lora_rank": 4, "dropout_probability": 0.1}')
    for name, config in (("demo", "demo"), ("mine", str(tmp_path / "mine.json")), ("theirs", str(tmp_path / "theirs.json"))):
        assert main(["train", config, "--project", str(project.path), "--max-steps", "3", "--no-keep-best"]) == 0
        (project.runs / "cats").rename(project.runs / f"{name}-done")
    (demo, _), (mine, _), (theirs, _) = made
    assert [name for _, name in made] == ["demo-1", "mine-1", "theirs-1"]
    assert (demo.model, demo.beta, demo.max_steps) == ("demo", 100.0, 3)
    assert (mine.beta, mine.max_steps, mine.keep_best) == (300, 3, False)
    assert (theirs.lora_rank, theirs.max_steps) == (4, 3)
    assert "dropout_probability=0.1 has no counterpart" in capsys.readouterr().err


def test_a_setting_that_is_true_or_false_has_a_flag_for_each(project, capsys):
    for flag, value in (("--shared-noise", True), ("--no-shared-noise", False)):
        args = dpo.__main__._parser().parse_args(["train", flag])
        assert args.shared_noise is value and args.compile is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--beta", "0"], "beta=0.0 is too small. Set it to 1e-06 or more.\n"),
        (["--loss", "aot"], "loss='aot': aot is not offered: it sorts the batch"),
        (["nothing.json"], "nothing.json cannot be read as settings"),
        (["demo"], "There are 0 pairs and training needs at least 4."),
        (["--resume", "--name", "dogs"], "There is no run named 'dogs'"),
        (["--run", "runs/dogs"], "There is no run named 'dogs'"),
    ],
)
def test_mistakes_are_said_before_anything_loads(project, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(project.path)
    assert main(["train", *arguments, "--project", str(project.path)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == ""
    assert list(project.runs.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_said_before_a_run_is_made(project, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dpo.extras.pkgutil.iter_modules", lambda: [])
    monkeypatch.setattr("dpo.training.items_for", lambda project, config: make_pairs(tmp_path / "images", prompts=6))
    assert main(["train", "demo", "--tracker", "wandb", "--project", str(project.path)]) == 2
    assert "tracker='wandb' needs a package: pip install wandb" in capsys.readouterr().err
    assert list(project.runs.iterdir()) == []


def test_a_run_that_goes_on_keeps_its_settings(project, tmp_path, capsys, monkeypatch):
    run = new_run(project, tmp_path, max_steps=5)
    ends_with(monkeypatch, RunEnded(5, "finished", "Finished."))
    same = ["train", "--resume", "--name", "cats", "--project", str(project.path), "--max-steps", "5"]
    assert main(same) == 0
    assert main([*same, "--beta", "7"]) == 2
    assert "cats keeps the settings it began with: beta cannot be changed. Start a new run." in capsys.readouterr().err
    assert run.config == TrainConfig(max_steps=5)


@pytest.mark.parametrize(("reason", "status"), [("finished", 0), ("stopped", 0), ("damaged", 1), ("failed", 1)])
def test_the_exit_status_says_how_it_ended(project, tmp_path, capsys, monkeypatch, reason, status):
    run = new_run(project, tmp_path)
    ends_with(monkeypatch, Note(0, "Preparing", 1, 4), SamplesSaved(1, "there"), RunEnded(1, reason, "It ended so."))
    assert main(["train", "--run", str(run.path)]) == status
    captured = capsys.readouterr()
    assert captured.out == "It ended so.\n"
    assert captured.err == "Preparing 1/4\nSamples are in there\n"


def test_going_on_takes_back_an_earlier_stop_and_pause(project, tmp_path, monkeypatch):
    run = new_run(project, tmp_path)
    run.request_stop()
    run.request_pause()
    ends_with(monkeypatch, RunEnded(1, "finished"))
    main(["train", "--run", str(run.path)])
    assert not run.stop_requested() and not run.pause_requested()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_asks_the_run_to_stop_and_a_later_one_ends_it(project, tmp_path, monkeypatch, number):
    run, clock = new_run(project, tmp_path), iter([10.0, 10.5, 13.0])
    monkeypatch.setattr(dpo.train_command.time, "monotonic", lambda: next(clock))
    ended = []
    before = signal.signal(number, lambda *_: ended.append(number))
    try:
        with dpo.train_command._interrupts_stop(run):
            signal.raise_signal(number)
            assert run.stop_requested() and not ended
            signal.raise_signal(number)  # passed on by a launcher: the same one
            assert not ended
            signal.raise_signal(number)
            assert ended == [number]
        signal.raise_signal(number)
        assert ended == [number, number]
    finally:
        signal.signal(number, before)


class Second(Processes):
    """The second of two processes whose first one is always ahead."""

    def __init__(self):
        super().__init__(rank=1, count=2)

    def wait(self):
        pass

    def agree(self, value):
        return 1


def test_of_several_processes_only_the_first_prints_and_records(project, tmp_path, capsys, monkeypatch):
    run = new_run(project, tmp_path, accumulation=2, gpus=2)
    monkeypatch.setattr("dpo.parallel.join_processes", Second)
    ends_with(monkeypatch, RunStarted(0, 1, 4, 0), StepEnd(1, 0.1, {"loss": 0.5}))
    assert main(["train", "--run", str(run.path)]) == 0
    assert capsys.readouterr() == ("", "") and run.events() == []
    ends_with(monkeypatch, RunEnded(1, "failed", "No memory is left."))
    assert main(["train", "--run", str(run.path)]) == 1
    assert capsys.readouterr() == ("", "Process 1: No memory is left.\n")


def test_micro_batches_that_do_not_go_round_are_refused(project, tmp_path, capsys, monkeypatch):
    run = new_run(project, tmp_path, accumulation=3)
    monkeypatch.setattr("dpo.parallel.join_processes", Second)
    assert main(["train", "--run", str(run.path)]) == 2
    assert "accumulation=3 cannot be shared evenly by 2 processes" in capsys.readouterr().err


def test_several_gpus_are_started_and_followed(project, tmp_path, capsys, monkeypatch):
    run = new_run(project, tmp_path, accumulation=2, gpus=2)
    asked = []

    def launch(run, gpus):
        asked.append((run.name, gpus))
        yield from (StepEnd(1, 0.1, {"loss": 0.5}), RunEnded(1, "finished", "Finished."))

    monkeypatch.setattr("dpo.launch.launch", launch)
    assert main(["train", "--run", str(run.path)]) == 0
    assert asked == [("cats", 2)] and run.events() == []  # its processes record, not this one
    assert capsys.readouterr() == ("Finished.\n", "StepEnd 1  loss 0.5\n")
    assert find_run(project.runs, "cats") == run


# ------------------------------------------------------------------------------------------------ sudden ends


def start(run):
    return subprocess.Popen(
        [sys.executable, "-m", "dpo", "train", "--run", str(run.path)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_step(run, step):
    deadline = time.monotonic() + 120
    while run.status().step < step:
        assert time.monotonic() < deadline, run.status()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_run_killed_and_interrupted_ends_as_one_that_was_left_alone(project, tmp_path):
    build_pipeline().save_pretrained(tmp_path / "model")
    config = TrainConfig(
        model=str(tmp_path / "model"), resolution=16, max_steps=40, batch_size=2, accumulation=1, validate_every=7, save_every=1,
        reference_draws=2, learning_rate=1e-3,
    )  # fmt: skip
    pairs = make_pairs(tmp_path / "images")
    alone = create_run(project.runs, "alone", config, pairs)
    assert main(["train", "--run", str(alone.path)]) == 0

    run = create_run(project.runs, "cats", config, pairs)
    with start(run) as process:
        wait_for_step(run, 3)
        process.kill()
    killed_at = run.status().step
    assert run.status().state == "running" and not run.is_held and run.problem == ""
    with start(run) as process:
        wait_for_step(run, killed_at + 2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and said.startswith("Stopped after step ")
    assert run.status().state == "stopped" and killed_at < run.status().step < 40

    assert main(["train", "--run", str(run.path)]) == 0
    assert is_same(load_file(run.adapter), load_file(alone.adapter))
    ours, theirs = ([event for event in made.events() if isinstance(event, ValidationEnd)] for made in (run, alone))
    assert ours == theirs
