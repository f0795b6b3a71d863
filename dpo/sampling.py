"""Images from prompts and seeds, with an adapter at a strength or without one.

An image is a function of (model, adapter, strength, prompt, seed, settings): its first noise comes from its own seeded
generator, so what else is in the batch, and how large the batch is, does not change what is asked for. Base and adapter run
in batches of the same rows, so that at strength 0 they agree to the bit.

A prompt can be encoded long before it is painted (`paint`): a training run parks the text encoders in between.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image, ImageOps
from torch import Tensor, nn

from dpo.adapter_loading import load_adapter, set_strength
from dpo.adapters import POLICY
from dpo.branching import Branch, branching
from dpo.checkpoint_adapters import load_checkpoint
from dpo.families import Family, load_family
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.writer import SUFFIXES, write_image
from dpo.runs import CHECKPOINT_SUFFIX, adapter_name
from dpo.sample_settings import SampleSettings, Start
from dpo.samplers import check_image_to_image
from dpo.schedulers import make_scheduler

Encoded = dict[str, Tensor | list[Tensor]]  # one row of what a pipeline takes in the place of prompts


class Sampler:
    """A loaded pipeline, perhaps with one adapter on it: a file, or a run's checkpoint.

    Several samplers may share a pipeline if their adapters' names there (`name`) differ: each acts only while its own samples.
    """

    def __init__(self, pipeline, model: str, adapter: Path | None = None, name: str = POLICY):
        self.pipeline, self.model, self.adapter, self._name = pipeline, model, adapter, name
        self.family = load_family(pipeline)
        if adapter is not None:
            (load_checkpoint if adapter.suffix == CHECKPOINT_SUFFIX else load_adapter)(self.family, adapter, name)
            set_strength(self.family.denoiser, name, 1.0)

    def image_size(self, settings: SampleSettings) -> tuple[int, int]:
        """(width, height) that will be made: as set, down to what the model can do."""
        return fitting_size(self.family, settings)

    def batch_size(self, settings: SampleSettings) -> int:
        width, height = self.image_size(settings)
        return max(1, min(16, 2**21 // (width * height)))

    def batches(self, rows: list[tuple[str, int]], settings: SampleSettings) -> Iterator[tuple[int, list[tuple[str, int]]]]:
        """(index of the first row, rows) of each batch that fits in memory."""
        size = self.batch_size(settings)
        for start in range(0, len(rows), size):
            yield start, rows[start : start + size]

    def sample(
        self,
        rows: list[tuple[str, int]],
        settings: SampleSettings,
        *,
        strength: float | None = None,
        on_step: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
        branch: Branch | None = None,
        start: Start | None = None,
    ) -> list[Image.Image]:
        """One batch: an image for every (prompt, seed). `strength` None is the base model. `branch`, `start`: as of `paint`.

        Raises SamplerError for a sampler or a start that the model cannot have. Returns an empty list if `stop` was set
        meanwhile: an unfinished image is of no use to anyone.
        """
        prompts = {
            prompt: self.family.prompt_arguments(prompt, settings.negative_prompt)
            for prompt in dict.fromkeys(prompt for prompt, _ in rows)
        }
        with self._at_strength(strength):
            encoded = [(prompts[prompt], seed) for prompt, seed in rows]
            return paint(self.family, encoded, settings, on_step=on_step, stop=stop, branch=branch, start=start)

    def parameters(
        self, prompt: str, seed: int, settings: SampleSettings, image: Image.Image, strength: float | None = None, **more: object
    ) -> str:
        """What A1111 would write for this image, so that every reader of such files can read ours. `more`: as of `describe`."""
        adapter = {}
        if strength is not None and self.adapter is not None:
            adapter = {"adapter": adapter_name(self.adapter), "adapter_strength": f"{strength:g}"}
        return describe(self.pipeline, self.model, prompt, seed, settings, image, **adapter, **more)

    def save(
        self,
        image: Image.Image,
        path: Path,
        prompt: str,
        seed: int,
        settings: SampleSettings,
        strength: float | None = None,
        **more: object,
    ) -> None:
        """As PNG, JPEG or WebP, by the path's suffix. Raises MetadataError if a JPEG cannot hold what there is to say."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
        write_image(image, path, self.parameters(prompt, seed, settings, image, strength, **more), kind)

    @contextmanager
    def _at_strength(self, strength: float | None):
        if self.adapter is not None:
            set_strength(self.family.denoiser, self._name, strength)
        try:
            yield
        finally:
            if self.adapter is not None:
                set_strength(self.family.denoiser, self._name, 1.0)


