"""Painting a look: every prompt and seed by every variant, from the same first noise, in batches that fit the memory.

Base and variants are painted in batches of the same rows, so that at strength 0 a variant is the base to the bit. The first
batches are small: the first row is there soon, and whoever stops keeps the rows that are done.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from dpo import StudioError
from dpo.adapters import POLICY
from dpo.compare import LookRequest, LookRow
from dpo.models import load_pipeline
from dpo.pixels import open_pixels
from dpo.portions import is_out_of_memory
from dpo.sample_settings import Start
from dpo.sampling import Sampler

Rows = list[tuple[str, int]]  # (prompt, seed)
GROWTH = 4  # of the first batches, each so many times the one before


class MemoryProblem(StudioError):
    """One image alone does not fit the memory."""


def paint_look(
    request: LookRequest,
    base: dict[str, object],
    place: Callable[[int, int, int], Path],
    report: Callable[[int, int, str], None],
    stop: threading.Event,
    on_loaded: Callable[[], None],
) -> Iterator[LookRow]:
    """Load the model and yield each row once its images are saved.

    base: what else `load_pipeline` is told. place: (row, seed, column) -> the image's file, whose suffix says its format.
    report: is told (done, total, words), in sampling steps of an image. Nothing more is yielded once `stop` is set.

    Raises ModelError, AdapterError, SamplerError, and MemoryProblem if one image alone does not fit.
    """
    settings, variants = request.settings, request.variants
    report(0, 0, f"loading {request.model}")
    samplers = _samplers(request, load_pipeline(request.model, "auto", **base))
    start = Start(open_pixels(request.picture), request.picture_strength) if request.picture else None
    rows = [(prompt, seed) for prompt in request.prompts for seed in request.seeds]
    images_in_all, steps = len(rows) * len(variants), settings.sampling_steps
    on_loaded()

    def paint(first: int, batch: Rows) -> list[list[Image.Image]]:
        """By variant; shorter than the variants if it was stopped."""
        columns = []
        for column, (variant, sampler) in enumerate(zip(variants, samplers, strict=True)):
            before = first * len(variants) + column * len(batch)

            def on_step(step: int, before: int = before) -> None:
                report(before * steps + step * len(batch), images_in_all * steps, f"{before} of {images_in_all} images")

            strength = variant.strength if variant.adapter else None
            columns.append(sampler.sample(batch, settings, strength=strength, start=start, on_step=on_step, stop=stop))
            if stop.is_set():
                return []
        return columns

    more = {"denoising_strength": f"{start.strength:g}"} if start else {}
    for first, batch, columns in in_batches(rows, samplers[0].batch_size(settings), paint):
        if not columns:
            return
        for offset, (prompt, seed) in enumerate(batch):
            paths = tuple(place(first + offset, seed, column) for column in range(len(variants)))
            for path, variant, sampler, images in zip(paths, variants, samplers, columns, strict=True):
                strength = variant.strength if variant.adapter else None
                sampler.save(images[offset], path, prompt, seed, settings, strength, **more)
            yield LookRow(prompt, seed, paths)


def in_batches(rows: Rows, largest: int, make: Callable[[int, Rows], list], begin: int = 1) -> Iterator[tuple[int, Rows, list]]:
    """(index of the first row, rows, what `make` makes of them), in batches that grow from `begin` rows up to `largest`.

    A batch that does not fit the memory is halved and made again, and no later one is larger. Raises MemoryProblem.
    """
    first, size = 0, begin
    while first < len(rows):
        batch = rows[first : first + size]
        try:
            found = make(first, batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MemoryProblem(
                    "One image alone does not fit the memory. Choose a smaller size, set quantization or offload, or close what "
                    "else uses the memory."
                ) from error
            found = None
        if found is None:  # outside of the handler, which keeps alive all that the failed pass made
            largest = size = len(batch) // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield first, batch, found
        first, size = first + len(batch), min(largest, size * GROWTH)


def _samplers(request: LookRequest, pipeline) -> list[Sampler]:
    """One for each variant, on one pipeline; variants of one adapter share it. Those of no adapter use any."""
    found: dict[Path | None, Sampler] = {}
    for variant in request.variants:
        if variant.adapter is not None and variant.adapter not in found:
            name = f"{POLICY}_{len(found)}" if found else POLICY
            found[variant.adapter] = Sampler(pipeline, request.model, variant.adapter, name)
    for_base = next(iter(found.values())) if found else Sampler(pipeline, request.model)
    return [found[variant.adapter] if variant.adapter else for_base for variant in request.variants]
