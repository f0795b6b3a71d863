"""The blind test in Compare: a form that starts one, the pairs to vote on, and the card of the result.

Voting looks and works as the picker does and shares its scripts (picker_stage.js, picker_zoom.js). What it asks of the app: see
blind_answers.py. Nothing in its page says which image is whose; the result comes to the card alone, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.blind import QUESTIONS, BlindError, BlindRequest, list_tests, start_test
from dpo.runs import Run, list_runs
from ui.blind_answers import CARD_ANSWERS, VOTER_ANSWERS, describe_card
from ui.parts import read_files, text_part
from ui.picker_answers import LONGEST_NAME
from ui.rights import least_role, open_to
from ui.session import Session, Studio, attaching, chosen_run, page_session, serve

SCRIPTS = ("storage.js", "blind.js", "picker_stage.js", "picker_zoom.js", "blind_keys.js")
CARD_SCRIPTS = ("elements.js", "asking.js", "blind_card.js")
STYLES = ("picker.css", "blind.css")
TO_CARD = "() => document.querySelector('#blind-card').scrollIntoView({block: 'start', behavior: 'smooth'})"

VOTING = f"""
<section class="picker blind" data-state="waiting" data-mode="duel" tabindex="-1" aria-label="Blind test">
  <header>
    <p class="asked" role="status"></p>
    <p class="of-prompt"></p>
    <form class="who" hidden>
      <input type="text" maxlength="{LONGEST_NAME}" placeholder="Your name" aria-label="Your name, kept with your votes"
        autocomplete="nickname" spellcheck="false">
      <button type="submit" aria-label="Keep this name" title="Keep this name">&#10003;</button>
      <button type="button" class="later">not now</button>
    </form>
    <div class="modes" role="group" aria-label="Question" hidden></div>
    <select class="tests" aria-label="Blind test" hidden></select>
  </header>
  <div class="middle"><div class="stage"><p class="empty"></p><i class="flash"></i></div></div>
  <div class="progress evidence" role="meter" aria-label="Evidence, of what decides it" aria-valuemin="0" aria-valuemax="100">
    <i></i></div>
  <div class="foot">
    <p class="status" role="status"><span class="verdict"></span> <span class="needed"></span></p>
    <p class="count"></p>
    <div class="keys">
      <span class="hint"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> better</span>
      <button type="button" data-do="tie"><kbd>&uarr;</kbd> tie</button>
      <button type="button" class="flip"><kbd>F</kbd> hold to flip</button>
      <button type="button" data-do="undo"><kbd>Z</kbd> undo</button>
      <button type="button" data-do="zoom"><kbd>Space</kbd> zoom</button>
    </div>
    <p class="notice" role="alert"></p>
    <div class="making"><span class="words" role="status"></span>
      <button type="button" data-make="stop" hidden>Stop, keep these</button>
      <button type="button" data-make="resume" hidden>Make the rest</button></div>
    <button type="button" class="show-result" disabled>Show the result</button>
  </div>
  <div class="zoom" hidden><div class="large"></div><div class="foot"><p></p><button type="button">Close</button></div></div>
</section>
"""

CARD = """
<section class="card" aria-label="Result of the blind test" hidden>
  <p class="asked"></p>
  <h3></h3>
  <p class="words" role="status"></p>
  <div class="scale" aria-hidden="true"><i></i><u></u><b></b><span>base</span><span>no difference</span><span>adapter</span></div>
  <p class="needed"></p>
  <p class="facts"></p>
  <p class="bootstrap"></p>
  <div class="voters"></div>
  <div class="pairs"></div>
  <p class="how">Base left, adapter right; the edge is what was preferred. Drawn by lot from all that were decided.</p>
  <details><summary>Prompt by prompt, for the adapter</summary><table><tbody></tbody></table></details>
  <div class="acts">
    <button type="button" class="keep">Save the card</button>
    <span class="links acts"></span>
    <button type="button" class="make-pairs">Make pairs of the votes</button>
  </div>
  <p class="said" role="status"></p>
