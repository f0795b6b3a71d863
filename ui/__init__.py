"""The page: one line at the top, three tabs under it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import gradio as gr

from dpo.runs import Run
from dpo.training import stop_training
from ui import downloads, images, train_samples
from ui.compare_tab import create_compare_tab
from ui.login import SpaceLogin
from ui.pairs_tab import create_pairs_tab
from ui.parts import job_part, rights_part, text_part
from ui.project_part import create_project_part
from ui.rights import open_to
from ui.security import HOST_NAME, Doors, launch_settings
from ui.session import Session, Studio, Tab, restore_session, stored_session, told
from ui.space import create_warning
from ui.theme import CSS_FILES, create_theme
from ui.train_tab import create_train_tab
from ui.words import JOB_TABS

log = logging.getLogger(__name__)
SHOW_REVIEW = "() => document.querySelector('#review-step').scrollIntoView()"
TABS = {"pairs": create_pairs_tab, "train": create_train_tab, "compare": create_compare_tab}
# What Gradio holds of a page stays after it is gone: 1.5 MB, until so many others have come. An open page is never among
# the oldest, for its pulse is heard. Files that were sent and never taken in go after a day, looked for every hour.
MOST_SESSIONS = 100
LEFT_FILES = (3600, 86400)  # seconds
MOST_WAITING = 1000  # events: a page that loads brings ten, and fifty may be loaded at once
SECONDS_BETWEEN_QUEUE_LOOKS = 0.01  # Gradio looks a thousand times a second, which takes a twentieth of a core


class Page(gr.Blocks):
    """Gradio signs people in where a page has its button for that; ours lies in front of the page (ui/login.py). And what an
    event failed at is in the log, not only on the terminal."""

    has_accounts = False  # people sign in with theirs

    @property
    def expects_oauth(self) -> bool:
        return self.has_accounts

    async def process_api(self, block_fn, *arguments, **options) -> dict:
        try:
            return await super().process_api(block_fn, *arguments, **options)
        except Exception:  # of which the page hears only that there was one
            log.exception("the event %s failed", getattr(block_fn, "name", block_fn))
            raise


def create_app(studio: Studio) -> Page:
    """Build the page. Building reads no run and no image: `load` fills it in, and again on every reload."""
    title = f"{studio.project.path.name} - Image DPO Studio"
    with Page(title=title, analytics_enabled=False, fill_width=True, delete_cache=LEFT_FILES) as page:
        session = gr.State(Session())
        remembered = gr.BrowserState(
            stored_session(Session()),
            storage_key=f"image-dpo-{studio.sign('storage', str(studio.project.path))[:8]}",
            secret=studio.sign("browser", "session")[:16],
        )
        text_part(studio.project.path.name, elem_id="project")
        job = job_part()
        rights = rights_part()
        if studio.project.mended:
            text_part(studio.project.mended, tone="warn", elem_id="mended")
        with gr.Tabs(elem_id="tabs") as tabs:
            places, made = [], []
            for name, create_tab in TABS.items():
                with gr.Tab(name.capitalize(), id=name, elem_id=f"tab-{name}") as place:
                    places.append(place)
                    create_warning(studio.space)
                    made.append(create_tab(studio, session))
        create_project_part(studio, session)

        @open_to("viewer")
        def restore(stored: object, request: gr.Request) -> tuple[Session, dict]:
            restored = told(restore_session(stored, studio.places), request)
            return restored, gr.HTML(role=restored.role)

        loaded = page.load(restore, remembered, [session, rights], show_progress="hidden")
        for place, tab in zip(places, made, strict=True):
            refresh = _refreshing(tab)  # a page may ask for a tab before it was told who is at it
            loaded.then(refresh, session, tab.outputs, show_progress="hidden")
            place.select(refresh, session, tab.outputs, show_progress="hidden")
        for tab, place, following in zip(made, places[1:], made[1:], strict=False):
            if tab.next is not None:
                led = tab.next.click(lambda to=place.id: gr.Tabs(selected=to), None, tabs, show_progress="hidden")
                led.then(following.refresh, session, following.outputs, show_progress="hidden")
        pairs, train, compare = made
        loaded.then(compare.restore, session, compare.restored, show_progress="hidden")
        reviewed = train.review.click(
            lambda: (gr.Tabs(selected="pairs"), gr.Accordion(open=True)), None, [tabs, pairs.review], show_progress="hidden"
        )
        reviewed.then(pairs.refresh, session, pairs.outputs, show_progress="hidden").then(None, js=SHOW_REVIEW)
        begun = compare.begun.change(lambda: gr.Tabs(selected="pairs"), None, tabs, show_progress="hidden")
        train.follow(begun.then(pairs.refresh, session, pairs.outputs, show_progress="hidden"))
        session.change(open_to("viewer")(stored_session), session, remembered, show_progress="hidden")

        quiet = {"queue": False, "trigger_mode": "always_last", "show_progress": "hidden"}
        pairs.pulse.run_news(train.look, [session, *train.seen], train.followed, **quiet)

        @open_to("viewer")
        def go() -> gr.Tabs:
            current = studio.jobs.current()
            return gr.Tabs(selected=JOB_TABS[current.kind]) if current else gr.skip()

        job.go(go, None, tabs, queue=False, show_progress="hidden")
    return page


def _refreshing(tab: Tab) -> Callable[..., tuple]:
    @open_to("viewer")
    def refresh(current: Session, request: gr.Request) -> tuple:
        return tab.refresh(told(current, request))

    return refresh


def launch(page: Page, studio: Studio, doors: Doors, port: int, wait: bool = True) -> None:
    """Serve the page; says where it is, and with `wait` returns only when it is closed."""
    routes = [*images.routes(studio), *downloads.routes(studio), *train_samples.routes(studio)]
    page.has_accounts = isinstance(doors.login, SpaceLogin)
    page.queue(max_size=MOST_WAITING, api_open=False, default_concurrency_limit=4)
    page._queue.sleep_when_free = SECONDS_BETWEEN_QUEUE_LOOKS
    page.launch(
        **launch_settings(doors, port, routes),
        theme=create_theme(), css_paths=CSS_FILES, prevent_thread_lock=True, state_session_capacity=MOST_SESSIONS,
    )  # fmt: skip
    log.info("open on port %d, %s", port, "shared" if doors.lets_others_in else "for this machine alone")
    if doors.share and not page.share_url:
        log.warning("no public link could be made")
        print("No public link could be made; the page is on this machine only.")
    if doors.password:
        print(f"Log in as {HOST_NAME} with the password {doors.password} (made up for this start, and shown this once).")
    print(f"Image DPO Studio is open at {page.share_url or page.local_url} (Ctrl+C closes it).", flush=True)
    if wait:
        with suppress(KeyboardInterrupt):
            page.block_thread()
        with suppress(KeyboardInterrupt):  # a second Ctrl+C: the person does not want to wait
            finish_jobs(studio)


def finish_jobs(studio: Studio, patience: float = 60.0) -> None:
    """Ask whatever runs to stop and wait for it, so that closing the app keeps what was learned."""
    for job in studio.jobs.active():
        print(f"Stopping {job.title}; what is done is kept.", flush=True)
        if job.kind == "train":
            stop_training(studio.jobs, Run(studio.project.runs / job.key))
        job.stop.set()
    for job in studio.jobs.active():
        job.finished.wait(patience)
