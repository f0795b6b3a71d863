"""Small pieces of the page that hold other people's words: run names, prompts, messages.

Each has a constant template and takes its data as props, which its script writes as `textContent`: Gradio evaluates
`${...}` in anything that goes through a template. The scripts and styles are in parts.js and theme.css.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

SCRIPT = (Path(__file__).parent / "parts.js").read_text(encoding="utf-8")


def _part(kind: str, template: str, elem_id: str | None = None, **props) -> gr.HTML:
    # Gradio offers an event only if its quoted name stands in the script, so every part gets the whole file.
    return gr.HTML(
        html_template=f'<div class="part" data-part="{kind}">{template}</div>',
        js_on_load=SCRIPT, apply_default_css=False, elem_id=elem_id, elem_classes=["part-holder", f"part-{kind}"], **props,
    )  # fmt: skip


def text_part(text: str = "", tone: str = "dim", elem_id: str | None = None) -> gr.HTML:
    """One sentence. `tone`: "dim", "calm", "warn" or "bad"; update with `gr.HTML(text=..., tone=...)`."""
    return _part("text", '<p role="status"></p>', elem_id, text=text, tone=tone)


def job_part() -> gr.HTML:
    """The running job, or "idle": `job` is {"text", "share" in 0..1, "active"}. Its event `go` asks for the job's tab."""
    template = '<button type="button" aria-live="polite"><span class="dot"></span><span class="words"></span></button>'
    return _part("job", f'{template}<i class="bar"><b></b></i>', "job", job={"text": "idle", "share": 0, "active": False})


def report_part(elem_id: str) -> gr.HTML:
    """How a job is doing: `report` is {"headline", "detail", "tone", "done", "total"}; empty: nothing is shown."""
    template = '<h3 role="status"></h3><i class="bar"><b></b></i><p></p>'
    return _part("report", template, elem_id, report={})


def runs_part() -> gr.HTML:
    """The list of runs: `rows` of {"name", "pairs", "steps", "accuracy", "state", "tone", "shown"}. Its event `choose`
    carries the chosen row's `name`."""
    head = "".join(f"<th>{title}</th>" for title in ("Run", "Pairs", "Steps", "Accuracy", "State"))
    return _part("runs", f"<table><thead><tr>{head}</tr></thead><tbody></tbody></table>", "runs", rows=[])


def results_part() -> gr.HTML:
    """Base beside adapter: `results` of {"prompt", "seed", "strength", "base", "adapter"}, the last two image addresses."""
    return _part("results", '<div class="results"></div>', "results", results=[])
