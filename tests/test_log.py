"""What goes into a project's log, what never does, and what diagnostics say of a machine and its owner: nothing."""

import asyncio
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest

from dpo import StudioError
from dpo.__main__ import main
from dpo.config import TrainConfig
from dpo.diagnostics import diagnose
from dpo.events import Note, RunEnded, RunStarted
from dpo.jobs import JobRegistry
from dpo.log import LARGEST, keep_log, last_errors, log_file
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run
from ui import Page

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a most private prompt"
SECRETS = {"HF_TOKEN": "hf_abcdefghijklmnop", "STUDIO_AUTH": "me:correct-horse", "WANDB_API_KEY": "0123456789abcdef"}


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


@pytest.fixture(autouse=True)
def quiet_again(monkeypatch):
    for name in ("dpo", "ui"):  # pytest sends what it hears on to another process, which takes no half characters
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    yield
    monkeypatch.undo()  # a disk that a test filled is free again
    for name in ("dpo", "ui"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
            handler.close()
        logging.getLogger(name).setLevel(logging.NOTSET)


def text_of(project) -> str:
    return log_file(project.path).read_text(encoding="utf-8")


def fail(job):
    raise ValueError(f"odd: {os.environ.get('HF_TOKEN')}\n2026-01-01 00:00:00.000 INFO dpo: forged \u202e\x1b[31m \ud800")


def refuse(job):
    raise StudioError("There is nothing to do. Pick a pair.")


def run_jobs(*works) -> JobRegistry:
    jobs = JobRegistry()
    for number, work in enumerate(works):
        jobs.submit("export", f"exporting {number}", str(number), work).finished.wait(10)
    return jobs


def test_the_log_says_what_began_what_ended_and_how_what_failed_came_about(project, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    keep_log(project.path)
    run_jobs(lambda job: None, refuse, fail)
    lines = text_of(project).splitlines()
    assert f"begins as process {os.getpid()}: python 3." in lines[0] and "torch 2." in lines[0]
    said = [line.split(": ", 1)[1] for line in lines if "dpo.jobs:" in line]
    assert said[:4] == ["exporting 0 begins", "exporting 0: done", "exporting 1 begins",
                        "exporting 1 failed: There is nothing to do. Pick a pair."]  # fmt: skip
    # One line a record, whatever is in it, and a traceback that cannot pass for records.
    assert "exporting 2 failed: exporting 2 failed unexpectedly: ValueError: odd: ***\\n2026-01-01" in text_of(project)
    assert any(line.startswith("    ") and "in fail" in line for line in lines)
    assert all(line[:2] == "20" or line.startswith("    ") for line in lines)
    assert "forged" not in [line[30:36] for line in lines] and not {"\u202e", "\x1b", "\ud800"} & set(text_of(project))
    assert not [value for value in SECRETS.values() if value in text_of(project)]


def test_only_this_program_is_heard(project, capsys):
    keep_log(project.path)
    for name in ("gradio", "uvicorn.error", "diffusers", "httpx"):
        logging.getLogger(name).error("noise of %s", name)
    logging.getLogger("ui.security").debug("a detail")
    logging.getLogger("ui.security").error("a failure")
    assert "noise" not in text_of(project) and "a detail" in text_of(project)
    captured = capsys.readouterr().err
    assert "a failure" in captured and "a detail" not in captured
    keep_log(project.path, verbose=True)
    logging.getLogger("ui.security").debug("a detail")
    assert capsys.readouterr().err.count("a detail") == 1 and text_of(project).count("a detail") == 2


def test_the_log_is_rotated_and_never_grows_beyond_three_files(project):
    keep_log(project.path)
    for _ in range(40):
        logging.getLogger("dpo").info("x" * 100_000)
    files = sorted(log_file(project.path).parent.iterdir())
    assert [path.name for path in files] == ["studio.log", "studio.log.1", "studio.log.2"]
    assert all(path.stat().st_size <= LARGEST for path in files)


@pytest.mark.parametrize("what", ["full disk", "no folder"])
def test_a_log_that_cannot_be_written_hurts_nobody(project, monkeypatch, capsys, what):
    if what == "no folder":
        (project.path / "log").write_text("in the way")
    keep_log(project.path)
    if what == "full disk":

        def refuse_write(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dpo.log._QuietFile.flush", refuse_write, raising=False)
    jobs = run_jobs(lambda job: "made")
    assert jobs.find("export").result == "made" and "Traceback" not in capsys.readouterr().err
    assert last_errors(project.path, 5) == []


def test_diagnostics_tell_what_went_wrong_and_nothing_of_who_or_where(project, monkeypatch, tmp_path):
    home = tmp_path / "home" / "annabel"
    for name, value in (SECRETS | {"HOME": str(home), "USER": "annabel", "LOGNAME": "annabel"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: "annabels-machine")
    keep_log(project.path)
    places = {
        "model": str(home / "models/secret-place/base.safetensors"),
        "starting_adapter": "C:\\Users\\Annabel\\a.safetensors",
    }
    config = TrainConfig(**places)
    run = create_run(project.runs, "cats-1", config, [Pair(PROMPT, "a.png", "b.png")] * 4)
    run.append(RunStarted(0, 10, 4, 0))
    run.append(Note(0, "Loading"))
    run.append(
        RunEnded(3, "failed", f"{home}/models cannot be read by annabel on annabels-machine, see https://annabel.gradio.live")
    )

    def break_down(job):
        raise RuntimeError(f"{home}/x.png of Annabel: {SECRETS['STUDIO_AUTH']} https://u:pa55word@example.org /Users/annabel/y")

    text = diagnose(project, run_jobs(break_down, refuse))
    for told in ("python 3.", "gradio 6.", "cores", "GiB free", "device: ", "export 0: failed", "cats-1: failed, step 3 of 10",
                 '"beta": 1000.0', '"model": "base.safetensors"', "RuntimeError", "in break_down"):  # fmt: skip
        assert told in text, told
    hidden = [*SECRETS.values(), "correct-horse", "pa55word", "annabel", PROMPT, "secret-place", str(project.path), str(tmp_path)]
    assert not [entry for entry in hidden if entry.lower() in text.lower()]


def test_diagnostics_load_no_torch(project):
    program = (
        "import sys; from pathlib import Path; from dpo.diagnostics import diagnose; from dpo.project import open_project\n"
        f"assert 'torch 2.' in diagnose(open_project(Path({str(project.path)!r})))\n"
        "assert not {'torch', 'diffusers', 'gradio'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_the_command_line_logs_into_its_project_and_says_all_of_it_if_asked(project, capsys):
    assert main(["diagnostics", "--project", str(project.path)]) == 0
    assert "Image DPO Studio" in capsys.readouterr().out and "begins as process" in text_of(project)
    assert main(["score", "--project", str(project.path), "--scorer", "aesthetic", "--verbose"]) == 2
    assert "WARNING dpo: refused: " in capsys.readouterr().err
    assert main(["diagnostics", "--project", str(project.path / "nowhere")]) == 2
    assert not (project.path / "nowhere").exists()


def test_a_file_name_cannot_command_the_terminal(tmp_path, capsys):
    (tmp_path / "\x1b[31m\u202egnp.png").write_bytes(b"no image")
    assert main(["scan", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\\x1b[31m\\u202egnp.png" in said and not {"\x1b", "\u202e"} & set(said)


def test_an_event_of_the_page_that_fails_is_in_the_log(project):
    def divide():
        return 1 / 0

    with Page(analytics_enabled=False) as page:
        gr.Button().click(divide)
    keep_log(project.path)
    with ThreadPoolExecutor() as threads, pytest.raises(ZeroDivisionError):  # the browser's loop may be running in this one
        threads.submit(asyncio.run, page.process_api(page.fns[0], [])).result()
    assert "ERROR ui: the event divide failed" in text_of(project) and "in divide" in text_of(project)


def test_a_mistake_of_the_program_is_in_the_log_and_on_the_terminal(project, monkeypatch, capsys):
    monkeypatch.setattr("dpo.project_command.diagnose", lambda project: 1 / 0)
    assert main(["diagnostics", "--project", str(project.path)]) == 1
    assert "ZeroDivisionError" in text_of(project) and capsys.readouterr().err.count("ZeroDivisionError") == 1
