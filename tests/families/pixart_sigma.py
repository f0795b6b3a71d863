"""PixArt-Sigma, tiny, with the variance it learned beside the noise."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

from tests.families import Tiny, freeze
from tests.families.parts import build_vae, same_weights, t5


def build_pipeline() -> PixArtSigmaPipeline:
    with same_weights():
        tokenizer, text_encoder = t5(16)
        transformer = PixArtTransformer2DModel(
            sample_size=8, in_channels=4, out_channels=8, num_layers=2, num_attention_heads=2, attention_head_dim=8,
            cross_attention_dim=16, caption_channels=16, patch_size=2,
        )  # fmt: skip
        vae = build_vae(scaling_factor=0.13025)
    pipeline = PixArtSigmaPipeline(tokenizer, text_encoder, vae, transformer, DPMSolverMultistepScheduler())
    return freeze(pipeline)


def oracle(pipeline, clean):
    """noisy = sqrt(a) clean + sqrt(1 - a) noise; the answer is the noise, and after it, in the channels, what no one reads."""
    alphas = pipeline.scheduler.alphas_cumprod

    def forward(noisy, timestep, return_dict=True, **kwargs):
        alpha = alphas[timestep].reshape(-1, 1, 1, 1)
        answer = torch.cat([(noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt(), torch.full_like(noisy, 9.0)], 1)
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [Tiny("PixArt-Sigma", build_pipeline, 16, oracle)]
