"""The contact sheet of pairs: chosen left, rejected right, each pair with a way to take it back.

As in the picker, text out of images travels as data and is shown as text content, and pages prove themselves with a token.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from dpo import StudioError
from dpo.picks import PickedPair
from ui.images import image_url
from ui.session import Session, Studio, limit, page_session, token_view

HERE = Path(__file__).parent
MOST_PAIRS = 10_000  # in one answer

TEMPLATE = """
<div class="review">
  <p class="empty" role="status"></p>
  <ol class="sheet"></ol>
  <button type="button" class="more" hidden>Show more</button>
</div>
"""


def create_review(studio: Studio, session: gr.State) -> gr.HTML:
    """The component. Give it what `show_review` returns whenever picks changed: it loads what is seen."""

    def review(payload: dict) -> dict:
        if token_view(studio, payload) is None:
            return {"error": "token"}
        try:
            if isinstance(payload.get("undo"), dict):
                studio.project.picks.apply([payload["undo"]])
        except StudioError as error:
            return {"error": str(error)}
        picked = studio.project.picks.picked_pairs()[::-1]
        shown = picked[: limit(payload.get("count"), MOST_PAIRS)]
        return {"pairs": [_describe_pair(studio, pair) for pair in shown], "total": len(picked)}

    sheet = gr.HTML(
        html_template=TEMPLATE,
        css_template=(HERE / "review.css").read_text(encoding="utf-8"),
        js_on_load=(HERE / "review.js").read_text(encoding="utf-8"),
        server_functions=[review], apply_default_css=False, elem_id="review", session=None, revision=0,
    )  # fmt: skip
    sheet.attach(lambda current: show_review(studio, current), session, sheet, queue=False, show_progress="hidden")
    return sheet


def show_review(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session), revision=studio.project.picks.revision())


def _describe_pair(studio: Studio, picked: PickedPair) -> dict:
    pick = picked.pick
    return {
        "pick": [pick.client, pick.number], "prompt": pick.prompt, "missing": list(picked.missing),
        "chosen": image_url(studio, pick.chosen), "rejected": image_url(studio, pick.rejected),
    }  # fmt: skip
