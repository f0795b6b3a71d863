"""Checkpoint files as ComfyUI and A1111 use them, made out of diffusers pipelines: the names their authors gave, written down by
hand and not taken from diffusers' converters, which are to read these files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]
UNET = "model.diffusion_model."
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


def unet(model) -> Weights:
    """Of Stable Diffusion: blocks are counted through, and a block's downsampler or upsampler is the last of its parts."""
    names = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }  # fmt: skip
    number = 1
    for place, block in enumerate(model.down_blocks):
        for layer in range(len(block.resnets)):
            names[f"down_blocks.{place}.resnets.{layer}"] = f"input_blocks.{number}.0"
            names[f"down_blocks.{place}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        names[f"down_blocks.{place}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
        number += bool(block.downsamplers)
    names |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
              "mid_block.resnets.1": "middle_block.2"}  # fmt: skip
    number = 0
    for place, block in enumerate(model.up_blocks):
        for layer in range(len(block.resnets)):
            names[f"up_blocks.{place}.resnets.{layer}"] = f"output_blocks.{number}.0"
            names[f"up_blocks.{place}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        last = 2 if getattr(block, "attentions", None) else 1
        names[f"up_blocks.{place}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{last}.conv"
    return {f"{UNET}{_resnet(_renamed(name, names))}": tensor for name, tensor in model.state_dict().items()}


def vae(model) -> Weights:
    """The decoder's levels are counted from the last one; attentions are convolutions of one pixel."""
    levels = len(model.decoder.up_blocks)
    names = {
        "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
    }  # fmt: skip
    for level in range(levels):
        for kind, place in (("encoder.down", level), ("decoder.up", levels - 1 - level)):
            part = kind.partition(".")[2]
            for layer in range(model.config.layers_per_block + (part == "up")):
                names[f"{kind}_blocks.{level}.resnets.{layer}."] = f"{kind}.{place}.block.{layer}."
            names[f"{kind}_blocks.{level}.{part}samplers.0"] = f"{kind}.{place}.{part}sample"
    weights = {}
    for name, tensor in model.state_dict().items():
        new = _replaced(name, names)
        if "mid_block.attentions.0" in new:
            new = _replaced(new, VAE_ATTENTION).replace("mid_block.attentions.0", "mid.attn_1")
            tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        weights[f"first_stage_model.{new}"] = tensor
    return weights


def clip(model, prefix: str) -> Weights:
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    return {f"{prefix}transformer.text_model.{name}": tensor for name, tensor in theirs.items()}


def open_clip(model, prefix: str) -> Weights:
    """The three projections of an attention are one matrix, and the projection of the whole stands on its side."""
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    weights = {
        "positional_embedding": theirs["embeddings.position_embedding.weight"],
        "token_embedding.weight": theirs["embeddings.token_embedding.weight"],
        "ln_final.weight": theirs["final_layer_norm.weight"],
        "ln_final.bias": theirs["final_layer_norm.bias"],
        "text_projection": theirs["text_projection.weight"].T,
    }
    for layer in range(model.config.num_hidden_layers):
        block, resblock = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [theirs[f"{block}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"{resblock}attn.in_proj_{kind}"] = torch.cat(parts)
            weights |= {f"{resblock}{new}.{kind}": theirs[f"{block}{old}.{kind}"] for old, new in OPEN_CLIP.items()}
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def stable_diffusion(pipeline) -> Weights:
    return unet(pipeline.unet) | vae(pipeline.vae) | clip(pipeline.text_encoder, "cond_stage_model.")


def stable_diffusion_xl(pipeline) -> Weights:
    first = clip(pipeline.text_encoder, "conditioner.embedders.0.")
    return unet(pipeline.unet) | vae(pipeline.vae) | first | open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")


def z_image(transformer) -> Weights:
    """The three projections of an attention are one matrix here too."""
    names = {
        "all_x_embedder.2-1.": "x_embedder.", "all_final_layer.2-1.": "final_layer.", "attention.to_out.0": "attention.out",
        "attention.norm_q": "attention.q_norm", "attention.norm_k": "attention.k_norm",
    }  # fmt: skip
    weights = {_replaced(name, names): tensor for name, tensor in transformer.state_dict().items()}
    for name in [name for name in weights if name.endswith("attention.to_q.weight")]:
        parts = [weights.pop(name.replace("to_q", f"to_{part}")) for part in "qkv"]
        weights[name.replace("to_q", "qkv")] = torch.cat(parts)
    return weights


def write(path: Path, weights: Weights, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata)
    return path


def _renamed(name: str, names: dict[str, str]) -> str:
    """By the longest beginning that has another name."""
    for old in sorted(names, key=len, reverse=True):
        if name.startswith(f"{old}."):
            return names[old] + name.removeprefix(old)
    return name


def _resnet(name: str) -> str:
    """A resnet's parts, where the name is one of a resnet: those of attentions are called the same on both sides."""
    parts = name.split(".")
    return ".".join(RESNET.get(part, part) for part in parts) if "transformer_blocks" not in parts else name


def _replaced(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name
