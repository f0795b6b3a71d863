"""Train tab: a form, one button, and plots that read the run's folder.

Nothing on this page owns a run: what is shown comes from the run's folder and the job registry, so a reload, a second
tab or a second person sees the same. The form: train_form.py, train_fill.py and train_probe.py. The right column:
train_view.py. This module wires them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.runs import Run, find_run, list_runs, suggest_run_name
from dpo.training import resume_training, start_probe, start_training, stop_training
from ui.export_part import Export, ask_export, draw_export
from ui.rights import open_to
from ui.session import Session, Studio, chosen_run, is_owner
from ui.space import create_notice, only_with_jobs
from ui.train_fill import from_browser, from_file, from_preset, from_round, from_run, remembered, stem
from ui.train_form import Form, about, bad_lines, check_places, create_form, given, read_config
from ui.train_probe import draw_probe, suggestion
from ui.train_view import View, act_on, create_view, draw

QUIET = {"queue": False, "show_progress": "hidden"}


class TrainTab(NamedTuple):
    """As `Tab`, and `review`: the button that leads back to the review of pairs, for the page to wire. `follow(event)`: after
    that event the form holds the settings of the round that the session has begun. `look(session, *seen)` gives an update for
    each of `followed`: what changed since the page was shown `seen`; the page asks for it at the news of jobs and runs."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    next: gr.Button
    review: gr.Button
    follow: Callable[[gr.events.Dependency], None]
    look: Callable[..., tuple]
    seen: list[gr.components.Component]
    followed: list[gr.components.Component]


def create_train_tab(studio: Studio, session: gr.State) -> TrainTab:
    create_notice(studio)
    with only_with_jobs(studio), gr.Row(elem_id="train", elem_classes="workbench"):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = create_form(studio)
        with gr.Column(scale=1, min_width=320, elem_classes="wide"):
            view, export = create_view()
    opened = gr.State(0.0)  # when this tab was opened last: what stands beside the form is said anew

    @open_to("viewer")  # a page asks for every tab
    def refresh(session: Session) -> tuple:
        if not session.is_owner:
            return (gr.skip(),) * len(outputs)
        return time.monotonic(), *draw(studio, session, ""), *draw_export(studio, session, "")

    filled = _wire_memory(studio, form, opened)

    def fill_round(session: Session) -> dict:
        try:
            run = find_run(studio.project.runs, session.run)
        except StudioError as error:
            return {form.notes: gr.HTML(lines=bad_lines(error))}
        return from_round(studio, form, run, Path(session.folder).name)

    def follow(event: gr.events.Dependency) -> None:
        filled(event.then(fill_round, session, [form.notes, form.name, *form.settings.values()], **QUIET))

    @open_to("viewer")
    def look(session: Session, seen: str, seen_export: str, seen_probe: str) -> tuple:
        if not session.is_owner:
            return (gr.skip(),) * len(followed)
        return *draw(studio, session, seen), *draw_export(studio, session, seen_export), *draw_probe(studio.jobs, seen_probe)

    seen, followed = [view.seen, export.seen, form.probe.seen], [*view, *export, *form.probe]
    outputs = [opened, *view, *export]
    tab = TrainTab(refresh, outputs, view.compare, form.review, follow, look, seen, followed)
    _wire_form(studio, session, form, tab, filled)
    _wire_probe(studio, form, filled)
    _wire_view(studio, session, view, export, tab)
    _wire_runs(studio, session, form, view, tab, filled)
    return tab


def _wire_memory(studio: Studio, form: Form, opened: gr.State) -> Callable[[gr.events.Dependency], None]:
    """Have the browser remember what is typed, and say what it means. Returns what to do after the form was filled otherwise."""
    storage = studio.sign("storage", str(studio.project.path))[:8]
    memory = gr.BrowserState(None, storage_key=f"image-dpo-form-{storage}", secret=studio.sign("browser", "form")[:16])
    is_restored = gr.State(False)  # wiped by every reload
    components, script = remembered(form)
    inputs, described = set(form.settings.values()), form.described

    # Every page asks for these by itself, so they are not refused to others than the owner, and tell them nothing.
    @open_to("viewer")
    def restore(stored: object, is_restored: bool, request: gr.Request) -> dict:
        updates = {} if is_restored or not is_owner(request) else from_browser(studio, form, stored)
        return {form.preset: gr.skip()} | updates  # gradio takes an empty dict for a value

    @open_to("viewer")
    def describe(values: dict, request: gr.Request) -> dict:
        if not is_owner(request):
            return {form.about_model: gr.skip()}
        settings = form.read(values)
        return about(studio, form, settings) | given(studio, form, settings)

    @open_to("viewer")
    def is_there(stored: object, is_restored: bool) -> bool:
        return is_restored or stored is not None

    def filled(event: gr.events.Dependency) -> None:
        event.then(None, components, memory, js=script, **QUIET)
        event.then(describe, inputs, described, **QUIET)

    outputs = [*components, form.about_preset, form.why]
    restored = opened.change(restore, [memory, is_restored], outputs, **QUIET)
    # The first answers may overtake the browser's memory: then there is nothing yet, and nothing was restored.
    remembered_now = restored.then(is_there, [memory, is_restored], is_restored, **QUIET)
    remembered_now.then(describe, inputs, described, **QUIET)
    typed = [component.input for component in components]
    gr.on(typed, None, components, memory, js=script, **QUIET)
    gr.on([component.input for component in form.settings.values()], describe, inputs, described,
          trigger_mode="always_last", **QUIET)  # fmt: skip
    return filled


