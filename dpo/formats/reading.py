"""Adapter files that diffusers does not read, or reads wrongly, as peft's settings and tensors.

LoHa and LoKr as LyCORIS and ComfyUI name them; DoRA, whose magnitude diffusers drops from such files; Kohya's with more than one
alpha; Lumina 2 under its original names; and any LoRA for a model that diffusers loads none for. Ranks are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lokr.layer import factorization
from safetensors import safe_open
from torch import Tensor, nn

from dpo.adapter_files import AdapterError
from dpo.formats import LUMINA, UNETS
from dpo.formats.factors import LOHA, LOKR, base_weight, product, row_norms
from dpo.formats.naming import aliases

DOWN, UP = ("lora_down.weight", "lora_A.weight"), ("lora_up.weight", "lora_B.weight")
SUFFIXES = (*DOWN, *UP, "alpha", "dora_scale", *LOHA, *LOKR)
MARKS = ("dora_scale", *LOHA, *LOKR)
WHOLE = 1024  # a rank above which peft keeps both factors of a LoKr whole


def is_for_us(pipeline, path: Path) -> bool:
    """Whether a file without peft's settings is for this module rather than for diffusers, which would drop or refuse some."""
    if not hasattr(pipeline, "load_lora_weights"):
        return True
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if any(name.endswith(tuple(f".{mark}" for mark in MARKS)) for name in names):
            return True
        if type(pipeline).__name__ == LUMINA and any(".attention." in name for name in names):
            return True
        # diffusers gives one alpha to all layers of such a file.
        return type(pipeline).__name__ in UNETS and len({file.get_tensor(name).item() for name in names if _is_alpha(name)}) > 1


def _is_alpha(name: str) -> bool:
    return name.startswith("lora_unet_") and name.endswith(".alpha")


def read(path: Path, pipeline, denoiser: nn.Module) -> tuple[PeftConfig, dict[str, Tensor]]:
    """(peft's settings, its tensors by peft's names). Raises AdapterError for what has no place in the model."""
    with safe_open(path, framework="pt") as file:
        is_comfy = (file.metadata() or {}).get("dpo.format") == "comfyui"
        groups: dict[str, dict[str, Tensor]] = {}
        for key in list(file.keys()):
            suffix = next((suffix for suffix in SUFFIXES if key.endswith(f".{suffix}")), None)
            if suffix is None:
                raise AdapterError(f"{path} holds {key}, which is not known here. Choose a LoRA, LoHa or LoKr of this model.")
            groups.setdefault(key.removesuffix(f".{suffix}"), {})[suffix] = file.get_tensor(key).float()
    modules = {
        name.removesuffix(".base_layer"): layer
        for name, layer in denoiser.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and ".lora_" not in name
    }
    known = aliases(type(pipeline).__name__, list(modules), denoiser.config)
    layers: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, float] = {}
    for name, group in groups.items():
        if name not in known:
            raise AdapterError(f"{path} changes {name}, which this model does not have. Choose an adapter made for it.")
        for layer, found, scale in _split(group, known[name], modules):
            if "dora_scale" in found:
                said = found.pop("dora_scale")
                found["lora_magnitude_vector"] = _magnitude(path, said, found, scale, modules[layer], is_comfy=is_comfy)
            layers[layer], scales[layer] = found, scale
    return _settings(path, layers, scales, modules), {
        f"{layer}.{key}{'.weight' if key in ('lora_A', 'lora_B') else ''}": tensor
        for layer, found in layers.items()
        for key, tensor in found.items()
    }


def _split(group: dict[str, Tensor], layers: list[str], modules: dict[str, nn.Module]):
    """(layer, its tensors by peft's names, alpha / rank) of each layer that is in one matrix of the file."""
    down, up = (next((group[name] for name in names if name in group), None) for names in (DOWN, UP))
    if down is None or up is None:
        tensors = {name: tensor for name, tensor in group.items() if name != "alpha"}
        rank = _rank(tensors)
        yield layers[0], tensors, group["alpha"].item() / rank if "alpha" in group and rank else 1.0
        return
    scale = group["alpha"].item() / len(down) if "alpha" in group else 1.0
    magnitude = {"dora_scale": group["dora_scale"]} if "dora_scale" in group else {}
    if len(layers) == 1:
        yield layers[0], {"lora_A": down, "lora_B": up} | magnitude, scale
        return
    sizes = [base_weight(modules[layer]).shape[0] for layer in layers]
    parts = {name: tensor.split(sizes) for name, tensor in magnitude.items()}
    for index, (layer, rows) in enumerate(zip(layers, up.split(sizes), strict=True)):
        used = rows.abs().sum(0) > 0  # the rest of the rank is the other layers'
        if used.any():
            own = {name: tensors[index] for name, tensors in parts.items()}
            yield layer, {"lora_A": down[used], "lora_B": rows[:, used]} | own, scale


