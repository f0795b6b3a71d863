"""The LoRA that turns the reference into the policy: attach, switch off, save, load.

The base weights exist once. The policy is the base with the adapter "policy" active. The reference is the base with no
adapter, or, when training starts from an adapter, with its frozen copy "reference". Switching touches no `requires_grad`:
peft's own `enable_adapters` sets it anew on every active adapter, and a frozen one would start to train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dpo import StudioError
from dpo.families import Family

POLICY, REFERENCE = "policy", "reference"


class AdapterError(StudioError):
    """An adapter file that cannot be used."""


class Adapter:
    """The trainable adapter on a family's denoiser, and, where training started from one, its frozen reference."""

    def __init__(self, family: Family):
        self._family = family
        self._has_reference = REFERENCE in family.denoiser.peft_config
        self._layers = [module for module in family.denoiser.modules() if isinstance(module, BaseTunerLayer)]
        for name, parameter in family.denoiser.named_parameters():
            parameter.requires_grad_(f".{POLICY}." in name)
            if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
                # Updates are far smaller than what half precision can add to a weight.
                parameter.data = parameter.data.float()
        self._activate(POLICY)

    def parameters(self) -> list[Tensor]:
        return [parameter for parameter in self._family.denoiser.parameters() if parameter.requires_grad]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within it the denoiser is the reference. The policy is back afterwards, whatever happens inside."""
        self._activate(REFERENCE if self._has_reference else None)
        try:
            yield
        finally:
            self._activate(POLICY)

    def state_dict(self) -> dict[str, Tensor]:
        return get_peft_model_state_dict(self._family.denoiser, adapter_name=POLICY)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self._family.denoiser, state, adapter_name=POLICY)

    def save(self, path: Path) -> None:
        """Write the diffusers LoRA file. Rank and alpha go into its header: a reader without them takes alpha for the rank."""
        layers = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{path.name}")
        self._family.pipeline.save_lora_weights(
            path.parent,
            unet_lora_layers=layers,
            weight_name=partial.name,
            unet_lora_adapter_metadata=self._family.denoiser.peft_config[POLICY].to_dict(),
        )
        partial.replace(path)

    def _activate(self, name: str | None) -> None:
        for layer in self._layers:
            layer._disable_adapters = name is None
            layer._active_adapter = [name or POLICY]


def attach_new_adapter(family: Family, *, rank: int, alpha: float, seed: int) -> Adapter:
    """A fresh adapter: its second matrix is zero, so the policy starts equal to the reference."""
    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=family.lora_targets)
    family.denoiser.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        family.denoiser.add_adapter(config, adapter_name=POLICY)
    return Adapter(family)


def attach_starting_adapter(family: Family, path: Path) -> Adapter:
    """Go on from the adapter in `path`, whose frozen copy is the reference. Raises AdapterError if it does not fit."""
    family.denoiser.requires_grad_(False)
    for name in (POLICY, REFERENCE):
        load_adapter(family.pipeline, path, name)
    return Adapter(family)


def load_adapter(pipeline, path: Path, name: str) -> None:
    """Load an adapter file (diffusers or Kohya keys) onto the pipeline's denoiser. Raises AdapterError."""
    check_adapter(path)
    try:
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise AdapterError(f"{path} does not fit this model: {error}. Choose an adapter made for it.") from error
    layers = [module for module in pipeline.unet.modules() if isinstance(module, BaseTunerLayer)]
    if not any(name in layer.lora_A for layer in layers):
        raise AdapterError(f"{path} holds no weights for this model's denoiser. Choose an adapter made for it.")


def check_adapter(path: Path) -> None:
    """Read only the header. Raises AdapterError if `path` is not a LoRA for a denoiser alone."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise AdapterError(f"{path} is not a .safetensors file. Choose the adapter file of a run, or a LoRA in that format.")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} cannot be read: {error}. Choose another adapter file.") from error
    if not any("lora" in name for name in names):
        raise AdapterError(f"{path} holds no LoRA (its first tensor is {names[:1]}). Choose an adapter file.")
    if any(name.startswith(("text_encoder", "lora_te")) for name in names):
        raise AdapterError(f"{path} also changes the text encoder, which is not supported. Choose one for the denoiser alone.")
