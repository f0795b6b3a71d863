"""PixArt-Sigma: a transformer that denoises by DDPM, conditioned on T5. Diffusers knows no adapters for it: they are
`dpo/adapter_loading.py`'s alone."""

from __future__ import annotations

import torch
from diffusers import PixArtSigmaPipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import DDPM
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words


class PixArtSigma(PipelineFamily):
    reach = ("tokenizer", 300)

    def __init__(self, pipeline: PixArtSigmaPipeline):
        config = pipeline.transformer.config
        super().__init__(
            pipeline,
            DDPM(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * config.patch_size,
            image_side=config.sample_size * pipeline.vae_scale_factor,
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, mask, _, _ = self.pipeline.encode_prompt([*map(plain_words, prompts)], False, device=self.device)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        noisy = noisy.to(self._dtype)
        answer = self.denoiser(
            noisy,
            encoder_hidden_states=conditioning["prompt_embeds"].to(self._dtype),
            encoder_attention_mask=conditioning["prompt_attention_mask"],
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},  # only PixArt-Alpha was told them
        ).sample
        return answer[:, : noisy.shape[1]]  # what follows, where it does, is the variance, which no sampler uses

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        encoded = self.pipeline.encode_prompt([plain_words(prompt)], True, [plain_words(negative_prompt)], device=self.device)
        return dict(zip(names, encoded, strict=True))

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        # Its negative prompt is "" unless told otherwise, and it refuses one beside an encoded one.
        return {"guidance_scale": guidance_scale, "use_resolution_binning": False, "negative_prompt": None}
