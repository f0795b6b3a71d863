"""FLUX.2, tiny: dev, with a plain tokenizer in the place of its PixtralProcessor, and klein, base and distilled."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

from tests.families import Tiny, freeze
from tests.families.language_models import qwen_tokenizer, strengthen
from tests.families.parts import same_weights

# As narrow as can be: the pipelines read the hidden states of layers 27 and 30.
SIZES = {
    "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
CONVERSATION = "{% for message in messages %}[{{ message.role }}]{{ message.content[0].text }}[/{{ message.role }}]{% endfor %}"


def build_dev() -> Flux2Pipeline:
    with same_weights():
        tokenizer = qwen_tokenizer()
        tokenizer.chat_template = CONVERSATION
        text = {"model_type": "mistral", "vocab_size": len(tokenizer), "num_hidden_layers": 31, **SIZES}
        vision = {
            "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 8,
        }  # fmt: skip
        text_encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
        parts = {"vae": build_vae(), "transformer": build_transformer(guidance=True)}
    return freeze(Flux2Pipeline(scheduler=build_scheduler(), text_encoder=text_encoder, tokenizer=tokenizer, **parts))


def build_klein(*, distilled: bool = False) -> Flux2KleinPipeline:
    with same_weights():
        tokenizer = qwen_tokenizer()
        text_encoder = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=28, **SIZES))
        parts = {"vae": build_vae(), "transformer": build_transformer(guidance=False)}
    return freeze(
        Flux2KleinPipeline(
            scheduler=build_scheduler(), text_encoder=text_encoder, tokenizer=tokenizer, is_distilled=distilled, **parts
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def build_transformer(*, guidance: bool) -> Flux2Transformer2DModel:
    return strengthen(
        Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=3 * SIZES["hidden_size"], timestep_guidance_channels=16, axes_dims_rope=(2, 2, 2, 2),
            guidance_embeds=guidance,
        ), 2.0,
    )  # fmt: skip


def build_vae() -> AutoencoderKLFlux2:
    """Its statistics are no two alike."""
    found = AutoencoderKLFlux2(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    found.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    found.bn.running_var.copy_(torch.linspace(0.5, 4, 16))
    return found


def oracle(pipeline, clean):
    """It is told sigma, and noisy = (1 - sigma) clean + sigma noise, a token for every pixel of the latents, so noise - clean is
    (noisy - clean) / sigma."""
    tokens = clean.reshape(*clean.shape[:2], -1).permute(0, 2, 1)

    def forward(hidden_states, timestep=None, return_dict=True, **kwargs):
        answer = (hidden_states - tokens) / timestep.reshape(-1, 1, 1)
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


def latents(found, pipeline):
    """Of tokens of a square image; or, as klein's pipeline returns them, of what the VAE decodes."""
    if found.ndim == 3:
        side = math.isqrt(found.shape[1])
        return found.permute(0, 2, 1).reshape(len(found), -1, side, side)
    rows, channels, height, width = found.shape
    patches = found.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(rows, 4 * channels, height // 2, width // 2)
    bn = pipeline.vae.bn
    return (patches - bn.running_mean.reshape(1, -1, 1, 1)) / (bn.running_var.reshape(1, -1, 1, 1) + 1e-4).sqrt()


TINIES = [
    Tiny("FLUX.2 dev", build_dev, 16, oracle, latents),
    Tiny("FLUX.2 klein", build_klein, 16, oracle, latents),
]