def _wire_form(studio: Studio, session: gr.State, form: Form, tab: TrainTab, filled: Callable) -> None:
    def train(values: dict) -> dict:
        try:
            config = read_config(form.read(values))
            check_places(studio, config)
            run = start_training(studio.project, studio.jobs, config, values[form.name].strip())
        except StudioError as error:
            return {form.problems: gr.HTML(lines=bad_lines(error))}
        return {
            form.problems: gr.HTML(lines=[]),
            form.notes: gr.HTML(lines=[]),
            form.name: suggest_run_name(studio.project.runs, stem(run.name)),
            session: replace(values[session], run=run.name),
        }

    inputs = {session, form.name, *form.settings.values()}
    started = form.train.click(train, inputs, [form.problems, form.notes, form.name, session])
    started.then(tab.refresh, session, tab.outputs, show_progress="hidden")
    filled(started)

    outputs = [form.problems, form.notes, *form.settings.values()]
    said = [form.about_preset, form.why]
    filled(form.preset.input(lambda name: from_preset(form, name), form.preset, [*outputs, *said], show_progress="hidden"))
    filled(form.file.upload(lambda path: from_file(form, path), form.file, outputs, show_progress="hidden"))


def _wire_probe(studio: Studio, form: Form, filled: Callable) -> None:
    probe = form.probe

    def measure(values: dict) -> tuple:
        try:
            config = read_config(form.read(values))
            check_places(studio, config)
            start_probe(studio.project, studio.jobs, config)
        except StudioError as error:
            return gr.HTML(lines=bad_lines(error)), gr.skip()
        return gr.HTML(lines=[{"text": "Getting ready."}]), ""  # nothing is seen: a quick result is not taken for shown

    def look(seen: str) -> tuple:
        return draw_probe(studio.jobs, seen)

    def use() -> float:
        return suggestion(studio.jobs.find("probe")) or gr.skip()

    measured = probe.measure.click(measure, set(form.settings.values()), [probe.report, probe.seen])
    measured.then(look, probe.seen, list(probe), **QUIET)
    filled(probe.use.click(use, None, form.settings["beta"], **QUIET))


def _wire_view(studio: Studio, session: gr.State, view: View, export: Export, tab: TrainTab) -> None:
    def ask(action: Callable[[Run], None]) -> Callable[[Session], gr.HTML]:
        def handler(session: Session) -> gr.HTML:
            run = chosen_run(studio, session)
            try:
                if run is not None:
                    action(run)
            except StudioError as error:
                return gr.HTML(text=str(error))
            return gr.HTML(text="")

        return handler

    def resume(run: Run) -> None:
        check_places(studio, run.config)  # a run may come from elsewhere, with the project
        resume_training(studio.project, studio.jobs, run)

    buttons = {
        view.pause: Run.request_pause,
        view.go_on: Run.clear_pause,
        view.stop: lambda run: stop_training(studio.jobs, run),
        view.resume: resume,
    }
    for button, action in buttons.items():
        asked = button.click(ask(action), session, view.problem, queue=False)
        asked.then(tab.refresh, session, tab.outputs, show_progress="hidden")

    def export_it(session: Session, format: str, precision: str) -> gr.HTML:
        return ask_export(studio, session, format, precision)

    export.export.click(export_it, [session, export.format, export.precision], export.lines, **QUIET)


def _wire_runs(studio: Studio, session: gr.State, form: Form, view: View, tab: TrainTab, filled: Callable) -> None:
    def choose(session: Session, event: gr.EventData) -> Session:
        known = {run.name for run in list_runs(studio.project.runs)}
        return replace(session, run=event.name, other="") if event.name in known else session

    def act(held: Session, event: gr.EventData) -> dict:
        try:
            run = find_run(studio.project.runs, event.name)
            if event.action == "clone":
                return from_run(studio, form, run)
            if event.action in ("compare", "uncompare"):
                return {session: replace(held, other=run.name if event.action == "compare" else "")}
            act_on(studio.jobs, run, event.action)
        except StudioError as error:
            return {view.problem: gr.HTML(text=str(error))}
        return {view.problem: gr.HTML(text="")}

    chosen = view.runs.choose(choose, session, session, show_progress="hidden")
    acted = view.runs.act(act, session, [session, view.problem, form.notes, form.name, *form.settings.values()], **QUIET)
    for event in (chosen, acted):
        event.then(tab.refresh, session, tab.outputs, show_progress="hidden")
    filled(acted)