</section>
"""


class BlindPart(NamedTuple):
    """What the Compare tab and whoever adds to it needs. `refresh(session)` gives an update for each of `outputs`, in order.

    `shown` holds [test, question] of the result on the card; `card_news` is the event that put it there, for a `.then`.
    `pairs_made` is an event of the card. `scorers` is the place under it for what scorers say of the same images.
    """

    refresh: Callable[[Session], tuple]
    outputs: list
    shown: gr.State
    card_news: gr.events.Dependency
    pairs_made: Callable
    scorers: gr.HTML


class Form(NamedTuple):
    """What starts a test, in the order in which the handler takes it."""

    adapter: gr.Dropdown
    prompts: gr.Textbox
    comparisons: gr.Number
    questions: gr.CheckboxGroup
    strength: gr.Slider
    model: gr.Textbox
    steps: gr.Number
    guidance: gr.Number


def create_blind_part(studio: Studio, session: gr.State) -> BlindPart:
    """Build the part where it stands."""
    with gr.Accordion("New test", open=False, elem_id="blind-new") as new:
        form, start, problem = _create_form()
    voting = gr.HTML(
        html_template=VOTING, css_template=read_files(*STYLES), js_on_load=read_files(*SCRIPTS),
        apply_default_css=False, elem_id="blind", server_functions=_serve(studio, VOTER_ANSWERS), session=None, started=None,
    )  # fmt: skip
    card = gr.HTML(
        html_template=CARD, css_template=read_files("blind.css"), js_on_load=read_files(*CARD_SCRIPTS),
        apply_default_css=False, elem_id="blind-card", server_functions=_serve(studio, CARD_ANSWERS), session=None, card=None,
    )  # fmt: skip
    scorers = text_part(elem_id="blind-scorers")
    shown = gr.State(["", ""])
    offered = gr.State("")  # the run that the session looks at; what was chosen here stands until that changes

    def begin(current: Session, *values) -> tuple:
        try:
            job = start_test(studio.project, studio.jobs, _read_form(studio, Form(*values)))
        except StudioError as error:
            return gr.HTML(text=str(error), tone="bad"), gr.skip(), gr.skip()
        return gr.HTML(text=""), gr.Accordion(open=False), gr.HTML(started=[job.key])

    @open_to("viewer")
    def show(current: Session, event: gr.EventData) -> tuple:
        try:
            described = describe_card(studio, str(event.test), str(event.question))
        except StudioError:  # deleted meanwhile: the voting part says so
            return gr.skip(), gr.skip()
        return gr.HTML(card=described, session=page_session(studio, current)), [event.test, event.question]

    quiet = {"queue": False, "show_progress": "hidden"}
    voting.attach(attaching(studio, show_voting, "viewer"), session, voting, **quiet)
    start.click(begin, [session, *form], [problem, new, voting], show_progress="hidden")
    news = voting.show_result(show, session, [card, shown], show_progress="hidden")
    news.then(None, js=TO_CARD)

    @open_to("viewer")
    def offer(name: str) -> str:
        run = next((run for run in _runs_with_adapter(studio) if run.name == name), None)
        return str(run.adapter) if run else gr.skip()

    def refresh(current: Session) -> tuple:
        runs, chosen = _runs_with_adapter(studio), chosen_run(studio, current)
        run = chosen if chosen in runs else runs[0] if runs else None
        is_first = not list_tests(studio.project)
        return (
            gr.Dropdown(choices=[(run.name, str(run.adapter)) for run in runs]) if current.is_owner else gr.skip(),
            run.name if run and current.is_owner else gr.skip(),
            gr.Accordion(open=True) if is_first else gr.skip(), show_voting(studio, current),
        )  # fmt: skip

    offered.change(offer, offered, form.adapter, show_progress="hidden")
    return BlindPart(refresh, [form.adapter, offered, new, voting], shown, news, card.pairs_made, scorers)


def show_voting(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session))


def _create_form() -> tuple[Form, gr.Button, gr.HTML]:
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=1, min_width=300):
            adapter = gr.Dropdown(
                [], value=None, label="Adapter", info="A run's adapter, or the path of an adapter file.",
                allow_custom_value=True, elem_id="blind-adapter",
            )  # fmt: skip
            prompts = gr.Textbox(
                "", label="Prompts", lines=4, max_lines=10, elem_id="blind-prompts",
                info="One a line, none that it was trained on. Empty: those the run held out.",
            )  # fmt: skip
        with gr.Column(scale=1, min_width=300):
            comparisons = gr.Number(
                0, label="Comparisons", elem_id="blind-comparisons",
                info="Pairs to look at. 0: one a prompt; more give a prompt more seeds. 50 decide a 70% effect, 90 one of 65%.",
            )  # fmt: skip
            questions = gr.CheckboxGroup(
                [(words, name) for name, words in QUESTIONS.items()], value=["overall"], label="Questions",
                info="Asked one at a time, each over all pairs.", elem_id="blind-questions",
            )  # fmt: skip
            with gr.Accordion("More", open=False):
                strength = gr.Slider(0.05, 2, 1, step=0.05, label="Strength", buttons=[])
                model = gr.Textbox("", label="Model", info="Empty: the one the run was trained on.", max_lines=1)
                steps = gr.Number(20, label="Sampling steps")
                guidance = gr.Number(3.0, label="Guidance")
    start = gr.Button("Make the images", variant="primary", elem_id="start-blind")
    problem = text_part(elem_id="blind-problem", tone="bad")
    return Form(adapter, prompts, comparisons, questions, strength, model, steps, guidance), start, problem


def _read_form(studio: Studio, form: Form) -> BlindRequest:
    """What was asked for, from the values of the form. Raises StudioError."""
    adapter = (form.adapter or "").strip()
    if not adapter:
        raise BlindError("Choose an adapter first. A run's adapter appears here when the run is done.")
    if any(value is None or int(value) != value for value in (form.comparisons, form.steps)) or form.guidance is None:
        raise BlindError("Comparisons and sampling steps want whole numbers such as 40 and 20, guidance a number such as 3.")
    run = next((run for run in list_runs(studio.project.runs) if str(run.adapter) == adapter), None)
    model = (form.model or "").strip() or (run.config.model if run else "")
    if not model:
        raise BlindError("Which model was this adapter trained on? Write it under More.")
    studio.check_place(model)
    studio.check_place(adapter, is_model=False)
    return BlindRequest(
        model, Path(adapter).expanduser(), float(form.strength), tuple((form.prompts or "").splitlines()), int(form.comparisons),
        tuple(form.questions), int(form.steps), float(form.guidance),
    )  # fmt: skip


def _runs_with_adapter(studio: Studio) -> list[Run]:
    return [run for run in list_runs(studio.project.runs) if run.adapter.exists()]


def _serve(studio: Studio, answers: dict[str, Callable]) -> list[Callable[[dict], dict]]:
    return [
        serve(studio, name, lambda view, payload, answer=answer: answer(studio, payload), least_role(answer))
        for name, answer in answers.items()
    ]
