"""Chroma, tiny."""

from __future__ import annotations

from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tests.families import Tiny, freeze
from tests.families.flux import oracle, unpacked
from tests.families.language_models import strengthen
from tests.families.parts import build_vae, same_weights, t5


def build() -> ChromaPipeline:
    with same_weights():
        tokenizer, text_encoder = t5(16)
        transformer = ChromaTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(2, 2, 4), approximator_num_channels=16, approximator_hidden_dim=16,
            approximator_layers=1,
        )  # fmt: skip
        vae = build_vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False)
    pipeline = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, transformer=strengthen(transformer, 2.0),
    )  # fmt: skip
    return freeze(pipeline)


TINIES = [Tiny("Chroma", build, 16, oracle, unpacked)]
