"""Under the shown run's buttons: its adapter for other programs. A format, a precision, one button, and what came of it.

An export is a job (dpo/formats/jobs.py): it waits its turn for the device, and a reload finds it again.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.formats import FORMATS, KINDS, PRECISIONS, offered, why_not
from dpo.formats.jobs import start_export
from dpo.formats.origin import described
from dpo.jobs import Job, JobRegistry
from dpo.runs import Run
from ui.downloads import export_url
from ui.session import Session, Studio, chosen_run
from ui.train_form import check_places
from ui.train_parts import list_part
from ui.words import holder


class Export(NamedTuple):
    """`seen` says which run is shown now and how its export is doing, and is kept by the page (see `Seen` in train_view.py)."""

    place: gr.Row
    format: gr.Dropdown
    precision: gr.Dropdown
    export: gr.Button
    file: gr.Button
    card: gr.Button
    lines: gr.HTML
    seen: gr.Textbox


def create_export() -> Export:
    with gr.Row(visible=False, elem_id="export", elem_classes="export-row") as place:
        looks = {"container": False, "show_label": False, "scale": 0}
        format = gr.Dropdown([], label="Format", elem_id="export-format", min_width=240, **looks)
        precision = gr.Dropdown(
            list(PRECISIONS), value="fp16", label="Precision", elem_id="export-precision", min_width=90, **looks
        )
        export = gr.Button("Export", size="sm", elem_id="export-adapter")
        file = gr.Button("Download the file", size="sm", link="", visible=False, elem_id="download-export")
        card = gr.Button("Its card", size="sm", link="", visible=False, elem_id="download-card")
    return Export(place, format, precision, export, file, card, list_part("export-lines"), gr.Textbox("", visible=False))


def draw_export(studio: Studio, session: Session, seen: str) -> tuple:
    """Updates for an Export, in its order; all skipped if nothing changed since `seen`."""
    run = chosen_run(studio, session)
    is_ready = run is not None and run.adapter.is_file() and not run.is_held
    job = studio.jobs.find("export", run.name) if is_ready else None
    shown = f"{run.name} {run.adapter.stat().st_mtime_ns}" if is_ready else ""
    standing = json.dumps([shown, f"{id(job)} {job.state} {job.message}" if job else ""])
    if standing == seen:
        return tuple(gr.skip() for _ in Export._fields)
    problem = _problem(run) if is_ready else ""
    if not is_ready or problem:
        nothing = {name: gr.skip() for name in Export._fields}
        lines = gr.HTML(lines=[{"text": problem, "tone": "bad"}] if problem else [])
        return tuple((nothing | {"place": gr.Row(visible=False), "lines": lines, "seen": standing}).values())
    is_active = job is not None and job.is_active
    done = job.result if job is not None and job.state == "done" else None
    return Export(
        place=gr.Row(visible=True),
        format=gr.skip() if _run_of(seen) == shown else _formats(run),
        precision=gr.skip(),
        export=gr.Button("Exporting" if is_active else "Export", interactive=not is_active),
        file=_link(studio, "Download the file", done and done.file),
        card=_link(studio, "Its card", done and done.card),
        lines=gr.HTML(lines=export_lines(run, job, studio.jobs)),
        seen=standing,
    )


def ask_export(studio: Studio, session: Session, format: str, precision: str) -> gr.HTML:
    """What to show after the button was pressed."""
    run = chosen_run(studio, session)
    try:
        if run is not None:
            check_places(studio, run.config)
            start_export(studio.project, studio.jobs, run, format, precision)
    except StudioError as error:
        return gr.HTML(lines=[{"text": str(error), "tone": "bad"}])
    return gr.HTML(lines=[{"text": "Getting ready."}])


def export_lines(run: Run, job: Job | None, jobs: JobRegistry) -> list[dict[str, str]]:
    """How the run's export is doing or what was found, and which formats are not offered."""
    return [*_progress(job, jobs), *({"text": text} for text in _refusals(run))]


def _progress(job: Job | None, jobs: JobRegistry) -> list[dict[str, str]]:
    if job is None or job.state == "stopped":
        return []
    if job.state == "failed":
        return [{"text": job.message, "tone": "bad"}]
    if job.state == "queued":
        return [{"text": f"{holder(jobs)} has the device; the export is next in line."}]
    if job.is_active:
        return [{"text": f"{(job.message or 'getting ready').capitalize()}."}]
    return [{"text": f"{job.result.file.parent.name}: {job.result.sentence()}", "tone": "calm"}]


def _problem(run: Run) -> str:
    try:
        described(run.adapter)
    except StudioError as error:
        return str(error)
    return ""


def _refusals(run: Run) -> list[str]:
    pipeline, kind = described(run.adapter)
    if not pipeline or not kind:
        return []
    found: dict[str, list[str]] = {}
    for format in FORMATS:
        reason = why_not(pipeline, kind, format)
        if reason:
            found.setdefault(reason, []).append(format)
    return [f"{KINDS[kind]} not as {' or '.join(formats)}: {reason}" for reason, formats in found.items()]


def _formats(run: Run) -> gr.Dropdown:
    pipeline, kind = described(run.adapter)
    names = offered(pipeline, kind) if pipeline and kind else list(FORMATS)
    choices = [(f"{name}: {FORMATS[name]}", name) for name in names]
    return gr.Dropdown(choices, value="comfyui" if "comfyui" in names else names[0])


def _link(studio: Studio, label: str, path) -> gr.Button:
    if not path:
        return gr.Button(label, visible=False)
    return gr.Button(label, visible=True, link=export_url(studio, f"{path.parent.name}/{path.name}"))


def _run_of(seen: str) -> str:
    try:
        return json.loads(seen)[0]
    except (ValueError, TypeError, IndexError, KeyError):
        return ""
