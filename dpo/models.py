"""Base models: what a name means, what it is in words, and loading it.

Nothing here imports torch before `load_pipeline`: the Train tab describes a model without loading it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from dpo import StudioError
from dpo.config import PRESETS

DEMO_MODEL = PRESETS / "demo" / "model"


class ModelError(StudioError):
    """A model that cannot be found, understood or loaded."""


def resolve_model(model: str) -> Path | str:
    """`demo` or a folder -> Path of a diffusers folder; `owner/name` -> the hub id as it is. Raises ModelError.

    A text that names an existing path is a path; one that looks like a path but does not exist is an error, not a hub id.
    """
    model = model.strip()
    if model == "demo":
        return DEMO_MODEL
    path = Path(model).expanduser()
    if model and path.is_dir():
        if not (path / "model_index.json").exists():
            raise ModelError(
                f"{path} is not a diffusers model: it has no model_index.json. Choose the folder that holds that file."
            )
        return path
    if path.is_file():
        raise ModelError(
            f"{path} is a single file, and this version loads diffusers folders. Convert it with diffusers, or choose a folder."
        )
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
        return model
    raise ModelError(
        f"model={model!r} is neither a folder nor a hub id. Use demo, a diffusers folder, or an id such as owner/name."
    )


def describe_model(model: str) -> str:
    """What the model is, in words, from its index alone. Raises ModelError."""
    source = resolve_model(model)
    if isinstance(source, str):
        return f"{source} on the Hugging Face hub: it is downloaded when training starts, unless it is here already."
    index = _read_json(source / "model_index.json")
    pipeline = index.get("_class_name", "unknown pipeline")
    scheduler = source / "scheduler" / "scheduler_config.json"
    prediction = _read_json(scheduler).get("prediction_type", "epsilon") if scheduler.exists() else "epsilon"
    what = {"StableDiffusionPipeline": "Stable Diffusion 1.x"}.get(pipeline, f"{pipeline}, which cannot be trained yet")
    name = "The demo model, trained on painted scenes" if source == DEMO_MODEL else str(source)
    return f"{name}: {what}, {prediction.replace('_', '-')}."


def load_pipeline(model: str, precision: str = "float32", device: str | None = None):
    """Load a diffusers pipeline for inference, safetensors only, every module in eval mode.

    Raises ModelError, naming what went wrong: offline hub, missing files, out of memory.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    source = resolve_model(model)
    device = device or default_device()
    logging.set_verbosity_error()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            source, torch_dtype=resolve_precision(precision, device), use_safetensors=True
        )
        pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{model} does not fit the memory of {device}. Close what else uses it, or choose a smaller model."
        ) from error
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{model} cannot be loaded: {reason} Check the name, the files, and the connection for a hub id."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    return pipeline


def default_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(precision: str, device: str):
    """The torch dtype of "auto", "float32" or "bfloat16" on a device."""
    import torch

    if precision == "auto":
        precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return getattr(torch, precision)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. The model's folder is damaged; get it again.") from error
