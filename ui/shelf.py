"""The shelf: one gr.HTML component that lists the groups of a folder, opens one, and says what was left out and why.

Its page side is shelf*.js: a list of 50,000 groups of which only what is in sight exists, asked for a page at a time. What
it asks is answered in shelf_answers.py. As in the picker, a page proves itself with a token signed for its folder, and text
out of images travels as data and is shown as text content, never by a template.
"""

from __future__ import annotations

from functools import partial

import gradio as gr

from ui.parts import read_files
from ui.rights import least_role
from ui.session import SORTS, Session, Studio, attaching, page_session, serve
from ui.shelf_answers import ANSWERS

SCRIPTS = ("elements.js", "asking.js", "shelf_list.js", "shelf_pane.js", "shelf_upload.js", "shelf.js")

OPTIONS = {
    "ignore_loras": "Ignore LoRA tags",
    "ignore_case": "Ignore upper and lower case",
    "same_model": "Only images of one model",
    "same_seed": "Only images of one seed",
    "unsure": "Only what scorers are unsure of",
}
TEMPLATE = f"""
<section class="shelf" data-state="waiting" aria-label="Groups of images">
  <input class="file-input" type="file" multiple hidden aria-label="Files to upload">
  <div class="sending" role="status" hidden><p></p><i class="bar"><b></b></i></div>
  <p class="problem" role="alert"></p>
  <div class="teach">
    <p>Put in the folder your images are in and press Scan, or drop images or a zip anywhere on this page.</p>
    <p>Several images of each prompt make a group; you pick the best and the worst of it. Prompts are read from the files.</p>
  </div>
  <div class="tools">
    <input type="search" class="search" placeholder="Search the prompts" aria-label="Search the prompts" autocomplete="off"
      spellcheck="false">
    <select data-filter="generator" data-any="Any generator" aria-label="Generator"></select>
    <select data-filter="model" data-any="Any model" aria-label="Model"></select>
    <select data-filter="size" data-any="Any size" aria-label="Size in pixels"></select>
    <details class="dates"><summary>Any date</summary><div>
      <label>From <input type="date" data-filter="since"></label>
      <label>To <input type="date" data-filter="until"></label>
    </div></details>
    <details class="grouping"><summary>Grouping</summary><div>
      {"".join(f'<label><input type="checkbox" data-option="{name}"> {text}</label>' for name, text in OPTIONS.items())}
    </div></details>
    <select class="order" aria-label="Order">
      {"".join(f'<option value="{name}">{text}</option>' for name, text in SORTS.items())}
    </select>
  </div>
  <div class="counts">
    <div class="amount"><span role="status"></span><button type="button" hidden>Clear the filters</button></div>
    <div class="reasons" hidden></div>
  </div>
  <div class="stand-ins" hidden>
    <span>Take a missing prompt from:</span>
    <label><input type="checkbox" data-stand-in="sidecar"> a .txt or .json beside the image</label>
    <label><input type="checkbox" data-stand-in="folder_name"> the folder's name</label>
    <label><input type="checkbox" data-stand-in="pixels"> text hidden in the pixels (slow)</label>
    <label><input type="checkbox" data-stand-in="table"> a table (CSV: file, prompt)</label>
    <input type="text" class="table-path" placeholder="prompts.csv in the folder" aria-label="The table's file"
      spellcheck="false">
    <button type="button" class="table-button">Choose a file</button>
    <input class="table-file" type="file" accept=".csv,.tsv,.txt" hidden aria-label="A table to upload">
  </div>
  <div class="body">
    <div class="list" role="listbox" tabindex="0" aria-label="Groups"><div class="space"></div><p class="nothing"></p></div>
    <aside class="pane" hidden aria-label="What is open"></aside>
  </div>
  <div class="drop" hidden><p>Drop images, a folder or a zip</p></div>
</section>
"""


def create_shelf(studio: Studio, session: gr.State) -> gr.HTML:
    """The component; give it what `show_shelf` returns whenever the index or the picks changed.

    Its events, for the tab to wire: `narrow` {view, sort}: what is chosen was changed. `pick_group` {key}: pick that group
    next. `take_in` {files, refused}: files were uploaded.
    """
    shelf = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("shelf.css"),
        js_on_load=read_files(*SCRIPTS),
        server_functions=[serve(studio, name, partial(answer, studio), least_role(answer)) for name, answer in ANSWERS.items()],
        apply_default_css=False, elem_id="shelf", session=None, revision=None, skipped=[],
    )  # fmt: skip
    shelf.attach(attaching(studio, show_shelf, "viewer"), session, shelf, queue=False, show_progress="hidden")
    return shelf


def show_shelf(studio: Studio, session: Session) -> dict:
    upload = studio.uploads.current
    skipped = [list(entry) for entry in upload.skipped] if upload else []
    revision = [studio.project.library.revision(), studio.project.picks.revision()]
    return gr.HTML(session=page_session(studio, session), revision=revision, skipped=skipped)
