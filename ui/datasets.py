"""Data sets to and from other programs: export, import, and the live folder that receives every pair as it is picked.

One gr.HTML component (datasets.js) under the review's sheet. What takes long runs in a thread (dataset_jobs.py) and the page
asks how it is doing; a reload sees the same. Files are read and written by `dpo.exchange`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import gradio as gr

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.exchange import EXPORT_KINDS, ImportReport, LiveFolder, export_dataset, import_dataset, new_export_folder
from ui.dataset_jobs import LiveKeeper, Task, Tasks, adopt, describe_task, keep_upload, pack
from ui.downloads import export_url
from ui.parts import read_files
from ui.session import Session, Studio, attaching, limit, page_session, serve
from ui.uploads import uploaded_file
from ui.words import count

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
MOST_ROWS = 1_000_000  # of a data set on the hub
MOST_LEFT = 200  # lines of what an import did not take, shown in the page
KIND_WORDS = {
    "onetrainer": "OneTrainer: chosen and rejected folders",
    "onetrainer_concepts": "OneTrainer: four concepts",
    "onetrainer_pattern": "OneTrainer: one folder, by pattern",
    "csv": "CSV",
    "jsonl": "JSONL",
    "rankings": "Rankings, as JSONL",
    "parquet": "Parquet, as Pick-a-Pic",
}
SHARE = next(entry for entry in fields(TrainConfig) if entry.name == "validation_share").metadata
_SHARE_FIELD = (
    f'<label title="{html.escape(SHARE["help"])}">{SHARE["label"]} <input type="number" class="share" min="{SHARE["min"]}" '
    f'max="{SHARE["max"]}" step="0.01" value="{TrainConfig().validation_share}"></label>'
)
_OPTIONS = "".join(f'<option value="{kind}">{words}</option>' for kind, words in KIND_WORDS.items())
TEMPLATE = f"""
<section class="datasets" aria-label="Export, import and live folder">
  <div class="heads">
    <button type="button" data-panel="export" aria-expanded="false">Export</button>
    <button type="button" data-panel="import" aria-expanded="false">Import</button>
    <button type="button" data-panel="live" aria-expanded="false">Live folder</button>
    <span class="live-line" role="status"></span>
  </div>
  <form class="panel export" hidden>
    <label>Format <select class="kind" aria-label="Format">{_OPTIONS}</select></label>
    {_SHARE_FIELD}
    <button type="submit" class="while-idle">Export</button>
    <p class="help">Files are copied, never moved; a card says what is in it. Both sides of the split come along, as folders or as
      a column.</p>
  </form>
  <form class="panel import" hidden>
    <input type="text" class="path" aria-label="What to import" spellcheck="false"
      placeholder="A folder, a CSV, JSONL or parquet file, or owner/name on the hub">
    <label class="rows" hidden>Rows <input type="number" min="1" step="1" value="500"></label>
    <button type="submit" class="while-idle">Import</button>
    <button type="button" class="choose quiet while-idle">Choose a file</button>
    <input type="file" class="file" accept=".zip,.csv,.jsonl,.json,.parquet" hidden aria-label="A data set to upload">
    <p class="help">Folders exported by this program or by OneTrainer, tables with prompt, chosen and rejected, Pick-a-Pic, and
      rankings. What comes in is reviewed here, under its own source.</p>
  </form>
  <form class="panel live" hidden>
    <input type="text" class="path" aria-label="Live folder" spellcheck="false"
      placeholder="An empty folder, or one made here before">
    <button type="submit" class="while-idle">Keep it up to date</button>
    <button type="button" class="stop-live quiet" hidden>Stop</button>
    <p class="help">Each pair is put there as it is picked, and taken away when it is undone; other trainers can read it at any
      time. <span class="why-left bad"></span></p>
    <div class="finalise" hidden>{_SHARE_FIELD} <button type="button" class="finalise-live while-idle">Finalise</button>
      <p class="help">Writes the split and concepts.json. Picking can go on afterwards.</p></div>
  </form>
  <p class="problem error" role="alert"></p>
  <div class="task" hidden>
    <p class="sentence" role="status"></p><i class="bar"><b></b></i><p class="error" role="alert"></p>
    <button type="button" class="stop-task quiet" hidden>Stop</button>
    <a class="download" hidden></a>
    <details class="left" hidden><summary></summary><table><tbody></tbody></table></details>
  </div>
</section>
"""


class Datasets:
    """What one process does with data sets. `live.wake` is for every look of a page: the live folder follows the picks."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.tasks = Tasks()
        self.live = LiveKeeper(studio.project)


def create_datasets(datasets: Datasets, session: gr.State) -> gr.HTML:
    part = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("datasets.css"),
        js_on_load=read_files("elements.js", "asking.js", "tasks.js", "datasets.js"),
        server_functions=[
            serve(datasets.studio, name, lambda view, payload, answer=answer: answer(datasets, payload))
            for name, answer in ANSWERS.items()
        ],
        apply_default_css=False, elem_id="datasets", session=None, revision=None,
    )  # fmt: skip
    part.attach(attaching(datasets.studio, show_datasets, "viewer"), session, part, queue=False, show_progress="hidden")
    return part


def show_datasets(studio: Studio, session: Session) -> dict:
    """Nothing for anybody but the owner: without a session the part is silent."""
    if not session.is_owner:
        return gr.skip()
    return gr.HTML(session=page_session(studio, session), revision=studio.project.picks.revision())


