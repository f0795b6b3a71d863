"""Loading a base model: its files, what it predicts, an adapter that becomes part of it, and where its weights are to be.

In this order: an adapter is merged into whole weights, before they are packed or left in memory. `dpo.models.load_pipeline` is
the way in, and turns what goes wrong here into sentences.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.models.model_loading_utils import load_state_dict
from diffusers.utils import logging
from torch import nn
from transformers.utils import is_torchvision_available

from dpo import frozen
from dpo.base_adapter import merge_adapter
from dpo.checkpoint_header import HeaderError, check_folder
from dpo.checkpoint_kinds import PREFIX, Checkpoint
from dpo.models import WITH_A_CHOICE, ModelError, choose_prediction, read_checkpoint, refuse_choice, resolve_components
from dpo.quantised import quantise

DENOISERS = ("unet", "transformer")  # what pipelines call theirs


@dataclass(frozen=True)
class Base:
    """The settings of TrainConfig that say which model is trained from, besides its name."""

    prediction_type: str = "auto"
    components: str = ""
    base_adapter: str = ""
    base_adapter_strength: float = 1.0
    quantization: str = "none"
    offload: float = 0.0
    vae_tiling: bool = False


def load(source: Path | str, dtype: torch.dtype, base: Base) -> DiffusionPipeline:
    """Into the computer's memory: `place` brings its denoiser to a device.

    Raises ModelError for settings that this model cannot have, and else what diffusers and torch raise.
    """
    logging.set_verbosity_error()
    _check_headers(source)
    if isinstance(source, Path) and source.is_file():
        checkpoint = read_checkpoint(source)
        components = resolve_components(checkpoint, base.components)
        _check_headers(components)
        pipeline = load_file(source, checkpoint, str(components), dtype)
        told = checkpoint.prediction_type, checkpoint.zero_snr
    else:
        absent = _absent(DiffusionPipeline.load_config(source))
        pipeline = DiffusionPipeline.from_pretrained(source, **absent, dtype=dtype, use_safetensors=True)
        schedule = pipeline.scheduler.config
        told = schedule.get("prediction_type", ""), bool(schedule.get("rescale_betas_zero_snr"))
    if type(pipeline).__name__ in WITH_A_CHOICE:
        _set_prediction(pipeline, *choose_prediction(base.prediction_type, *told))
    else:
        refuse_choice(base.prediction_type, type(pipeline).__name__)
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(denoiser_of(pipeline), "hf_quantizer") and (base.base_adapter or base.quantization != "none" or base.offload):
        raise ModelError(
            f"{source} is quantised already, so base_adapter, quantization and offload cannot be had with it. Leave them, or "
            "choose the model in full precision."
        )
    if base.base_adapter:
        merge_adapter(pipeline, Path(base.base_adapter).expanduser(), base.base_adapter_strength)
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.eval().requires_grad_(False)
    if base.vae_tiling:
        pipeline.vae.enable_tiling()
    return pipeline


def _check_headers(source: Path | str) -> None:
    """Of a folder that somebody named. What a hub id brings, and whatever is loaded, safetensors itself looks at once more."""
    try:
        if isinstance(source, Path) and source.is_dir():
            check_folder(source)
    except HeaderError as error:
        raise ModelError(str(error)) from error


def denoiser_of(pipeline: DiffusionPipeline) -> nn.Module:
    return next(pipeline.components[name] for name in DENOISERS if pipeline.components.get(name) is not None)


def place(denoiser: nn.Module, dtype: torch.dtype, device: str, base: Base) -> None:
    """Bring the denoiser to the device, packed or with a share of its weights left behind, as the settings say."""
    if base.quantization != "none":
        quantise(denoiser, base.quantization, dtype, device)
    elif base.offload:
        frozen.offload(denoiser, base.offload, device)
    else:
        denoiser.to(device)


def _set_prediction(pipeline: DiffusionPipeline, prediction_type: str, zero_snr: bool) -> None:
    """Have the scheduler count as the model was trained, in training and in sampling. Of a schedule that ends in pure noise the
    last step must be among those that are sampled (Lin et al. 2024, section 3.3)."""
    kind, schedule = type(pipeline.scheduler), pipeline.scheduler.config
    if (prediction_type, zero_snr) == (schedule["prediction_type"], bool(schedule.get("rescale_betas_zero_snr"))):
        return
    changes = {"prediction_type": prediction_type, "rescale_betas_zero_snr": zero_snr}
    if zero_snr:
        changes["timestep_spacing"] = "trailing"
        if "rescale_betas_zero_snr" not in inspect.signature(kind.__init__).parameters:
            kind, changes["clip_sample"] = DDIMScheduler, False
    pipeline.scheduler = kind.from_config(schedule, **changes)


# ------------------------------------------------------------------------------------------------ checkpoint files


def load_file(path: Path, checkpoint: Checkpoint, components: str, dtype: torch.dtype) -> DiffusionPipeline:
    """A pipeline out of a checkpoint file, and of a folder or hub id that has what it lacks: settings at least, and as a rule
    text encoders and VAE. Raises ValueError for components of another architecture, and for weights that are missing."""
    kind = checkpoint.kind
    index = DiffusionPipeline.load_config(components)
    if index["_class_name"] != kind.pipeline:
        raise ValueError(f"the file holds {kind.title}, and components={components!r} are of a {index['_class_name']}.")
    pipeline_class = getattr(diffusers, kind.pipeline)
    try:
        if checkpoint.is_whole:
            return pipeline_class.from_single_file(str(path), config=components, dtype=dtype)
        part = "unet" if "unet" in index else "transformer"
        denoiser = _load_denoiser(path, getattr(diffusers, index[part][1]), components, part, dtype)
    except (KeyError, IndexError, SingleFileComponentError) as error:  # a name that diffusers looks for in vain
        raise ValueError(f"diffusers does not find all it needs in the file ({error}).") from error
    except NotImplementedError as error:  # what torch says of a weight without a value
        raise ValueError("the file lacks weights of the model, or is of a variant with fewer layers.") from error
    rest = _absent(index) | {part: denoiser}
    return pipeline_class.from_pretrained(components, **rest, dtype=dtype, use_safetensors=True)


def _absent(index: dict) -> dict[str, None]:
    """The parts that a pipeline was saved without: those that it can do without only where that is said, diffusers wants told.
    FLUX.2 dev's processor is one of them where what it needs is not installed: prompts that are in the cache need none."""
    unbuildable = None if is_torchvision_available() else "PixtralProcessor"
    parts = {name: value for name, value in index.items() if isinstance(value, list | tuple)}
    return {name: None for name, (library, kind) in parts.items() if library is None or kind == unbuildable}


def _load_denoiser(path: Path, kind: type, components: str, part: str, dtype: torch.dtype) -> nn.Module:
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in load_state_dict(str(path)).items()}
    packed = None
    if part == "unet":  # diffusers looks for it under this prefix alone
        weights = {f"{PREFIX}{name}": tensor for name, tensor in weights.items()}
    if path.suffix.lower() == ".gguf":
        packed = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    denoiser = kind.from_single_file(weights, config=components, subfolder=part, dtype=dtype, quantization_config=packed)
    if packed:
        _settle_packed(denoiser, dtype)
    return denoiser


def _settle_packed(denoiser: nn.Module, dtype: torch.dtype) -> None:
    """diffusers unpacks the weights of linear layers alone, and leaves what it unpacked in the graph."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    for module in denoiser.modules():
        if type(module) is GGUFLinear:
            module.__class__ = frozen.GGUFLinear
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, GGUFParameter):
                setattr(module, name, nn.Parameter(dequantize_gguf_tensor(parameter).to(dtype), requires_grad=False))
