"""Stable Diffusion 1.x and 2.x, and the demo model: a UNet conditioned on the token embeddings of one CLIP."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.clip_windows import Window, encode_windows, level, split_windows
from dpo.families.noising import DDPM
from dpo.families.shared import PipelineFamily


class StableDiffusion(PipelineFamily):
    denoiser_name = "unet"
    mlp_targets: ClassVar[list[str]] = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
    blocks: ClassVar[list[str]] = ["down_blocks", "mid_block", "up_blocks"]

    def __init__(self, pipeline: StableDiffusionPipeline):
        unet = pipeline.unet
        super().__init__(
            pipeline,
            DDPM(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1),
            image_side=unet.config.sample_size * pipeline.vae_scale_factor,
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        encoded = [self._encode(split_windows(prompt, self.pipeline.tokenizer)) for prompt in prompts]
        return {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds = conditioning["prompt_embeds"].to(self._dtype)
        return self.denoiser(noisy.to(self._dtype), timesteps, embeds).sample

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        positive, negative = level(*(split_windows(text, self.pipeline.tokenizer) for text in (prompt, negative_prompt)))
        return self._encode(positive) | {f"negative_{name}": tensor for name, tensor in self._encode(negative).items()}

    def _encode(self, windows: list[Window]) -> Conditioning:
        embeds, _ = encode_windows(windows, self.pipeline.tokenizer, self.pipeline.text_encoder)
        return {"prompt_embeds": embeds.to(self.device)}
