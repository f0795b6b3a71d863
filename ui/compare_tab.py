"""Compare tab: two ways to see what an adapter does. Look: base beside adapter. Test: a blind test (ui/blind.py).

Look's form: look_form.py; what is painted: look.py. This module wires them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.compare import follow_look, start_look
from dpo.runs import Run
from ui.blind import create_blind_part
from ui.blind_scorers import create_blind_scorers
from ui.look import create_look, show_look
from ui.look_form import (
    NO_HELD_OUT,
    Form,
    adapter_choices,
    create_form,
    first_prompts,
    held_out_prompts,
    offered_run,
    prompt_lists,
    read_prompt_file,
    read_request,
    run_behind,
    sampler_choices,
    usable_runs,
)
from ui.rights import open_to
from ui.rounds import create_rounds_part
from ui.session import Session, Studio
from ui.space import create_notice, only_with_jobs
from ui.words import count
from ui.zero_gpu import create_painter

WAYS = [("Look", "look"), ("Test", "test")]
ASK_NOW = "() => document.dispatchEvent(new Event('job-news'))"
QUIET = {"queue": False, "show_progress": "hidden"}


class CompareTab(NamedTuple):
    """As `Tab`. `begun` changes whenever a round was begun here: its candidates are picked from in Pairs. `restore(session)`,
    once a page: what is put into `restored`, the way that was chosen last; from then on the page knows best."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    begun: gr.State
    restore: Callable[[Session], str]
    restored: gr.Radio
    next: gr.Button | None = None


def create_compare_tab(studio: Studio, session: gr.State) -> CompareTab:
    way = gr.Radio(WAYS, value="look", show_label=False, container=False, elem_id="compare-way")
    with (
        gr.Column(elem_id="compare-look"),
        gr.Row(elem_id="compare", elem_classes="workbench"),
    ):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = create_form()
        with gr.Column(scale=1, min_width=320, elem_classes="wide"):
            look = create_look(studio, session)
    with gr.Column(elem_id="compare-test"):
        create_notice(studio)
        with only_with_jobs(studio):
            blind = create_blind_part(studio, session)
            create_blind_scorers(studio, blind)
            rounds = create_rounds_part(studio, session)
    offered = gr.State("")  # the run whose adapter the session offers; what was chosen here stands until that changes

    @open_to("viewer")
    def refresh(session: Session) -> tuple:
        run = offered_run(studio, session)
        return (
            gr.Dropdown(choices=adapter_choices(studio)) if session.is_owner else gr.skip(),
            run.name if run and session.is_owner else gr.skip(), show_look(studio, session),
            *blind.refresh(session), *rounds.refresh(session),
        )  # fmt: skip

    @open_to("viewer")
    def restore(session: Session) -> str:
        return session.way if session.way == "test" else gr.skip()

    @open_to("viewer")
    def choose_way(session: Session, name: str) -> Session:
        return replace(session, way=name)

    way.input(choose_way, [session, way], session, show_progress="hidden")  # the page shows it by itself (look.css)
    _wire_offers(studio, session, form, offered)
    _wire_prompts(studio, form)

    _wire_compare(studio, form)
    blind.card_news.then(rounds.refresh, session, rounds.outputs, **QUIET)  # the line says what the test has shown
    outputs = [form.adapters, offered, look, *blind.outputs, *rounds.outputs]
    return CompareTab(refresh, outputs, rounds.begun, restore, way)


def _wire_compare(studio: Studio, form: Form) -> None:
    def compare(*values) -> gr.HTML:
        try:
            start_look(studio.project, studio.jobs, read_request(studio, *values))
        except StudioError as error:
            return gr.HTML(text=str(error), tone="bad")
        return gr.HTML(text="")

    def compare_here(*values) -> Iterator[gr.HTML]:
        """In this event: see ui/zero_gpu.py. The page hears of the job by its pulse."""
        yield gr.HTML(text="")
        try:
            for _ in follow_look(studio.project, studio.jobs, read_request(studio, *values), painter):
                yield gr.skip()
        except StudioError as error:
            yield gr.HTML(text=str(error), tone="bad")

    painter = None if studio.has_jobs else create_painter()
    started = form.compare.click(compare if studio.has_jobs else compare_here, form.inputs, form.problem, show_progress="hidden")
    started.then(None, js=ASK_NOW)


def _wire_offers(studio: Studio, session: gr.State, form: Form, offered: gr.State) -> None:
    """A run that was just trained is offered with its model and a few prompts; so is one that is chosen here."""

    def fill(run: Run, prompts: str, sampler: str) -> tuple:
        """Updates for model, prompts, sampler and problem."""
        try:
            model = run.config.model
            return model, prompts.strip() or first_prompts(run), _samplers(studio, model, sampler), gr.HTML(text="")
        except StudioError as error:
            return gr.skip(), gr.skip(), gr.skip(), gr.HTML(text=str(error), tone="bad")

    @open_to("viewer")
    def offer(name: str, prompts: str, sampler: str) -> tuple:
        run = next((run for run in usable_runs(studio) if run.name == name), None)
        return (gr.skip(),) * 5 if run is None else ([str(run.adapter)], *fill(run, prompts, sampler))

    def choose(session: Session, adapters: list[str], prompts: str, sampler: str) -> tuple:
        run = run_behind(studio, adapters)
        return (session, *(gr.skip(),) * 4) if run is None else (replace(session, run=run.name), *fill(run, prompts, sampler))

    typed, filled = [form.prompts, form.sampler], [form.model, form.prompts, form.sampler, form.problem]
    offered.change(offer, [offered, *typed], [form.adapters, *filled], show_progress="hidden")
    form.adapters.input(choose, [session, form.adapters, *typed], [session, *filled], show_progress="hidden")
    form.model.blur(lambda model, sampler: _samplers(studio, model, sampler), [form.model, form.sampler], form.sampler, **QUIET)


def _samplers(studio: Studio, model: str, chosen: str) -> gr.Dropdown:
    """Those that fit the model; the chosen one stays if it is among them."""
    choices = sampler_choices(studio, model)
    return gr.Dropdown(choices=choices, value=chosen if chosen in [value for _, value in choices] else "")


def _wire_prompts(studio: Studio, form: Form) -> None:
    """The buttons under the prompts put others in their place, and say how many."""

    def from_run(adapters: list[str]) -> tuple:
        run = run_behind(studio, adapters)
        prompts = held_out_prompts(run) if run else []
        return _filled("\n".join(prompts)) if prompts else (gr.skip(), gr.HTML(text=NO_HELD_OUT, tone="warn"))

    def from_file(path: str) -> tuple:
        try:
            return _filled(read_prompt_file(path))
        except StudioError as error:
            return gr.skip(), gr.HTML(text=str(error), tone="bad")

    outputs = [form.prompts, form.said]
    form.held_out.click(from_run, form.adapters, outputs, **QUIET)
    form.file.upload(from_file, form.file, outputs, show_progress="hidden")
    for name, path in prompt_lists().items():
        form.lists[name].click(lambda path=path: _filled(read_prompt_file(path)), None, outputs, **QUIET)


def _filled(prompts: str) -> tuple:
    return prompts, gr.HTML(text=f"{count(len(prompts.splitlines()), 'prompt')} taken.", tone="dim")
