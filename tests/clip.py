"""A real CLIPModel at tiny size with its tokenizer and image processor, built offline, as folders that transformers loads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from tests.tiny import build_tokenizer

SIDE, WIDTH = 16, 8  # pixels; numbers of an embedding


def save_clip(folder: Path, seed: int = 0, with_processor: bool = True) -> Path:
    """The same seed gives the same weights. The embeddings are not small, so that scores differ visibly."""
    tokenizer = build_tokenizer()
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {
        "vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CLIPConfig(
            text_config=layer | words, vision_config=layer | {"image_size": SIDE, "patch_size": 4}, projection_dim=WIDTH,
            initializer_factor=3.0,
        )  # fmt: skip
        CLIPModel(config).save_pretrained(folder)
    if with_processor:
        tokenizer.save_pretrained(folder)
        size = {"height": SIDE, "width": SIDE}
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    return folder


def save_aesthetic(folder: Path, seed: int = 0) -> Path:
    """A folder with a head of the LAION kind, numbered as there (dropout has no weights), and the CLIP model it is for."""
    save_clip(folder / "clip", seed)
    sizes = {0: (WIDTH, 12), 2: (12, 6), 4: (6, 4), 6: (4, 3), 7: (3, 1)}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, (before, after) in sizes.items():
        tensors[f"layers.{number}.weight"] = torch.randn(after, before, generator=generator)
        tensors[f"layers.{number}.bias"] = torch.randn(after, generator=generator)
    save_file(tensors, folder / "aesthetic.safetensors")
    return folder
