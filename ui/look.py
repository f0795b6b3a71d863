"""Look: base beside adapter, large, and how the job that paints them is doing. One gr.HTML component.

Shown is the newest look of this process, whoever asked for it; a reload or a second tab sees the same. The page side is
look_*.js; what it asks is answered in look_answers.py. As in the picker, prompts and names travel as data and are shown as text
content, and pages prove themselves with a token.
"""

from __future__ import annotations

import gradio as gr

from ui.look_answers import ANSWERS
from ui.parts import read_files
from ui.rights import least_role
from ui.session import Session, Studio, attaching, page_session, serve

SCRIPTS = ("elements.js", "asking.js", "look_ask.js", "look_stage.js", "look_zoom.js", "look_view.js")

TEMPLATE = """
<section class="look" data-way="side" aria-label="Base beside adapter">
  <p class="problem" role="alert"></p>
  <div class="nothing" id="nothing-compared" hidden><p></p></div>
  <div class="report" id="compare-report" hidden><h3 role="status"></h3><i class="bar"><b></b></i><p></p></div>
  <div class="acts">
    <button type="button" class="stop" id="stop-compare" hidden>Stop</button>
    <button type="button" class="save" id="save-compare" hidden>Save images and grid</button>
    <span class="saved" id="compare-saved" role="status"></span>
    <a class="download" id="download-grid" hidden>Download the grid</a>
  </div>
  <div class="viewer" tabindex="-1" hidden>
    <div class="tools">
      <div class="ways segments" role="group" aria-label="How they are shown">
        <button type="button" data-mode="side">Side by side</button>
        <button type="button" data-mode="slider">Slider</button>
        <button type="button" data-mode="flip">Flip</button>
        <button type="button" data-mode="difference">Difference</button>
      </div>
      <div class="variants segments" role="group" aria-label="What is beside the base" hidden></div>
      <div class="zooming" role="group" aria-label="Zoom">
        <button type="button" class="out" aria-label="Smaller">−</button>
        <button type="button" class="amount" title="As large as the window">100%</button>
        <button type="button" class="in" aria-label="Larger">+</button>
      </div>
      <div class="rowing" role="group" aria-label="Rows">
        <button type="button" class="earlier" aria-label="Row before">↑</button>
        <span role="status"></span>
        <button type="button" class="later" aria-label="Next row">↓</button>
      </div>
    </div>
    <div class="about"><p class="prompt"></p><p class="seed"></p></div>
    <div class="stage">
      <figure class="base">
        <div class="window"><div class="sheet"><img alt="" draggable="false"></div></div>
        <figcaption></figcaption>
      </figure>
      <figure class="other">
        <div class="window">
          <div class="sheet shown-other"><img alt="" draggable="false"></div>
          <div class="sheet over"><img alt="" draggable="false"></div>
          <div class="sheet difference"><canvas role="img" aria-label="The difference of both, brightened"></canvas></div>
          <div class="divider" role="slider" tabindex="0" aria-label="How much of the base is seen" aria-valuemin="0"
            aria-valuemax="100"></div>
        </div>
        <figcaption><span class="left" role="status"></span><span class="right"></span></figcaption>
      </figure>
    </div>
    <p class="hint"><span class="how"></span><span class="rows"><kbd>↑</kbd> <kbd>↓</kbd> rows</span><span
      class="adapters"><kbd>←</kbd> <kbd>→</kbd> adapters</span><span><kbd>1</kbd> to <kbd>4</kbd> ways</span><span><kbd>+</kbd>
      <kbd>-</kbd> or wheel: zoom, drag to move</span></p>
  </div>
  <div class="grid"></div>
</section>
"""


def create_look(studio: Studio, session: gr.State) -> gr.HTML:
    """The component. Give it what `show_look` returns when the page is opened; how a job is doing it asks by itself."""
    look = gr.HTML(
        html_template=TEMPLATE,
        js_on_load=read_files(*SCRIPTS),
        server_functions=[
            serve(studio, name, lambda view, payload, answer=answer: answer(studio, payload), least_role(answer))
            for name, answer in ANSWERS.items()
        ],
        apply_default_css=False, elem_id="results", session=None, seconds=studio.seconds_between_looks,
    )  # fmt: skip
    look.attach(attaching(studio, show_look, "viewer"), session, look, queue=False, show_progress="hidden")
    return look


def show_look(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session))
