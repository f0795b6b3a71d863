"""Lumina Image 2.0, tiny. A latent is 8 pixels wide, whatever the VAE: its pipeline says so."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

from tests.families import Tiny, freeze
from tests.families.language_models import WIDTH, gemma2, gemma_tokenizer, strengthen
from tests.families.parts import build_vae, same_weights

# What the pipeline puts before a prompt.
INSTRUCTION = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based on textual "
    "prompts or user prompts. <Prompt Start>"
)


def build() -> Lumina2Pipeline:
    with same_weights():
        tokenizer = gemma_tokenizer(INSTRUCTION)
        text_encoder = gemma2(tokenizer)
        transformer = Lumina2Transformer2DModel(
            sample_size=4, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=2,
            num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 4, 4), axes_lens=(512, 16, 16), cap_feat_dim=WIDTH,
        )  # fmt: skip
        vae = build_vae(4, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False)
    pipeline = Lumina2Pipeline(
        transformer=strengthen(transformer, 4.0), scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0), vae=vae,
        text_encoder=text_encoder, tokenizer=tokenizer,
    )  # fmt: skip
    return freeze(pipeline)


def oracle(pipeline, clean):
    """It is told time, 0 for noise, and noisy = time clean + (1 - time) noise; the answer is clean - noise."""

    def forward(hidden_states, timestep=None, return_dict=True, **kwargs):
        time = timestep.reshape(-1, 1, 1, 1)
        noise = (hidden_states - time * clean) / (1 - time)
        answer = clean - noise
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [Tiny("Lumina 2", build, 32, oracle)]
