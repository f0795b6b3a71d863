"""In Pairs, under the images: having images made to pick from, and rejected ones for pairs that have none.

A set is a job (dpo/candidates.py): it waits its turn for the device, a reload finds it again, and one that was stopped, by a
person or with the app, can be gone on with. What the page shows of it changes at the news of the pulse, with everything else of
the Pairs tab (ui/pairs_tab.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.candidates import CandidatesError, CandidateSet, CandidatesRequest, list_candidates, start_candidates
from dpo.demo.candidates import demo_prompts
from dpo.jobs import Job, JobRegistry
from dpo.rejects import RejectsRequest, pairs_in_need, start_rejects
from dpo.runs import suggest_run_name
from ui.look_form import adapter_choices, read_lines
from ui.parts import report_part, text_part
from ui.session import Session, Studio, view_of
from ui.words import count, duration, holder

KIND = "candidates"
NO_ADAPTER = ("none", "")
DEMO_PROMPTS, DEMO_SEED = 24, 300
MOST_PROMPTS = 500  # taken over from the images at once
DETAILS = "details only"
CAUTION = (
    "Some pairs have a chosen image alone. A rejected one by the base model teaches what sets your images apart from the model's "
    "own, such as grain, compression and framing, more than taste, for nobody has seen the two side by side. Train such pairs "
    "briefly, and look in Compare for what was learned."
)


class CandidatesPart(NamedTuple):
    """`outputs` are updated by `draw_candidates`. `pick`: has the folder of the set picked from that is `chosen`."""

    outputs: list[gr.components.Component]
    pick: gr.Button
    chosen: gr.Dropdown


def create_candidates(studio: Studio, session: gr.State) -> CandidatesPart:
    step = gr.Accordion("Generate candidates", open=False, elem_classes="step", elem_id="candidates-step")
    with step, gr.Column(elem_classes="side"):
        prompts = gr.Textbox("", label="Prompts", info="One a line.", lines=4, max_lines=12, elem_id="candidate-prompts")
        with gr.Row(elem_classes="from"):
            text_part("Take")
            own = gr.Button("those of the images above", size="sm", elem_id="candidate-prompts-own")
            painted = gr.Button("some for the demo model", size="sm", elem_id="candidate-prompts-demo")
        with gr.Row():
            model = gr.Textbox("demo", label="Model", max_lines=1, min_width=150, elem_id="candidate-model")
            adapter = gr.Dropdown(
                [NO_ADAPTER], value="", label="Adapter", allow_custom_value=True, min_width=200, elem_id="candidate-adapter"
            )
            strength = gr.Number(1.0, label="Strength", min_width=90, elem_id="candidate-strength")
            both = gr.Checkbox(False, label="As many from the base", min_width=150, elem_id="candidate-both")
        with gr.Row():
            name = gr.Textbox("", label="Name", max_lines=1, min_width=150, elem_id="candidate-name")
            per_prompt = gr.Number(6, label="Images per prompt", min_width=120, elem_id="candidate-count")
            differ = gr.Radio(
                ["everything", DETAILS], value="everything", label="They differ in", min_width=200, elem_id="candidate-differ"
            )
            share = gr.Number(
                0.5, label="Common share of the steps", info="Their pairs train only below it.", visible=False, min_width=150,
                elem_id="candidate-share",
            )  # fmt: skip
        with gr.Accordion("More", open=False, elem_id="candidates-more"):
            with gr.Row():
                steps = gr.Number(20, label="Sampling steps", min_width=110)
                guidance = gr.Number(3.0, label="Guidance", min_width=110)
                width = gr.Number(None, label="Width", info="Empty: the model's own.", min_width=110)
                height = gr.Number(None, label="Height", info="Empty: the model's own.", min_width=110)
                seed = gr.Number(None, label="Seed", info="Empty: another for every set.", min_width=110)
            negative = gr.Textbox("", label="Negative prompt", max_lines=3)
        with gr.Row(equal_height=True):
            generate = gr.Button("Generate", scale=0, min_width=140, elem_id="generate")
            stop = gr.Button("Stop", visible=False, scale=0, min_width=100, elem_id="stop-candidates")
            estimate = text_part(elem_id="candidates-estimate")
        problem = text_part(tone="bad", elem_id="candidates-problem")
        report = report_part("candidates-progress")
        with gr.Row(visible=False, equal_height=True, elem_id="candidate-sets") as sets:
            chosen = gr.Dropdown([], label="Sets", show_label=False, container=False, min_width=220, elem_id="candidate-set")
            pick = gr.Button("Pick from these", scale=0, min_width=140, elem_id="pick-candidates")
            go_on = gr.Button("Continue", scale=0, min_width=110, visible=False, elem_id="continue-candidates")
        with gr.Column(visible=False, elem_id="rejects") as need:
            text_part(CAUTION)
            with gr.Row():
                reject = gr.Button("Make rejected images", scale=0, min_width=260, elem_id="make-rejects")
    outputs = [adapter, generate, stop, report, sets, chosen, go_on, need, reject]
    asked = [
        name, model, adapter, strength, both, prompts, per_prompt, steps, guidance, width, height, negative, seed, differ, share,
    ]  # fmt: skip

    def ask(*values) -> tuple:
        return _attempt(lambda: start_candidates(studio.project, studio.jobs, read_request(studio, *values)))

    def ask_again(name: str) -> tuple:
        def go_on() -> None:
            request = _set_of(studio, name).request
            _check_places(studio, request.model, str(request.adapter or ""))
            start_candidates(studio.project, studio.jobs, request)

        return _attempt(go_on)

    def ask_rejects(model: str, steps: float | None, guidance: float | None, negative: str) -> tuple:
        def start() -> None:
            studio.check_place(model)
            request = RejectsRequest(model, _whole(steps, "Sampling steps"), _number(guidance, "Guidance"), negative)
            start_rejects(studio.project, studio.jobs, request)

        return _attempt(start)

    def _attempt(start) -> tuple:
        """Updates for the problem and `outputs`: what was typed stays, and the reason stands under the button."""
        try:
            start()
        except StudioError as error:
            return gr.HTML(text=str(error)), *(gr.skip(),) * len(outputs)
        return gr.HTML(text=""), *draw_candidates(studio)

    def halt() -> None:
        job = _job(studio.jobs)
        if job is not None and not studio.jobs.cancel(job):
            job.stop.set()

    quiet = {"queue": False, "show_progress": "hidden"}
    generate.click(ask, asked, [problem, *outputs], show_progress="hidden")
    go_on.click(ask_again, chosen, [problem, *outputs], show_progress="hidden")
    reject.click(ask_rejects, [model, steps, guidance, negative], [problem, *outputs], show_progress="hidden")
    stop.click(halt, **quiet)
    chosen.input(lambda name: _continue(find_set(studio, name)), chosen, go_on, **quiet)
    differ.input(lambda differ: gr.Number(visible=differ == DETAILS), differ, share, **quiet)
    taken = own.click(lambda current: "\n".join(known_prompts(studio, current)), session, prompts, **quiet)
    demo = painted.click(lambda: ("\n".join(demo_prompts(DEMO_PROMPTS, DEMO_SEED)), "demo"), None, [prompts, model], **quiet)
    for event in (prompts.input, per_prompt.input, both.input, taken.then, demo.then):
        event(
            lambda *typed: gr.HTML(text=count_words(*typed)), [prompts, per_prompt, both], estimate,
            trigger_mode="always_last", **quiet,
        )  # fmt: skip
    return CandidatesPart(outputs, pick, chosen)


def draw_candidates(studio: Studio) -> tuple:
    """Updates for the outputs of a CandidatesPart, in their order."""
    found, job, need = list_candidates(studio.project), _job(studio.jobs), len(pairs_in_need(studio.project))
    is_active = job is not None and job.is_active
    shown = next((each for each in found if job is not None and each.name == job.key), found[0] if found else None)
    value = {} if is_active else {"value": shown and shown.name}  # while it runs, the person may look at another
    return (
        gr.Dropdown(choices=[NO_ADAPTER, *adapter_choices(studio)]),
        gr.Button("Generating" if is_active else "Generate", interactive=not is_active),
        gr.Button(visible=is_active),
        gr.HTML(report=report_of(job, studio.jobs) if job is not None else {}),
        gr.Row(visible=bool(found)),
        gr.Dropdown(choices=[(set_words(each), each.name) for each in found], **value),
        _continue(None if is_active else shown),
        gr.Column(visible=need > 0),
        gr.Button(f"Make rejected images for {count(need, 'pair')}", interactive=not is_active),
    )


def standing(studio: Studio) -> tuple:
    """Changes whenever `draw_candidates` would show something else: cheap to ask at every look."""
    job = _job(studio.jobs)
    return (id(job), job.state, job.done, job.message) if job is not None else ()


def read_request(
    studio: Studio, name: str, model: str, adapter: str | None, strength: float | None, both: bool, prompts: str,
    per_prompt: float | None, steps: float | None, guidance: float | None, width: float | None, height: float | None,
    negative: str, seed: float | None, differ: str, share: float | None,
) -> CandidatesRequest:  # fmt: skip
    """What the form asks for. Raises CandidatesError for what cannot be read, PlaceError for what a shared page may not reach."""
    adapter = (adapter or "").strip()
    _check_places(studio, model.strip(), adapter)
    return CandidatesRequest(
        name=name.strip() or suggest_run_name(studio.project.rounds, "set"),
        model=model.strip(),
        adapter=Path(adapter).expanduser() if adapter else None,
        strength=_number(strength, "Strength"),
        both=bool(both),
        prompts=tuple(read_lines(prompts)),
        per_prompt=_whole(per_prompt, "Images per prompt"),
        sampling_steps=_whole(steps, "Sampling steps"),
        guidance_scale=_number(guidance, "Guidance"),
        width=_whole(width or 0, "Width"),
        height=_whole(height or 0, "Height"),
        negative_prompt=negative.strip(),
        seed=len(list_candidates(studio.project)) if seed is None else _whole(seed, "Seed"),
        branch=_number(share, "Common share of the steps") if differ == DETAILS else None,
    )


def known_prompts(studio: Studio, session: Session) -> list[str]:
    """The prompts of what this page picks from, each once."""
    view = view_of(studio, session)
    lines = list({line.prompt: line for line in studio.project.library.catalogue(view).lines}.values())[:MOST_PROMPTS]
    faces = studio.project.library.faces(view, lines)
    return list(dict.fromkeys(" ".join(faces[line.key].prompt.split()) for line in lines if line.key in faces))


def count_words(prompts: str, per_prompt: float | None, both: bool) -> str:
    """How many images that would be; "" for none."""
    number, each = len(read_lines(prompts)), int(per_prompt or 0) * (2 if both else 1)
    return f"{count(number, 'prompt')} × {each:,} = {count(number * each, 'image')}" if number and each else ""


def set_words(found: CandidateSet) -> str:
    if found.request is None:
        return f"{found.name}: cannot be read"
    whole = count(found.total, "image")
    return f"{found.name}: {found.done:,} of {whole}" if found.is_unfinished else f"{found.name}: {whole}"


def report_of(job: Job, jobs: JobRegistry) -> dict:
    """The newest job as `report_part` shows it."""
    headline, detail, total = f"{job.title.capitalize()}: {job.message or 'getting ready'}", "", 0
    if job.state == "queued":
        headline, detail = f"{job.title.capitalize()} waits.", f"{holder(jobs)} has the device; this is next in line."
    elif job.is_active:
        left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        headline, total = f"{headline}{left}.", job.total
        detail = "Stopping." if job.stop.is_set() else "Stop keeps what is done."
    elif job.state == "failed":
        headline, detail = f"{job.title.capitalize()} failed.", job.message
    elif job.state == "stopped":
        headline, detail = f"{job.title.capitalize()} was stopped: {job.message}.", "What is done is kept."
    else:
        headline = f"{headline}, done."
    return {"headline": headline, "detail": detail, "tone": "bad" if job.state == "failed" else "calm", "done": job.done,
            "total": total}  # fmt: skip


def find_set(studio: Studio, name: str | None) -> CandidateSet | None:
    """The set of this name; None if there is none."""
    return next((each for each in list_candidates(studio.project) if each.name == name), None)


def _check_places(studio: Studio, model: str, adapter: str) -> None:
    studio.check_place(model)
    studio.check_place(adapter, is_model=False)


def _job(jobs: JobRegistry) -> Job | None:
    return jobs.find(KIND)


def _set_of(studio: Studio, name: str | None) -> CandidateSet:
    found = find_set(studio, name)
    if found is None or found.request is None:
        raise CandidatesError(found.problem if found else "That set is gone. Choose another one.")
    return found


def _continue(found: CandidateSet | None) -> dict:
    return gr.Button(visible=bool(found and found.is_unfinished))


def _whole(value: float | None, label: str) -> int:
    if value is None or int(value) != value:
        raise CandidatesError(f"{label} is {'empty' if value is None else value}. Write a whole number.")
    return int(value)


def _number(value: float | None, label: str) -> float:
    if value is None:
        raise CandidatesError(f"{label} is empty. Write a number.")
    return float(value)
