"""Sana: a transformer of linear attention over the latents of a VAE of factor 32, and over what Gemma 2 makes of an instruction
and the prompt."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from diffusers import SanaPipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words


class Sana(PipelineFamily):
    mlp_targets: ClassVar[list[str]] = ["ff.conv_inverted", "ff.conv_point"]
    timestep_sampling = "logit_normal"  # weighting_scheme of its own training configs

    def __init__(self, pipeline: SanaPipeline):
        config = pipeline.transformer.config
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * config.patch_size,
            image_side=pipeline.vae_scale_factor * config.sample_size,
        )
        # Users of the pipeline's call get it without asking, and users of its `encode_prompt` only if they ask.
        self._instruction = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default
        # Of the prompt itself 298: the pipeline takes two of its 300 for tokens that stand at the ends.
        self.before = "\n".join(self._instruction)
        self.reach = ("tokenizer", len(pipeline.tokenizer(self.before).input_ids) + 298)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            [*map(plain_words, prompts)], False, device=self.device, complex_human_instruction=self._instruction
        )
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return self.denoiser(
            noisy.to(self._dtype),
            encoder_hidden_states=conditioning["prompt_embeds"].to(self._dtype),
            encoder_attention_mask=conditioning["prompt_attention_mask"],
            timestep=timesteps,
        ).sample

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        encoded = self.pipeline.encode_prompt(
            [plain_words(prompt)],
            True,
            [plain_words(negative_prompt)],
            device=self.device,
            complex_human_instruction=self._instruction,
        )
        return dict(zip(names, encoded, strict=True))

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        # Its negative prompt is "" unless told otherwise, and it refuses one beside an encoded one.
        return {"guidance_scale": guidance_scale, "use_resolution_binning": False, "negative_prompt": None}
