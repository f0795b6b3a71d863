"""The right column of the Train tab: how the shown run does. Report, plots, what they mean, samples, log, and the list of runs.

All of it is read from the run's folder and the job registry, and drawn anew only where something changed since this page last
looked: what stands there is told apart by `Seen`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.events import Event, SamplesSaved
from dpo.jobs import JobRegistry
from dpo.outcomes import latest_outcome
from dpo.runs import Run, RunError, RunStatus, delete_run, list_runs
from ui.blind_words import short_verdict
from ui.downloads import adapter_url
from ui.export_part import Export, create_export
from ui.parts import report_part, text_part
from ui.plots import (
    COLOURS,
    LEGEND,
    VALIDATION,
    accuracy_frame,
    compare_colours,
    compare_frames,
    drift_frame,
    loss_frame,
    reward_frame,
)
from ui.session import Session, Studio, chosen_run
from ui.train_parts import list_part, runs_part, strip_part
from ui.train_samples import strip_of
from ui.train_words import broken_report, finding_lines, log_lines, reference_words, report_run, run_row, warnings_of

PLOT_HEIGHT = 220
NO_RUN = "No run yet. How one does is shown here: its curves, what they mean, and its samples."
TITLES = {"loss": "Loss", "accuracy": "Accuracy", "rewards": "Rewards", "drift": "Chosen error over the base model's"}
COMPARED_TITLES = TITLES | {"rewards": "Margin"}


class Seen(NamedTuple):
    """What a page shows now. `run`: the shown run's state and events; `samples`: its pictures; `listed`: the list of runs.

    The page itself keeps it, as text: answers to two questions may arrive in either order, and what was shown last counts, not
    what was answered last. A page that keeps anything else is drawn anew.
    """

    run: str = ""
    samples: str = ""
    listed: str = ""

    def text(self) -> str:
        return json.dumps(self)

    @classmethod
    def of(cls, text: object) -> Seen:
        try:
            parts = json.loads(text)
        except (TypeError, ValueError):
            return cls()
        is_ours = isinstance(parts, list) and len(parts) == len(cls._fields) and all(isinstance(part, str) for part in parts)
        return cls(*parts) if is_ours else cls()


class View(NamedTuple):
    """The right column; `seen` holds the text of a `Seen`."""

    empty: gr.HTML
    report: gr.HTML
    buttons: gr.Row
    pause: gr.Button
    go_on: gr.Button
    stop: gr.Button
    resume: gr.Button
    download: gr.Button
    compare: gr.Button
    problem: gr.HTML
    warnings: gr.HTML
    plots: gr.Column
    loss: gr.LinePlot
    accuracy: gr.LinePlot
    rewards: gr.LinePlot
    drift: gr.LinePlot
    findings: gr.HTML
    strip: gr.HTML
    log: gr.Textbox
    runs: gr.HTML
    seen: gr.Textbox


def create_view() -> tuple[View, Export]:
    """The column, and the part of it that exports (export_part.py)."""
    empty = text_part(NO_RUN, elem_id="no-run")
    report = report_part("run-report")
    with gr.Row(visible=False, elem_id="run-buttons", elem_classes="actions") as buttons:
        pause = gr.Button("Pause", size="sm", elem_id="pause-training")
        go_on = gr.Button("Continue", size="sm", elem_id="continue-training")
        stop = gr.Button("Stop and keep", size="sm", elem_id="stop-training")
        resume = gr.Button("Resume", size="sm", elem_id="resume-training")
        download = gr.Button("Download adapter", size="sm", link="", elem_id="download-adapter")
        compare = gr.Button("Compare with the base model", size="sm", elem_id="to-compare")
    problem = text_part(elem_id="run-problem", tone="bad")
    export = create_export()
    warnings = list_part("run-warnings")
    with gr.Column(visible=False, elem_id="plots") as plots:
        with gr.Row():
            loss, accuracy = _plot(TITLES["loss"]), _plot(TITLES["accuracy"], y_lim=[0, 1])
        with gr.Row():
            rewards, drift = _plot(TITLES["rewards"], x_title="step"), _plot(TITLES["drift"], x_title="step")
    findings = list_part("findings")
    strip = strip_part()
    with gr.Accordion("Log", open=False, elem_id="log"):
        log = gr.Textbox(show_label=False, interactive=False, lines=8, max_lines=16, container=False)
    view = View(
        empty, report, buttons, pause, go_on, stop, resume, download, compare, problem, warnings, plots, loss, accuracy,
        rewards, drift, findings, strip, log, runs_part(), gr.Textbox("", visible=False),
    )  # fmt: skip
    return view, export


def draw(studio: Studio, session: Session, shown: str) -> tuple:
    """Updates for a View, in its order; what has not changed since `shown`, the text of a `Seen`, is skipped."""
    seen = Seen.of(shown)
    run = chosen_run(studio, session)
    other = _compared(studio, session, run)
    updates = _run_updates(studio, run, other, seen) if run else {}
    if run is None:
        updates = {"empty": gr.HTML(text=NO_RUN), "plots": gr.Column(visible=False), "seen": Seen()}
    new = updates.pop("seen", seen)
    listed = _listed(studio, run, other)
    if listed != seen.listed:
        updates["runs"] = gr.HTML(rows=_rows(studio, run, other))
    updates["seen"] = new._replace(listed=listed).text()
    return tuple(updates.get(name, gr.skip()) for name in View._fields)


def act_on(jobs: JobRegistry, run: Run, action: str) -> None:
    """What the list of runs asks for a run: "sooner", "remove" from the queue, or "delete". Raises StudioError."""
    job = jobs.find("train", run.name)
    if action == "delete":
        if job is not None and job.is_active:
            raise RunError(f"{run.name} is {job.state}. Stop it, or take it out of the queue, then delete it.")
        delete_run(run)
    elif job is not None and action == "sooner":
        jobs.move(job, -1)
    elif job is not None and action == "remove":
        jobs.cancel(job)


def _run_updates(studio: Studio, run: Run, other: Run | None, seen: Seen) -> dict[str, object]:
    job = studio.jobs.find("train", run.name)
    has_adapter = run.adapter.exists()
    asked = f"{job.state if job else ''} {job.stop.is_set() if job else ''} {run.pause_requested()} {run.is_held}"
    compared = f"{other.name} {other.revision()}" if other else ""
    standing = f"{run.name} {run.revision()} {asked} {has_adapter} {compared}"
    if standing == seen.run:
        return {}
    try:
        config, events, status = run.config, run.events(), run.status()
        report = report_run(run, events, status, studio.jobs)
    except StudioError as error:
        report = broken_report(run, str(error))
        hidden = {"buttons": gr.Row(visible=False), "plots": gr.Column(visible=False), "strip": gr.HTML(strip={})}
        nothing = {"findings": gr.HTML(lines=[]), "warnings": gr.HTML(lines=[]), "log": ""}
        return {"empty": gr.HTML(text=""), "report": gr.HTML(report=report.shown()), **hidden, **nothing, "seen": Seen(standing)}
    samples = f"{run.name} {sum(isinstance(event, SamplesSaved) for event in events)}"
    drawn = {}  # a plot that is hidden cannot be drawn
    if status.step:
        drawn = _compared_plots(run, other, events, status) if other else _plots(events, status, config)
    return {
        "empty": gr.HTML(text=""),
        "report": gr.HTML(report=report.shown()),
        "buttons": gr.Row(visible=report.is_live or report.can_resume or has_adapter),
        "pause": gr.Button(visible=report.state in ("training", "preparing")),
        "go_on": gr.Button(visible=report.state == "paused"),
        "stop": gr.Button(visible=report.is_live and report.state != "queued", interactive=report.state != "stopping"),
        "resume": gr.Button(visible=report.can_resume),
        "download": gr.Button(visible=has_adapter and not report.is_live, link=adapter_url(studio, run)),
        "compare": gr.Button(visible=has_adapter and not report.is_live),
        "warnings": gr.HTML(lines=warnings_of(events)),
        "plots": gr.Column(visible=status.step > 0),
        **drawn,
        "findings": gr.HTML(lines=finding_lines(events, config)),
        **({} if samples == seen.samples else {"strip": gr.HTML(strip=strip_of(studio, run, events))}),
        "log": log_lines(events),
        "seen": Seen(standing, samples),
    }


def _plot(title: str, x_title: str = " ", **settings) -> gr.LinePlot:
    return gr.LinePlot(
        x="step", y="value", color="series", title=title, x_title=x_title, y_title=" ", color_title=" ", color_map=COLOURS,
        height=PLOT_HEIGHT, show_label=False, container=False, **settings,
    )  # fmt: skip


def _plots(events: Sequence[Event], status: RunStatus, config: TrainConfig) -> dict[str, gr.LinePlot]:
    frames = {
        "loss": loss_frame(events),
        "accuracy": accuracy_frame(events, status.total_steps),
        "rewards": reward_frame(events),
        "drift": drift_frame(events, status.total_steps, config.max_chosen_drift),
    }
    x_lim = [0, max(1, status.total_steps)]
    titles = TITLES | {"drift": f"Chosen error over {reference_words(config)}'s"}
    return {name: _update(frame, x_lim, LEGEND, COLOURS, titles[name]) for name, frame in frames.items()}


def _compared_plots(run: Run, other: Run, events: Sequence[Event], status: RunStatus) -> dict[str, gr.LinePlot]:
    names = (run.name, other.name)
    x_lim = [0, max(1, status.total_steps, other.status().total_steps)]
    colours = compare_colours(names)
    frames = compare_frames({run.name: events, other.name: other.events()})
    legend = [*names, *(f"{name}, {VALIDATION}" for name in names)]
    return {name: _update(frame, x_lim, legend, colours, COMPARED_TITLES[name]) for name, frame in frames.items()}


def _update(frame, x_lim: list[int], legend: Sequence[str], colours: dict[str, str], title: str) -> gr.LinePlot:
    shown = [name for name in legend if (frame["series"] == name).any()]
    return gr.LinePlot(frame, x_lim=x_lim, colors_in_legend=shown, color_map=colours, title=title)


def _compared(studio: Studio, session: Session, run: Run | None) -> Run | None:
    """The run whose curves stand beside those of `run`, if it can be read and is another."""
    found = next((other for other in list_runs(studio.project.runs) if other.name == session.other), None)
    return None if found is None or found == run or run.problem or found.problem else found


def _listed(studio: Studio, shown: Run | None, other: Run | None) -> str:
    """What the list of runs shows, as far as it is cheap to know: a change of this is worth reading every run's events."""
    waiting = [job.key for job in studio.jobs.active()]
    standing = [shown.name if shown else "", other.name if other else "", str(studio.project.votes.revision()), *waiting]
    for run in list_runs(studio.project.runs):
        job = studio.jobs.find("train", run.name)
        asked = f"{job.state} {job.stop.is_set()} {job.message == 'training'}" if job else ""
        live = f"{asked} {run.pause_requested()}" if job and job.is_active else f"{asked} {run.revision()}"
        standing.append(f"{run.name} {live}")
    return "|".join(standing)


def _rows(studio: Studio, shown: Run | None, other: Run | None) -> list[dict]:
    """Reading every run's events is for the moments when a line of the list changes, not for every look."""
    rows = []
    for run in list_runs(studio.project.runs):
        row = run_row(run, studio.jobs)
        actions = [action for action in row["actions"] if action != "compare" or (shown and run != shown)]
        if run == other:
            actions = ["uncompare" if action == "compare" else action for action in actions]
        outcome = latest_outcome(studio.project, run)
        verdict = short_verdict(outcome) if outcome else ""
        rows.append({**row, "actions": actions, "verdict": verdict, "shown": run == shown, "compared": run == other})
    return rows
