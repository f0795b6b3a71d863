"""Every family on its real diffusers classes at tiny size. `python -m tests.families` prints what holds for which.

tiny.py      what the tiny pipelines are made of
checks.py    what must hold for all of them, one function each
NAME.py      a tiny pipeline, and an oracle for it with its formulas written out
test_NAME.py what is particular to a family
test_all.py  every check on every family
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Tiny:
    """A family at tiny size.

    build: the pipeline, float32, frozen, in eval mode; always the same weights. Its output depends on prompt, timestep and image.
    side: pixels of the images it is tried on.
    oracle: (pipeline, clean latents (1, C, h, w)) -> a replacement for the denoiser's `forward`, that answers any call of the
        pipeline or of `predict` as a perfect denoiser would, for images that are all `clean`. Its formulas are written out, not
        taken from dpo.
    latents: what the pipeline returns with output_type="latent" -> (B, C, h, w), as `encode_images` gives them.
    options: of the pipeline's call, besides those the family adds by itself.
    tolerance: of the sampler's landing; coarse schedules leave some.
    """

    title: str
    build: Callable[[], object]
    side: int
    oracle: Callable[[object, Tensor], Callable]
    latents: Callable[[Tensor, object], Tensor] = lambda latents, pipeline: latents
    options: dict = field(default_factory=dict)
    tolerance: float = 1e-3

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "_")


def freeze(pipeline):
    """As `load_pipeline` leaves one."""
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.eval().requires_grad_(False)
    return pipeline


def families() -> list[Tiny]:
    """All of them, in the order of the README's table."""
    from tests.families import (
        chroma,
        flux,
        flux_2,
        lumina2,
        pixart_sigma,
        qwen_image,
        sana,
        stable_diffusion,
        stable_diffusion_3,
        stable_diffusion_xl,
        z_image,
    )

    return [
        *stable_diffusion.TINIES,
        *stable_diffusion_xl.TINIES,
        *stable_diffusion_3.TINIES,
        *flux.TINIES,
        *flux_2.TINIES,
        *chroma.TINIES,
        *z_image.TINIES,
        *qwen_image.TINIES,
        *sana.TINIES,
        *lumina2.TINIES,
        *pixart_sigma.TINIES,
    ]
