"""An adapter on a denoiser, layer by layer, and the tensors that say the same in the files of other programs.

How such a program computes a layer's weight W from them, with alpha and r the layer's own (ComfyUI: comfy/weight_adapter):

    LoRA  W + (alpha / r) up down
    DoRA  dora_scale (W + D) / |W|, row by row, with D as in LoRA
    LoHa  W + (alpha / r) (w1_a w1_b) * (w2_a w2_b)
    LoKr  W + s (w1 x w2), s = alpha / r if one of them is a product of two, else 1

A DoRA of peft divides by |W + D|, not by |W|: the ratio of the two goes into the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from dpo.adapter_loading import adapted_layers

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


@dataclass(frozen=True)
class Factors:
    """What an adapter has on one layer. `tensors`: by peft's names, such as lora_A. `scale`: alpha / rank."""

    kind: str
    tensors: dict[str, Tensor]
    rank: int
    scale: float

    @property
    def alpha(self) -> float:
        return self.scale * self.rank


def factors(denoiser: nn.Module, adapter: str) -> dict[str, Factors]:
    """Of every layer that has the adapter, by the layer's name."""
    changed = set(adapted_layers(denoiser, adapter))
    return {name: _factors(layer, adapter) for name, layer in denoiser.named_modules() if layer in changed}


def kind_of(found: Mapping[str, Factors]) -> str:
    """The kind of adapter, one of KINDS."""
    return next(iter(found.values())).kind


def tensors_of(layers: list[nn.Module], parts: list[Factors | None], name: str, *, keeps_alpha: bool) -> dict[str, Tensor]:
    """What a file holds under `name` for these layers, whose rows are one matrix there, in float32.

    Args:
        parts: the adapter's factors of each of the layers; None where it leaves one alone.
        keeps_alpha: of a LoRA or DoRA, write `alpha` beside the factors, under Kohya's names. Otherwise it goes into the second.
    """
    first = next(part for part in parts if part)
    match first.kind:
        case "lora" | "dora":
            part = first if len(parts) == 1 else _stacked(layers, parts)
            found = _lora(part, name, keeps_alpha=keeps_alpha)
            if first.kind == "dora":
                scales = [_comfy_scale(layer, one) for layer, one in zip(layers, parts, strict=True)]
                found[f"{name}.dora_scale"] = torch.cat(scales)
            return found
        case "loha":
            return {f"{name}.{key}": tensor for key, tensor in first.tensors.items()} | _alpha(name, first.alpha)
        case "lokr":
            scaled = "lokr_w1" if "lokr_w1" in first.tensors else "lokr_w1_a"
            tensors = first.tensors | {scaled: first.tensors[scaled] * first.scale}
            return {f"{name}.{key}": tensor for key, tensor in tensors.items()} | _alpha(name, float(first.rank))
        case other:
            raise AssertionError(f"{other} has no such file")


def row_norms(weight: Tensor) -> Tensor:
    """(out, 1, ...) lengths of the rows of a layer's weight."""
    return weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


def base_weight(layer: nn.Module) -> Tensor:
    """The weight under the adapter, in float32, whatever it is kept in."""
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    return dequantize_module_weight(base).float()


def product(up: Tensor, down: Tensor, shape: torch.Size) -> Tensor:
    """What the two factors of a LoRA add to a weight of that shape."""
    return (up.flatten(1) @ down.flatten(1)).reshape(shape)


def _factors(layer: BaseTunerLayer, adapter: str) -> Factors:
    own = {
        name.split(".")[0]: tensor.detach().float()
        for name, tensor in layer.named_parameters()
        if adapter in name.split(".") and not name.startswith("base_layer.")
    }
    if "oft_R" in own:
        return Factors("oft", own, layer.oft_block_size[adapter], 1.0)
    if any(name.startswith("hada_") for name in own):
        kind = "loha"
    elif any(name.startswith("lokr_") for name in own):
        kind = "lokr"
    else:
        kind = "dora" if "lora_magnitude_vector" in own else "lora"
    return Factors(kind, own, layer.r[adapter], float(layer.scaling[adapter]))


def _lora(part: Factors, name: str, *, keeps_alpha: bool) -> dict[str, Tensor]:
    down, up = part.tensors["lora_A"], part.tensors["lora_B"]
    if keeps_alpha:
        return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up} | _alpha(name, part.alpha)
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * part.scale}


def _alpha(name: str, alpha: float) -> dict[str, Tensor]:
    return {f"{name}.alpha": torch.tensor(alpha)}


def _stacked(layers: list[nn.Module], parts: list[Factors | None]) -> Factors:
    """One LoRA on several layers that read the same: first factors below each other, second ones along the diagonal."""
    downs = [part.tensors["lora_A"] for part in parts if part]
    ups = [part.tensors["lora_B"] * part.scale if part else torch.zeros(base_weight(layer).shape[0], 0)
           for layer, part in zip(layers, parts, strict=True)]  # fmt: skip
    down = torch.cat(downs)
    return Factors("lora", {"lora_A": down, "lora_B": torch.block_diag(*ups)}, len(down), 1.0)


def _comfy_scale(layer: nn.Module, part: Factors | None) -> Tensor:
    base = base_weight(layer)
    if part is None:
        return row_norms(base)
    changed = base + part.scale * product(part.tensors["lora_B"], part.tensors["lora_A"], base.shape)
    magnitude = part.tensors["lora_magnitude_vector"].reshape(-1, *[1] * (base.ndim - 1))
    return magnitude * row_norms(base) / row_norms(changed)