def _rank(tensors: dict[str, Tensor]) -> int:
    """0 for a LoKr of two whole factors, which has none."""
    return next((len(tensors[name]) for name in ("lora_A", "hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in tensors), 0)


def _magnitude(path: Path, said: Tensor, found, scale: float, layer: nn.Module, *, is_comfy: bool) -> Tensor:
    base = base_weight(layer)
    if said.numel() != base.shape[0]:
        raise AdapterError(
            f"{path} is a DoRA over columns, as older programs made them, and rows are trained here. Choose another."
        )
    said = said.reshape(-1, *[1] * (base.ndim - 1))
    if is_comfy:
        changed = base + scale * product(found["lora_B"], found["lora_A"], base.shape).to(base.device)
        said = said.to(base.device) * row_norms(changed) / row_norms(base)
    return said.flatten() if base.ndim == 2 else said.transpose(0, 1)


def _settings(path: Path, layers: dict[str, dict[str, Tensor]], scales: dict[str, float], modules) -> PeftConfig:
    ranks = {layer: _rank(found) for layer, found in layers.items()}
    # A LoKr's layer without a rank is as small as that: whatever rank the others have, it is too large for this one.
    rank = Counter(value for value in ranks.values() if value or not any(ranks.values())).most_common(1)[0][0] or WHOLE
    ranks = {layer: value or rank for layer, value in ranks.items()}
    alphas = {layer: scales[layer] * value for layer, value in ranks.items()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    common = {
        "r": rank,
        "target_modules": "|".join(map(re.escape, sorted(layers))),
        "rank_pattern": {f"^{re.escape(layer)}": value for layer, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{re.escape(layer)}": value for layer, value in alphas.items() if value != alpha},
    }
    names = {name for found in layers.values() for name in found}
    kinds = {"LoRA": "lora_A" in names, "LoHa": "hada_w1_a" in names, "LoKr": not names.isdisjoint(LOKR)}
    if sum(kinds.values()) != 1:
        raise AdapterError(f"{path} mixes {' and '.join(kind for kind, is_there in kinds.items() if is_there)}. Choose one kind.")
    if kinds["LoHa"]:
        return LoHaConfig(alpha=alpha, use_effective_conv2d="hada_t1" in names, **common)
    if kinds["LoKr"]:
        shape = {"decompose_both": "lokr_w1_a" in names, "use_effective_conv2d": "lokr_t2" in names}
        return LoKrConfig(alpha=alpha, decompose_factor=_factor(path, layers, modules), **shape, **common)
    use_dora = "lora_magnitude_vector" in names
    if use_dora and not all("lora_magnitude_vector" in found for found in layers.values()):
        raise AdapterError(f"{path} has a DoRA's magnitude on some layers only. Choose another adapter.")
    return LoraConfig(lora_alpha=alpha, use_dora=use_dora, **common)


def _factor(path: Path, layers: dict[str, dict[str, Tensor]], modules: dict[str, nn.Module]) -> int:
    """The setting that makes peft cut every layer as the file does."""
    cuts = {}
    for layer, found in layers.items():
        sides = base_weight(modules[layer]).shape[:2]
        first = found["lokr_w1"].shape if "lokr_w1" in found else (len(found["lokr_w1_a"]), found["lokr_w1_b"].shape[1])
        cuts[layer] = tuple(zip(sides, first, strict=True))
    for factor in (-1, *sorted({first for cut in cuts.values() for _, first in cut})):
        if all(factorization(side, factor)[0] == first for cut in cuts.values() for side, first in cut):
            return factor
    raise AdapterError(f"{path} is a LoKr that cuts its layers by more than one factor, which peft does not. Choose another.")
