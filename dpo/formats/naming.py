"""What a layer of a denoiser is called in a file, and back.

diffusers names layers by where they are: "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q". Kohya's files have the
same with underscores after "lora_unet_"; for SDXL, whose original code sd-scripts trains, the blocks are those of that code:
"input_blocks_2_1" for the second attention of the first level (kohya-ss/sd-scripts, networks/lora.py and
library/sdxl_original_unet.py; the same numbers are in ComfyUI, comfy/utils.py, unet_to_diffusers).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dpo.formats import LUMINA, PREFIXES, UNETS, ExportError

# SDXL's original names of what is in a block.
RESNET = {
    "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
QKV = ("to_q", "to_k", "to_v")


def places(pipeline: str, layers: Iterable[str], format: str, config) -> dict[str, list[str]]:
    """Name in a file -> the layers whose rows it holds, one below the other. `config`: the denoiser's.

    All names stand for one layer, but for Lumina 2's attention, whose q, k and v are one matrix in ComfyUI.
    """
    if pipeline in UNETS:
        is_sgm = pipeline == "StableDiffusionXLPipeline"
        return {kohya_name(_sgm(layer, config) if is_sgm else layer): [layer] for layer in layers}
    if format == "comfyui" and pipeline == LUMINA:
        named = {layer: _lumina(layer) for layer in layers}
        if None in named.values():
            raise _nameless(next(layer for layer, place in named.items() if place is None))
        return dict(named.values())
    return {PREFIXES[pipeline] + layer: [layer] for layer in layers}


def kohya_name(layer: str) -> str:
    return "lora_unet_" + layer.replace(".", "_")


def aliases(pipeline: str, layers: list[str], config) -> dict[str, list[str]]:
    """As `places`, under all names that files of any origin may have: for reading."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        flat = layer.replace(".", "_")
        dotted = ("", "transformer.", "diffusion_model.", "unet.", "base_model.model.")
        for name in (*(prefix + layer for prefix in dotted), f"lora_unet_{flat}", f"lora_transformer_{flat}", f"lycoris_{flat}"):
            found[name] = [layer]
        if pipeline == "StableDiffusionXLPipeline" and _is_in_blocks(layer):
            found[kohya_name(_sgm(layer, config))] = [layer]
    if pipeline == LUMINA:
        found |= dict(filter(None, map(_lumina, layers)))
    return found


def _sgm(layer: str, config) -> str:
    """SDXL's original name. Raises ExportError for what has none."""
    if not _is_in_blocks(layer):
        raise ExportError(
            f"The layer {layer} has no name in this format. Leave it out of the layer profile, or choose diffusers."
        )
    kind, *parts = layer.split(".")
    if kind == "mid_block":
        (what, index), inside = parts[:2], parts[2:]
        return ".".join(["middle_block", "1" if what == "attentions" else str(2 * int(index)), *_inside(what, inside)])
    (block, what, index), inside = parts[:3], parts[3:]
    size = config.layers_per_block + 1
    if kind == "down_blocks":
        place = size * int(block) + (int(index) + 1 if what != "downsamplers" else size)
        return ".".join(["input_blocks", str(place), str(int(what == "attentions")), *_inside(what, inside)])
    place = size * int(block) + (int(index) if what != "upsamplers" else config.layers_per_block)
    last = 1 + ("CrossAttn" in config.up_block_types[int(block)])
    slot = {"resnets": "0", "attentions": "1", "upsamplers": str(last)}[what]
    return ".".join(["output_blocks", str(place), slot, *_inside(what, inside)])


def _is_in_blocks(layer: str) -> bool:
    return layer.startswith(("down_blocks.", "mid_block.", "up_blocks."))


def _inside(what: str, inside: list[str]) -> list[str]:
    match what:
        case "resnets":
            return [RESNET[inside[0]]]
        case "downsamplers":
            return ["op"]
        case _:
            return inside


def _lumina(layer: str) -> tuple[str, list[str]] | None:
    """The name in Lumina 2's original code (Alpha-VLLM/Lumina-Image-2.0, models/model.py: JointAttention, FeedForward), with all
    layers that are in that matrix; None for other layers."""
    attention = re.fullmatch(r"(.*)\.attn\.(?:to_q|to_k|to_v)", layer)
    if attention:
        return f"diffusion_model.{attention[1]}.attention.qkv", [f"{attention[1]}.attn.{part}" for part in QKV]
    name = layer.replace(".attn.to_out.0", ".attention.out").replace(".feed_forward.linear_", ".feed_forward.w")
    return (f"diffusion_model.{name}", [layer]) if name != layer else None


def _nameless(layer: str) -> ExportError:
    return ExportError(f"The layer {layer} has no name in this format. Leave it out of the layer profile, or choose diffusers.")
