"""The Pairs tab: 1 Images (scan a folder), 2 Pick, 3 Review; then on to Train. Finished steps fold to a line.

A scan runs in a thread of the project's library; the page looks at it once a second, so a reload or a second page sees
the same scan.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from dpo import StudioError
from dpo.exchange import export_csv, export_onetrainer, new_export_folder
from dpo.library import FolderSummary, Scan, resolve_folder
from dpo.runs import MINIMUM_PAIRS
from ui.parts import report_part, text_part
from ui.picker import create_picker, page_session
from ui.review import create_review, show_review
from ui.session import Session, Studio
from ui.words import count, duration

MOST_PROBLEMS = 500  # rows of the table of files that are left out
SHORT_SCAN = 10.0  # seconds; one that ends sooner is worth waiting for, as groups still grow while it runs
FOLDER_HELP = "The folder your generated images are in. Prompts are read from the files; nothing in it is changed."


class PairsTab(NamedTuple):
    """As `Tab`, and `next`: the button that leads to Train, for the page to wire."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    next: gr.Button


def create_pairs_tab(studio: Studio, session: gr.State) -> PairsTab:
    project = studio.project
    with gr.Accordion("1 Images", open=True, elem_classes="step") as images_step:
        with gr.Row(elem_classes="folder-row", equal_height=True):
            folder = gr.Textbox(
                folder_of(studio, Session()), placeholder="Folder of generated images", show_label=False, container=False,
                max_lines=1, scale=1, elem_id="folder",
            )  # fmt: skip
            scan = gr.Button("Scan", variant="primary", size="md", scale=0, min_width=110, elem_id="scan")
            stop = gr.Button("Stop", visible=False, size="md", scale=0, min_width=110, elem_id="stop-scan")
        text_part(FOLDER_HELP, elem_id="folder-help")
        refusal = text_part(tone="bad", elem_id="folder-refused")
        problem = text_part(tone="bad", elem_id="folder-problem")
        progress = report_part("scan-progress")
        table = gr.Dataframe(
            headers=["File", "Why it is left out"], datatype="str", column_widths=["30%", "70%"], wrap=True, max_height=320,
            interactive=False, visible=False, show_label=False, elem_id="left-out",
        )  # fmt: skip
    picker = create_picker(studio, session)
    with gr.Accordion("3 Review", open=False, elem_classes="step", elem_id="review-step") as review_step:
        review = create_review(studio, session)
        with gr.Row(elem_classes="actions"):
            onetrainer = gr.Button("Export for OneTrainer", size="sm", elem_id="export-onetrainer")
            table_export = gr.Button("Export as CSV", size="sm", elem_id="export-csv")
            download = gr.DownloadButton("Download", visible=False, size="sm", elem_id="download-export")
        exported = text_part(elem_id="exported")
    with gr.Row(elem_classes="next-row", equal_height=True):
        next_step = gr.Button("Train", interactive=False, scale=0, min_width=200, elem_id="to-train")
        reason = text_part(elem_id="next-reason")
    seen = gr.State(())
    scan_outputs = [picker, images_step, scan, stop, problem, progress, table]
    pick_outputs = [review_step, review, reason, next_step]

    def refresh(current: Session) -> tuple:
        """Everything of the tab, for a page that was just loaded or a tab that was just opened."""
        picks = _show_picks(studio, current)
        return (_revision(studio), _show_picker(studio, current), *_show_scan(studio, current), *picks)

    def look(current: Session, known: tuple) -> tuple:
        """What changed since the page last looked."""
        revision = _revision(studio)
        scan_is_known, picks_are_known = known[:1] == revision[:1], known[1:] == revision[1:]
        if scan_is_known and picks_are_known:
            return (gr.skip(),) * (1 + len(scan_outputs) + len(pick_outputs))
        if scan_is_known:
            scan_updates = (gr.skip(),) * len(scan_outputs)
        else:
            # While a scan runs the picker goes on with what it has; the end of the scan brings the rest.
            is_over = revision[0][-1]
            scan_updates = (_show_picker(studio, current) if is_over else gr.skip(), *_show_scan(studio, current))
        return (revision, *scan_updates, *_show_picks(studio, current))

    def start_scan(current: Session, wanted: str) -> tuple:
        try:
            studio.check_place(wanted, is_model=False)
            current = replace(current, folder=resolve_folder(wanted))
            project.library.start_scan(current.folder)
        except StudioError as error:  # what was typed stays, and the reason stands under it
            return gr.HTML(text=str(error)), gr.skip(), *(gr.skip(),) * len(scan_outputs)
        return gr.HTML(text=""), current, _show_picker(studio, current), *_show_scan(studio, current)

    def stop_scan() -> None:
        running = project.library.current_scan()
        if running:
            running.stop.set()

    for event in (scan.click, folder.submit):
        event(start_scan, [session, folder], [refusal, session, *scan_outputs], show_progress="hidden")
    stop.click(stop_scan, queue=False, show_progress="hidden")
    onetrainer.click(lambda: export(studio, "onetrainer"), None, [download, exported], show_progress="hidden")
    table_export.click(lambda: export(studio, "csv"), None, [download, exported], show_progress="hidden")
    gr.Timer(studio.seconds_between_looks).tick(
        look, [session, seen], [seen, *scan_outputs, *pick_outputs], queue=False, show_progress="hidden"
    )
    # Not part of `refresh`: going to another tab and back keeps what was typed.
    session.change(lambda current: folder_of(studio, current), session, folder, show_progress="hidden")
    return PairsTab(refresh, [seen, *scan_outputs, *pick_outputs], next_step)


