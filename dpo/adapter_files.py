"""What an adapter file must be, as far as its header tells: known before a model, or torch, is loaded."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from dpo import StudioError

MARKS = ("lora", "hada_w", "lokr_w", "oft_R")  # in the names of tensors: LoRA and DoRA, LoHa, LoKr, OFT


class AdapterError(StudioError):
    """An adapter file that cannot be used."""


def check_adapter(path: Path) -> None:
    """Read only the header. Raises AdapterError if `path` is not an adapter for a denoiser alone."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise AdapterError(f"{path} is not a .safetensors file. Choose the adapter file of a run, or a LoRA in that format.")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} cannot be read: {error}. Choose another adapter file.") from error
    if not any(mark in name for mark in MARKS for name in names):
        raise AdapterError(f"{path} holds no LoRA (its first tensor is {names[:1]}). Choose an adapter file.")
    if any(name.startswith(("text_encoder", "lora_te")) for name in names):
        raise AdapterError(f"{path} also changes the text encoder, which is not supported. Choose one for the denoiser alone.")
