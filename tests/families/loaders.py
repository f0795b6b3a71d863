"""What other programs do with an adapter file: the names they look for, and what they compute. Written by hand from their
sources, not taken from dpo.

ComfyUI merges a file into the weights. comfy/lora.py, model_lora_keys_unet, says under which names; comfy/utils.py what they
stand for; comfy/weight_adapter/{lora,loha,lokr,base}.py what is added. A1111 and sd-scripts look for the same names with the same
arithmetic where the `kohya` format is offered.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FF = ("ff.net.0.proj", "ff.net.2")
# After a prefix and the name and number of a block: what ComfyUI has in its map of names. {list of blocks: layers}
COMFYUI = {
    # utils.py: mmdit_to_diffusers, MMDIT_MAP_BLOCK; lora.py: "regular diffusers sd3 lora format"
    "StableDiffusion3Pipeline": ("transformer.", {
        "transformer_blocks": (
            "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0",
            "attn.to_add_out", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", *FF, "ff_context.net.0.proj",
            "ff_context.net.2",
        ),
    }),
    # utils.py: flux_to_diffusers; lora.py: "simpletrainer and probably regular diffusers flux lora format". model_base.py: Chroma
    # and Flux2 are classes of Flux, so that the same map is theirs.
    "FluxPipeline": ("transformer.", {
        "transformer_blocks": (
            "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0",
            "attn.to_add_out", *FF, "ff_context.net.0.proj", "ff_context.net.2", "ff.linear_in", "ff.linear_out",
            "ff_context.linear_in", "ff_context.linear_out",
        ),
        "single_transformer_blocks": (
            "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out", "attn.to_qkv_mlp_proj", "attn.to_out",
        ),
    }),
    # utils.py: z_image_to_diffusers; lora.py: the branch of Lumina2, which Z-Image is one of. All its lists have the same layers.
    "ZImagePipeline": ("diffusion_model.", {
        blocks: (
            "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "feed_forward.w1", "feed_forward.w2",
            "feed_forward.w3",
        )
        for blocks in ("layers", "context_refiner", "noise_refiner")
    }),
    # lora.py: "generic lora format": its own names, which are diffusers' (comfy/ldm/qwen_image/model.py).
    "QwenImagePipeline": ("diffusion_model.", {
        "transformer_blocks": (
            "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0",
            "attn.to_add_out", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2",
        ),
    }),
    # utils.py: pixart_to_diffusers, by which whole diffusers checkpoints are read too; lora.py: "default format"
    "PixArtSigmaPipeline": ("transformer.", {
        "transformer_blocks": (
            *(f"attn{number}.{layer}" for number in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")), *FF,
        ),
    }),
}  # fmt: skip
COMFYUI |= {name: COMFYUI["FluxPipeline"] for name in ("ChromaPipeline", "Flux2Pipeline", "Flux2KleinPipeline")}
# comfy/ldm/lumina/model.py: JointAttention, FeedForward, by the "generic lora format". {name: diffusers' layers, row after row}
LUMINA = {
    "attention.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"), "attention.out": ("attn.to_out.0",),
    "feed_forward.w1": ("feed_forward.linear_1",), "feed_forward.w2": ("feed_forward.linear_2",),
    "feed_forward.w3": ("feed_forward.linear_3",),
}  # fmt: skip


def layers_named(pipeline: str, denoiser: nn.Module, name: str) -> list[str]:
    """diffusers' names of the layers that a loader changes for this name, in the order of their rows. KeyError: it has none."""
    if pipeline in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        return [_unet_names(pipeline, denoiser)[name]]
    if pipeline == "Lumina2Pipeline":
        block, inside = re.fullmatch(r"diffusion_model\.((?:layers|context_refiner|noise_refiner)\.\d+)\.(.*)", name).groups()
        return [f"{block}.{layer}" for layer in LUMINA[inside]]
    prefix, blocks = COMFYUI[pipeline]
    found = re.fullmatch(rf"{re.escape(prefix)}((\w+)\.\d+\.(.*))", name)
    if found is None or found[3] not in blocks[found[2]]:
        raise KeyError(name)
    return [found[1]]


