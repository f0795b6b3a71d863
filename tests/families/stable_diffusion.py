"""Stable Diffusion 1.x and 2.x, tiny: tests/tiny.py has the pipeline of the first; the second is shaped as 2.1 is."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from tests.families import Tiny, freeze
from tests.families.parts import build_vae, clip, same_weights
from tests.tiny import build_pipeline


def build_second(scheduler=None) -> StableDiffusionPipeline:
    """Linear projections, another number of heads at every depth, attention scores in float32, OpenCLIP. The schedule is not
    rescaled: some signal is left at its end, and some noise at its start."""
    with same_weights():
        tokenizer, text_encoder = clip(16, hidden_act="gelu")
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16, attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True,
        )  # fmt: skip
        vae = build_vae(scaling_factor=0.18215)
    scheduler = scheduler or DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type="v_prediction",
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return freeze(pipeline)


def oracle(pipeline, clean):
    """noisy = sqrt(a) clean + sqrt(1 - a) noise; the answer is the noise, or sqrt(a) noise - sqrt(1 - a) clean."""
    alphas = pipeline.scheduler.alphas_cumprod.to(clean.dtype)
    kind = pipeline.scheduler.config.prediction_type

    def forward(noisy, timestep, encoder_hidden_states=None, return_dict=True, **kwargs):
        alpha = alphas[torch.as_tensor(timestep).long()].reshape(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        answer = noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [
    Tiny("SD 1.x", lambda: freeze(build_pipeline()), 16, oracle),
    Tiny("SD 2.x v", build_second, 16, oracle, tolerance=0.15),  # its sampler stops at sqrt(1 - 0.99915) = 0.03 of noise
]
