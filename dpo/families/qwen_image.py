"""Qwen-Image: a transformer over what a vision-language model makes of the prompt and over the patches of the image, which is a
video of one frame to its VAE."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import QwenImagePipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.packing import pack, unpack
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words

LONGEST = 512  # tokens of a prompt: what the pipeline's call cuts it to, though its `encode_prompt` would take 1024


class QwenImage(PipelineFamily):
    lora_targets: ClassVar[list[str]] = [
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"
    ]  # fmt: skip
    mlp_targets: ClassVar[list[str]] = ["img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]

    def __init__(self, pipeline: QwenImagePipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=2 * pipeline.vae_scale_factor,  # patches of 2x2 latents
            image_side=pipeline.default_sample_size * pipeline.vae_scale_factor,
        )
        self.before = pipeline.prompt_template_encode.partition("{}")[0]
        self.reach = ("tokenizer", pipeline.prompt_template_encode_start_idx + LONGEST)  # it leaves out the first ones

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        # One at a time: together they would be padded to the longest, and need a mask.
        embeds = [
            self.pipeline.encode_prompt(plain_words(prompt), self.device, max_sequence_length=LONGEST)[0] for prompt in prompts
        ]
        return {"prompt_embeds": torch.cat(embeds)}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        rows, _, height, width = noisy.shape
        tokens = self.denoiser(
            hidden_states=pack(noisy.to(self._dtype)),
            timestep=timesteps.to(self._dtype) / 1000,
            encoder_hidden_states=conditioning["prompt_embeds"].to(self._dtype),
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
        ).sample
        return unpack(tokens, height, width)

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        embeds, negative = (self.encode_prompts([text])["prompt_embeds"] for text in (prompt, negative_prompt))
        return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        # Its `guidance_scale` is for a distilled model that does not exist yet.
        return {"true_cfg_scale": guidance_scale}

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        return super()._encode_pixels(pixels.unsqueeze(2)).squeeze(2)

    def _scale(self, latents: Tensor) -> Tensor:
        """Channel by channel."""
        config = self.pipeline.vae.config
        mean, std = (latents.new_tensor(values).reshape(-1, 1, 1) for values in (config.latents_mean, config.latents_std))
        return (latents - mean) / std
