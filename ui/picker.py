"""The picker: one gr.HTML component whose page side (picker.js) keeps the next screens ready and its picks safe.

A key press paints from the page's own queue; `sync` then stores the operations and hands out further screens. A page
proves itself with a token signed for its project and all of its view; one that is not good any more makes it ask for
another (`attach`). Text out of images travels as data and is shown as text content, never by a template.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import gradio as gr

from dpo import StudioError
from dpo.groups import MODES, IndexedImage, Screen, View, screen_key
from dpo.picks import Pick
from ui.images import image_url
from ui.session import Session, Studio, limit, page_session, token_view
from ui.words import count

HERE = Path(__file__).parent
MOST_OPERATIONS, MOST_SCREENS, MOST_RECENT = 200, 16, 64

TEMPLATE = """
<section class="picker" data-state="waiting" tabindex="-1" aria-label="Pick images">
  <header>
    <button type="button" class="prompt" aria-expanded="false" title="Show the whole prompt" hidden><span></span></button>
    <div class="modes" role="group" aria-label="How to pick">
      <button type="button" data-mode="best_worst" aria-pressed="true">Best and worst</button>
      <button type="button" data-mode="duel" aria-pressed="false">Duel</button>
    </div>
  </header>
  <div class="middle">
    <div class="details" hidden><p class="whole"></p><p class="facts"></p></div>
    <div class="stage"><p class="empty"></p><i class="flash"></i></div>
  </div>
  <div class="progress" aria-hidden="true"><i></i></div>
  <div class="foot">
    <p class="status" role="status"><span class="asking"></span> <span class="count"></span></p>
    <p class="notice" role="alert"></p>
    <div class="keys">
      <span class="hint grid"><kbd>1</kbd>&ndash;<kbd>9</kbd> best, worst</span>
      <button type="button" class="duel" data-do="left"><kbd>&larr;</kbd> left</button>
      <button type="button" class="duel" data-do="right"><kbd>&rarr;</kbd> right</button>
      <button type="button" class="duel" data-do="tie"><kbd>&uarr;</kbd> tie</button>
      <button type="button" class="duel" data-do="skip"><kbd>&darr;</kbd> skip</button>
      <button type="button" class="grid" data-do="skip_group"><kbd>S</kbd> skip</button>
      <button type="button" data-do="undo"><kbd>Z</kbd> undo</button>
      <button type="button" data-do="zoom"><kbd>Space</kbd> zoom</button>
      <button type="button" data-do="help"><kbd>?</kbd> keys</button>
    </div>
  </div>
  <div class="zoom" hidden><div class="large"></div><div class="foot"><p></p><button type="button">Close</button></div></div>
  <div class="help" hidden>
    <dl>
      <dt><kbd>1</kbd> to <kbd>9</kbd></dt><dd>best, then worst; again: take the mark off</dd>
      <dt><kbd>&larr;</kbd> <kbd>&rarr;</kbd></dt><dd>duel: the left or the right image is better</dd>
      <dt><kbd>&uarr;</kbd> <kbd>&darr;</kbd></dt><dd>duel: tie, skip this one</dd>
      <dt><kbd>S</kbd></dt><dd>skip the group</dd>
      <dt><kbd>Z</kbd></dt><dd>undo, as often as you like</dd>
      <dt><kbd>Space</kbd></dt><dd>zoom; hold it, or press it again to close; arrows flip</dd>
      <dt><kbd>?</kbd></dt><dd>these keys</dd>
    </dl>
  </div>
</section>
"""


def create_picker(studio: Studio, session: gr.State) -> gr.HTML:
    """The component. Its prop `session` (see `page_session`) says what to pick from; it sets the session's mode."""

    def sync(payload: dict) -> dict:
        view = token_view(studio, payload)
        if view is None:
            return {"error": "token"}
        try:
            return answer_page(studio, view, payload)
        except StudioError as error:  # the disk refuses: the page keeps its operations and says why
            return {"error": str(error)}

    picker = gr.HTML(
        html_template=TEMPLATE,
        css_template=(HERE / "picker.css").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in ("picker_sync.js", "picker.js")),
        server_functions=[sync], apply_default_css=False, elem_id="picker", session=None,
    )  # fmt: skip

    def attach(current: Session) -> gr.HTML:
        return gr.HTML(session=page_session(studio, current))

    def switch_mode(current: Session, event: gr.EventData) -> Session:
        return replace(current, mode=event.mode) if event.mode in MODES else current

    picker.attach(attach, session, picker, queue=False, show_progress="hidden")
    # Through the queue: Gradio notices a changed state, which the browser has to remember, only there.
    picker.switch_mode(switch_mode, session, session, show_progress="hidden")
    return picker


