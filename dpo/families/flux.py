"""FLUX.1: dev, what was made from it (Krea, SRPO), and schnell. A transformer over T5's tokens and the patches of the image; of
CLIP it takes the pooled embedding alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import FluxPipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.packing import pack, positions, unpack
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words

# What dev is told of guidance while it trains. It was distilled to answer for a scale as that much guidance would have: only at 1
# is its answer the plain velocity that our target is. kohya's trainer advises the same; diffusers' scripts take 3.5.
GUIDANCE = 1.0


class Flux(PipelineFamily):
    lora_targets: ClassVar[list[str]] = [
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"
    ]  # fmt: skip
    blocks: ClassVar[list[str]] = ["transformer_blocks", "single_transformer_blocks"]

    def __init__(self, pipeline: FluxPipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * 2,  # patches of 2x2 latents
            image_side=pipeline.default_sample_size * pipeline.vae_scale_factor,
        )
        # What the two were trained with. They read the padding too, so this is no matter of memory alone.
        self._text_length = 512 if self.denoiser.config.get("guidance_embeds") else 256
        self.reach = ("tokenizer_2", self._text_length)
        # By their whole names: the last layer of all is called `proj_out` too.
        outputs = (f"single_transformer_blocks.{n}.proj_out" for n in range(len(self.denoiser.single_transformer_blocks)))
        self.mlp_targets = [
            "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", *outputs
        ]  # fmt: skip

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, pooled, _ = self.pipeline.encode_prompt(
            [*map(plain_words, prompts)], device=self.device, max_sequence_length=self._text_length
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        rows, _, height, width = noisy.shape
        embeds, pooled = (conditioning[name].to(self._dtype) for name in ("prompt_embeds", "pooled_prompt_embeds"))
        has_guidance = self.denoiser.config.guidance_embeds
        tokens = self.denoiser(
            hidden_states=pack(noisy.to(self._dtype)),
            timestep=timesteps.to(self._dtype) / 1000,
            guidance=torch.full((rows,), GUIDANCE, device=noisy.device) if has_guidance else None,
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=noisy.device),
            img_ids=positions(1, height // 2, width // 2, device=noisy.device),
        ).sample
        return unpack(tokens, height, width)

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        """Without the negative prompt: guidance is in the weights, and there is nothing to guide away from."""
        return self.encode_prompts([prompt])
