"""Latents as the sequence of tokens that FLUX and its like take: one token for every patch of 2x2, row by row of patches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4C): in a token channel by channel, and in a channel the patch row by row."""
    return flatten(pixel_unshuffle(latents, 2))


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The latents of that height and width that `pack` made these tokens of."""
    return pixel_shuffle(unflatten(tokens, height // 2, width // 2), 2)


def flatten(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C), in memory as the pipelines' own: in half precision another order rounds otherwise."""
    return latents.flatten(2).transpose(1, 2).contiguous()


def unflatten(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def positions(*sizes: int, device: torch.device) -> Tensor:
    """(product of sizes, len(sizes)): where each token stands along every axis, the last one running fastest."""
    return torch.cartesian_prod(*(torch.arange(size, device=device) for size in sizes))