def folder_of(studio: Studio, session: Session) -> str:
    """The folder this page picks from: its own choice, or the project's candidates."""
    return session.folder or str(studio.project.path / "candidates")


def summary_line(summary: FolderSummary) -> str:
    """One line for a scanned folder: "360 images, 60 prompts, 3 without a prompt: why?"."""
    line = f"{count(summary.images, 'image')}, {count(summary.prompts, 'prompt')}"
    left_out = summary.without_prompt + summary.unreadable + summary.alone
    if not left_out:
        return line
    return f"{line}, {left_out:,} {'without a prompt' if left_out == summary.without_prompt else 'left out'}: why?"


def useless_folder(folder: str, summary: FolderSummary) -> str:
    """Why nothing can be picked from a scanned folder, and what to do; "" if something can."""
    if summary.groups or not summary.images:
        return ""
    if summary.without_prompt + summary.unreadable == summary.images:
        return f"{folder}: {count(summary.images, 'image')}, and none says its prompt. For example, {summary.example}"
    return (
        f"{folder}: {count(summary.images, 'image')}, and no two of them share prompt and shape. "
        "Generate several images of each prompt, with different seeds."
    )


def next_reason(pairs: int, missing: int) -> str:
    """What stands beside the button to Train."""
    lost = f"{count(missing, 'pair')} not used, because files of them are gone. " if missing else ""
    if pairs < MINIMUM_PAIRS:
        return f"{lost}{count(MINIMUM_PAIRS - pairs, 'more pair')} and training can start."
    return lost


def export(studio: Studio, kind: str) -> tuple:
    """Write an export into the project, and one file to download. Updates for the download button and the line under it."""
    try:
        pairs = studio.project.picks.pairs()
        folder = new_export_folder(studio.project.exports)
        if kind == "csv":
            path = export_csv(pairs, folder / "pairs.csv")
        else:
            path = Path(shutil.make_archive(str(folder), "zip", export_onetrainer(pairs, folder)))
        download = _offer(path)
    except StudioError as error:
        return gr.DownloadButton(visible=False), gr.HTML(text=str(error), tone="bad")
    except OSError as error:
        text = f"The export could not be packed: {error.strerror}. Free some space, then export again."
        return gr.DownloadButton(visible=False), gr.HTML(text=text, tone="bad")
    size = f"{path.stat().st_size / 1e6:,.1f} MB" if path.stat().st_size > 1e6 else f"{path.stat().st_size / 1e3:,.0f} kB"
    text = f"{count(len(pairs), 'pair')} exported to {folder}."
    return gr.DownloadButton(f"Download ({size})", value=download, visible=True), gr.HTML(text=text, tone="dim")


