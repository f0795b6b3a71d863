"""Model families. A family is everything the trainer must not know about one architecture.

To add one: a file here, a `case` in `load_family`, a test on a tiny real pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dpo import StudioError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Conditioning = dict[str, Tensor]  # whatever `predict` needs; every tensor has the batch first
else:
    Conditioning = dict


class FamilyError(StudioError):
    """An architecture this version cannot train."""


class Family(Protocol):
    """All the trainer sees of a model."""

    pipeline: object  # the diffusers pipeline the parts below belong to
    denoiser: nn.Module  # the UNet or transformer: the only thing that trains
    lora_targets: list[str]  # module name suffixes that get an adapter
    pixel_multiple: int  # image sides must be multiples of this

    def encode_prompts(self, prompts: list[str]) -> Conditioning: ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents (B, C, h, w), scaled as the denoiser expects, the same every time."""
        ...

    def release_encoders(self) -> None:
        """Free what only the two functions above need. They cannot be called afterwards."""
        ...

    def timesteps(self, u: Tensor) -> Tensor:
        """(B,) in [0, 1) -> (B,) in the denoiser's own units, noisier as u grows. The caller draws u."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """-> (noisy latents, the target `predict` should output), both (B, C, h, w)."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of `denoiser` -> (B, C, h, w), comparable with the target of `add_noise`."""
        ...


def load_family(pipeline) -> Family:
    """The family of a loaded diffusers pipeline. Raises FamilyError for an architecture we do not know."""
    match type(pipeline).__name__:
        case "StableDiffusionPipeline":
            from dpo.families.stable_diffusion import StableDiffusion

            return StableDiffusion(pipeline)
        case other:
            raise FamilyError(
                f"This model is a {other}, which cannot be trained yet. Supported: StableDiffusionPipeline (SD 1.x)."
            )
