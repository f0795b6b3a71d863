"""Two LoRAs as one that does what both do, at a weight each: (w1 B1 A1 + w2 B2 A2) x = [w1 B1, w2 B2] [A1; A2] x, exactly.

The rank is the sum of the two. Works on files alone, without the model: both must name their layers alike.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpo.adapter_files import check_adapter
from dpo.adapter_loading import settings_text
from dpo.formats import ExportError
from dpo.formats.origin import PEFT_SETTINGS, read_header

NAMES = {"lora_A.weight": "lora_B.weight", "lora_down.weight": "lora_up.weight"}
NO_SUM = {
    "lora_magnitude_vector": "the length that a DoRA gives a weight is of one adapter",
    "dora_scale": "the length that a DoRA gives a weight is of one adapter",
    "hada_": "the sum of two elementwise products is no such product",
    "lokr_": "the sum of two Kronecker products is no such product",
    "oft_R": "rotations are multiplied, and the order of two matters",
}


@dataclass(frozen=True)
class Layer:
    """down, up: the factors in float32, up times alpha / rank."""

    down: Tensor
    up: Tensor


def merge_adapters(first: Path, second: Path, weights: tuple[float, float], out: Path) -> dict[str, int]:
    """Write the merged adapter to `out`, with the names and settings of the first; returns the rank of every layer.

    Raises AdapterError for files that cannot be read, ExportError for ones that have no exact sum.
    """
    if out.suffix != ".safetensors":
        raise ExportError(f"{out} is no name for an adapter file. Let it end in .safetensors.")
    files = [_read(path) for path in (first, second)]
    (names, layers), (other_names, other_layers) = files
    if names != other_names or not layers.keys() & other_layers.keys():
        raise ExportError(
            f"{first.name} and {second.name} name their layers differently. Export both to one format, then merge them."
        )
    merged: dict[str, Layer] = {}
    for layer in [*layers, *(layer for layer in other_layers if layer not in layers)]:
        parts = [(found[layer], weight) for found, weight in zip((layers, other_layers), weights, strict=True) if layer in found]
        if len({(part.down.shape[1:], part.up.shape[:1]) for part, _ in parts}) > 1:
            raise ExportError(f"{layer} has another size in {second.name} than in {first.name}: they are of different models.")
        ups = [weight * part.up for part, weight in parts]
        merged[layer] = Layer(torch.cat([part.down for part, _ in parts]), torch.cat(ups, 1))
    ranks = {layer: len(found.down) for layer, found in merged.items()}
    down, up = names, NAMES[names]
    tensors = {f"{layer}.{down}": found.down for layer, found in merged.items()}
    tensors |= {f"{layer}.{up}": found.up for layer, found in merged.items()}
    header = {key: value for key, value in read_header(first).items() if key in ("format", "dpo.format", "dpo.pipeline")}
    if PEFT_SETTINGS in read_header(first):
        header[PEFT_SETTINGS] = _settings(ranks)
    elif down == "lora_down.weight":
        tensors |= {f"{layer}.alpha": torch.tensor(float(rank)) for layer, rank in ranks.items()}
    told = [
        {"name": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "weight": weight}
        for path, weight in zip((first, second), weights, strict=True)
    ]
    header |= {
        "format": "pt", "modelspec.title": out.stem, "modelspec.tags": "dpo", "dpo.merged_from": json.dumps(told),
        "modelspec.merged_from": ", ".join(one["name"] for one in told),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out, header)
    return ranks


def _read(path: Path) -> tuple[str, dict[str, Layer]]:
    """(the name of first factors, layers by name)"""
    check_adapter(path)
    tensors, header = load_file(path), read_header(path)
    for mark, reason in NO_SUM.items():
        if any(mark in name for name in tensors):
            raise ExportError(f"{path.name} cannot be merged exactly: {reason}. Choose two plain LoRAs.")
    names = next((down for down in NAMES if any(name.endswith(f".{down}") for name in tensors)), None)
    if names is None:
        raise ExportError(f"{path.name} holds no LoRA under names known here. Export it to diffusers, comfyui or kohya first.")
    settings = json.loads(header.get(PEFT_SETTINGS, "{}"))
    layers = {}
    for name, down in tensors.items():
        if name.endswith(f".{names}"):
            layer = name.removesuffix(f".{names}")
            scale = _scale(layer, len(down), tensors, settings)
            layers[layer] = Layer(down.float(), scale * tensors[f"{layer}.{NAMES[names]}"].float())
    return names, layers


def _scale(layer: str, rank: int, tensors: dict[str, Tensor], settings: dict) -> float:
    """alpha / rank: by the tensor beside the factors, by peft's settings, or 1."""
    if f"{layer}.alpha" in tensors:
        return tensors[f"{layer}.alpha"].item() / rank
    if not settings:
        return 1.0
    part, _, name = layer.partition(".")
    said = {key.removeprefix(f"{part}."): value for key, value in settings.items()}
    config = LoraConfig(**{key: value for key, value in said.items() if key in LoraConfig.__dataclass_fields__})
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, name), config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def _settings(ranks: dict[str, int]) -> str:
    """peft's, of an adapter whose alpha is its rank everywhere."""
    part = next(iter(ranks)).partition(".")[0]
    plain = {layer.removeprefix(f"{part}."): rank for layer, rank in ranks.items()}
    rank = Counter(plain.values()).most_common(1)[0][0]
    others = {f"^{re.escape(layer)}": own for layer, own in plain.items() if own != rank}
    config = LoraConfig(
        r=rank, lora_alpha=rank, rank_pattern=others, alpha_pattern=others,
        target_modules="|".join(map(re.escape, sorted(plain))),
    )  # fmt: skip
    return settings_text(part, config.to_dict())
