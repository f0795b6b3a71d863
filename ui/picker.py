"""The picker: one gr.HTML component whose page side (picker*.js) keeps the next screens ready and its picks safe.

A key press paints from the page's own queue; `sync` then stores the operations and hands out further screens. A page
proves itself with a token signed for its project and all of its view; one that is not good any more makes it ask for
another (`attach`). Text out of images travels as data and is shown as text content, never by a template.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import gradio as gr

from dpo.groups import MODES
from ui.parts import read_files
from ui.picker_answers import LONGEST_NAME, answer_page
from ui.rights import open_to
from ui.session import Session, Studio, attaching, page_session, serve

SCRIPTS = (
    "storage.js", "picker_sync.js", "picker_picks.js", "picker_stage.js", "picker.js", "picker_zoom.js", "picker_keys.js",
    "picker_menu.js",
)  # fmt: skip

TEMPLATE = f"""
<section class="picker" data-state="waiting" tabindex="-1" aria-label="Pick images">
  <header>
    <button type="button" class="prompt" aria-expanded="false" title="Show the whole prompt" hidden><span></span></button>
    <form class="who" hidden>
      <input type="text" maxlength="{LONGEST_NAME}" placeholder="Your name" aria-label="Your name, kept with your picks"
        autocomplete="nickname" spellcheck="false">
      <button type="submit" aria-label="Keep this name" title="Keep this name">&#10003;</button>
      <button type="button" class="later">not now</button>
    </form>
    <div class="modes" role="group" aria-label="How to pick">
      <button type="button" data-mode="best_worst" aria-pressed="true">Best/worst</button>
      <button type="button" data-mode="duel" aria-pressed="false">Duel</button>
      <button type="button" data-mode="triage" aria-pressed="false">Triage</button>
    </div>
    <button type="button" class="open-options" aria-expanded="false">Options</button>
  </header>
  <div class="middle">
    <div class="details" hidden><p class="whole"></p><p class="facts"></p></div>
    <div class="stage"><p class="empty"></p><i class="flash"></i></div>
  </div>
  <div class="progress" aria-hidden="true"><i></i></div>
  <div class="foot">
    <p class="status" role="status"><span class="asking"></span> <span class="likely"></span> <span class="count"></span></p>
    <p class="saved"></p>
    <p class="said" role="status"></p>
    <p class="notice" role="alert"></p>
    <div class="offer" role="status" hidden>
      <span class="words"></span>
      <button type="button" data-do="continue"><kbd>C</kbd> continue with it</button>
      <button type="button" data-do="move_on"><kbd>Enter</kbd> move on</button>
      <button type="button" data-do="undo"><kbd>Z</kbd> take the pick back</button>
    </div>
    <div class="keys">
      <span class="hint for-grid"><kbd>1</kbd>&ndash;<kbd>9</kbd> best, worst</span>
      <span class="hint for-duel"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> better</span>
      <button type="button" class="for-duel" data-do="tie"><kbd>&uarr;</kbd> tie</button>
      <button type="button" class="for-duel" data-do="both_bad"><kbd>B</kbd> both bad</button>
      <button type="button" class="for-triage" data-do="bad"><kbd>&larr;</kbd> bad</button>
      <button type="button" class="for-triage" data-do="good"><kbd>&rarr;</kbd> good</button>
      <button type="button" class="for-duel for-triage" data-do="skip"><kbd>&darr;</kbd> skip</button>
      <button type="button" class="for-grid" data-do="skip_group"><kbd>S</kbd> skip</button>
      <button type="button" data-do="undo"><kbd>Z</kbd> undo</button>
      <button type="button" data-do="zoom"><kbd>Space</kbd> zoom</button>
      <button type="button" data-do="help"><kbd>?</kbd> keys</button>
    </div>
  </div>
  <div class="zoom" hidden><div class="large"></div><div class="foot"><p></p><button type="button">Close</button></div></div>
  <div class="help" role="region" aria-label="Keys" hidden>
    <dl>
      <dt><kbd>1</kbd> to <kbd>9</kbd></dt><dd>best/worst: best, then worst; again: take the mark off</dd>
      <dt><kbd>&larr;</kbd> <kbd>&rarr;</kbd></dt><dd>duel: the left or the right image is better</dd>
      <dt><kbd>Shift</kbd> <kbd>&larr;</kbd> <kbd>&rarr;</kbd></dt><dd>duel: it is clearly better; or hold the arrow</dd>
      <dt><kbd>&uarr;</kbd></dt><dd><button type="button" data-do="tie">duel: a tie</button></dd>
      <dt><kbd>B</kbd></dt><dd><button type="button" data-do="both_bad">duel: both are bad</button></dd>
      <dt><kbd>F</kbd></dt><dd><button type="button" class="lay">duel: hold it to lay the right image over the left</button></dd>
      <dt><kbd>&rarr;</kbd> <kbd>G</kbd></dt><dd><button type="button" data-do="good">triage: good</button></dd>
      <dt><kbd>&larr;</kbd> <kbd>X</kbd></dt><dd><button type="button" data-do="bad">triage: bad</button></dd>
      <dt><kbd>&darr;</kbd></dt><dd><button type="button" data-do="skip">duel, triage: skip this one</button></dd>
      <dt><kbd>S</kbd></dt><dd><button type="button" data-do="skip_group">skip the group</button></dd>
      <dt><kbd>C</kbd></dt><dd><button type="button" data-do="continue">continue with the group just answered</button></dd>
      <dt><kbd>Enter</kbd></dt><dd><button type="button" data-do="move_on">move on</button></dd>
      <dt><kbd>Z</kbd></dt><dd><button type="button" data-do="undo">undo, as often as you like</button></dd>
      <dt><kbd>Space</kbd></dt><dd>zoom; hold it, or press it again to close; arrows flip</dd>
      <dt><kbd>Esc</kbd></dt><dd>close, cancel</dd>
      <dt><kbd>?</kbd></dt><dd>these keys</dd>
    </dl>
  </div>
  <div class="options" role="dialog" aria-label="Options" hidden>
    <label><span>Pairs per prompt</span><input type="number" name="pairs_per_group" min="1" max="8" step="1" value="1"></label>
    <p>Images used in a pair are not shown again.</p>
    <label><span>Next duel</span><select name="pairing">
      <option value="top_two">Top two (recommended)</option>
      <option value="elo">Elo</option>
      <option value="swiss">Swiss</option>
    </select></label>
    <p class="pairing-help"></p>
    <label class="switch"><input type="checkbox" name="agreement"><span>Second opinions</span></label>
    <p>One prompt in ten goes to a second person too, to see how far people agree. <span class="agreement"></span></p>
    <label class="switch"><input type="checkbox" name="shortcuts" checked><span>Single-key shortcuts</span></label>
    <p>Without them: click, or Tab and Enter.</p>
    <label class="name"><span>Your name</span><input type="text" name="rater" maxlength="{LONGEST_NAME}" autocomplete="nickname"
      spellcheck="false"></label>
    <p class="name">Kept with your picks, in this browser.</p>
    <p class="problem" role="alert"></p>
  </div>
</section>
"""


def create_picker(studio: Studio, session: gr.State) -> gr.HTML:
    """The component. Its prop `session` (see `page_session`) says what to pick from; it sets the session's mode."""

    picker = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("picker.css"),
        js_on_load=read_files(*SCRIPTS),
        server_functions=[serve(studio, "sync", partial(answer_page, studio), role="rater")], apply_default_css=False,
        elem_id="picker", session=None,
    )  # fmt: skip

    @open_to("rater")
    def switch_mode(current: Session, event: gr.EventData) -> Session:
        return replace(current, mode=event.mode) if event.mode in MODES else current

    picker.attach(attaching(studio, show_picker, "rater"), session, picker, queue=False, show_progress="hidden")
    # Through the queue: Gradio notices a changed state, which the browser has to remember, only there.
    picker.switch_mode(switch_mode, session, session, show_progress="hidden")
    return picker


def show_picker(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session))
