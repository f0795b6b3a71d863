"""How images are sampled: what the page, the command line and `dpo.sampling` say to each other. Loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class SampleSettings:
    """`width` and `height` of 0 mean the model's own size; `sampler` "" its own sampler, else one of `dpo.samplers`."""

    sampling_steps: int = 20
    guidance_scale: float = 3.0
    width: int = 0
    height: int = 0
    negative_prompt: str = ""
    sampler: str = ""


@dataclass(frozen=True)
class Start:
    """The picture that images start from instead of noise, and for which share of the steps they move away from it, (0, 1]."""

    picture: Image.Image
    strength: float
