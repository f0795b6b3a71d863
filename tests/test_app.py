"""Starting the app, what it must not do, and what the tabs read out of runs and jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from dpo.config import ConfigError, TrainConfig
from dpo.events import Note, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.groups import View
from dpo.jobs import Job, JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import Run, create_run
from tests.test_security import REPOSITORY, free_port
from ui import finish_jobs
from ui.session import Session, Studio, chosen_run, restore_session, stored_session
from ui.train_form import read_config
from ui.train_view import draw
from ui.train_words import data_line, log_lines, prompts_line, report_run, run_row
from ui.words import duration, job_line

HEAVY = {"torch", "diffusers", "transformers", "peft", "matplotlib", "tensorboard"}

# Runs app.py as `python app.py` does, notes every address that is looked up or connected to, and answers with what was seen.
TRAPPED = """
import json, runpy, socket, sys, threading, time, urllib.request
port, report = int(sys.argv[1]), sys.argv[2]
reached = []
connect, look_up = socket.socket.connect, socket.getaddrinfo
socket.socket.connect = lambda self, address: (reached.append(str(address)), connect(self, address))[1]
socket.getaddrinfo = lambda host, *rest, **more: (reached.append(str(host)), look_up(host, *rest, **more))[1]
def watch():
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            break
        except OSError:
            time.sleep(0.05)
    time.sleep(1.5)  # gradio's own telemetry starts in threads
    with open(report, "w") as file:
        json.dump({"modules": sorted(sys.modules), "reached": reached}, file)
    import os
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
sys.argv = ["app.py", "--port", str(port), "--project", sys.argv[3]]
runpy.run_path("app.py", run_name="__main__")
"""


def test_starting_loads_no_torch_and_reaches_nobody(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-c", TRAPPED, str(free_port()), str(report), str(tmp_path / "project")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    done = subprocess.run(command, cwd=REPOSITORY, timeout=60, capture_output=True, text=True, env=environment)
    assert report.exists(), done.stderr
    seen = json.loads(report.read_text())
    assert not HEAVY & {name.partition(".")[0] for name in seen["modules"]}
    assert seen["reached"], "the trap itself works: the test's own request is in it"
    strangers = [address for address in seen["reached"] if not any(name in address for name in ("127.0.0.1", "localhost", "::1"))]
    assert strangers == []


def test_importing_the_app_starts_nothing():
    code = "import sys, threading, app; assert 'gradio' not in sys.modules and threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=30)


# --- Session


def test_a_session_survives_the_browser():
    view = View("", search="a fox", size="512x768", since="2026-01-31", ignore_loras=True)
    session = Session(folder="/a", run="demo-1", mode="duel", sort="newest", way="test", view=view)
    assert restore_session(json.loads(json.dumps(stored_session(session)))) == session


@pytest.mark.parametrize(
    "stored",
    [None, "x", [], {"run": 7}, {"run": ["a"]}, {"unknown": "x"}, {"run": "x" * 5000}, {"view": "x"}, {"view": {"search": 7}},
     {"view": {"search": "x" * 5000}}, {"view": {"since": "2026-13-01"}}, {"view": {"until": "today"}}, {"view": {"size": "big"}},
     {"view": {"same_seed": 1}}, {"view": {"folder": "/etc"}}, {"view": {"unknown": "x"}}],
)  # fmt: skip
def test_whatever_else_a_browser_holds_gives_a_fresh_session(stored):
    assert restore_session(stored) == Session()


# --- Runs


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(open_project(tmp_path / "project"), JobRegistry(), b"s" * 32)


def make_run(studio: Studio, name: str, *events) -> Run:
    run = create_run(studio.project.runs, name, TrainConfig(), [Pair(f"p{n // 2}", "c", "r") for n in range(8)])
    for event in events:
        run.append(event)
    return run


def step(number: int, drift: float = 0.001) -> StepEnd:
    return StepEnd(number, 0.5, {"loss": 0.6, "rewards/accuracies": 0.75, "errors/chosen_drift": drift})


def say(studio: Studio, run: Run):
    return report_run(run, run.events(), run.status(), studio.jobs)


def hold(studio: Studio, run: Run) -> Job:
    """A job for the run that lasts until it is asked to stop."""
    job = studio.jobs.submit("train", f"training {run.name}", run.name, lambda job: job.stop.wait(20))
    while job.state == "queued":
        time.sleep(0.005)
    return job


def test_the_session_names_the_run_and_the_newest_stands_in(studio):
    assert chosen_run(studio, Session()) is None
    first, second = make_run(studio, "a-1"), make_run(studio, "a-2")
    os.utime(first.path / "config.json", (1, 1))
    assert chosen_run(studio, Session(run="a-1")) == first
    assert chosen_run(studio, Session(run="gone")) == second


def test_a_running_run_says_its_step_pace_time_and_health(studio):
    run = make_run(studio, "a-1", RunStarted(0, 100, 6, 2), step(1), step(2))
    job = hold(studio, run)
    report = say(studio, run)
    job.stop.set()
    assert report.headline == "a-1 is training: step 2 of 100, 2.0 steps/s, 49 s left."
    assert report.detail.startswith("No damage: chosen images are denoised 0.001 worse than by the base model")
    assert report.is_live and not report.can_resume


def test_drift_is_told_before_it_stops_the_run(studio):
    for drift, word, tone in ((0.001, "No damage", "calm"), (0.02, "Worth watching", "warn"), (0.04, "Images suffer", "bad")):
        run = make_run(
            studio, f"a-{drift}", RunStarted(0, 100, 6, 2), *[step(n, drift) for n in range(1, 12)], RunEnded(11, "stopped")
        )
        report = say(studio, run)
        assert word in report.detail and report.tone == tone


def test_a_run_whose_process_died_is_interrupted_and_can_resume(studio):
    run = make_run(studio, "a-1", RunStarted(0, 100, 6, 2), step(1))
    report = say(studio, run)
    assert report.headline == "a-1 stopped unexpectedly at step 1 of 100." and report.can_resume


def test_a_run_stopped_in_the_queue_says_that_nothing_was_done(studio):
    first, second = make_run(studio, "a-1"), make_run(studio, "a-2")
    running = hold(studio, first)
    waiting = studio.jobs.submit("train", "training a-2", "a-2", lambda job: None)
    assert say(studio, second).headline == "a-2 waits, next in line."
    assert say(studio, second).detail == "Training a-1 has the device."
    waiting.stop.set()
    running.stop.set()
    assert waiting.finished.wait(5)
    report = say(studio, second)
    assert (report.headline, report.can_resume) == ("a-2 was stopped before its first step.", True)


def test_closing_the_app_stops_the_run_so_that_it_is_kept(studio, capsys):
    run = make_run(studio, "a-1", RunStarted(0, 100, 6, 2))

    def train(job):
        while not run.stop_requested():
            time.sleep(0.01)
        run.append(RunEnded(1, "stopped", "kept"))

    job = studio.jobs.submit("train", "training a-1", "a-1", train)
    while job.state == "queued":  # one that never started has nothing to keep
        time.sleep(0.01)
    finish_jobs(studio, patience=10)
    assert job.finished.is_set() and run.status().state == "stopped"
    assert "Stopping training a-1" in capsys.readouterr().out


def test_a_damaged_run_says_why_and_is_not_resumed(studio):
    run = make_run(studio, "a-1", RunStarted(0, 100, 6, 2), step(1, 0.2), RunEnded(1, "damaged", "The error is 0.2."))
    report = say(studio, run)
    assert (report.tone, report.detail, report.can_resume) == ("bad", "The error is 0.2.", False)


def test_a_failed_job_says_its_message_even_if_nothing_reached_the_folder(studio):
    run = make_run(studio, "a-1")

    def fail(job):
        raise ConfigError("The disk is full.")

    job = studio.jobs.submit("train", "training a-1", "a-1", fail)
    assert job.finished.wait(5)
    report = say(studio, run)
    assert report.state == "failed" and report.detail == "The disk is full."


def test_preparation_shows_its_note_and_count(studio):
    run = make_run(studio, "a-1", Note(0, "Encoding images", 12, 40))
    job = hold(studio, run)
    report = say(studio, run)
    job.stop.set()
    assert (report.detail, report.done, report.total) == ("Encoding images, 12 of 40.", 12, 40)


def test_a_finished_run_says_what_its_accuracy_was_measured_on(studio):
    kept = make_run(
        studio, "a-1", RunStarted(0, 1, 6, 2), step(1), ValidationEnd(1, {"rewards/accuracies": 0.5}), RunEnded(1, "finished")
    )
    none = make_run(studio, "a-2", RunStarted(0, 1, 8, 0), step(1), RunEnded(1, "finished"))
    assert "accuracy 50% on 2 pairs kept out of training" in say(studio, kept).headline
    assert "accuracy 75% on the pairs it trained on" in say(studio, none).headline
    assert run_row(kept, studio.jobs)["accuracy"] == "50%"


def test_nothing_is_drawn_again_until_the_run_moves(studio):
    run = make_run(studio, "a-1", RunStarted(0, 100, 6, 2), step(1))
    drawn = draw(studio, Session(), "")
    again = draw(studio, Session(), drawn[-1])
    assert all(update == {"__type__": "update"} for update in again[:-1]) and again[-1] == drawn[-1]
    run.append(step(2))
    assert draw(studio, Session(), drawn[-1])[-1] != drawn[-1]


# --- Words and typed values


def test_times_are_said_as_a_person_would():
    said = [duration(seconds) for seconds in (0.2, 38, 89, 120, 5000, 6000)]
    assert said == ["1 s", "38 s", "89 s", "2 min", "83 min", "1 h 40 min"]


def test_the_job_line_says_what_how_far_and_how_long():
    assert job_line(None) == "idle"
    job = Job("train", "training demo-1", "demo-1", state="running", done=41, total=100, started=time.monotonic() - 26.4)
    assert job_line(job) == "training demo-1, 41%, 38 s left"
    job.report(12, 40, "Encoding images")
    assert job_line(job) == "training demo-1: encoding images, 30%", "the pace of preparing says nothing of training"
    assert job_line(Job("train", "training demo-1", "demo-1")) == "training demo-1 waits"


def test_the_pairs_line_counts_what_training_gets():
    pairs = [Pair(f"prompt {n // 2}", "c", "r") for n in range(40)]
    line = data_line(pairs, pairs, TrainConfig(validation_share=0.5))
    kept = r"40 pairs from 20 prompts; \d+ prompts kept for validation, with \d+ pairs(\.|: one pair is \d+%\.)"
    assert re.fullmatch(kept, line)
    assert data_line(pairs, pairs[:8], TrainConfig(validation_share=0.0)) == (
        "8 of 40 pairs from 4 prompts; none kept for validation, so accuracy is measured on what was trained."
    )
    assert data_line(pairs[:1], pairs[:1], TrainConfig()) == "1 pair yet: training needs at least 4. Pick some in Pairs."
    left = data_line(pairs, [], TrainConfig())
    assert left == "No pairs of 40 left by the filters in Pairs below: training needs at least 4."


def test_the_line_of_pairs_counts_the_prompts_that_hold_more_than_words():
    texts = ["a cat", "<lora:x:1> a", "<lora:x:1> (a:1.2)", "embedding:bad, a"]
    pairs = [Pair(text, "a.png", f"{number}.png") for text in texts for number in range(2)]
    assert prompts_line(pairs) == (
        "Of 4 prompts, 2 have LoRA tags, which are left out, 1 has embeddings, which are left out, 1 has brackets, whose weights "
        "count for Stable Diffusion 1.x, 2.x and SDXL alone."
    )
    assert prompts_line(pairs[:2]) == ""


def test_a_whole_number_may_come_as_a_float_and_no_other_is_rounded():
    assert read_config({"max_steps": 12.0}).max_steps == 12
    assert isinstance(read_config({"max_timestep": 1}).max_timestep, float)
    with pytest.raises(ConfigError, match=r"max_steps=1\.5 is not a whole number"):
        read_config({"max_steps": 1.5})
    with pytest.raises(ConfigError, match="beta=None is not a number"):
        read_config({"beta": None})


def test_the_log_has_each_sentence_once():
    assert (
        log_lines([Note(0, "Loading"), Note(0, "Loading"), RunEnded(3, "finished", "Done.")])
        == "step     0  Loading\nstep     3  Done."
    )
