"""Stable Diffusion XL, and what was made from it: Pony, Illustrious, NoobAI, Animagine. The UNet is told the token embeddings of
two CLIPs, the pooled embedding of the second, and six numbers on the image's size (Podell et al. 2023, Section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.clip_windows import Window, encode_windows
from dpo.families.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """`time_ids`, a row for every image: height and width of its file; top and left of the crop, in pixels of the image after
    scaling and before cropping; height and width of what is left, which the denoiser sees."""

    def size_conditioning(self, original: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        (width, height), (target_width, target_height) = original, size
        scale = max(target_width / width, target_height / height)
        top, left = round((height * scale - target_height) / 2), round((width * scale - target_width) / 2)
        # float32 whatever the denoiser's: bfloat16 has 8 bits, and would make 1368 of 1365.
        return {"time_ids": torch.tensor([[height, width, top, left, target_height, target_width]], dtype=torch.float32)}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds, pooled = (conditioning[name].to(self._dtype) for name in ("prompt_embeds", "pooled_prompt_embeds"))
        added = {"text_embeds": pooled, "time_ids": conditioning["time_ids"]}
        return self.denoiser(noisy.to(self._dtype), timesteps, embeds, added_cond_kwargs=added).sample

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        encoded = super().prompt_arguments(prompt, negative_prompt)
        # SDXL was trained with zeros in the place of no prompt at all, and the model's own setting says whether it still is so.
        if not negative_prompt and self.pipeline.config.force_zeros_for_empty_prompt:
            for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
                encoded[name] = torch.zeros_like(encoded[name])
        return encoded

    def _encode(self, windows: list[Window]) -> Conditioning:
        pipeline, device = self.pipeline, self.device
        # Their tokens are the same, only their padding is not.
        embeds, _ = encode_windows(windows, pipeline.tokenizer, pipeline.text_encoder, layer=-2)
        embeds_2, pooled = encode_windows(windows, pipeline.tokenizer_2, pipeline.text_encoder_2, layer=-2)
        return {
            "prompt_embeds": torch.cat([embeds, embeds_2], dim=-1).to(device),
            "pooled_prompt_embeds": pooled.to(device),
        }

    def _scale(self, latents: Tensor) -> Tensor:
        config = self.pipeline.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return super()._scale(latents)
        mean, std = (latents.new_tensor(values).reshape(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
        return (latents - mean) * config.scaling_factor / std
