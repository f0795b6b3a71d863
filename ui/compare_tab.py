"""Compare tab: the same prompt, seed and noise with and without the adapter, side by side.

Shown is the newest comparison of this process, whoever asked for it; a reload or a second tab sees the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.compare import CompareError, save_comparisons, start_compare
from dpo.demo.candidates import demo_prompts
from dpo.pairs import split_pairs
from dpo.runs import Run, list_runs
from ui.images import file_url
from ui.parts import report_part, results_part, text_part
from ui.session import Session, Studio, Tab, chosen_run
from ui.words import count, report_comparison

PROMPTS_OFFERED = 4
DEMO_SEED = 200  # of the prompts offered for the demo model
EMPTY = "Nothing compared yet. Choose an adapter and press Compare: the base model and the adapter paint the same prompts here."
NO_ADAPTER = "No adapter yet. Train a run first; it appears here when it is done."


class Form(NamedTuple):
    """The left column."""

    adapter: gr.Dropdown
    strength: gr.Slider
    prompts: gr.Textbox
    seeds: gr.Textbox
    model: gr.Textbox
    steps: gr.Number
    guidance: gr.Number
    compare: gr.Button
    problem: gr.HTML


class View(NamedTuple):
    """The right column: what is drawn anew as the comparison moves. `seen` and `seen_results` say what stands there now."""

    empty: gr.HTML
    report: gr.HTML
    stop: gr.Button
    save: gr.Button
    saved: gr.HTML
    results: gr.HTML
    seen: gr.State
    seen_results: gr.State


def create_compare_tab(studio: Studio, session: gr.State) -> Tab:
    with gr.Row(elem_id="compare", elem_classes="workbench"):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = _create_form()
        with gr.Column(scale=1, min_width=320, elem_classes="wide"):
            view = _create_view()
    offered = gr.State("")  # the run whose adapter the session offers; what was chosen here stands until that changes

    def refresh(session: Session) -> tuple:
        usable = _usable_runs(studio)
        run = _offered_run(studio, session)
        return (
            gr.Dropdown(choices=[(_name(run), str(run.adapter)) for run in usable]),
            run.name if run else "",
            *_draw(studio, "", "", bool(usable)),
        )

    def offer(name: str, prompts: str) -> tuple:
        run = next((run for run in _usable_runs(studio) if run.name == name), None)
        return (gr.skip(),) * 3 if run is None else (str(run.adapter), run.config.model, prompts.strip() or _prompts_for(run))

    def choose(session: Session, adapter: str, prompts: str) -> tuple:
        run = next((run for run in _usable_runs(studio) if str(run.adapter) == adapter), None)
        if run is None:
            return session, gr.skip(), gr.skip()
        return replace(session, run=run.name), run.config.model, prompts.strip() or _prompts_for(run)

    offered.change(offer, [offered, form.prompts], [form.adapter, form.model, form.prompts], show_progress="hidden")
    form.adapter.input(choose, [session, form.adapter, form.prompts], [session, form.model, form.prompts], show_progress="hidden")
    _wire(studio, form, view)
    return Tab(refresh, [form.adapter, offered, *view])


def read_seeds(text: str) -> list[int]:
    """Whole numbers between commas or spaces, each once, in order. Raises CompareError."""
    seeds: list[int] = []
    for word in text.replace(",", " ").split():
        if not (word.isascii() and word.isdigit() and int(word) < 2**32):
            raise CompareError(f"{word!r} is not a seed. Write whole numbers, such as 1, 2, 3.")
        if int(word) not in seeds:
            seeds.append(int(word))
    return seeds


def _create_form() -> Form:
    adapter = gr.Dropdown(
        [], value=None, label="Adapter", info="A run's adapter, or the path of an adapter file.",
        allow_custom_value=True, elem_id="adapter",
    )  # fmt: skip
    strength = gr.Slider(
        0,
        2,
        1,
        step=0.05,
        label="Strength",
        info="0 is the base model itself, 1 the adapter as trained.",
        elem_id="strength",
        buttons=[],
    )
    prompts = gr.Textbox("", label="Prompts", info="One a line.", lines=5, max_lines=12, elem_id="prompts")
    seeds = gr.Textbox("1, 2", label="Seeds", max_lines=1, elem_id="seeds")
    with gr.Accordion("More", open=False), gr.Column(elem_classes="fields"):
        model = gr.Textbox("demo", label="Model", info="The model the adapter was trained on.", max_lines=1)
        steps = gr.Number(20, label="Sampling steps", info="More is slower and finer.")
        guidance = gr.Number(3.0, label="Guidance", info="How strictly the prompt is followed.")
    compare = gr.Button("Compare", variant="primary", elem_id="start-compare")
    problem = text_part(elem_id="compare-problem", tone="bad")
    return Form(adapter, strength, prompts, seeds, model, steps, guidance, compare, problem)


def _create_view() -> View:
    empty = text_part(EMPTY, elem_id="nothing-compared")
    report = report_part("compare-report")
    with gr.Row(elem_classes="actions"):
        stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop-compare")
        save = gr.Button("Save images", size="sm", visible=False, elem_id="save-compare")
    saved = text_part(elem_id="compare-saved")
    return View(empty, report, stop, save, saved, results_part(), gr.State(""), gr.State(""))


def _wire(studio: Studio, form: Form, view: View) -> None:
    def compare(adapter, strength, prompts, seeds, model, steps, guidance) -> gr.HTML:
        try:
            if not (adapter or "").strip():
                raise CompareError(NO_ADAPTER if not _usable_runs(studio) else "Choose an adapter first.")
            if steps is None or guidance is None or int(steps) != steps:
                raise CompareError("Sampling steps wants a whole number such as 20, guidance a number such as 3.")
            model, adapter = model.strip(), adapter.strip()
            studio.check_place(model)
            studio.check_place(adapter, is_model=False)
            start_compare(
                studio.project, studio.jobs, model=model, adapter=Path(adapter).expanduser(), strength=strength,
                prompts=[line.strip() for line in prompts.splitlines() if line.strip()], seeds=read_seeds(seeds),
                sampling_steps=int(steps), guidance_scale=float(guidance),
            )  # fmt: skip
        except StudioError as error:
            return gr.HTML(text=str(error), tone="bad")
        return gr.HTML(text="")

    def stop() -> None:
        job = studio.jobs.find("compare")
        if job is not None:
            job.stop.set()

    def save() -> gr.HTML:
        job = studio.jobs.find("compare")
        try:
            folder = save_comparisons(studio.project, list(job.result) if job else [])
        except StudioError as error:
            return gr.HTML(text=str(error), tone="bad")
        return gr.HTML(text=f"Saved {count(2 * len(job.result), 'image')} in {folder}.", tone="dim")

    def look(seen: str, seen_results: str) -> tuple:
        return _draw(studio, seen, seen_results)

    seen = [view.seen, view.seen_results]
    inputs = [form.adapter, form.strength, form.prompts, form.seeds, form.model, form.steps, form.guidance]
    started = form.compare.click(compare, inputs, form.problem)
    stopped = view.stop.click(stop, None, None, queue=False)
    view.save.click(save, None, view.saved)
    for event in (started, stopped):
        event.then(look, seen, list(view), show_progress="hidden")
    gr.Timer(studio.seconds_between_looks).tick(look, seen, list(view), queue=False, show_progress="hidden")


def _draw(studio: Studio, seen: str, seen_results: str, is_ready: bool = True) -> tuple:
    """Updates for a View, in its order. What has not changed since `seen` is skipped: images on screen stay."""
    job = studio.jobs.find("compare")
    if job is None:
        return tuple(View(gr.HTML(text=EMPTY if is_ready else NO_ADAPTER), *(gr.skip(),) * (len(View._fields) - 1)))
    results = list(job.result or [])
    standing = f"{job.key} {job.state} {job.done} {job.message} {job.stop.is_set()}"
    standing_results = f"{job.key} {len(results)}"
    if (standing, standing_results) == (seen, seen_results):
        return tuple(gr.skip() for _ in View._fields)
    is_new = job.key != seen_results.rpartition(" ")[0]
    return View(
        empty=gr.HTML(text=""),
        report=gr.HTML(report=report_comparison(job, studio.jobs).shown()),
        stop=gr.Button(visible=job.is_active, interactive=not job.stop.is_set()),
        save=gr.Button(visible=bool(results) and not job.is_active),
        saved=gr.HTML(text="") if is_new else gr.skip(),
        results=gr.HTML(results=_shown(studio, results)) if standing_results != seen_results else gr.skip(),
        seen=standing,
        seen_results=standing_results,
    )


def _shown(studio: Studio, results: list) -> list[dict]:
    rows = []
    for result in results:
        try:
            sides = {"base": file_url(studio, result.base), "adapter": file_url(studio, result.adapter)}
        except StudioError:  # deleted since: the others are still worth showing
            continue
        rows.append({"prompt": result.prompt, "seed": result.seed, "strength": f"{result.strength:g}", **sides})
    return rows


def _usable_runs(studio: Studio) -> list[Run]:
    return [run for run in list_runs(studio.project.runs) if run.adapter.exists()]


def _offered_run(studio: Studio, session: Session) -> Run | None:
    """The session's run if it has an adapter, else the newest that has one, a healthy one first."""
    usable = _usable_runs(studio)
    shown = chosen_run(studio, session)
    if shown in usable and shown.name == session.run:
        return shown
    return min(usable, key=lambda run: run.status().state == "damaged", default=None)


def _name(run: Run) -> str:
    state = run.status().state
    return run.name if state == "finished" else f"{run.name} ({state})"


def _prompts_for(run: Run) -> str:
    """A few prompts to begin with that the run was not trained on, where there are any."""
    pairs, config = run.items, run.config
    if config.model == "demo":
        return "\n".join(demo_prompts(PROMPTS_OFFERED, DEMO_SEED, exclude=frozenset(pair.prompt for pair in pairs)))
    _, held_out = split_pairs(pairs, config.validation_share)
    return "\n".join(list(dict.fromkeys(pair.prompt for pair in held_out or pairs))[:PROMPTS_OFFERED])
