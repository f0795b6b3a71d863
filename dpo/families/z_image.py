"""Z-Image, base and Turbo: a transformer over one sequence of image and caption. It takes lists, counts time from noise to image
and answers latents - noise."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.noising import RectifiedFlow
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words


class ZImage(PipelineFamily):
    reach = ("tokenizer", 512)
    before = "<|im_start|>user\n"
    mlp_targets: ClassVar[list[str]] = ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
    blocks: ClassVar[list[str]] = ["noise_refiner", "context_refiner", "layers"]

    def __init__(self, pipeline: ZImagePipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=2 * pipeline.vae_scale_factor,  # patches of 2x2 latents
            image_side=1024,
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        # A list of our own: the pipeline writes its chat template into it.
        embeds, _ = self.pipeline.encode_prompt([*map(plain_words, prompts)], self.device, do_classifier_free_guidance=False)
        return {"prompt_embeds": torch.stack(embeds)}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        images = list(noisy.to(self._dtype).unsqueeze(2).unbind())  # of one frame each
        captions = list(conditioning["prompt_embeds"].to(self._dtype).unbind())
        answers = self.denoiser(images, (1000 - timesteps) / 1000, captions).sample
        return -torch.stack(answers).squeeze(2)

    @torch.no_grad()
    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, list[Tensor]]:
        embeds, negative = self.pipeline.encode_prompt([plain_words(prompt)], self.device, True, [plain_words(negative_prompt)])
        return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}

    def sampling_options(self, guidance_scale: float) -> dict[str, object]:
        # The pipeline adds its scale times the difference to the prompt's answer, so that its 0 is everybody else's 1.
        return {"guidance_scale": max(guidance_scale - 1, 0.0)}
