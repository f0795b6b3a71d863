"""Stable Diffusion 3.5, tiny, with its three text encoders and without the third."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from tests.families import Tiny, freeze
from tests.families.language_models import strengthen
from tests.families.parts import build_vae, clip, same_weights, t5


def build(*, with_t5: bool = True) -> StableDiffusion3Pipeline:
    with same_weights():
        tokenizer, text_encoder = clip(8, projection=8)
        tokenizer_2, text_encoder_2 = clip(8, projection=8, hidden_act="gelu")
        tokenizer_3, text_encoder_3 = t5(32)
        transformer = SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=8,
            dual_attention_layers=(0,), qk_norm="rms_norm",
        )  # fmt: skip
        vae = build_vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False)
    pipeline = StableDiffusion3Pipeline(
        transformer=strengthen(transformer, 2.0), vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=text_encoder, text_encoder_2=text_encoder_2, text_encoder_3=text_encoder_3 if with_t5 else None,
        tokenizer=tokenizer, tokenizer_2=tokenizer_2, tokenizer_3=tokenizer_3 if with_t5 else None,
    )  # fmt: skip
    return freeze(pipeline)


def oracle(pipeline, clean):
    """noisy = (1 - sigma) clean + sigma noise, so noise - clean is (noisy - clean) / sigma. A timestep is 1000 sigma."""

    def forward(hidden_states, timestep=None, return_dict=True, **kwargs):
        answer = (hidden_states - clean) / (timestep.reshape(-1, 1, 1, 1) / 1000)
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [
    Tiny("SD 3.5", build, 16, oracle),
    Tiny("SD 3.5 without T5", lambda: build(with_t5=False), 16, oracle),
]