def tell(datasets: Datasets, payload: dict) -> dict:
    """How everything stands: the last task, and the live folder."""
    task, live, project = datasets.tasks.current, datasets.live, datasets.studio.project
    live.wake()
    return {
        "task": _describe_task(datasets.studio, task) if task else None,
        "live": {
            "folder": project.picks.rules().live_folder, "pairs": live.pairs, "error": live.error,
            "left": list(live.left[:1]), "all_left": len(live.left), "is_up_to_date": live.is_up_to_date,
        },
    }  # fmt: skip


def begin_export(datasets: Datasets, payload: dict) -> dict:
    """`kind`: one of EXPORT_KINDS; `share`: of prompts that are kept for validation."""
    project, kind, share = datasets.studio.project, str(payload.get("kind")), _share(payload)
    if kind not in EXPORT_KINDS:
        raise StudioError(f"kind={kind!r} is not known. Choose one of: {', '.join(EXPORT_KINDS)}.")
    pairs, rankings = project.picks.pairs(), project.picks.rankings()

    def work(task: Task) -> None:
        folder = new_export_folder(project.exports)
        export_dataset(pairs, folder, kind, share, task.report, rankings)
        archive = pack(folder)
        task.archive = archive.name
        task.sentence = f"{count(len(pairs), 'pair')} exported to {folder}."

    datasets.tasks.start("export", f"Exporting {count(len(pairs), 'pair')}", work)
    return tell(datasets, payload)


def begin_import(datasets: Datasets, payload: dict) -> dict:
    """`path`: a folder, a file, or OWNER/NAME on the hub, of which the first `rows` are read; or `upload`: a file sent here."""
    studio, path = datasets.studio, str(payload.get("path") or "").strip()
    upload = uploaded_file(str(payload["upload"])) if payload.get("upload") else None
    if not upload and not path:
        raise StudioError("Nothing was named to import. Write a folder, a file, or OWNER/NAME on the hub; or choose a file.")
    is_hub = not upload and HUB_NAME.fullmatch(path) is not None and not Path(path).expanduser().exists()
    if not upload and not is_hub:
        studio.check_place(path, is_model=False)
    rows = limit(payload.get("rows"), MOST_ROWS)
    check = partial(studio.check_place, is_model=False)  # also for what a table names

    def work(task: Task) -> None:
        if upload:
            place, left = keep_upload(studio.project, upload)
            report = import_dataset(studio.project, place, report=task.report, check=check)
            _show(task, report, left)
        elif is_hub:
            _show(task, import_dataset(studio.project, path, kind="hub", report=task.report, limit=rows, check=check))
        else:
            _show(task, import_dataset(studio.project, path, report=task.report, check=check))

    datasets.tasks.start("import", f"Importing {upload.name if upload else path}", work)
    return tell(datasets, payload)


def keep_live(datasets: Datasets, payload: dict) -> dict:
    """Choose the live folder; "" stops it. What a manifest there says is imported first, so that done groups stay done."""
    studio, folder = datasets.studio, str(payload.get("folder") or "").strip()
    project = studio.project
    if not folder:
        project.picks.set_rules(replace(project.picks.rules(), live_folder=""))
        return tell(datasets, payload)
    studio.check_place(folder, is_model=False)
    place = Path(folder).expanduser().resolve()

    def work(task: Task) -> None:
        report = adopt(project, place, task.report, partial(studio.check_place, is_model=False))
        if report:
            _show(task, report)
        project.picks.set_rules(replace(project.picks.rules(), live_folder=str(place)))
        datasets.live.retry()

    datasets.tasks.start("live folder", f"Reading {place}", work)
    return tell(datasets, payload)


def finalise_live(datasets: Datasets, payload: dict) -> dict:
    """Write the split and concepts.json of the live folder, as it is now."""
    project, share = datasets.studio.project, _share(payload)
    folder = project.picks.rules().live_folder
    if not folder:
        raise StudioError("There is no live folder to finalise. Choose one first.")

    def work(task: Task) -> None:
        live = LiveFolder(Path(folder))
        live.bring_up_to_date(project.picks.picked_pairs())
        live.finalise(share)
        task.sentence = f"{folder} is finalised: its split and concepts.json are written."

    datasets.tasks.start("finalise", f"Finalising {folder}", work)
    return tell(datasets, payload)


def stop_task(datasets: Datasets, payload: dict) -> dict:
    """Stop what runs, at its next file."""
    if datasets.tasks.current:
        datasets.tasks.current.stop.set()
    return tell(datasets, payload)


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "tell": tell, "begin_export": begin_export, "begin_import": begin_import, "keep_live": keep_live,
    "finalise_live": finalise_live, "stop_task": stop_task,
}  # fmt: skip


def _show(task: Task, report: ImportReport, left: Sequence[tuple[str, str]] = ()) -> None:
    task.left = (*left, *((row.where, row.reason) for row in report.left))
    task.sentence = report.sentence


def _share(payload: dict) -> float:
    """Raises ConfigError for a share that training would not take either: one parameter, one rule."""
    share = payload.get("share")
    return TrainConfig(validation_share=float(share) if isinstance(share, int | float) else share).validation_share


def _describe_task(studio: Studio, task: Task) -> dict:
    described = describe_task(task, studio.project.exports, partial(export_url, studio))
    return described | {"left": [list(line) for line in task.left[:MOST_LEFT]], "all_left": len(task.left)}
