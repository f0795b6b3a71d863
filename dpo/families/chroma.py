"""Chroma: FLUX.1 schnell without its CLIP and its guidance, trained anew, and guided by negative prompts."""

from __future__ import annotations

import torch
from diffusers import ChromaPipeline
from torch import Tensor

from dpo.families import Conditioning
from dpo.families.flux import Flux
from dpo.families.packing import pack, positions, unpack
from dpo.prompts import plain_words


class Chroma(Flux):
    """Its transformer reads a prompt's tokens and one of padding. The pipeline pads to 512 and masks the rest; we leave the rest
    out. That is the same, as the transformer is not told where in a text a token stands, and it spares more than time: the
    pipeline's own mask is of floats, which attention adds instead of masking with them (diffusers issue 13619), and with gradient
    checkpointing single blocks are told of no mask at all.
    """

    def __init__(self, pipeline: ChromaPipeline):
        super().__init__(pipeline)
        self.reach = ("tokenizer", 512)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        embeds, _, is_read, *_ = self.pipeline.encode_prompt(
            [*map(plain_words, prompts)], device=self.device, do_classifier_free_guidance=False
        )
        lengths = is_read.sum(1).int().tolist()
        assert len(set(lengths)) == 1, "prompts of different lengths are encoded one at a time"
        return {"prompt_embeds": embeds[:, : lengths[0]]}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = noisy.shape[2:]
        embeds = conditioning["prompt_embeds"].to(self._dtype)
        tokens = self.denoiser(
            hidden_states=pack(noisy.to(self._dtype)),
            timestep=timesteps.to(self._dtype) / 1000,
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=noisy.device),
            img_ids=positions(1, height // 2, width // 2, device=noisy.device),
        ).sample
        return unpack(tokens, height, width)

    def prompt_arguments(self, prompt: str, negative_prompt: str) -> dict[str, Tensor]:
        arguments = {}
        for sign, text in (("", prompt), ("negative_", negative_prompt)):
            embeds = self.encode_prompts([text])["prompt_embeds"]
            arguments[f"{sign}prompt_embeds"] = embeds
            arguments[f"{sign}prompt_attention_mask"] = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        return arguments
