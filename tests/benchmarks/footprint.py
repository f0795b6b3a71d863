"""What a training pass of every family's denoiser holds and computes at its real size: the numbers in dpo/footprints.py.

Counted, not measured: the real classes with their real settings on tensors without memory ("meta"), bfloat16, one image of the
family's own size, a LoRA of rank 16 on its attention. Attention holds its inputs and output, as every fused one does.

    weights_b      billions of the denoiser
    lora_m         millions of the adapter
    tflop          of one forward pass
    held_gb        what a forward pass keeps for the backward one
    held_gc_gb     the same with gradient checkpointing: the inputs of all blocks and what one of them keeps
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from unittest import mock

import torch
from diffusers import (
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)  # fmt: skip
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
JOINT = [*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
UNET = ["down_blocks", "mid_block", "up_blocks"]
BLOCKS, SINGLE = ["transformer_blocks"], ["transformer_blocks", "single_transformer_blocks"]
GB, TERA = 1e9, 1e12
XL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD35_LARGE = {
    "sample_size": 128, "num_layers": 38, "num_attention_heads": 38, "attention_head_dim": 64, "joint_attention_dim": 4096,
    "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": "rms_norm",
    "in_channels": 16, "out_channels": 16,
}  # fmt: skip
KLEIN_4B = {
    "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False,
}  # fmt: skip
PIXART = {"sample_size": 128, "use_additional_conditions": False, "caption_channels": 4096}


def empty(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16)


def tokens(image: int, channels: int, text: int, width: int, axes: int, **more: Tensor) -> dict:
    """A call of those that take images as a row of tokens."""
    return {
        "hidden_states": empty(1, image, channels), "encoder_hidden_states": empty(1, text, width), "timestep": empty(1),
        "img_ids": empty(image, axes), "txt_ids": empty(text, axes), **more,
    }  # fmt: skip


def pixels(channels: int, side: int, text: int, width: int, **more) -> dict:
    return {
        "hidden_states": empty(1, channels, side, side), "encoder_hidden_states": empty(1, text, width), "timestep": empty(1),
    } | more  # fmt: skip


def unet(side: int, width: int, **more) -> dict:
    return {
        "sample": empty(1, 4, side, side), "timestep": torch.tensor([500]), "encoder_hidden_states": empty(1, 77, width), **more,
    }  # fmt: skip


# Name -> (the denoiser, what it is called with, layers with an adapter, lists of blocks).
FAMILIES = {
    "SD 1.5": (
        lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768), lambda: unet(64, 768), ATTENTION, UNET,
    ),
    "SDXL": (
        lambda: UNet2DConditionModel(**XL),
        lambda: unet(128, 2048, added_cond_kwargs={"text_embeds": empty(1, 1280), "time_ids": empty(1, 6)}), ATTENTION, UNET,
    ),
    "SD 3.5 large": (
        lambda: SD3Transformer2DModel(**SD35_LARGE),
        lambda: pixels(16, 128, 333, 4096, pooled_projections=empty(1, 2048)), JOINT, BLOCKS,
    ),
    "FLUX.1 dev": (
        lambda: FluxTransformer2DModel(guidance_embeds=True),
        lambda: tokens(4096, 64, 512, 4096, 3, pooled_projections=empty(1, 768), guidance=empty(1)), JOINT, SINGLE,
    ),
    "Chroma": (ChromaTransformer2DModel, lambda: tokens(4096, 64, 512, 4096, 3), JOINT, SINGLE),
    "FLUX.2 klein 4B": (
        lambda: Flux2Transformer2DModel(**KLEIN_4B), lambda: tokens(4096, 128, 512, 7680, 4), [*JOINT, "to_qkv_mlp_proj"], SINGLE,
    ),
    "FLUX.2 dev": (
        Flux2Transformer2DModel, lambda: tokens(4096, 128, 512, 15360, 4, guidance=empty(1)), [*JOINT, "to_qkv_mlp_proj"], SINGLE,
    ),
    "Z-Image": (
        ZImageTransformer2DModel, lambda: {"x": [empty(16, 1, 128, 128)], "t": empty(1), "cap_feats": [empty(128, 2560)]},
        ATTENTION, ["layers"],
    ),
    "Qwen-Image": (
        QwenImageTransformer2DModel,
        lambda: {
            "hidden_states": empty(1, 4096, 64), "encoder_hidden_states": empty(1, 128, 3584), "timestep": empty(1),
            "img_shapes": [[(1, 64, 64)]], "encoder_hidden_states_mask": None,
        },
        JOINT, BLOCKS,
    ),
    "Sana 1.6B": (SanaTransformer2DModel, lambda: pixels(32, 32, 300, 2304), ATTENTION, BLOCKS),
    "Lumina 2": (
        lambda: Lumina2Transformer2DModel(cap_feat_dim=2304),
        lambda: pixels(16, 128, 256, 2304, encoder_attention_mask=torch.ones(1, 256, dtype=torch.bool, device="cpu")),
        ATTENTION, ["layers"],
    ),
    "PixArt-Sigma": (
        lambda: PixArtTransformer2DModel(**PIXART),
        lambda: pixels(4, 128, 300, 4096, added_cond_kwargs={"resolution": None, "aspect_ratio": None}), ATTENTION, BLOCKS,
    ),
}  # fmt: skip


def measure() -> dict:
    found = {}
    for name, (build, arguments, targets, lists) in FAMILIES.items():
        found[name] = _count(build, arguments, targets, lists)
        print(name, json.dumps(found[name]), file=sys.stderr)
    return {"benchmark": "footprint", "dtype": "bfloat16", "lora_rank": 16, "families": found}


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention keeps."""

    flops = 0

    @staticmethod
    def forward(ctx, query, key, value):
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        batch, heads, length, width = query.shape
        _Attention.flops += 2 * batch * heads * length * key.shape[2] * (width + value.shape[3])
        return out


