"""An adapter that becomes part of the model before training starts, such as one that makes a model need few steps."""

from __future__ import annotations

from pathlib import Path

from diffusers.utils.peft_utils import recurse_remove_peft_layers

from dpo.adapter_loading import adapted_layers, load_adapter, set_strength
from dpo.families import load_family

NAME = "base"


def merge_adapter(pipeline, path: Path, strength: float) -> None:
    """Add `strength` times what the adapter does to the denoiser's weights, and take it off: nothing of it is left but the sum.

    Raises AdapterError for a file that does not fit, ValueError if a weight would not be finite.
    """
    family = load_family(pipeline)
    load_adapter(family, path, NAME)
    set_strength(family.denoiser, NAME, strength)
    for layer in adapted_layers(family.denoiser):
        layer.merge(safe_merge=True, adapter_names=[NAME])
    recurse_remove_peft_layers(family.denoiser)
    del family.denoiser.peft_config
    family.denoiser._hf_peft_config_loaded = False
