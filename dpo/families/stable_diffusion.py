"""Stable Diffusion 1.x, and the demo model: a UNet conditioned on CLIP token embeddings."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import DDPM


class StableDiffusion:
    def __init__(self, pipeline: StableDiffusionPipeline):
        self.pipeline = pipeline
        self.denoiser = pipeline.unet
        self.lora_targets = ["to_q", "to_k", "to_v", "to_out.0"]
        self._dtype = pipeline.unet.dtype  # asked for now: later the adapter's float32 would be among the answers
        if pipeline.unet.device.type == "cpu":
            # The backward of the fused attention is 10 times slower on a CPU than the plain one's.
            pipeline.unet.set_attn_processor(AttnProcessor())
        self.pixel_multiple = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
        noising = DDPM(pipeline.scheduler.config)
        self.timesteps, self.add_noise = noising.timesteps, noising.add_noise

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, _ = self.pipeline.encode_prompt(prompts, self.denoiser.device, 1, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds}

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae
        encoded = vae.encode(pixels.to(vae.device, vae.dtype))
        # The mean of the posterior, not a sample of it: the same image must give the same latents in every epoch and run.
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * vae.config.scaling_factor

    def release_encoders(self) -> None:
        self.pipeline.register_modules(vae=None, text_encoder=None)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds = conditioning["prompt_embeds"].to(self._dtype)
        return self.denoiser(noisy.to(self._dtype), timesteps, embeds).sample