def fitting_size(family: Family, settings: SampleSettings) -> tuple[int, int]:
    """(width, height) as set, or the family's own, down to what its model can do."""
    multiple = family.pixel_multiple
    sides = (side or family.image_side for side in (settings.width, settings.height))
    return tuple(max(multiple, side // multiple * multiple) for side in sides)


@torch.no_grad()
def paint(
    family: Family,
    rows: list[tuple[Encoded, int]],
    settings: SampleSettings,
    *,
    on_step: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    branch: Branch | None = None,
    start: Start | None = None,
) -> list[Image.Image]:
    """An image for every (encoded prompt, seed), by the denoiser as it stands. Needs the VAE and no text encoder.

    Rows whose encodings differ in shape cannot be one batch, and are painted one after the other. `on_step` is told how many of
    the sampling steps are done. `branch`: all rows, of one prompt, share their course up to it, and a row's seed is that of its
    own noise from there on; the pipeline's scheduler is then one of `branching_scheduler`.
    `start`: where the images begin, in the place of noise alone. Raises SamplerError for what the model cannot do.
    """
    assert branch is None or not (settings.sampler or start), "a branch has a sampler of its own"
    images: list[Image.Image] = [None] * len(rows)
    pipeline = _pipeline_for(family, settings.sampler, start)
    takes = inspect.signature(pipeline.__call__).parameters
    size = fitting_size(family, settings)
    options = family.sampling_options(settings.guidance_scale) | {
        name: side for name, side in zip(("width", "height"), size, strict=True) if name in takes
    }
    picture = start and ImageOps.fit(start.picture, size, Image.Resampling.LANCZOS)
    done = 0
    for indices in _by_shape([encoded for encoded, _ in rows]):

        def after_step(index: int, done: int = done, rows_here: int = len(indices)) -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            if on_step is not None:
                # A sampler may call the model more than once a step, and from a picture on there are fewer steps.
                calls = max(1, int(len(pipeline.scheduler.timesteps) * (start.strength if start else 1)))
                steps = min(settings.sampling_steps, (index + 1) * settings.sampling_steps // calls)
                on_step((done * settings.sampling_steps + steps * rows_here) // len(rows))

        seeds = [rows[index][1] for index in indices]
        first = [branch.seed] * len(seeds) if branch else seeds
        # A picture for each row: of a single one, some pipelines would draw from the first row's generator alone.
        begun = {"image": [picture] * len(seeds), "strength": start.strength} if start else {}
        try:
            with branching(family, branch, seeds, settings.sampling_steps) if branch else nullcontext():
                painted = pipeline(
                    **_joined([rows[index][0] for index in indices]),
                    **options,
                    **begun,
                    **_watched(after_step, takes),
                    num_inference_steps=settings.sampling_steps,
                    generator=[torch.Generator().manual_seed(seed) for seed in first],
                ).images
        except _Stopped:
            return []
        for index, image in zip(indices, painted, strict=True):
            images[index] = image
        done += len(indices)
    return images


def _pipeline_for(family: Family, sampler: str, start: Start | None):
    """The family's pipeline, or another around its parts, with a scheduler of its own. Raises SamplerError."""
    pipeline = family.pipeline
    if sampler:
        pipeline = copy.copy(pipeline)
        pipeline.scheduler = make_scheduler(family.pipeline, sampler)
    if start is not None:
        check_image_to_image(type(pipeline).__name__, sampler)
        bar = getattr(pipeline, "_progress_bar_config", {})
        pipeline = AutoPipelineForImage2Image.from_pipe(pipeline)
        pipeline.set_progress_bar_config(**bar)
    return pipeline


class _Stopped(Exception):
    """Raised inside a pipeline, to leave it between two steps."""


def _watched(after_step: Callable[[int], None], takes: Mapping[str, object]) -> dict[str, object]:
    """Have `after_step` called with the index of every step that is done: older pipelines name that otherwise."""
    if "callback_on_step_end" in takes:
        return {"callback_on_step_end": lambda pipeline, index, timestep, tensors: after_step(index) or {}}
    return {"callback": lambda index, timestep, latents: after_step(index), "callback_steps": 1}


def _by_shape(encoded: list[Encoded]) -> list[list[int]]:
    """Indices of those that can be one batch, in order."""
    found: dict[tuple, list[int]] = {}
    for index, one in enumerate(encoded):
        shapes = tuple((name, value.shape if isinstance(value, Tensor) else None) for name, value in one.items())
        found.setdefault(shapes, []).append(index)
    return list(found.values())


def _joined(encoded: list[Encoded]) -> dict[str, Tensor | list[Tensor]]:
    joined = {}
    for name, first in encoded[0].items():
        values = [one[name] for one in encoded]
        joined[name] = torch.cat(values) if isinstance(first, Tensor) else [tensor for value in values for tensor in value]
    return joined


def describe(pipeline, model: str, prompt: str, seed: int, settings: SampleSettings, image: Image.Image, **more: object) -> str:
    """The A1111 text of an image; `more` are further settings, such as `adapter`."""
    return format_parameters(
        prompt,
        settings.negative_prompt,
        steps=settings.sampling_steps,
        sampler=settings.sampler or type(pipeline.scheduler).__name__.removesuffix("Scheduler"),
        guidance=f"{settings.guidance_scale:g}",
        seed=seed,
        size=f"{image.width}x{image.height}",
        model=Path(model).name,
        **more,
        version="Image DPO Studio",
    )


def without_text_encoders(family: Family) -> Family:
    """A second family around the same denoiser, for `paint` alone, with a scheduler of its own: using it changes nothing of the
    first, and text encoders parked on another device do not decide where it runs."""
    view, pipeline = copy.copy(family), copy.copy(family.pipeline)
    parts = family.pipeline.components.items()
    kept = (family.denoiser_name, "vae")
    pipeline.register_modules(**{name: None for name, part in parts if isinstance(part, nn.Module) and name not in kept})
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    view.pipeline = pipeline
    return view