def _count(build, arguments, targets: list[str], lists: list[str]) -> dict[str, float]:
    with torch.device("meta"):
        denoiser, call = build().to(torch.bfloat16), arguments()
    weights = sum(parameter.numel() for parameter in denoiser.parameters())
    inject_adapter_in_model(LoraConfig(r=16, target_modules=targets), denoiser.requires_grad_(False).eval(), "policy")
    adapter = [parameter for name, parameter in denoiser.named_parameters() if "policy" in name]
    kept = _Kept(denoiser, [block for name in lists for block in _blocks(denoiser.get_submodule(name))])
    _Attention.flops = 0

    def attend(query, key, value, *args, **kwargs):
        return _Attention.apply(query, key, value)

    counter = FlopCounterMode(display=False)
    with (
        mock.patch("torch.nn.functional.scaled_dot_product_attention", attend),
        torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor), counter,
    ):  # fmt: skip
        denoiser(**call)
    outside = kept.bytes[None]
    return {
        "weights_b": round(weights / GB, 2),
        "lora_m": round(sum(parameter.numel() for parameter in adapter) / 1e6, 1),
        "tflop": round((counter.get_total_flops() + _Attention.flops) / TERA, 2),
        "held_gb": round(kept.bytes.total() / GB, 2),
        "held_gc_gb": round((sum(kept.inputs.values()) + outside + max(kept.bytes[i] for i in kept.inputs)) / GB, 2),
    }


class _Kept:
    """Bytes that a forward pass keeps, by the block that computes, None outside of all; each storage once, weights never."""

    def __init__(self, denoiser: nn.Module, blocks: list[nn.Module]):
        self.bytes: Counter = Counter()
        self.inputs: dict[int, int] = {}
        self._seen = {tensor.untyped_storage()._cdata for tensor in (*denoiser.parameters(), *denoiser.buffers())}
        self._tensors: list[Tensor] = []  # or else a storage that is freed lends its address to another
        self._block: int | None = None
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda module, args, kwargs, n=number: self._enter(n, args, kwargs), with_kwargs=True)
            block.register_forward_hook(lambda *_: self._leave())

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._tensors.append(tensor)
            self.bytes[self._block] += storage.nbytes()
        return tensor

    def _enter(self, number: int, args: tuple, kwargs: dict) -> None:
        self._block = number
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.requires_grad]
        self.inputs[number] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _leave(self) -> None:
        self._block = None


def _blocks(part: nn.Module) -> list[nn.Module]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]
