"""The Pairs tab: 1 Images (scan a folder or upload, browse), 2 Pick, 3 Review; then on to Train. Finished steps fold to a line.

A scan runs in a thread of the project's library, an upload in one of `Uploads`; the page looks at them whenever its pulse has
news, so a reload or a second page sees the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.groups import View
from dpo.library import Scan, resolve_folder
from dpo.rejects import pairs_in_need
from dpo.runs import MINIMUM_PAIRS
from ui.candidates_part import create_candidates, draw_candidates, find_set, standing
from ui.datasets import Datasets, create_datasets, show_datasets
from ui.parts import report_part, text_part
from ui.picker import create_picker
from ui.pulse import create_pulse
from ui.review import create_review, show_review
from ui.review_answers import state_of
from ui.rights import may, open_to
from ui.scorers_part import create_scorers, show_scorers
from ui.session import SORTS, Session, Studio, clean_view, folder_of, page_session, told, view_of
from ui.shelf import create_shelf, show_shelf
from ui.space import only_with_jobs
from ui.uploads import Upload, uploaded_file, uploads_folder
from ui.words import count, duration, summary_line, useless_folder

SHORT_SCAN = 3.0  # seconds; one that ends sooner is worth waiting for, as groups still grow while it runs
FOLDER_HELP = "Prompts are read from the files; nothing in the folder is changed."
CHOOSE_FILES = "() => document.querySelector('#shelf .file-input').click()"


class PairsTab(NamedTuple):
    """As `Tab`, with `next`, the button that leads to Train, `review`, the step Train leads back to, and the page's `pulse`."""

    refresh: Callable[[Session], tuple]
    outputs: list[gr.components.Component]
    next: gr.Button
    review: gr.Accordion
    pulse: gr.HTML


class Seen(NamedTuple):
    """What a page shows now: a look finds out what changed since."""

    scan: tuple | None = None  # when it was begun, files done, whether it is over; None: nothing was shown yet
    upload: tuple = ()
    index: int = -1
    picks: tuple = ()  # of the review: what it shows changes with picks, and with files that were found
    is_ready: bool = False  # there is something to pick from
    candidates: tuple = ()  # how the newest of their jobs is doing, and how many pairs need a rejected image
    awaited: float = 0.0  # when the scan began that the person waits for: the step folds at its end, and at that of no other


