"""Two processes on one project: real ones, because that is what a lock is about."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dpo.claims import DEVICE, QUEUE, Claim, Claimed, check_device, device_turn
from dpo.events import Note, RunEnded
from dpo.jobs import JobRegistry
from dpo.runs import create_run
from dpo.training import in_turn
from tests.test_runs import PAIRS, TrainConfig
from ui.words import holder, job_line

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time, pathlib
from dpo.claims import Claim
claim = Claim(pathlib.Path(sys.argv[1]), sys.argv[2])
assert claim.take(sys.argv[3])
print("taken", flush=True)
time.sleep(60)
"""


@contextmanager
def taken(folder, name, doing):
    """Another process that has the claim until the end of this, when it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder), name, doing], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"taken\n"
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_process_has_the_queue_the_other_says_whose_it_is_and_takes_over_when_that_is_killed(tmp_path):
    with taken(tmp_path, QUEUE, "long work is done by another app") as app:
        jobs = JobRegistry(folder=tmp_path)
        with pytest.raises(
            Claimed, match=rf"^Another app has this project open .* \(process {app.pid}, since \d\d:\d\d\)\. Start it"
        ):
            jobs.submit("train", "training cats", "cats", lambda job: None)
        assert jobs.find("train") is None
        assert job_line(jobs.current(), jobs.elsewhere()).startswith(
            f"long work is done by another app: process {app.pid}, since"
        )
    assert jobs.owner() is None and job_line(jobs.current(), jobs.elsewhere()) == "idle"
    job = jobs.submit("train", "training cats", "cats", lambda job: 7)
    assert job.finished.wait(10) and job.result == 7
    assert JobRegistry(folder=tmp_path).owner() is not None


def test_work_in_the_queue_waits_for_a_command_that_has_the_device_and_says_for_which(tmp_path):
    jobs = JobRegistry(folder=tmp_path)
    with taken(tmp_path, DEVICE, "training dogs") as command:
        job = jobs.submit("train", "training cats", "cats", lambda job: 7)
        gone = jobs.submit("train", "training birds", "birds", lambda job: 8)
        wait_for(lambda: jobs.guest() is not None)
        assert job_line(jobs.current(), jobs.elsewhere()) == "training cats waits for training dogs"
        assert holder(jobs).startswith(f"Training dogs (process {command.pid}, since ")
        assert jobs.cancel(gone) and job.state == "queued"
    assert job.finished.wait(10) and job.result == 7


def test_a_job_that_waits_for_a_command_can_be_stopped(tmp_path):
    jobs = JobRegistry(folder=tmp_path)
    with taken(tmp_path, DEVICE, "training dogs"):
        job = jobs.submit("train", "training cats", "cats", lambda job: 7)
        job.stop.set()
        assert job.finished.wait(10) and job.state == "stopped"


def test_a_command_waits_for_the_device_and_says_for_whom_or_is_refused(tmp_path, capsys):
    with taken(tmp_path, DEVICE, "training dogs") as app:
        with pytest.raises(Claimed, match=rf"^Training dogs has the device \(process {app.pid}, since .*--no-wait away.$"):
            check_device(tmp_path)
        with pytest.raises(Claimed), device_turn(tmp_path, "generating", waits=False):
            pass
        app.kill()
        app.wait()
        with device_turn(tmp_path, "generating", waits=True):
            assert Claim(tmp_path, DEVICE).other().doing == "generating"
    with taken(tmp_path, DEVICE, "training dogs") as app:
        turn = device_turn(tmp_path, "generating", waits=True)
        threading.Timer(0.3, app.kill).start()
        with turn:
            pass
    assert f"Waiting: training dogs has the device (process {app.pid}, since" in capsys.readouterr().err
    assert Claim(tmp_path, DEVICE).other() is None


def test_a_run_from_the_terminal_notes_in_its_folder_that_it_waits_and_stops_when_told(tmp_path):
    run = create_run(tmp_path / "runs", "cats", TrainConfig(), PAIRS)
    with taken(tmp_path, DEVICE, "training dogs") as app:
        events = in_turn(run, iter([RunEnded(3, "finished")]))
        assert next(events) == Note(0, f"Waiting: training dogs has the device ({Claim(tmp_path, DEVICE).other()})")
        run.request_stop()
        end = next(events)
        assert (end.step, end.reason) == (0, "stopped") and next(events, None) is None
        run.clear_stop()
        events = in_turn(run, iter([RunEnded(3, "finished")]))
        next(events)
        app.kill()
        assert next(events) == RunEnded(3, "finished")
        assert Claim(tmp_path, DEVICE).other() is not None  # until the run is over
        assert next(events, None) is None and Claim(tmp_path, DEVICE).other() is None


def test_processes_that_the_one_with_the_device_has_started_need_not_wait(tmp_path):
    claim = Claim(tmp_path, DEVICE)
    assert claim.take("training cats")
    program = (
        "import sys, pathlib; from dpo.claims import device_turn\n"
        "with device_turn(pathlib.Path(sys.argv[1]), 'its part', waits=True): print('at work')"
    )
    said = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (said.stdout, said.stderr) == ("at work\n", "")
    claim.give_up()