def _offer(path: Path) -> str:
    """Gradio serves only what lies in its own folder: put a copy there, under a name nobody can guess."""
    place = Path(get_upload_folder()) / secrets.token_hex(16)
    place.mkdir(parents=True)
    return str(shutil.copy(path, place / path.name))


def _revision(studio: Studio) -> tuple:
    """(what the scan did, what was picked): changes when there is something new to show."""
    scan = studio.project.library.current_scan()
    state = (scan.started, scan.done, scan.finished.is_set()) if scan else ()
    return state, studio.project.picks.revision()


def _show_picker(studio: Studio, session: Session) -> dict:
    folder = folder_of(studio, session)
    scan = studio.project.library.current_scan()
    is_short = scan and scan.folder == folder and not scan.finished.is_set() and (scan.seconds_left or 0) < SHORT_SCAN
    ready = not is_short and bool(studio.project.library.groups(folder))
    return gr.HTML(session=page_session(studio, replace(session, folder=folder)), visible=True if ready else "hidden")


def _show_scan(studio: Studio, session: Session) -> tuple:
    """Updates for the step's line, Scan, Stop, the problem, the progress, and the table of files left out."""
    library, folder = studio.project.library, folder_of(studio, session)
    scan = library.current_scan()
    if scan and scan.folder != folder:
        scan = None
    if scan and not scan.finished.is_set():
        return (
            gr.Accordion(label="1 Images", open=True), gr.Button(visible=False), gr.Button(visible=True),
            gr.HTML(text=""), gr.HTML(report=scan_report(scan)), gr.Dataframe(visible=False),
        )  # fmt: skip
    summary = library.summary(folder)
    rows = [[path.removeprefix(folder).lstrip("/\\"), why] for path, why in library.problems(folder)[:MOST_PROBLEMS]]
    return (
        gr.Accordion(label=f"1 Images: {summary_line(summary)}" if summary.images else "1 Images", open=not summary.groups),
        gr.Button(visible=True, variant="secondary" if summary.groups else "primary"),
        gr.Button(visible=False),
        gr.HTML(text=(scan and scan.error) or useless_folder(folder, summary), tone="bad"),
        gr.HTML(report=scan_report(scan) if scan else {}),
        gr.Dataframe(value=rows, visible=bool(rows)),
    )


def scan_report(scan: Scan) -> dict:
    """The scan as `report_part` shows it; empty once it ended by itself."""
    if scan.finished.is_set():
        if scan.report is None or not scan.report.stopped:
            return {}
        kept = scan.report.read + scan.report.unchanged
        return _report(
            f"Stopped at {kept:,} of {count(scan.report.total, 'file')}.", "What was read is kept; Scan goes on from there."
        )
    if not scan.total:
        return _report("Listing the folder.", "")
    left = f", {duration(scan.seconds_left)} left" if scan.seconds_left is not None else ""
    headline = f"{scan.done:,} of {count(scan.total, 'file')}, {scan.rate:,.0f} a second{left}"
    return _report(headline, "Stop keeps what was read.", scan.done, scan.total)


def _report(headline: str, detail: str, done: int = 0, total: int = 0) -> dict:
    return {"headline": headline, "detail": detail, "tone": "calm", "done": done, "total": total}


def _show_picks(studio: Studio, session: Session) -> tuple:
    """Updates for the review's line, its sheet, the reason beside the button, and the button to Train."""
    picked = studio.project.picks.picked_pairs()
    missing = sum(bool(pair.missing) for pair in picked)
    usable = len(picked) - missing
    is_enough = usable >= MINIMUM_PAIRS
    return (
        gr.Accordion(label=f"3 Review: {count(len(picked), 'pair')}" if picked else "3 Review"),
        show_review(studio, session),
        gr.HTML(text=next_reason(usable, missing), tone="warn" if missing else "dim"),
        gr.Button(
            f"{count(usable, 'pair')} → Train" if usable else "Train",
            interactive=is_enough, variant="primary" if is_enough else "secondary",
        ),
    )  # fmt: skip
