"""Model families. A family is everything the trainer must not know about one architecture.

To add one: a file here, a `case` in `load_family` and its line in `dpo/architectures.py`, a test on a tiny real pipeline. What
they share is in `dpo/families/shared.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from dpo import StudioError
from dpo.architectures import supported

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Conditioning = dict[str, Tensor]  # whatever `predict` needs; every tensor has the batch first
else:
    Conditioning = dict


class FamilyError(StudioError):
    """An architecture this version cannot train."""


class Family(Protocol):
    """All the trainer, and the sampler, see of a model."""

    pipeline: object  # the diffusers pipeline the parts below belong to
    denoiser: nn.Module  # the UNet or transformer: the only thing that trains
    device: torch.device  # where encoders come to encode, and where the denoiser computes: it may be brought there after them
    denoiser_name: str  # what the pipeline, and the keys of an adapter file, call it: "unet" or "transformer"
    lora_targets: list[str]  # module name suffixes of its attention, which get an adapter
    mlp_targets: list[str]  # module name suffixes of what stands between the attentions: an adapter of more capacity
    blocks: list[str]  # names of its lists of blocks, in the order in which they compute
    pixel_multiple: int  # image sides must be multiples of this
    image_side: int  # pixels: the side of the square images it was made for
    timestep_sampling: str  # the law of `u` it was trained with: "uniform" or "logit_normal"

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """All of one length, or the tensors could not be one: where lengths differ by prompt, ask for one at a time."""
        ...

    def cut_tokens(self, prompt: str) -> int:
        """How many tokens at its end no text encoder reads, for being too long."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents (B, C, h, w), scaled as the denoiser expects, the same every time."""
        ...

    def size_conditioning(self, original: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        """What `predict` is told of an image's size, one row: `original` (width, height) in its file, scaled and centre-cropped
        to `size`. Empty where sizes are no condition."""
        ...

    def park_encoders(self) -> None:
        """Move what only encoding needs, text encoders and VAE, off the device. They come back inside `encoders()`."""
        ...

    def encoders(self, *, only_vae: bool = False) -> AbstractContextManager[None]:
        """Within it text encoders and VAE are on the device; afterwards they are where they were."""
        ...

    def release_encoders(self) -> None:
        """Free them for good: nothing can be encoded or decoded afterwards."""
        ...

    def timesteps(self, u: Tensor) -> Tensor:
        """(B,) in [0, 1) -> (B,) in the scheduler's own units, noisier as u grows. The caller draws u."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """-> (noisy latents, the target `predict` should output), both (B, C, h, w)."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of `denoiser` -> (B, C, h, w), comparable with the target of `add_noise`."""
        ...

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor | list[Tensor]]:
        """What the pipeline's call takes in the place of one prompt and one negative prompt: a row each. Only this needs the
        text encoders; it reads a prompt as `encode_prompts` does."""
        ...

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        """What else the pipeline's call must be told: its own name of guidance, and to keep to the size that is asked for."""
        ...


def load_family(pipeline, device: str | None = None) -> Family:
    """The family of a loaded diffusers pipeline. Raises FamilyError for an architecture we do not know.

    device: where it will compute, for a denoiser that is brought there later; None: where its denoiser is.
    """
    family = _family_of(pipeline)
    if device is not None:
        import torch

        family.device = torch.device(device)
    return family


def _family_of(pipeline) -> Family:
    match type(pipeline).__name__:
        case "StableDiffusionPipeline":
            from dpo.families.stable_diffusion import StableDiffusion

            return StableDiffusion(pipeline)
        case "StableDiffusionXLPipeline":
            from dpo.families.stable_diffusion_xl import StableDiffusionXL

            return StableDiffusionXL(pipeline)
        case "PixArtSigmaPipeline":
            from dpo.families.pixart_sigma import PixArtSigma

            return PixArtSigma(pipeline)
        case "ZImagePipeline":
            from dpo.families.z_image import ZImage

            return ZImage(pipeline)
        case "QwenImagePipeline":
            from dpo.families.qwen_image import QwenImage

            return QwenImage(pipeline)
        case "SanaPipeline":
            from dpo.families.sana import Sana

            return Sana(pipeline)
        case "Lumina2Pipeline":
            from dpo.families.lumina2 import Lumina2

            return Lumina2(pipeline)
        case "StableDiffusion3Pipeline":
            from dpo.families.stable_diffusion_3 import StableDiffusion3

            return StableDiffusion3(pipeline)
        case "FluxPipeline":
            from dpo.families.flux import Flux

            return Flux(pipeline)
        case "ChromaPipeline":
            from dpo.families.chroma import Chroma

            return Chroma(pipeline)
        case "Flux2Pipeline":
            from dpo.families.flux_2 import Flux2Dev

            return Flux2Dev(pipeline)
        case "Flux2KleinPipeline":
            from dpo.families.flux_2 import Flux2Klein

            return Flux2Klein(pipeline)
        case other:
            raise FamilyError(f"This model is a {other}, which cannot be trained yet. Supported: {supported()}.")
