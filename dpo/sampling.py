"""Images from prompts and seeds, with an adapter at a strength or without one.

An image is a function of (model, adapter, strength, prompt, seed, settings): its first noise comes from its own seeded
generator, so what else is in the batch, and how large the batch is, does not change what is asked for. Base and adapter run
in batches of the same rows, so that at strength 0 they agree to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from dpo.adapters import POLICY, load_adapter
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.writer import write_png
from dpo.runs import ADAPTER_FILE


@dataclass(frozen=True)
class SampleSettings:
    """`width` and `height` of 0 mean the model's own size."""

    sampling_steps: int = 20
    guidance_scale: float = 3.0
    width: int = 0
    height: int = 0
    negative_prompt: str = ""


class Sampler:
    """A loaded pipeline, perhaps with one adapter file on it."""

    def __init__(self, pipeline, model: str, adapter: Path | None = None):
        self.pipeline, self.model, self.adapter = pipeline, model, adapter
        if adapter is not None:
            load_adapter(pipeline, adapter, POLICY)

    def image_size(self, settings: SampleSettings) -> tuple[int, int]:
        """(width, height) that will be made: as set, down to what the model can do."""
        own = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        multiple = self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1)
        return tuple(max(multiple, (side or own) // multiple * multiple) for side in (settings.width, settings.height))

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
    ) -> list[Image.Image]:
        """One batch: an image for every (prompt, seed). `strength` None is the base model.

        Returns an empty list if `stop` was set meanwhile: an unfinished image is of no use to anyone.
        """
        width, height = self.image_size(settings)

        def after_step(pipeline, index, timestep, tensors):
            if stop is not None and stop.is_set():
                pipeline._interrupt = True
            if on_step is not None:
                on_step(index + 1)
            return {}

        with self._at_strength(strength), torch.no_grad():
            images = self.pipeline(
                [prompt for prompt, _ in rows],
                negative_prompt=[settings.negative_prompt] * len(rows) if settings.negative_prompt else None,
                width=width,
                height=height,
                num_inference_steps=settings.sampling_steps,
                guidance_scale=settings.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for _, seed in rows],
                callback_on_step_end=after_step,
                callback_on_step_end_tensor_inputs=["latents"],
            ).images
        return [] if stop is not None and stop.is_set() else images

    def parameters(
        self, prompt: str, seed: int, settings: SampleSettings, image: Image.Image, strength: float | None = None
    ) -> str:
        """What A1111 would write for this image, so that every reader of such files can read ours."""
        settings_line = {
            "steps": settings.sampling_steps,
            "sampler": type(self.pipeline.scheduler).__name__.removesuffix("Scheduler"),
            "guidance": f"{settings.guidance_scale:g}",
            "seed": seed,
            "size": f"{image.width}x{image.height}",
            "model": Path(self.model).name,
        }
        if strength is not None and self.adapter is not None:
            settings_line |= {"adapter": self._adapter_name(), "adapter_strength": f"{strength:g}"}
        return format_parameters(prompt, settings.negative_prompt, **settings_line, version="Image DPO Studio")

    def save(
        self, image: Image.Image, path: Path, prompt: str, seed: int, settings: SampleSettings, strength: float | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(image, path, self.parameters(prompt, seed, settings, image, strength))

    def _adapter_name(self) -> str:
        """A run's adapter file has the same name in every run, so the run names it; any other file names itself."""
        return self.adapter.stem if self.adapter.name != ADAPTER_FILE else self.adapter.parent.parent.name

    @contextmanager
    def _at_strength(self, strength: float | None):
        if self.adapter is None:
            yield
        elif strength is None:
            self.pipeline.disable_lora()
            try:
                yield
            finally:
                self.pipeline.enable_lora()
        else:
            self.pipeline.set_adapters([POLICY], [strength])
            yield
