"""What several tiny pipelines are made of besides language models: CLIP, T5, VAE. Weights follow from the seed of the caller:
`same_weights`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.tiny import build_tokenizer


@contextmanager
def same_weights() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def clip(
    hidden: int = 8, *, projection: int = 0, **settings
) -> tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]:
    """Of one token a letter, 16 at most. projection: the size of the pooled embedding, where that has one of its own. settings:
    such as `hidden_act`, which OpenCLIP's models have as "gelu"."""
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, projection_dim=projection or hidden,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **settings,
    )  # fmt: skip
    return tokenizer, (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(hidden: int = 16) -> tuple[T5Tokenizer, T5EncoderModel]:
    """Of one token a letter."""
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer), d_model=hidden, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def build_vae(levels: int = 2, **settings) -> AutoencoderKL:
    """Of latents with half the image's side, and half of that for every level more. settings: such as `shift_factor`."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels, latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels, **settings,
    )  # fmt: skip
