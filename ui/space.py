"""What a Space says of itself on the page: that it forgets, and what ZeroGPU cannot do.

Where a GPU is lent for seconds there are no jobs: nothing that goes on in the background has the quota of a visitor. What
starts jobs is then not shown, and the registry refuses them besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from dpo.space import Space
from ui.parts import text_part
from ui.session import Studio

FORGETS = (
    "This Space forgets everything when it sleeps or restarts. Download your project before you leave (This project, at the foot "
    "of the page), or attach storage at /data in the Space's settings."
)
NO_JOBS = (
    "This Space has no GPU of its own: ZeroGPU lends one for seconds, to whoever presses Compare. Training, generating "
    "candidates, AI feedback and blind tests take longer and go on by themselves, so they are not here. Duplicate this Space "
    "and choose a GPU for the copy, or a CPU, which is enough for the demo: then all of them are there."
)


def create_warning(space: Space | None) -> None:
    """Whether what is done here stays, where it does not."""
    if space is not None and not space.is_kept:
        with gr.Column(elem_classes="forgets"):
            text_part(FORGETS, tone="warn")


def create_notice(studio: Studio) -> None:
    """Why something is not here, and how to have it; nothing where all is."""
    if not studio.has_jobs:
        with gr.Column(elem_classes="no-jobs"):
            text_part(NO_JOBS, tone="calm")
            gr.Button("Duplicate this Space", link=studio.space.duplicate_url, link_target="_blank", variant="primary")


@contextmanager
def only_with_jobs(studio: Studio) -> Iterator[None]:
    """What is built within starts jobs, and is not shown where there can be none."""
    if studio.has_jobs:
        yield
    else:
        with gr.Column(visible=False):
            yield
