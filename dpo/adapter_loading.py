"""Adapter files onto a denoiser, and its adapter into a file.

What is written is what diffusers writes: peft's keys under the denoiser's name, and peft's settings in the header, for a reader
without them takes alpha for the rank.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpo.adapter_files import AdapterError, adapter_header, check_adapter
from dpo.families import Family


def save_adapter(family: Family, layers: dict[str, Tensor], name: str, path: Path) -> None:
    """Write `layers`, the state of the adapter called `name` or an average of it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{path.name}")
    tensors = {f"{family.denoiser_name}.{key}": tensor.detach().cpu().contiguous() for key, tensor in layers.items()}
    save_file(tensors, partial, {"format": "pt", "dpo.pipeline": type(family.pipeline).__name__} | peft_header(family, name))
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def peft_header(family: Family, name: str) -> dict[str, str]:
    """peft's settings of the adapter, as diffusers keeps them in a file's header."""
    settings = family.denoiser.peft_config[name].to_dict()
    return {LORA_ADAPTER_METADATA_KEY: settings_text(family.denoiser_name, settings)}


def settings_text(part: str, settings: dict) -> str:
    """peft's settings of the adapter of a pipeline's part, as text; they may hold sets and enumerations, which JSON has not."""
    plain = {f"{part}.{key}": sorted(value) if isinstance(value, set) else getattr(value, "value", value)
             for key, value in settings.items()}  # fmt: skip
    return json.dumps(plain, indent=2, sort_keys=True)


def load_adapter(family: Family, path: Path, name: str) -> None:
    """Put an adapter file onto the denoiser, under `name`, active: ours, or whatever the family's pipeline in diffusers reads.

    Raises AdapterError.
    """
    from dpo.formats import reading  # which asks this module for adapted layers

    check_adapter(path)
    try:
        settings = _settings(path, family.denoiser_name)
        if settings and (settings.get("peft_type") != "LORA" or not hasattr(family.pipeline, "load_lora_weights")):
            _load_own(family, path, settings, name)
        elif not settings and reading.is_for_us(family.pipeline, path):
            _attach(family, *reading.read(path, family.pipeline, family.denoiser), name)
        else:
            family.pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
            _bring_over(family.denoiser, name)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"{path} does not fit this model: {error}. Choose an adapter made for it.") from error
    if not adapted_layers(family.denoiser, name):
        raise AdapterError(f"{path} holds no weights for this model's denoiser. Choose an adapter made for it.")


def add_adapter(denoiser: nn.Module, settings, name: str) -> None:
    """A fresh adapter of peft's `settings`. Of any model: not every denoiser in diffusers can do it by itself."""
    inject_adapter_in_model(settings, denoiser, adapter_name=name)
    _bring_over(denoiser, name)
    denoiser._hf_peft_config_loaded = True  # as diffusers' own `add_adapter` does: its switches look for it


def adapted_layers(denoiser: nn.Module, name: str | None = None) -> list[BaseTunerLayer]:
    """The layers with adapters, or with the adapter of that name."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    return [layer for layer in layers if name is None or _has(layer, name)]


def set_strength(denoiser: nn.Module, name: str, strength: float | None) -> None:
    """How strongly an adapter acts: 1 as trained; 0 or None not at all, to the bit. Changes no `requires_grad`.

    Raises AdapterError for an adapter that cannot act by halves.
    """
    for layer in adapted_layers(denoiser):
        layer._disable_adapters = not strength  # scaled by 0, a DoRA would still set the lengths of weights
        layer._active_adapter = [name]
        if not strength or not _has(layer, name):
            continue
        if not hasattr(layer, "oft_R"):
            layer.set_scale(name, strength)
        elif strength != 1:
            raise AdapterError(f"An OFT adapter has no strength between 0 and 1, and not {strength:g}. Choose 0 or 1.")


def _load_own(family: Family, path: Path, settings: dict, name: str) -> None:
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]]
    known = {key: value for key, value in settings.items() if key in kind.__dataclass_fields__}
    prefix = f"{family.denoiser_name}."
    layers = {key.removeprefix(prefix): value for key, value in load_file(path).items() if key.startswith(prefix)}
    _attach(family, kind(**known), layers, name)


def _attach(family: Family, settings: PeftConfig, layers: dict[str, Tensor], name: str) -> None:
    add_adapter(family.denoiser, settings, name)
    found = set_peft_model_state_dict(family.denoiser, layers, adapter_name=name)
    strangers = list(found.unexpected_keys) or [key for key in found.missing_keys if name in key.split(".")]
    if strangers:
        raise ValueError(f"{len(strangers)} tensors have no place in it, such as {strangers[0]}")


def _bring_over(denoiser: nn.Module, name: str) -> None:
    """To where the denoiser is: peft puts an adapter where its layer's weight is, and that may be left in memory."""
    device = next(denoiser.parameters()).device
    for layer in adapted_layers(denoiser, name):
        layer.to(device)


def _settings(path: Path, part: str) -> dict:
    """peft's settings of the denoiser's adapter; {} if the header has none. Raises AdapterError if it has another part's."""
    text = adapter_header(path).metadata.get(LORA_ADAPTER_METADATA_KEY)
    found, prefix = json.loads(text or "{}"), f"{part}."
    if not isinstance(found, dict):
        raise ValueError(f"its header has settings that are no object but {text[:40]}")
    settings = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    if text and not settings:
        raise AdapterError(f"{path} is for another model: it says nothing of a {part}. Choose an adapter made for this one.")
    return settings


def _has(layer: BaseTunerLayer, name: str) -> bool:
    return any(name in getattr(layer, kind) for kind in layer.adapter_layer_names)
