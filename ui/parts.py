"""Small pieces of the page that hold other people's words: run names, prompts, messages.

Each has a constant template and takes its data as props, which its script writes as `textContent`: Gradio evaluates
`${...}` in anything that goes through a template. The scripts are parts.js, train_parts.js and parts_start.js, the styles
theme.css and train.css.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

SCRIPTS = ("elements.js", "parts.js", "train_parts.js", "parts_start.js")


def read_files(*names: str) -> str:
    """The scripts or styles of these names in this folder, as one."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


SCRIPT = read_files(*SCRIPTS)


def create_part(kind: str, template: str, elem_id: str | None = None, **props) -> gr.HTML:
    """A part painted by the script's painter of that kind from `props`; `template` is constant, trusted HTML."""
    # Gradio offers an event only if its quoted name stands in the script, so every part gets the whole file.
    return gr.HTML(
        html_template=f'<div class="part" data-part="{kind}">{template}</div>',
        js_on_load=SCRIPT, apply_default_css=False, elem_id=elem_id, elem_classes=["part-holder", f"part-{kind}"], **props,
    )  # fmt: skip


def text_part(text: str = "", tone: str = "dim", elem_id: str | None = None) -> gr.HTML:
    """One sentence. `tone`: "dim", "calm", "warn" or "bad"; update with `gr.HTML(text=..., tone=...)`."""
    return create_part("text", '<p role="status"></p>', elem_id, text=text, tone=tone)


def job_part() -> gr.HTML:
    """The running job, or "idle", as the pulse tells the page. Its event `go` asks for the job's tab."""
    template = '<button type="button" aria-live="polite"><span class="dot"></span><span class="words"></span></button>'
    return create_part("job", f'{template}<i class="bar"><b></b></i>', "job")


def rights_part() -> gr.HTML:
    """What somebody may do who may not do everything: `role` is theirs. Styles hide what is not for it (rights.css)."""
    return create_part("rights", '<p role="status"></p>', "rights", role="")


def report_part(elem_id: str) -> gr.HTML:
    """How a job is doing: `report` is {"headline", "detail", "tone", "done", "total"}; empty: nothing is shown."""
    template = '<h3 role="status"></h3><i class="bar"><b></b></i><p></p>'
    return create_part("report", template, elem_id, report={})
