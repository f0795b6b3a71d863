"""Painting a look on ZeroGPU: in the event of the visitor who asks, for that visitor's quota pays for it.

The package `spaces` runs what it decorates in a forked process that has a GPU. Arguments and what is yielded are pickled; a
thing that is changed there, such as a job, is not changed here, and an exception loses its words on the way. So the process
writes the images and yields rows, or a sentence that says what went wrong; closing the generator ends it after the row it is at.
Without ZeroGPU the decorator does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gradio as gr

from dpo import StudioError
from dpo.compare import CompareError, LookRequest, LookRow, place_images

LOADING_SECONDS = 20  # a model, from the disk to the GPU
STEP_SECONDS = 0.2  # of one image: meant for SDXL at its own size, with room to spare, and never measured there
DEMO_STEP_SECONDS = 0.02

Painter = Callable[[LookRequest, dict[str, object], Path], Iterator[LookRow]]


def gpu_seconds(request: LookRequest, base: dict[str, object], folder: Path) -> int:
    """How long a look needs the GPU, at most. What it takes for as long as it asks for is refused to whoever has less left."""
    images = len(request.prompts) * len(request.seeds) * len(request.variants)
    step = DEMO_STEP_SECONDS if request.model == "demo" else STEP_SECONDS
    return round(LOADING_SECONDS + step * images * request.settings.sampling_steps)


def create_painter() -> Painter:
    """painter(request, base settings, folder) yields each row once its images are there. Raises CompareError, also for what
    ZeroGPU refuses. `spaces` wants to see the decorated function before the app is launched."""
    import spaces

    @spaces.GPU(duration=gpu_seconds)
    def paint(request: LookRequest, base: dict[str, object], folder: Path) -> Iterator[LookRow | str]:
        from dpo.looks import paint_look

        try:
            place = place_images(request, folder)
            yield from paint_look(request, base, place, lambda *_: None, threading.Event(), lambda: None)
        except StudioError as error:
            yield str(error)

    def painter(request: LookRequest, base: dict[str, object], folder: Path) -> Iterator[LookRow]:
        try:
            with closing(paint(request, base, folder)) as rows:
                for row in rows:
                    if isinstance(row, str):
                        raise CompareError(row)
                    yield row
        except gr.Error as error:
            raise CompareError(f"ZeroGPU: {error.message}") from error

    return painter