def create_pairs_tab(studio: Studio, session: gr.State) -> PairsTab:
    project, datasets = studio.project, Datasets(studio)
    with gr.Accordion("1 Images", open=True, elem_classes="step", elem_id="images-step") as images_step:
        with gr.Row(elem_classes="folder-row", equal_height=True):
            folder = gr.Textbox(
                folder_of(studio, Session()), placeholder="Folder of generated images", show_label=False, container=False,
                max_lines=1, scale=1, elem_id="folder",
            )  # fmt: skip
            scan = gr.Button("Scan", variant="primary", size="md", scale=0, min_width=100, elem_id="scan")
            stop = gr.Button("Stop", visible=False, size="md", scale=0, min_width=100, elem_id="stop-scan")
            upload = gr.Button("Upload", size="md", scale=0, min_width=100, elem_id="upload")
        text_part(FOLDER_HELP, elem_id="folder-help")
        refusal = text_part(tone="bad", elem_id="folder-refused")
        problem = text_part(tone="bad", elem_id="folder-problem")
        progress = report_part("scan-progress")
        shelf = create_shelf(studio, session)
        with only_with_jobs(studio):
            candidates = create_candidates(studio, session)
    picker = create_picker(studio, session)
    with gr.Accordion("3 Review", open=False, elem_classes="step", elem_id="review-step") as review_step:
        review = create_review(studio, session)
        exchange = create_datasets(datasets, session)
    with only_with_jobs(studio), gr.Accordion("AI feedback", open=False, elem_classes="step", elem_id="scorers-step"):
        scorers = create_scorers(studio, session)
    with gr.Row(elem_classes="next-row", equal_height=True):
        next_step = gr.Button("Train", interactive=False, scale=0, min_width=200, elem_id="to-train")
        reason = text_part(elem_id="next-reason")
    pulse = create_pulse(studio, datasets.live.wake)
    seen = gr.State(Seen())
    images_outputs = [images_step, scan, stop, problem, progress]
    pick_outputs = [review_step, review, exchange, scorers, reason, next_step]
    outputs = [seen, picker, shelf, *images_outputs, *pick_outputs, *candidates.outputs]

    @open_to("viewer")
    def refresh(current: Session) -> tuple:
        """Everything of the tab, for a page that was just loaded or a tab that was just opened."""
        now = _look(studio, current)
        now = now._replace(awaited=now.scan[0] if now.scan else 0.0)
        if now.is_ready:
            project.previews.prepare(folder_of(studio, current))
        shown = (_show_picker(studio, current, now.is_ready), show_shelf(studio, current))
        steps = *_show_images(studio, current, folds=True), *_show_picks(studio, current), *draw_candidates(studio)
        return (now, *shown, *steps)

    @open_to("viewer")
    def look(current: Session, known: Seen, request: gr.Request) -> tuple:
        """What changed since the page last looked."""
        current = told(current, request)
        # Before the first `refresh` the page does not know yet what its browser remembers.
        now = _look(studio, current, known.is_ready)._replace(awaited=known.awaited) if known.scan is not None else known
        if now == known:
            return (gr.skip(),) * len(outputs)
        made = (gr.skip(),) * len(candidates.outputs) if now.candidates == known.candidates else draw_candidates(studio)
        if now._replace(candidates=known.candidates) == known:
            return (now, *(gr.skip(),) * (len(outputs) - 1 - len(made)), *made)
        is_over = now.scan[-1:] != (False,)
        has_ended = is_over and now.scan != known.scan
        if has_ended and now.is_ready:
            project.previews.prepare(folder_of(studio, current))
        # While a scan runs the picker asks for more by itself; what is typed or borrowed comes without one.
        is_news = has_ended or now.is_ready != known.is_ready or (is_over and now.index != known.index)
        is_same = now[:3] == known[:3]
        return (
            now,
            _show_picker(studio, current, now.is_ready) if is_news else gr.skip(),
            show_shelf(studio, current),
            *(
                (gr.skip(),) * len(images_outputs)
                if is_same
                else _show_images(studio, current, folds=has_ended and now.scan[:1] == (now.awaited,))
            ),
            *((gr.skip(),) * len(pick_outputs) if now.picks == known.picks else _show_picks(studio, current)),
            *made,
        )

    def start_scan(current: Session, wanted: str) -> tuple:
        try:
            studio.check_place(wanted, is_model=False)
            chosen = resolve_folder(wanted)
            project.library.start_scan(chosen)
        except StudioError as error:  # what was typed stays, and the reason stands under it
            return gr.HTML(text=str(error)), gr.skip(), *(gr.skip(),) * len(outputs)
        if chosen != current.folder:
            current = replace(current, folder=chosen, view=View(""))
        return gr.HTML(text=""), current, *refresh(current)

    def take_in(current: Session, event: gr.EventData) -> tuple:
        try:
            files = [uploaded_file(path) for path in event.files]
            studio.uploads.start(project, files, [(str(name), str(why)) for name, why in event.refused], studio.is_shared)
        except StudioError as error:
            return gr.HTML(text=str(error)), gr.skip(), *(gr.skip(),) * len(outputs)
        current = replace(current, folder=str(uploads_folder(project)), view=View(""))
        return gr.HTML(text=""), current, *refresh(current)

    def pick_from(current: Session, name: str) -> tuple:
        if (found := find_set(studio, name)) is None:
            return gr.HTML(text="That set is gone. Choose another one."), gr.skip(), *(gr.skip(),) * len(outputs)
        current = replace(current, folder=str(found.folder), view=View(""))
        return gr.HTML(text=""), current, *refresh(current)

    def stop_what_runs() -> None:
        for running in (studio.uploads.current, project.library.current_scan()):
            if running:
                running.stop.set()

    @open_to("viewer")
    def narrow(current: Session, event: gr.EventData) -> tuple:
        """The page chose other groups, or another order of the list."""
        sort = event.sort if event.sort in SORTS else "path"
        current = replace(current, view=clean_view(event.view), sort=sort)
        return current, gr.HTML(session=page_session(studio, current)), _images_line(studio, current)

    @open_to("rater")
    def pick_group(current: Session, event: gr.EventData) -> dict:
        return gr.HTML(session=page_session(studio, current) | {"first": str(event.key)})

    for event in (scan.click, folder.submit):
        event(start_scan, [session, folder], [refusal, session, *outputs], show_progress="hidden")
    stop.click(stop_what_runs, queue=False, show_progress="hidden")
    upload.click(None, js=CHOOSE_FILES)
    candidates.pick.click(pick_from, [session, candidates.chosen], [refusal, session, *outputs], show_progress="hidden")
    shelf.take_in(take_in, session, [refusal, session, *outputs], show_progress="hidden")
    quiet = {"queue": False, "show_progress": "hidden"}
    # Through the queue: Gradio notices a changed state, which the browser has to remember, only there.
    shelf.narrow(narrow, session, [session, picker, images_step], trigger_mode="always_last", show_progress="hidden")
    shelf.pick_group(pick_group, session, picker, **quiet)
    review.pick_group(pick_group, session, picker, **quiet)
    pulse.news(look, [session, seen], outputs, trigger_mode="always_last", **quiet)
    # Not part of `refresh`: going to another tab and back keeps what was typed.
    session.change(open_to("viewer")(lambda current: folder_of(studio, current)), session, folder, show_progress="hidden")
    return PairsTab(refresh, outputs, next_step, review_step, pulse)


def next_reason(pairs: int, missing: int) -> str:
    """What stands beside the button to Train."""
    lost = f"{count(missing, 'pair')} not used, because files of them are gone. " if missing else ""
    if pairs < MINIMUM_PAIRS:
        return f"{lost}{count(MINIMUM_PAIRS - pairs, 'more pair')} and training can start."
    return lost


