"""Z-Image, tiny. Most of its parameters are the embedding of the timestep, whose width is fixed."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

from tests.families import Tiny, freeze
from tests.families.language_models import WIDTH, qwen3, qwen_tokenizer, strengthen
from tests.families.parts import build_vae, same_weights


def build() -> ZImagePipeline:
    with same_weights():
        tokenizer = qwen_tokenizer()
        text_encoder = qwen3(tokenizer)
        transformer = ZImageTransformer2DModel(
            in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
            axes_dims=[4, 2, 2], axes_lens=[1024, 32, 32],
        )  # fmt: skip
        vae = build_vae(shift_factor=0.1159, scaling_factor=0.3611)
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, text_encoder=text_encoder, tokenizer=tokenizer,
        transformer=strengthen(transformer, 4.0),
    )  # fmt: skip
    return freeze(pipeline)


def oracle(pipeline, clean):
    """It is told time = 1 - sigma, and noisy = (1 - sigma) clean + sigma noise of one frame in a list; the answer is
    clean - noise, in a list."""

    def forward(images, time, captions, return_dict=True, **kwargs):
        sigma = 1 - time
        answers = []
        for noisy, part in zip(images, sigma, strict=True):
            frame = clean.movedim(0, 1)  # (C, 1, h, w)
            assert noisy.shape == frame.shape
            noise = (noisy - (1 - part) * frame) / part
            answers.append(frame - noise)
        return SimpleNamespace(sample=answers) if return_dict else (answers,)

    return forward


TINIES = [Tiny("Z-Image", build, 16, oracle)]
