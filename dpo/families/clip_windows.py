"""CLIP alone, as A1111 and Forge read a prompt with it: weights, and windows for what is longer than the encoder.

A window is up to 75 tokens between a begin and an end token, padded as the pipeline pads. A long prompt goes on in the next one,
broken behind a comma where one is among the last 20 tokens, and BREAK begins a new one. Every window is encoded by itself,
weights multiply its embeddings token by token, and it gets its mean back (A1111's "Original" emphasis; ComfyUI moves away from
the empty prompt instead). The windows stand one behind the other for the denoiser's cross-attention.

A plain prompt of one window is encoded as `pipeline.encode_prompt` does it, to the bit. The library compel (2.5.1) was tried: it
weighs otherwise (away from the empty prompt, and by a mask below 1), copies the end token of the first window into the others,
and knows no BREAK.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpo.prompts import parse_prompt

Window = list[tuple[int, float]]  # tokens and their weights, without begin, end and padding

NEAR_COMMA = 20  # tokens, as A1111


def split_windows(prompt: str, tokenizer) -> list[Window]:
    """At least one, which may be empty."""
    room = tokenizer.model_max_length - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    windows: list[Window] = []
    for section in parse_prompt(prompt):
        window: Window = []
        for text, weight in section:
            for token in tokenizer(text, add_special_tokens=False, verbose=False).input_ids:
                if len(window) == room:
                    last = max((place for place, (other, _) in enumerate(window, 1) if other == comma), default=0)
                    end = last if last and token != comma and room - last < NEAR_COMMA else room
                    windows.append(window[:end])
                    window = window[end:]
                window.append((token, weight))
        windows.append(window)
    if len(windows) > 1 and not windows[-1]:  # a BREAK at the end
        windows.pop()
    return windows


def level(*prompts: list[Window]) -> list[list[Window]]:
    """As many windows for each: empty ones stand in for what is missing."""
    longest = max(map(len, prompts))
    return [[*windows, *([] for _ in range(longest - len(windows)))] for windows in prompts]


def encode_windows(windows: list[Window], tokenizer, encoder: nn.Module, layer: int | None = None) -> tuple[Tensor, Tensor]:
    """(1, tokens of all windows, dim), and what else the encoder says first of the first window: the pooled embedding (1, dim) of
    an encoder with a projection.

    layer: the hidden state that the denoiser takes, such as -2; None for the last one, normalised.
    """
    encoded = [_encode(window, tokenizer, encoder, layer) for window in windows]
    return torch.cat([embeds for embeds, _ in encoded], dim=1), encoded[0][1]


def _encode(window: Window, tokenizer, encoder: nn.Module, layer: int | None) -> tuple[Tensor, Tensor]:
    tokens = [tokenizer.bos_token_id, *(token for token, _ in window), tokenizer.eos_token_id]
    padding = tokenizer.model_max_length - len(tokens)
    ids = torch.tensor([tokens + [tokenizer.pad_token_id] * padding], device=encoder.device)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = torch.tensor([[1] * len(tokens) + [0] * padding], device=encoder.device)
    output = encoder(ids, attention_mask=mask, output_hidden_states=layer is not None)
    embeds = output[0] if layer is None else output.hidden_states[layer]
    if any(weight != 1 for _, weight in window):
        weights = torch.tensor([1.0, *(weight for _, weight in window), *[1.0] * (1 + padding)], device=embeds.device)
        weighed = embeds.float() * weights[None, :, None]
        embeds = (weighed * (embeds.float().mean() / weighed.mean())).to(embeds.dtype)
    return embeds, output[0]
