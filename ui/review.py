"""The review: a contact sheet of all pairs, chosen left, rejected right, with what is wrong with them above it.

One gr.HTML component. Its page side is review*.js: a sheet of 20,000 pairs of which only what is in sight exists, asked for
a page at a time; what it asks is answered in review_answers.py. As in the picker, text out of images travels as data and is
shown as text content, and pages prove themselves with a token.
"""

from __future__ import annotations

import gradio as gr

from ui.parts import read_files
from ui.review_answers import ANSWERS, Checkup, revision_of
from ui.rights import least_role
from ui.session import Session, Studio, attaching, page_session, serve

SCRIPTS = ("elements.js", "asking.js", "review_ask.js", "review_sheet.js", "review_card.js", "review.js")

TEMPLATE = """
<section class="review" data-state="waiting" aria-label="Pairs">
  <p class="problem" role="alert"></p>
  <p class="teach">No pairs yet. Every best and worst you pick becomes one, and so does every group of duels once it is sure.</p>
  <div class="health" aria-label="Health of the pairs"><ol></ol><p class="about"></p></div>
  <div class="gone" hidden>
    <p></p>
    <form>
      <input type="text" placeholder="The folder they are in now" aria-label="The folder they are in now" spellcheck="false">
      <button type="submit">Look there</button>
      <button type="button" class="show-gone quiet">Show them</button>
      <button type="button" class="remove-gone quiet">Remove them</button>
    </form>
  </div>
  <div class="tools">
    <input type="search" class="search" placeholder="Search the prompts" aria-label="Search the prompts" autocomplete="off"
      spellcheck="false">
    <select data-filter="source" data-any="Any source" aria-label="Source"></select>
    <select data-filter="rater" data-any="Any rater" aria-label="Rater"></select>
    <select data-filter="split" data-any="Training and validation" aria-label="Training or validation"></select>
    <select data-filter="state" data-any="All but deleted" aria-label="State"></select>
    <select data-filter="order" aria-label="Order"></select>
  </div>
  <div class="line">
    <span class="amount" role="status"></span>
    <button type="button" class="clear quiet" hidden>Show all</button>
    <span class="said" role="status"></span>
    <button type="button" class="undo quiet" hidden>Undo</button>
    <span class="hint"><kbd>Enter</kbd> large <kbd>K</kbd> keep <kbd>S</kbd> swap <kbd>Del</kbd> delete <kbd>Z</kbd> undo</span>
  </div>
  <div class="sheet" tabindex="-1"><div class="space" role="list" aria-label="Pairs"></div><p class="nothing"></p></div>
  <div class="large" role="dialog" aria-label="A pair, large" tabindex="-1" hidden>
    <div class="both"></div>
    <div class="below"><p class="whole"></p><p class="about"></p>
      <p><button type="button" data-do="keep"><kbd>K</kbd> keep</button>
        <button type="button" data-do="swap"><kbd>S</kbd> swap</button>
        <button type="button" data-do="drop"><kbd>Del</kbd> <span>delete</span></button>
        <button type="button" data-do="close"><kbd>Esc</kbd> close</button></p></div>
  </div>
</section>
"""


def create_review(studio: Studio, session: gr.State) -> gr.HTML:
    """The component. Give it what `show_review` returns whenever picks or files changed: it loads what is seen.

    Its event `pick_group` {key}, for the tab to wire: a group was opened again, to be picked next.
    """
    checkup = Checkup()
    review = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("review.css"),
        js_on_load=read_files(*SCRIPTS),
        server_functions=[
            serve(studio, name, lambda view, payload, answer=answer: answer(studio, checkup, payload), least_role(answer))
            for name, answer in ANSWERS.items()
        ],
        apply_default_css=False, elem_id="review", session=None, revision=None,
    )  # fmt: skip
    review.attach(attaching(studio, show_review, "viewer"), session, review, queue=False, show_progress="hidden")
    return review


def show_review(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session), revision=list(revision_of(studio)))
