"""Parts of the Train tab that hold other people's words: lists of sentences, the list of runs, the strip of sample pictures.

As in parts.py: the template is constant, data travels as props and is painted as text content, by train_parts.js.
"""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from ui.parts import create_part

RUN_COLUMNS = ("Run", "Pairs", "Steps", "Best accuracy", "State", "")


def list_part(elem_id: str, lines: Sequence[dict[str, str]] = (), *, folded: str = "") -> gr.HTML:
    """Sentences below each other: `lines` of {"text", "tone", "advice"}, of which the last two may be left out. None: no part.

    folded: the words behind which they are, until a click.
    """
    template = '<ul role="status"></ul>'
    if folded:
        template = f"<details><summary>{folded}</summary>{template}</details>"
    return create_part("list", template, elem_id, lines=list(lines))


def runs_part() -> gr.HTML:
    """The list of runs: `rows` of {"name", "pairs", "steps", "accuracy", "state", "tone", "shown", "compared", "problem",
    "verdict", "actions"}; `verdict` is of the run's blind test, "" without one.

    Its event `choose` carries the chosen row's `name`; `act` carries `name` and `action`: "compare", "uncompare", "clone",
    "sooner", "remove", or "delete", which was asked about before it comes.
    """
    head = "".join(f"<th>{title}</th>" for title in RUN_COLUMNS)
    return create_part("runs", f"<table><thead><tr>{head}</tr></thead><tbody></tbody></table>", "runs", rows=[])


def strip_part() -> gr.HTML:
    """Sample pictures: `strip` is {"run", "prompts", "base": addresses, "steps": [{"step", "images": addresses}]}. Empty: none.

    The base stands above, what the run paints at the chosen step below.
    """
    template = (
        '<header><h4>Samples</h4><div class="steps" role="group" aria-label="Steps"></div></header>'
        '<div class="pictures"></div><p class="sides"></p>'
    )
    return create_part("strip", template, "strip", strip={})
