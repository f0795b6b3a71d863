"""What an adapter file must be, as far as its header tells: known before a model, or torch, is loaded."""

from __future__ import annotations

from pathlib import Path

from dpo import StudioError
from dpo.checkpoint_header import PICKLES, Header, HeaderError, read_header

MARKS = ("lora", "hada_w", "lokr_w", "oft_R")  # in the names of tensors: LoRA and DoRA, LoHa, LoKr, OFT


class AdapterError(StudioError):
    """An adapter file that cannot be used."""


def check_adapter(path: Path) -> None:
    """Read only the header. Raises AdapterError if `path` is not an adapter for a denoiser alone."""
    names = list(adapter_header(path).tensors)
    if not any(mark in name for mark in MARKS for name in names):
        raise AdapterError(f"{path} holds no LoRA (its first tensor is {names[:1]}). Choose an adapter file.")
    if any(name.startswith(("text_encoder", "lora_te")) for name in names):
        raise AdapterError(f"{path} also changes the text encoder, which is not supported. Choose one for the denoiser alone.")


def adapter_header(path: Path) -> Header:
    """What stands at the front of an adapter file. Raises AdapterError for what is none, or cannot be believed."""
    if path.suffix.lower() not in (".safetensors", *PICKLES) or not path.is_file():
        raise AdapterError(f"{path} is not a .safetensors file. Choose the adapter file of a run, or a LoRA in that format.")
    try:
        return read_header(path)
    except HeaderError as error:
        raise AdapterError(str(error)) from error
