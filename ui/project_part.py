"""At the foot of the page, folded: the whole project as one zip to take away, such a zip to open, and diagnostics to copy.

One gr.HTML component (project.js). Packing and unpacking run in a thread and wait for no device: a machine that is about to be
taken away must not first finish its training. What is read and written: `dpo.bundle`.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from functools import partial

import gradio as gr

from dpo.bundle import IMAGES, BundleError, Unpacked, pack, take_over, unpack
from dpo.bundle.said import is_empty
from dpo.diagnostics import diagnose
from dpo.intake import safe_name
from dpo.runs import list_runs, suggest_run_name
from ui.dataset_jobs import Task, Tasks, describe_task
from ui.downloads import packed_folder, project_url
from ui.parts import read_files
from ui.session import Session, Studio, page_session, serve
from ui.uploads import uploaded_file
from ui.words import count

IMAGE_WORDS = {"used": "The images they are about", "all": "All images", "none": "No images"}
_OPTIONS = "".join(f'<option value="{kind}">{IMAGE_WORDS[kind]}</option>' for kind in IMAGES)
TEMPLATE = f"""
<details class="project">
  <summary>This project</summary>
  <div class="ways">
    <form class="pack">
      <h4>Take everything with you</h4>
      <p class="help">One zip with picks, votes, runs, adapters and exports. No password, cache or model is in it.</p>
      <div class="row">
        <select class="images" aria-label="Images">{_OPTIONS}</select>
        <label><input type="checkbox" class="checkpoints"> Checkpoints, to resume runs</label>
        <button type="submit" class="while-idle">Make the zip</button>
      </div>
    </form>
    <div class="open">
      <h4>Open such a zip</h4>
      <p class="help where"></p>
      <div class="row"><button type="button" class="choose while-idle">Choose a zip</button>
        <input type="file" class="file" accept=".zip" hidden aria-label="A project to upload"></div>
    </div>
    <div class="tell">
      <h4>Something went wrong?</h4>
      <p class="help">Versions, device, the last run's settings, the last errors. No names, passwords, prompts or folders.</p>
      <div class="row"><button type="button" class="copy">Copy diagnostics</button>
        <span class="copied" role="status"></span></div>
      <textarea class="text" readonly hidden rows="12" spellcheck="false" aria-label="Diagnostics"></textarea>
    </div>
  </div>
  <p class="problem error" role="alert"></p>
  <div class="task" hidden>
    <p class="sentence" role="status"></p><i class="bar"><b></b></i><p class="error" role="alert"></p>
    <div class="row"><button type="button" class="stop-task" hidden>Stop</button><a class="download" hidden></a></div>
  </div>
</details>
"""


class ProjectPart:
    """What one process does with its project as a whole."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.tasks = Tasks()


def create_project_part(studio: Studio, session: gr.State) -> gr.HTML:
    part = ProjectPart(studio)
    shown = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("project.css"),
        js_on_load=read_files("elements.js", "asking.js", "tasks.js", "project.js"),
        server_functions=[
            serve(studio, name, lambda view, payload, answer=answer: answer(part, payload)) for name, answer in ANSWERS.items()
        ],
        apply_default_css=False, elem_id="this-project", session=None,
    )  # fmt: skip
    shown.attach(lambda current: _attach(studio, current), session, shown, queue=False, show_progress="hidden")
    return shown


def _attach(studio: Studio, session: Session) -> dict:
    return gr.HTML(session=page_session(studio, session))


def project_standing(part: ProjectPart, payload: dict) -> dict:
    """How the last task is doing, and where a zip would be opened."""
    task, project = part.tasks.current, part.studio.project
    here = is_empty(project) and not list_runs(project.runs)
    where = "It becomes part of this project, which is empty." if here else (
        f"This project has picks or runs, so it becomes a folder beside it, in {project.path.parent}."
    )  # fmt: skip
    shown = describe_task(task, packed_folder(part.studio), partial(project_url, part.studio)) if task else None
    return {"task": shown, "where": where}


def begin_pack(part: ProjectPart, payload: dict) -> dict:
    """`images`: one of IMAGES; `checkpoints`: whether those of runs come along."""
    project, images, checkpoints = part.studio.project, str(payload.get("images")), payload.get("checkpoints") is True
    if images not in IMAGES:
        raise BundleError(f"images={images!r} is not known. Choose one of {', '.join(IMAGES)}.")

    def work(task: Task) -> None:
        folder = packed_folder(part.studio)
        shutil.rmtree(folder, ignore_errors=True)  # one is enough: they are as large as the project
        name = f"{safe_name(project.path.name, 60)} {datetime.now():%Y-%m-%d %H.%M}.zip"
        packed = pack(project, folder / name, images, checkpoints, task.report)
        task.archive = packed.file.name
        left = f" {count(len(packed.left), 'file')} went away meanwhile." if packed.left else ""
        task.sentence = f"{count(packed.files, 'file')} packed.{left}"

    part.tasks.start("zip", "Packing the project", work)
    return project_standing(part, payload)


def begin_unpack(part: ProjectPart, payload: dict) -> dict:
    """`upload`: the zip that was sent here."""
    sent, project = uploaded_file(str(payload.get("upload"))), part.studio.project
    check = partial(part.studio.check_place, is_model=True)

    def work(task: Task) -> None:
        try:
            if is_empty(project) and not list_runs(project.runs):
                found = take_over(project, sent, check, task.report)
                task.sentence = f"{_found(found)} Load the page anew to see it."
            else:
                parent = project.path.parent
                folder = parent / suggest_run_name(parent, safe_name(sent.stem, 60))
                found = unpack(sent, folder, check, task.report)
                task.sentence = f"{_found(found)} It is in {folder}: start the app with --project and that folder."
        finally:
            sent.unlink(missing_ok=True)

    part.tasks.start("opening of the zip", "Opening the zip", work)
    return project_standing(part, payload)


def stop_project_task(part: ProjectPart, payload: dict) -> dict:
    """Nothing half-written is left."""
    if part.tasks.current:
        part.tasks.current.stop.set()
    return project_standing(part, payload)


def tell_diagnostics(part: ProjectPart, payload: dict) -> dict:
    return {"text": diagnose(part.studio.project, part.studio.jobs)}


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "project_standing": project_standing, "begin_pack": begin_pack, "begin_unpack": begin_unpack,
    "stop_project_task": stop_project_task, "tell_diagnostics": tell_diagnostics,
}  # fmt: skip


def _found(found: Unpacked) -> str:
    gone = f" The images of {count(found.gone, 'pair')} did not come along." if found.gone else ""
    return f"{count(found.pairs, 'pair')} and {count(found.runs, 'run')} unpacked.{gone}"
