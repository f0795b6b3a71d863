"""Under the card of a blind test: what a scorer says of the same images, beside the votes and never counted with them."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from dpo import StudioError
from dpo.agreement import ComparisonScores, start_score_test
from dpo.blind import find_test
from dpo.scorer_choice import USUAL_MODELS, ScorerChoice
from ui.blind import BlindPart
from ui.scorers_part import KIND_WORDS
from ui.session import Studio

SCORERS = ("pickscore", "clip", "aesthetic")  # what a run has learned would only praise itself
SECONDS = 1.0  # between two looks at the job


def create_blind_scorers(studio: Studio, blind: BlindPart) -> None:
    """Build the part where it stands; its words come to `blind.scorers`."""
    with (
        gr.Accordion("What a scorer says", open=False, elem_id="blind-scorers-step", elem_classes="step"),
        gr.Row(equal_height=True),
    ):
        kind = gr.Dropdown(
            [(KIND_WORDS[name], name) for name in SCORERS],
            value=SCORERS[0],
            label="Scorer",
            min_width=160,
            elem_id="blind-scorer",
        )
        model = gr.Textbox(
            "", label="Model", info="A hub id or a folder; empty: the usual one.", placeholder=USUAL_MODELS[SCORERS[0]],
            max_lines=1, min_width=220, elem_id="blind-scorer-model",
        )  # fmt: skip
        ask = gr.Button("Score these images", scale=0, min_width=160, elem_id="ask-scorer")
        stop = gr.Button("Stop", visible=False, scale=0, min_width=100, elem_id="stop-scorer")

    def score(shown: list[str], kind: str, model: str) -> Iterator[tuple]:
        try:
            if not shown[0]:
                raise StudioError("Show the result of a test first: its images are what is scored.")
            studio.check_place(model.strip())
            test = find_test(studio.project, shown[0])
            job = start_score_test(studio.project, studio.jobs, test, ScorerChoice(kind, model))
        except StudioError as error:
            yield gr.HTML(text=str(error), tone="bad"), gr.skip()
            return
        while not job.finished.wait(SECONDS):
            progress = (
                f"{job.message}, {job.done} of {job.total} images" if job.total else job.message or "waiting for the device"
            )
            yield gr.HTML(text=f"{job.title.capitalize()}: {progress}.", tone="dim"), gr.Button(visible=True)
        text = job.message if job.state == "failed" else comparison_words(job.result) if job.result else "Stopped."
        yield gr.HTML(text=text, tone="bad" if job.state == "failed" else "calm"), gr.Button(visible=False)

    def halt() -> None:
        job = studio.jobs.find("score_test")
        if job is not None and not studio.jobs.cancel(job):
            job.stop.set()

    kind.input(lambda kind: gr.Textbox(placeholder=USUAL_MODELS[kind]), kind, model, queue=False, show_progress="hidden")
    ask.click(score, [blind.shown, kind, model], [blind.scorers, stop], show_progress="hidden")
    stop.click(halt, None, None, queue=False, show_progress="hidden")


def comparison_words(found: ComparisonScores) -> str:
    """Such as "pickscore prefers the adapter in 31 of 40, 78% [62%, 89%]."."""
    if not found.preferred.count:
        return "No image was scored: none could be opened, or it was stopped before the first."
    between = f" [{found.interval[0]:.3g}, {found.interval[1]:.3g}]" if found.interval else ""
    return (
        f"{found.scorer} prefers the adapter in {found.preferred}. The adapter's score less the base's is "
        f"{found.mean_difference:.3g}{between} on average. These are no votes, and are not counted with them."
    )
