"""Qwen-Image, tiny."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel

from tests.families import Tiny, freeze
from tests.families.flux import packed, unpacked
from tests.families.language_models import WIDTH, qwen25_vl, qwen_tokenizer, strengthen
from tests.families.parts import same_weights


def build() -> QwenImagePipeline:
    with same_weights():
        tokenizer = qwen_tokenizer()
        text_encoder = qwen25_vl(tokenizer)
        transformer = QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 2, 2),
        )  # fmt: skip
        vae = AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[-0.7571, -0.7089, -0.9113, 0.1075], latents_std=[2.8184, 1.4541, 2.3275, 2.6558],
        )  # fmt: skip
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, transformer=strengthen(transformer, 4.0),
    )  # fmt: skip
    return freeze(pipeline)


def oracle(pipeline, clean):
    """It is told sigma, and noisy = (1 - sigma) clean + sigma noise as tokens of one frame; the answer is noise - clean."""
    tokens = packed(clean)

    def forward(hidden_states, timestep=None, img_shapes=None, return_dict=True, **kwargs):
        height, width = clean.shape[2:]
        assert img_shapes == [[(1, height // 2, width // 2)]] * len(hidden_states)
        sigma = timestep.reshape(-1, 1, 1)
        noise = (hidden_states - (1 - sigma) * tokens) / sigma
        answer = noise - tokens
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [Tiny("Qwen-Image", build, 16, oracle, unpacked)]
