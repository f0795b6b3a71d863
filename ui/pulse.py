"""The pulse: how a page learns that something is new without asking through Gradio, which costs its main thread.

For every event, also one that changes nothing, Gradio walks through all components of the page, twice: 20 to 200 ms in which no
key is heard. So the page asks by a plain request, once a second, and an event follows only if there is something to show. While
picks are made it waits until they pause: what they change lies below the picker.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from dpo.jobs import JobRegistry
from dpo.runs import list_runs
from ui.candidates_part import standing as candidates_standing
from ui.rights import open_to
from ui.session import Studio
from ui.words import job_line


def create_pulse(studio: Studio, wake: Callable[[], None]) -> gr.HTML:
    """The component. Its events: `news` (of scans, uploads, candidates, the index, or of picks) and, while the Train tab is
    shown, `run_news` (of jobs, and of runs, which another process may train). What the top line says of the job goes to that
    part within the page (parts.js). `wake` is called at every beat of every page."""
    process = secrets.token_hex(8)  # a page that meets another process has lost its session there, and loads anew

    @open_to("viewer")
    def beat(payload: dict) -> dict:
        wake()
        line = _job_line(studio.jobs)
        project, upload, scan = studio.project, studio.uploads.current, studio.project.library.current_scan()
        return {
            "process": process,
            "line": line,
            "job": _digest(line, studio.jobs.standing(), _of_runs(studio)),
            "rest": _digest(
                (scan.begun, scan.done, scan.finished.is_set()) if scan else (),
                (str(upload.folder), upload.done, upload.finished.is_set()) if upload else (),
                project.library.revision(),
                candidates_standing(studio),
            ),
            "picks": project.picks.revision(),
        }

    return gr.HTML(
        html_template='<i hidden class="pulse"></i>',
        js_on_load=Path(__file__).with_name("pulse.js").read_text(encoding="utf-8"),
        server_functions=[beat], apply_default_css=False, elem_id="pulse", seconds=studio.seconds_between_looks,
    )  # fmt: skip


def _job_line(jobs: JobRegistry) -> dict:
    job = jobs.current()
    share = job.done / job.total if job and job.total else 0.0
    return {"text": job_line(job, jobs.elsewhere()), "share": share, "active": job is not None}


def _of_runs(studio: Studio) -> list[tuple]:
    return [(run.name, run.revision(), run.pause_requested()) for run in list_runs(studio.project.runs)]


def _digest(*facts: object) -> str:
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
