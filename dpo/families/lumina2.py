"""Lumina Image 2.0: a transformer over one sequence of prompt and image. Its time goes from noise, 0, to the image, 1, and its
answer likewise."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words


class Lumina2(PipelineFamily):
    reach = ("tokenizer", 256)
    mlp_targets: ClassVar[list[str]] = ["feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"]
    blocks: ClassVar[list[str]] = ["context_refiner", "noise_refiner", "layers"]

    def __init__(self, pipeline: Lumina2Pipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * pipeline.transformer.config.patch_size,
            image_side=pipeline.default_image_size,
        )
        self.before = f"{pipeline.system_prompt} <Prompt Start> "

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, mask, _, _ = self.pipeline.encode_prompt([*map(plain_words, prompts)], False, device=self.device)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return -self.denoiser(
            hidden_states=noisy.to(self._dtype),
            timestep=1 - timesteps / 1000,
            encoder_hidden_states=conditioning["prompt_embeds"].to(self._dtype),
            encoder_attention_mask=conditioning["prompt_attention_mask"],
        ).sample

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        encoded = self.pipeline.encode_prompt([plain_words(prompt)], True, [plain_words(negative_prompt)], device=self.device)
        return dict(zip(names, encoded, strict=True))