@torch.no_grad()
def merge(pipeline: str, denoiser: nn.Module, file: Path) -> int:
    """Change the weights as a program does that loads the file at strength 1. Returns how many layers it changed."""
    groups: dict[str, dict[str, Tensor]] = {}
    endings = r"(.*)\.(lora_(?:up|down|A|B)\.weight|alpha|dora_scale|hada_\w+|lokr_\w+)"
    for key, tensor in load_file(file).items():
        name, ending = re.fullmatch(endings, key).groups()
        groups.setdefault(name, {})[ending] = tensor.float()
    modules, changed = dict(denoiser.named_modules()), 0
    for name, group in groups.items():
        weights = [modules[layer].weight for layer in layers_named(pipeline, denoiser, name)]
        whole = torch.cat(list(weights))
        for weight, rows in zip(weights, _changed(whole, group).split([len(weight) for weight in weights]), strict=True):
            weight.copy_(rows)
            changed += 1
    return changed


def _changed(weight: Tensor, group: dict[str, Tensor]) -> Tensor:
    alpha = group["alpha"].item() if "alpha" in group else None
    if "hada_w1_a" in group:
        scale = alpha / len(group["hada_w1_b"])
        return weight + scale * ((group["hada_w1_a"] @ group["hada_w1_b"]) * (group["hada_w2_a"] @ group["hada_w2_b"])).reshape(
            weight.shape
        )
    if any(name.startswith("lokr") for name in group):
        rank, halves = None, []
        for half in ("lokr_w1", "lokr_w2"):
            if half not in group:
                rank = len(group[f"{half}_b"])
            halves.append(group[half] if half in group else group[f"{half}_a"] @ group[f"{half}_b"])
        first, second = halves
        if second.ndim == 4:
            first = first[:, :, None, None]
        scale = alpha / rank if rank else 1.0  # whole factors: no alpha is looked for
        return weight + scale * torch.kron(first, second).reshape(weight.shape)
    up, down = (next(group[name] for name in names if name in group)
                for names in (("lora_up.weight", "lora_B.weight"), ("lora_down.weight", "lora_A.weight")))  # fmt: skip
    scale = alpha / len(down) if alpha is not None else 1.0
    changed = weight + scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    if "dora_scale" not in group:
        return changed
    # weight_decompose, the branch for a scale of every row: what is divided by is the norm of the weight before the change.
    assert group["dora_scale"].shape[0] == len(weight)
    norms = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1)) + torch.finfo(torch.float32).eps
    return changed * (group["dora_scale"] / norms)


def _unet_names(pipeline: str, denoiser: nn.Module) -> dict[str, str]:
    """sd-scripts, networks/lora.py, LoRANetwork: "lora_unet_" and the name in its UNet with underscores. Its UNet of SD 1.x and
    2.x is named as in diffusers; of SDXL as in the original code, whose numbers are in ComfyUI's unet_to_diffusers: n counts
    from 1 down, and from 0 up, one more in each level for the change of size."""
    names = {}
    for layer, module in denoiser.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            names["lora_unet_" + layer.replace(".", "_")] = layer
    if pipeline == "StableDiffusionPipeline":
        return names
    found = {}
    size = denoiser.config.layers_per_block + 1
    for flat, layer in names.items():
        place = re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_attentions_(\d+)_(.*)", flat)
        if place:
            side, level, index, rest = place[1], int(place[2]), int(place[3]), place[4]
            n = 1 + size * level + index if side == "down" else size * level + index
            found[f"lora_unet_{'input' if side == 'down' else 'output'}_blocks_{n}_1_{rest}"] = layer
        elif flat.startswith("lora_unet_mid_block_attentions_0_"):
            found["lora_unet_middle_block_1_" + flat.removeprefix("lora_unet_mid_block_attentions_0_")] = layer
    return found
