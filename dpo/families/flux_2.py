"""FLUX.2: dev, which is told a guidance, and klein, which is guided by negative prompts or, distilled, not at all.

Latents are what its pipelines denoise: patches of 2x2 of what the VAE says as one pixel of four times the channels, and these
brought to mean 0 and variance 1 by statistics that the VAE holds (its `bn`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from dpo.families import Conditioning, FamilyError
from dpo.families.flux import GUIDANCE
from dpo.families.noising import RectifiedFlow
from dpo.families.packing import flatten, positions, unflatten
from dpo.families.shared import PipelineFamily
from dpo.prompts import plain_words

TEXT_LENGTH = 512  # tokens, the chat around the prompt and the padding among them: all are read


class Flux2(PipelineFamily):
    """What dev and klein share: latents by the VAE's statistics, and tokens."""

    mlp_targets: ClassVar[list[str]] = ["ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"]
    blocks: ClassVar[list[str]] = ["transformer_blocks", "single_transformer_blocks"]

    def __init__(self, pipeline: Flux2Pipeline | Flux2KleinPipeline):
        super().__init__(
            pipeline,
            RectifiedFlow(pipeline.scheduler.config),
            pixel_multiple=pipeline.vae_scale_factor * 2,
            image_side=pipeline.default_sample_size * pipeline.vae_scale_factor,
        )
        # The outputs of single blocks by their whole names: in the other blocks `attn.to_out` is a list.
        outputs = (f"single_transformer_blocks.{n}.attn.to_out" for n in range(len(self.denoiser.single_transformer_blocks)))
        self.lora_targets = [
            "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
            "to_qkv_mlp_proj", *outputs,
        ]  # fmt: skip

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, _ = self.pipeline.encode_prompt([*map(plain_words, prompts)], device=self.device)
        return {"prompt_embeds": embeds}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        rows, _, height, width = noisy.shape
        embeds = conditioning["prompt_embeds"].to(self._dtype)
        has_guidance = self.denoiser.config.guidance_embeds
        tokens = self.denoiser(
            hidden_states=flatten(noisy.to(self._dtype)),
            timestep=timesteps.to(self._dtype) / 1000,
            guidance=torch.full((rows,), GUIDANCE, device=noisy.device) if has_guidance else None,
            encoder_hidden_states=embeds,
            txt_ids=positions(1, 1, 1, embeds.shape[1], device=noisy.device),
            img_ids=positions(1, height, width, 1, device=noisy.device),
        ).sample
        return unflatten(tokens, height, width)

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        """Without the negative prompt, which the pipeline does not take."""
        return self.encode_prompts([prompt])

    def _scale(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        mean, variance = (part.reshape(1, -1, 1, 1).to(latents) for part in (vae.bn.running_mean, vae.bn.running_var))
        return (pixel_unshuffle(latents, 2) - mean) / (variance + vae.config.batch_norm_eps).sqrt()


class Flux2Dev(Flux2):
    """What turns a prompt into Mistral's tokens, a PixtralProcessor, needs a package that is not everywhere. The pipeline loads
    without it (`tokenizer=None`), and prompts that are in the cache train."""

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        if self.pipeline.tokenizer is None:
            raise FamilyError(
                "FLUX.2 dev reads prompts with a PixtralProcessor, and this pipeline was loaded without it. Install torchvision, "
                "which it needs, and load the model again; or train without sample pictures (sample_every=0) and with a cache "
                "folder that was filled where it is installed."
            )
        return super().encode_prompts(prompts)

    def cut_tokens(self, prompt: str) -> int:
        if self.pipeline.tokenizer is None:
            return 0
        one, other = map(self._chat, ("a", "b"))  # each of one token, between what the chat puts before and behind a prompt
        before = next(number for number, tokens in enumerate(zip(one, other, strict=True)) if len(set(tokens)) > 1)
        return max(0, before + len(self._chat(plain_words(prompt))) - len(one) + 1 - TEXT_LENGTH)

    def _chat(self, prompt: str) -> list[int]:
        chat = format_input([prompt], self.pipeline.system_message)
        encoded = self.pipeline.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=False)
        return encoded["input_ids"][0]


class Flux2Klein(Flux2):
    """Qwen3 reads the prompt."""

    def __init__(self, pipeline: Flux2KleinPipeline):
        super().__init__(pipeline)
        self.before, self.reach = "<|im_start|>user\n", ("tokenizer", TEXT_LENGTH)

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        told = self.encode_prompts([prompt])
        if self.pipeline.config.is_distilled:
            return told
        return told | {"negative_prompt_embeds": self.encode_prompts([negative_prompt])["prompt_embeds"]}
