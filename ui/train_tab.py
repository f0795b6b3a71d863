"""Train tab: a form, one button, and plots that read the run's folder.

Nothing on this page owns a run: what is shown comes from the run's folder and the job registry, so a reload, a second
tab or a second person sees the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.runs import Run, list_runs, suggest_run_name
from dpo.training import resume_training, start_training, stop_training
from ui.downloads import adapter_url
from ui.parts import report_part, runs_part, text_part
from ui.plots import COLOURS, LEGEND, accuracy_frame, drift_frame, loss_frame, reward_frame
from ui.session import Session, Studio, Tab, chosen_run
from ui.train_form import NO_ADAPTER, Form, create_form, read_config
from ui.words import estimate_line, log_lines, pairs_line, report_run, run_row

PLOT_HEIGHT = 220
NO_RUN = "No run yet. Pick at least 4 pairs in Pairs, then press Train."


def create_train_tab(studio: Studio, session: gr.State) -> Tab:
    with gr.Row(elem_id="train", elem_classes="workbench"):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = create_form(studio)
        with gr.Column(scale=1, min_width=320, elem_classes="wide"):
            view = _create_view()

    def refresh(session: Session) -> tuple:
        found = list_runs(studio.project.runs)
        adapters = [(run.name, str(run.adapter)) for run in found if run.adapter.exists()]
        return (
            gr.HTML(text=pairs_line(studio.project.picks.pairs(), TrainConfig().validation_share)),
            gr.Dropdown(choices=[NO_ADAPTER, *adapters]),
            gr.HTML(text=estimate_line(found)),
            *_draw(studio, session, seen=""),
        )

    outputs = [form.pairs, form.settings["starting_adapter"], form.estimate, *view]
    tab = Tab(refresh, outputs, view.compare)
    _wire_form(studio, session, form, tab)
    _wire_view(studio, session, view, tab)
    return tab


def _wire_form(studio: Studio, session: gr.State, form: Form, tab: Tab) -> None:
    def train(values: dict) -> dict:
        try:
            config = read_config({name: values[component] for name, component in form.settings.items()})
            studio.check_place(config.model)
            studio.check_place(config.starting_adapter, is_model=False)
            name = values[form.name].strip()
            run = start_training(studio.project, studio.jobs, config, name, studio.project.picks.pairs())
        except StudioError as error:
            return {form.problem: gr.HTML(text=str(error), tone="bad")}
        return {
            form.problem: gr.HTML(text=""),
            form.name: suggest_run_name(studio.project.runs, run.name.rstrip("0123456789").rstrip("-")),
            session: replace(values[session], run=run.name),
        }

    started = form.train.click(train, {session, form.name, *form.settings.values()}, [form.problem, form.name, session])
    started.then(tab.refresh, session, tab.outputs, show_progress="hidden")


def _wire_view(studio: Studio, session: gr.State, view: View, tab: Tab) -> None:
    def stop(session: Session) -> None:
        run = chosen_run(studio, session)
        if run is not None:
            stop_training(studio.jobs, run)

    def resume(session: Session) -> dict:
        run = chosen_run(studio, session)
        try:
            resume_training(studio.project, studio.jobs, run)
        except StudioError as error:
            return gr.HTML(text=str(error))
        return gr.HTML(text="")

    def choose(session: Session, event: gr.EventData) -> Session:
        known = {run.name for run in list_runs(studio.project.runs)}
        return replace(session, run=event.name) if event.name in known else session

    stopped = view.stop.click(stop, session, None, queue=False)
    resumed = view.resume.click(resume, session, view.problem, queue=False)
    chosen = view.runs.choose(choose, session, session, show_progress="hidden")
    for event in (stopped, resumed, chosen):
        event.then(tab.refresh, session, tab.outputs, show_progress="hidden")

    def look(session: Session, seen: str) -> tuple:
        return _draw(studio, session, seen)

    gr.Timer(studio.seconds_between_looks).tick(look, [session, view.seen], list(view), queue=False, show_progress="hidden")


class View(NamedTuple):
    """The right column: what is drawn anew when the shown run changes. `seen` says what stands there now."""

    empty: gr.HTML
    report: gr.HTML
    buttons: gr.Row
    stop: gr.Button
    resume: gr.Button
    download: gr.Button
    compare: gr.Button
    problem: gr.HTML
    plots: gr.Column
    loss: gr.LinePlot
    accuracy: gr.LinePlot
    rewards: gr.LinePlot
    drift: gr.LinePlot
    log: gr.Textbox
    runs: gr.HTML
    seen: gr.State


def _create_view() -> View:
    empty = text_part(NO_RUN, elem_id="no-run")
    with gr.Column(visible=False, elem_id="plots") as plots:
        with gr.Row():
            loss = _plot("Loss")
            accuracy = _plot("Accuracy", y_lim=[0, 1])
        with gr.Row():
            rewards = _plot("Rewards", x_title="step")
            drift = _plot("Chosen error over the base model's", x_title="step")
    report = report_part("run-report")
    with gr.Row(visible=False, elem_id="run-buttons", elem_classes="actions") as buttons:
        stop = gr.Button("Stop and keep", size="sm", elem_id="stop-training")
        resume = gr.Button("Resume", size="sm", elem_id="resume-training")
        download = gr.Button("Download adapter", size="sm", link="", elem_id="download-adapter")
        compare = gr.Button("Compare with the base model", size="sm", elem_id="to-compare")
    problem = text_part(elem_id="run-problem", tone="bad")
    with gr.Accordion("Log", open=False, elem_id="log"):
        log = gr.Textbox(show_label=False, interactive=False, lines=8, max_lines=16, container=False)
    runs, seen = runs_part(), gr.State("")
    return View(
        empty, report, buttons, stop, resume, download, compare, problem, plots, loss, accuracy, rewards, drift, log, runs, seen
    )


def _plot(title: str, x_title: str = " ", **settings) -> gr.LinePlot:
    return gr.LinePlot(
        x="step", y="value", color="series", title=title, x_title=x_title, y_title=" ", color_title=" ", color_map=COLOURS,
        height=PLOT_HEIGHT, show_label=False, container=False, **settings,
    )  # fmt: skip


def _draw(studio: Studio, session: Session, seen: str) -> tuple:
    """Updates for a View, in its order; all skipped if nothing was added to the run since `seen`."""
    run = chosen_run(studio, session)
    if run is None:
        updates = {"empty": gr.HTML(text=NO_RUN), "plots": gr.Column(visible=False), "seen": ""}
        return tuple(updates.get(name, gr.skip()) for name in View._fields)
    job = studio.jobs.find("train", run.name)
    has_adapter = run.adapter.exists()
    standing = f"{run.name} {run.revision()} {job.state if job else ''} {job.stop.is_set() if job else ''} {has_adapter}"
    if standing == seen.rpartition("|")[0]:
        return tuple(gr.skip() for _ in View._fields)
    events, status = run.events(), run.status()
    report = report_run(run, events, status, studio.jobs)
    seen_state, standing = seen.rpartition("|")[2], f"{standing}|{report.state}"

    def plot(frame) -> gr.LinePlot:
        legend = [name for name in LEGEND if (frame["series"] == name).any()]
        return gr.LinePlot(frame, x_lim=[0, max(1, status.total_steps)], colors_in_legend=legend)

    return View(
        empty=gr.HTML(text=""),
        report=gr.HTML(report=report.shown()),
        buttons=gr.Row(visible=report.is_live or report.can_resume or has_adapter),
        stop=gr.Button(visible=report.is_live, interactive=report.state != "stopping"),
        resume=gr.Button(visible=report.can_resume),
        download=gr.Button(visible=has_adapter and not report.is_live, link=adapter_url(studio, run)),
        compare=gr.Button(visible=has_adapter and not report.is_live),
        problem=gr.skip(),
        plots=gr.Column(visible=status.step > 0),
        loss=plot(loss_frame(events)),
        accuracy=plot(accuracy_frame(events, status.total_steps)),
        rewards=plot(reward_frame(events)),
        drift=plot(drift_frame(events, status.total_steps, run.config.max_chosen_drift)),
        log=log_lines(events),
        # Reading every run's events is for the moments when a line of the list changes, not for every look.
        runs=gr.skip() if report.state == seen_state else gr.HTML(rows=_rows(studio, run)),
        seen=standing,
    )


def _rows(studio: Studio, shown: Run) -> list[dict]:
    return [run_row(run, studio.jobs, run == shown) for run in list_runs(studio.project.runs)]
