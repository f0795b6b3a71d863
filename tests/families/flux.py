"""FLUX.1, tiny: dev, which is told its guidance, and schnell, which is not."""

from __future__ import annotations

import math
from types import SimpleNamespace

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tests.families import Tiny, freeze
from tests.families.language_models import strengthen
from tests.families.parts import build_vae, clip, same_weights, t5


def build(*, guidance: bool) -> FluxPipeline:
    with same_weights():
        tokenizer, text_encoder = clip(8)
        tokenizer_2, text_encoder_2 = t5(16)
        transformer = FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=guidance, axes_dims_rope=(2, 2, 4),
        )  # fmt: skip
        vae = build_vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance)
    pipeline = FluxPipeline(
        scheduler=scheduler, vae=vae, transformer=strengthen(transformer, 3.0), text_encoder=text_encoder, tokenizer=tokenizer,
        text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
    )  # fmt: skip
    return freeze(pipeline)


def packed(latents):
    """A token for every patch of 2x2; in it all of the first channel, then all of the next."""
    rows, channels, height, width = latents.shape
    patches = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, height // 2 * (width // 2), 4 * channels)


def unpacked(tokens, pipeline=None):
    """Of a square image."""
    rows, count, channels = tokens.shape
    side = math.isqrt(count)
    patches = tokens.reshape(rows, side, side, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(rows, channels // 4, 2 * side, 2 * side)


def oracle(pipeline, clean):
    """It is told sigma, and noisy = (1 - sigma) clean + sigma noise as tokens, so noise - clean is (noisy - clean) / sigma."""
    tokens = packed(clean)

    def forward(hidden_states, timestep=None, return_dict=True, **kwargs):
        answer = (hidden_states - tokens) / timestep.reshape(-1, 1, 1)
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [
    Tiny("FLUX.1 dev", lambda: build(guidance=True), 16, oracle, unpacked),
    Tiny("FLUX.1 schnell", lambda: build(guidance=False), 16, oracle, unpacked),
]
