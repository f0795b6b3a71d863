"""Under a blind test: the line of rounds, and the button that begins the next.

The line belongs to the run that the page looks at. A click on a round looks at its run instead: Compare then offers its adapter,
and the next round would go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.groups import View
from dpo.outcomes import latest_outcome
from dpo.rounds import RoundRequest, begin_round, line_of, prompts_of
from dpo.runs import Run, RunError, list_runs
from ui.blind_words import short_verdict
from ui.parts import create_part, text_part
from ui.rights import open_to
from ui.session import Session, Studio, chosen_run
from ui.train_form import check_places
from ui.words import count

NO_ROUND = "Train a run first: the next round goes on from its adapter."
ABOUT = (
    "Its adapter paints new images of these prompts; you pick among those that tell it most; the next run starts from this "
    "adapter and is compared with it."
)


class RoundsPart(NamedTuple):
    """`refresh(session)` gives one update for each of `outputs`; `begun` changes whenever a round was begun on this page."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    begun: gr.State


def create_rounds_part(studio: Studio, session: gr.State) -> RoundsPart:
    line = create_part("rounds", '<ol aria-label="Rounds"></ol>', "rounds-line", rounds=[])
    begun = gr.State("")
    with gr.Accordion("Next round", open=False, elem_id="next-round-step", elem_classes="step") as step:
        about = text_part(ABOUT, elem_id="about-round")
        with gr.Column(elem_classes="fields"):
            prompts = gr.Textbox(
                "", label="Prompts", info="One a line. Empty: those that the run learned from.", lines=3, max_lines=12,
                elem_id="round-prompts",
            )  # fmt: skip
            per_prompt = gr.Number(6, label="Images per prompt", info="Half of them from the base model.", elem_id="round-images")
            unsure = gr.Checkbox(
                True, label="Only what the adapter is unsure of", elem_id="round-unsure",
                info="It scores the images; the half of the prompts on which it tells best from worst most surely is left out.",
            )  # fmt: skip
        begin = gr.Button("Next round", variant="primary", elem_id="next-round")
        problem = text_part(elem_id="round-problem", tone="bad")

    @open_to("viewer")
    def refresh(current: Session) -> tuple:
        run = chosen_run(studio, current)
        return gr.HTML(rounds=_line(studio, run)), gr.Accordion(visible=run is not None), gr.HTML(text=_about(run))

    def start(current: Session, prompts: str, per_prompt: float | None, unsure: bool) -> tuple:
        try:
            run = chosen_run(studio, current)
            if run is None:
                raise RunError(NO_ROUND)
            check_places(studio, run.config)
            if per_prompt is None or int(per_prompt) != per_prompt:
                raise RunError(f"Images per prompt is {per_prompt}. Write a whole number, such as 6.")
            typed = tuple(line.strip() for line in prompts.splitlines() if line.strip())
            request = RoundRequest(typed, int(per_prompt), scored=unsure)
            folder = begin_round(studio.project, studio.jobs, run, request)
        except StudioError as error:
            return current, gr.skip(), gr.HTML(text=str(error))
        return replace(current, folder=str(folder), run=run.name, view=View("", unsure=unsure)), str(folder), gr.HTML(text="")

    @open_to("viewer")
    def choose(current: Session, event: gr.EventData) -> Session:
        known = {run.name for run in list_runs(studio.project.runs)}
        return replace(current, run=event.name) if event.name in known else current

    outputs = [line, step, about]
    inputs = [session, prompts, per_prompt, unsure]
    begin.click(start, inputs, [session, begun, problem], show_progress="hidden")
    chosen = line.choose(choose, session, session, show_progress="hidden")
    chosen.then(refresh, session, outputs, show_progress="hidden")
    return RoundsPart(refresh, outputs, begun)


def _about(run: Run | None) -> str:
    if run is None or not run.adapter.exists():
        return NO_ROUND
    return f"From {run.name}, whose own prompts are {count(len(prompts_of(run)), 'prompt')}. {ABOUT}"


def _line(studio: Studio, shown: Run | None) -> list[dict]:
    """A round as the page shows it: what it is, from which images, and what people said of it."""
    if shown is None:
        return []
    return [
        {
            "number": each.number, "name": each.run.name, "pairs": count(each.pairs, "pair"),
            "candidates": each.candidates, "shown": each.run == shown,
            "verdict": short_verdict(outcome) if (outcome := latest_outcome(studio.project, each.run)) else "no blind test",
        }
        for each in line_of(list_runs(studio.project.runs), shown)
    ]  # fmt: skip
