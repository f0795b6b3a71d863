"""The adapter inside a run's checkpoint, to sample with: that of the step it was saved at, or their moving average."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from peft import set_peft_model_state_dict
from torch import Tensor

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import add_adapter, load_adapter
from dpo.adapter_types import adapter_settings
from dpo.families import Family
from dpo.runs import run_of


def load_checkpoint(family: Family, path: Path, name: str) -> None:
    """Put the adapter of a checkpoint onto the denoiser, under `name`, active, as the run would have exported it then.

    Raises AdapterError for a file that is no run's checkpoint, or is of another model; ConfigError for a damaged run.
    """
    run = run_of(path)
    if run is None or not path.is_file():
        raise AdapterError(f"{path} is no checkpoint of a run. Choose one that is, or an adapter file.")
    try:
        layers = _layers(torch.load(path, weights_only=True, map_location="cpu"))
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise AdapterError(f"{path} cannot be read: {error}. Choose another checkpoint.") from error
    config = run.config
    if config.starting_adapter:
        load_adapter(family, Path(config.starting_adapter).expanduser(), name)
    else:
        with torch.random.fork_rng():
            add_adapter(family.denoiser, adapter_settings(config, family), name)
    try:
        found = set_peft_model_state_dict(family.denoiser, layers, adapter_name=name)
    except RuntimeError as error:
        raise AdapterError(f"{path} does not fit this model: {error}. Choose the model of its run.") from error
    if found.unexpected_keys or any(name in key.split(".") for key in found.missing_keys):
        raise AdapterError(f"{path} does not fit this model: its layers are others. Choose the model of its run.")


def _layers(state: dict) -> dict[str, Tensor]:
    """The adapter's tensors by name; with the values of the average where there is one, which are in the same order."""
    layers, average = state["adapter"], state["average"]["values"]
    return dict(zip(layers, average, strict=True)) if average else layers
