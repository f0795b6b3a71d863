"""The page: one line at the top, three tabs under it."""

from __future__ import annotations

from importlib.util import find_spec

import gradio as gr

from ui.session import Session, Studio, restore_session, stored_session


def create_app(studio: Studio) -> gr.Blocks:
    """Build the page. Building reads no run and no image: `load` fills it in, and again on every reload."""
    with gr.Blocks(title="Image DPO Studio", analytics_enabled=False, fill_width=True) as page:
        session = gr.State(Session())
        remembered = gr.BrowserState(
            stored_session(Session()),
            storage_key=f"image-dpo-{studio.sign('storage', str(studio.project.path))[:8]}",
            secret=studio.sign("browser", "session")[:16],
        )
        tabs = {}
        with gr.Tabs(elem_id="tabs"):
            for name in ("pairs", "train", "compare"):
                with gr.Tab(name.capitalize(), id=name) as place:
                    if find_spec(f"ui.{name}_tab"):
                        module = __import__(f"ui.{name}_tab", fromlist=["tab"])
                        tabs[place] = getattr(module, f"create_{name}_tab")(studio, session)
                    else:
                        gr.Markdown("Not here yet.")

        loaded = page.load(restore_session, remembered, session, show_progress="hidden")
        for place, tab in tabs.items():
            loaded.then(tab.refresh, session, tab.outputs, show_progress="hidden")
            place.select(tab.refresh, session, tab.outputs, show_progress="hidden")
        session.change(stored_session, session, remembered, show_progress="hidden")
    return page