def answer_page(studio: Studio, view: View, payload: dict) -> dict:
    """Store the page's operations, then say what is next.

    `payload`: operations, mode, `have` (keys of screens it holds), `want` (how many more), `first` (key of a group whose
    screens come before all others), `recent` and `before` (how many undoable picks, older than that position). Numbers are
    cut to sane sizes; operations past the limit are left for later.
    """
    project = studio.project
    operations = payload.get("operations")
    operations = operations[:MOST_OPERATIONS] if isinstance(operations, list) else []
    applied = project.picks.apply(operations) if operations else None
    mode = payload.get("mode") if payload.get("mode") in MODES else MODES[0]
    have = payload.get("have") if isinstance(payload.get("have"), list) else []
    have = {key for key in have if isinstance(key, str)}
    want, recent = limit(payload.get("want"), MOST_SCREENS), limit(payload.get("recent"), MOST_RECENT)
    before = payload.get("before") if isinstance(payload.get("before"), int) else None
    group = payload.get("first") if isinstance(payload.get("first"), str) else ""
    further = project.picks.next_screens(project.library, view, mode, want, have, first=group)
    return {
        "stored": len(operations),
        "refused": list(applied.refused) if applied else [],
        "screens": [_describe_screen(studio, screen) for screen in further.screens],
        "first": group if any(screen.group.key == group for screen in further.screens) else "",
        "is_complete": further.is_complete,
        "done": further.done,
        "total": further.total,
        "preparing": _preparing(studio, view),
        "recent": [_describe_pick(studio, pick) for pick in project.picks.recent(before, recent)],
    }


def _preparing(studio: Studio, view: View) -> str:
    """What to say to a person who is faster than the scan of their folder; "" when none runs."""
    scan = studio.project.library.current_scan()
    if scan is None or scan.finished.is_set() or not Path(view.folder).is_relative_to(scan.folder):
        return ""
    read = f" {scan.done:,} of {count(scan.total, 'file')} read." if scan.total else ""
    return f"Preparing...{read} A group comes here as soon as it has two images."


def _describe_screen(studio: Studio, screen: Screen) -> dict:
    images = list(screen.images)
    if screen.mode == "duel":
        random.shuffle(images)  # a preference for one side must not become one for some images; the pick records the order
    described = [_describe_image(studio, image) for image in images]
    return {
        "key": screen.key, "group": screen.group.key, "mode": screen.mode, "prompt": screen.group.prompt,
        "aspect": screen.group.aspect, "facts": _facts(images), "images": described,
    }  # fmt: skip


def _describe_pick(studio: Studio, pick: Pick) -> dict:
    """A pick and the screen it was made on, in the same order, so that an undo brings that very screen back."""
    mode = pick.result if pick.op == "skip" else pick.op
    found = [(key, studio.project.library.image(key)) for key in pick.keys]
    images = [image for _, image in found if image]
    described = [_describe_image(studio, image) if image else {**_GONE, "key": key} for key, image in found]
    aspect = images[0].record.width / images[0].record.height if images else 1.0
    screen = {
        "key": screen_key(mode, pick.group, pick.keys), "group": pick.group, "mode": mode, "prompt": pick.prompt,
        "aspect": aspect, "facts": _facts(images), "images": described,
    }  # fmt: skip
    return {"pick": [pick.client, pick.number], "position": pick.position, "screen": screen}


_GONE = {"url": "", "full": "", "width": 0, "height": 0, "seed": None}  # an image the index does not know any more


def _describe_image(studio: Studio, image: IndexedImage) -> dict:
    record = image.record
    return {
        "key": image.key, "url": image_url(studio, image.key), "full": image_url(studio, image.key, "full"),
        "width": record.width, "height": record.height, "seed": record.seed,
    }  # fmt: skip


def _facts(images: list[IndexedImage]) -> list[str]:
    """What the unfolded prompt says besides: sizes and models, each once."""
    sizes = dict.fromkeys(f"{image.record.width} × {image.record.height}" for image in images)
    models = dict.fromkeys(image.record.model for image in images if image.record.model)
    return [", ".join(part) for part in (sizes, models) if part]
