"""Sana, tiny, with the scheduler that its checkpoints have, and with Euler's. Its pipeline takes multiples of 32 pixels alone."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)

from tests.families import Tiny, freeze
from tests.families.language_models import WIDTH, gemma2, gemma_tokenizer, strengthen
from tests.families.parts import same_weights

SIDE = 64  # latents of 2x2
INSTRUCTION = " ".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)


def build(scheduler=None) -> SanaPipeline:
    with same_weights():
        tokenizer = gemma_tokenizer(INSTRUCTION)
        text_encoder = gemma2(tokenizer)
        transformer = SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, sample_size=2, caption_channels=WIDTH,
            num_attention_heads=2, attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8,
            cross_attention_dim=16,
        )  # fmt: skip
        blocks = {"block_types": "ResBlock", "block_out_channels": (4,) * 6, "qkv_multiscales": ((),) * 6}
        halves = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in blocks.items()}
        vae = AutoencoderDC(
            latent_channels=4, encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6, scaling_factor=0.41407,
            attention_head_dim=2, downsample_block_type="conv", upsample_block_type="interpolate", **halves,
        )  # fmt: skip
    pipeline = SanaPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=strengthen(transformer, 4.0),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    return freeze(pipeline)


def build_as_published() -> SanaPipeline:
    return build(DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0))


def oracle(pipeline, clean):
    """A timestep is 1000 sigma, and noisy = (1 - sigma) clean + sigma noise; the answer is noise - clean."""

    def forward(noisy, encoder_hidden_states=None, timestep=None, return_dict=True, **kwargs):
        sigma = timestep.reshape(-1, 1, 1, 1) / 1000
        noise = (noisy - (1 - sigma) * clean) / sigma
        answer = noise - clean
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


TINIES = [
    # The solver tells whole timesteps alone, up to 1 less than it means.
    Tiny("Sana", build_as_published, SIDE, oracle, tolerance=1e-2),
    Tiny("Sana Euler", build, SIDE, oracle),
]