def _look(studio: Studio, session: Session, was_ready: bool = False) -> Seen:
    folder, library, upload = folder_of(studio, session), studio.project.library, studio.uploads.current
    scan = library.current_scan()
    is_running = bool(scan and scan.folder == folder and not scan.finished.is_set())
    # Groups still grow while a scan runs: one that ends soon is waited for, unless picking goes on already.
    is_short = is_running and not was_ready and scan.seconds_left is not None and scan.seconds_left < SHORT_SCAN
    return Seen(
        scan=(scan.begun, scan.done, scan.finished.is_set()) if scan else (),
        upload=(str(upload.folder), upload.done, upload.finished.is_set()) if upload else (),
        index=library.revision(),
        picks=(studio.project.picks.revision(), library.revision() if scan is None or scan.finished.is_set() else -1),
        candidates=(*standing(studio), len(pairs_in_need(studio.project))),
        is_ready=not is_short and bool(library.catalogue(View(folder=folder)).lines),
    )


def _show_picker(studio: Studio, session: Session, is_ready: bool) -> dict:
    if not may(session.role, "rater"):
        return gr.HTML(visible="hidden")
    return gr.HTML(session=page_session(studio, session), visible=True if is_ready else "hidden")


def _images_line(studio: Studio, session: Session, **changes: bool) -> dict:
    whole = studio.project.library.catalogue(View(folder=folder_of(studio, session)))
    chosen = studio.project.library.catalogue(view_of(studio, session))
    return gr.Accordion(label=f"1 Images: {summary_line(whole, chosen)}" if whole.images else "1 Images", **changes)


def _show_images(studio: Studio, session: Session, folds: bool) -> tuple:
    """Updates for the step's line, Scan, Stop, the problem and the progress. With `folds` the step folds or unfolds, as it is
    done or not; otherwise it stays as the person left it."""
    library, folder = studio.project.library, folder_of(studio, session)
    scan, upload = library.current_scan(), studio.uploads.current
    if scan and scan.folder != folder:
        scan = None
    if folder != str(uploads_folder(studio.project)):
        upload = None
    whole = library.catalogue(View(folder=folder))
    if scan and not scan.finished.is_set():
        step = gr.Accordion(label="1 Images", open=True) if folds else gr.Accordion(label="1 Images")
        report = gr.HTML(report=scan_report(scan, can_pick=bool(whole.lines)))
        return step, gr.Button(visible=False), gr.Button(visible=True), gr.HTML(text=""), report
    is_arriving = bool(upload and not upload.finished.is_set())
    is_done = bool(whole.lines) and not is_arriving
    error = (upload and upload.problem) or (scan and scan.error)
    return (
        _images_line(studio, session, **({"open": not is_done} if folds else {})),
        gr.Button(visible=not is_arriving, variant="secondary" if is_done else "primary"),
        gr.Button(visible=is_arriving),
        gr.HTML(text=error or useless_folder(folder, whole), tone="bad"),
        gr.HTML(report=upload_report(upload) if is_arriving else scan_report(scan) if scan else {}),
    )


def scan_report(scan: Scan, can_pick: bool = False) -> dict:
    """The scan as `report_part` shows it; empty once it ended by itself, which it may do at any moment."""
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
    detail = "Picking can begin below while it goes on. Stop keeps what was read." if can_pick else "Stop keeps what was read."
    return _report(headline, detail, scan.done, scan.total)


def _report(headline: str, detail: str, done: int = 0, total: int = 0) -> dict:
    return {"headline": headline, "detail": detail, "tone": "calm", "done": done, "total": total}


def upload_report(upload: Upload) -> dict:
    """Files that were sent, on their way into the project, as `report_part` shows them."""
    if not upload.total:
        return _report(f"Looking into {count(upload.files, 'file')}.", "")
    headline = f"Taking in {upload.done:,} of {count(upload.total, 'file')}."
    return _report(headline, "Stop keeps what was taken in.", upload.done, upload.total)


def _show_picks(studio: Studio, session: Session) -> tuple:
    """Updates for the review's line, its sheet, what is under it, AI feedback, the reason beside the button to Train, and it."""
    states = Counter(map(state_of, studio.project.picks.picked_pairs()))
    shown, usable, missing = states.total() - states["deleted"], states["used"], states["gone"]
    is_enough = usable >= MINIMUM_PAIRS
    return (
        gr.Accordion(label=f"3 Review: {count(shown, 'pair')}" if shown else "3 Review"),
        show_review(studio, session),
        show_datasets(studio, session),
        show_scorers(studio, session),
        gr.HTML(text=next_reason(usable, missing), tone="warn" if missing else "dim"),
        gr.Button(
            f"{count(usable, 'pair')} → Train" if usable else "Train",
            interactive=is_enough, variant="primary" if is_enough else "secondary",
        ),
    )  # fmt: skip
