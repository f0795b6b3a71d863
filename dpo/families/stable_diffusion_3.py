"""Stable Diffusion 3 and 3.5: a transformer over image and text at once. The text is the token embeddings of two CLIPs, and after
them those of T5."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words


class StableDiffusion3(PipelineFamily):
    """A pipeline loaded without T5 (`text_encoder_3=None`, to save memory) works: it says zeros in its place, which the model
    was trained to bear (Esser et al. 2024, Section 5.3.3)."""

    timestep_sampling: ClassVar[str] = "logit_normal"
    # By their last names they are also found in the second attention that some blocks of 3.5 have, `attn2`.
    lora_targets: ClassVar[list[str]] = [
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"
    ]  # fmt: skip
    mlp_targets: ClassVar[list[str]] = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]

    def __init__(self, pipeline: StableDiffusion3Pipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * pipeline.patch_size,
            image_side=pipeline.default_sample_size * pipeline.vae_scale_factor,
        )
        has_t5 = pipeline.text_encoder_3 is not None
        self.reach = ("tokenizer_3", 256) if has_t5 else ("tokenizer", pipeline.tokenizer_max_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            [*map(plain_words, prompts)], None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds, pooled = (conditioning[name].to(self._dtype) for name in ("prompt_embeds", "pooled_prompt_embeds"))
        return self.denoiser(
            noisy.to(self._dtype), timestep=timesteps, encoder_hidden_states=embeds, pooled_projections=pooled
        ).sample

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        encoded = self.pipeline.encode_prompt(
            [plain_words(prompt)], None, None, device=self.device, negative_prompt=[plain_words(negative_prompt)]
        )
        return dict(zip(names, encoded, strict=True))
