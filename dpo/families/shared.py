"""What families share: a diffusers pipeline whose denoiser trains, and encoders that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpo.families import Conditioning
from dpo.families.noising import DDPM, RectifiedFlow
from dpo.prompts import plain_words


class PipelineFamily:
    """The part of `Family` that depends on the pipeline's class only by name. Subclasses add `encode_prompts`, `predict` and
    `prompt_arguments`, and replace what is otherwise with them.

    noising: how they add noise, DDPM or RectifiedFlow.
    reach: how far prompts are read: the name of the tokenizer whose encoder reads farthest, and how many of its tokens, those at
        begin and end among them. None: to the end, whatever it takes.
    before: what the pipeline puts before a prompt, where that counts among the tokens.
    """

    denoiser_name: ClassVar[str] = "transformer"
    timestep_sampling: ClassVar[str] = "uniform"
    lora_targets: ClassVar[list[str]] = ["to_q", "to_k", "to_v", "to_out.0"]
    mlp_targets: ClassVar[list[str]] = ["ff.net.0.proj", "ff.net.2"]
    blocks: ClassVar[list[str]] = ["transformer_blocks"]
    reach: tuple[str, int] | None = None
    before: str = ""

    def __init__(self, pipeline, noising: DDPM | RectifiedFlow, *, pixel_multiple: int, image_side: int):
        self.pipeline = pipeline
        self.denoiser: nn.Module = getattr(pipeline, self.denoiser_name)
        self.pixel_multiple, self.image_side = pixel_multiple, image_side
        self.timesteps, self.add_noise = noising.timesteps, noising.add_noise
        self.device = self.denoiser.device
        self._dtype = self.denoiser.dtype  # asked for now: later the adapter's float32 would be among the answers

    def cut_tokens(self, prompt: str) -> int:
        if self.reach is None:
            return 0
        name, room = self.reach
        text = self.before + plain_words(prompt)
        return max(0, len(getattr(self.pipeline, name)(text, verbose=False).input_ids) - room)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        return self._scale(self._encode_pixels(pixels))

    def size_conditioning(self, original: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        return {}

    def park_encoders(self) -> None:
        for module in self._encoders().values():
            module.to("cpu")

    @contextmanager
    def encoders(self, *, only_vae: bool = False) -> Iterator[None]:
        modules = [module for name, module in self._encoders().items() if name == "vae" or not only_vae]
        places = [module.device for module in modules]
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            for module, place in zip(modules, places, strict=True):
                module.to(place)

    def release_encoders(self) -> None:
        self.pipeline.register_modules(**dict.fromkeys(self._encoders()))

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        return {"guidance_scale": guidance_scale}

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> what the VAE says, unscaled."""
        vae = self.pipeline.vae
        with _upcast(vae):
            encoded = vae.encode(pixels.to(vae.device, vae.dtype))
        # The mean of the posterior, not a sample of it: the same image must give the same latents in every epoch and run.
        return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]

    def _scale(self, latents: Tensor) -> Tensor:
        config = self.pipeline.vae.config
        return (latents - (config.get("shift_factor") or 0.0)) * config.scaling_factor

    def _encoders(self) -> dict[str, nn.Module]:
        parts = self.pipeline.components
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module) and name != self.denoiser_name}


@contextmanager
def _upcast(vae: nn.Module) -> Iterator[None]:
    """Within it a VAE whose numbers outgrow float16 (it says so: `force_upcast`) is in float32, as SDXL's pipeline decodes."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        vae.to(dtype=torch.float16)
