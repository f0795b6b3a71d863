"""Base models: what a name means, what it is in words, and loading it.

Nothing here imports torch before `load_pipeline`: the Train tab describes a model without loading it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpo import StudioError
from dpo.architectures import ARCHITECTURES, guess_pipeline, supported
from dpo.checkpoint_header import PICKLES, HeaderError, read_header
from dpo.checkpoint_kinds import Checkpoint, identify
from dpo.config_files import PRESETS

DEMO_MODEL = PRESETS / "demo" / "model"
WITH_A_CHOICE = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")  # of what their models predict


class ModelError(StudioError):
    """A model that cannot be found, understood or loaded."""


def resolve_model(model: str) -> Path | str:
    """`demo`, a folder or a checkpoint file -> its Path; `owner/name` -> the hub id as it is. Raises ModelError.

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
        return path
    if path.suffix.lower() in (".safetensors", ".gguf", *PICKLES):
        raise ModelError(f"{path} is not there. Choose a file that is, a diffusers folder, or a hub id.")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
        return model
    raise ModelError(
        f"model={model!r} is neither a folder nor a hub id, and no file. Use demo, a diffusers folder, a .safetensors or .gguf "
        "file, or an id such as owner/name."
    )


def describe_model(model: str, prediction_type: str = "auto", components: str = "") -> str:
    """What the model is, in words, from its index or its file's header alone. Raises ModelError for what cannot be trained."""
    source = resolve_model(model)
    if isinstance(source, str):
        return f"{source} on the Hugging Face hub: it is downloaded when training starts, unless it is here already."
    if source.is_file():
        return _describe_file(source, prediction_type, components)
    index = _read_json(source / "model_index.json")
    pipeline = index.get("_class_name", "unknown pipeline")
    name = "The demo model, trained on painted scenes" if source == DEMO_MODEL else str(source)
    if pipeline not in ARCHITECTURES:
        raise ModelError(f"{name} is a {pipeline}, which cannot be trained yet. Supported: {supported()}.")
    scheduler = source / "scheduler" / "scheduler_config.json"
    schedule = _read_json(scheduler) if scheduler.exists() else {}
    prediction, zero_snr = schedule.get("prediction_type", "epsilon"), bool(schedule.get("rescale_betas_zero_snr"))
    if pipeline not in WITH_A_CHOICE:
        refuse_choice(prediction_type, ARCHITECTURES[pipeline].title)
        return f"{name}: {ARCHITECTURES[pipeline].title}."
    chosen = choose_prediction(prediction_type, prediction, zero_snr)
    return f"{name}: {ARCHITECTURES[pipeline].title}, {_prediction_words(*chosen)}."


def pipeline_name(model: str) -> str:
    """Name of the model's pipeline in diffusers, of a hub id by its name alone; "" if that does not tell. Raises ModelError."""
    source = resolve_model(model)
    if isinstance(source, str):
        return guess_pipeline(source)
    if source.is_file():
        return read_checkpoint(source).kind.pipeline
    return _read_json(source / "model_index.json").get("_class_name", "")


def read_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint file is, by its header. Raises ModelError."""
    try:
        found = identify(read_header(path), str(path))
    except HeaderError as error:
        raise ModelError(str(error)) from error
    if path.suffix.lower() == ".gguf" and found.kind.pipeline in WITH_A_CHOICE:
        raise ModelError(
            f"{path} is {found.kind.title} as GGUF, and diffusers reads that for transformers alone. Get it as .safetensors, and "
            "set quantization to make it small."
        )
    return found


def resolve_components(checkpoint: Checkpoint, components: str) -> Path | str:
    """A folder's Path or a hub id with what the file lacks: `components`, or the usual one of its family. Raises ModelError."""
    source = resolve_model(components or checkpoint.components)
    if isinstance(source, Path) and source.is_file():
        raise ModelError(
            f"components={components!r} is a file. Choose a diffusers folder or a hub id of {checkpoint.kind.title}."
        )
    return source


def choose_prediction(wanted: str, told: str, zero_snr: bool) -> tuple[str, bool]:
    """(prediction type, whether the schedule ends in pure noise) of a model whose own files tell the last two.

    wanted: the setting `prediction_type`. A schedule that ends in pure noise cannot go with epsilon: of pure noise it says
    nothing about the image.
    """
    match wanted:
        case "auto":
            return told, zero_snr
        case "v_prediction_zero_snr":
            return "v_prediction", True
        case other:
            return other, zero_snr and other == "v_prediction"


def load_pipeline(model: str, precision: str = "float32", device: str | None = None, **base):
    """Load a diffusers pipeline onto the device, no pickles, every module frozen and in eval mode.

    base: what else the settings say of the model (`TrainConfig.base`); without it, the model as its files are.

    Raises ModelError, naming what went wrong: offline hub, missing files, out of memory.
    """
    device = device or default_device()
    pipeline = load_parts(model, precision, device, **base)
    place_denoiser(pipeline, model, precision, device, **base)
    with _explained(model, device):
        return pipeline.to(device)


def load_parts(model: str, precision: str, device: str, **base):
    """The same in the computer's memory: training brings the encoders to the device first, then, when they have left it, the
    denoiser (`place_denoiser`), so that they need not fit together. `precision` is resolved for `device`."""
    from dpo.loading import Base, load

    with _explained(model, device):
        return load(resolve_model(model), resolve_precision(precision, device), Base(**base))


def place_denoiser(pipeline, model: str, precision: str, device: str, **base) -> None:
    """Bring the denoiser of `load_parts` to the device. Raises ModelError if it does not fit."""
    from dpo.loading import Base, denoiser_of, place

    with _explained(model, device):
        place(denoiser_of(pipeline), resolve_precision(precision, device), device, Base(**base))


@contextmanager
def _explained(model: str, device: str) -> Iterator[None]:
    """Turn what diffusers and torch raise within it into ModelError."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{model} does not fit the memory of {device}. Close what else uses it, or choose a smaller model, quantization or "
            "offload."
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{model} cannot be loaded: {reason} Check the name, the files, and the connection for a hub id."
        ) from error


def default_device() -> str:
    """What this machine computes fastest on; the CPU where `accelerate launch --cpu` asks for it."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(precision: str, device: str):
    """The torch dtype of "auto", "float32", "bfloat16" or "float16" on a device."""
    import torch

    if precision == "auto":
        precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return getattr(torch, precision)


def refuse_choice(prediction_type: str, title: str) -> None:
    """Raises ModelError if a prediction type is set for a model that has no choice."""
    if prediction_type != "auto":
        raise ModelError(
            f"prediction_type={prediction_type!r} is for SD 1.x, 2.x and SDXL, and this is {title}. Set it to 'auto'."
        )


def _describe_file(path: Path, prediction_type: str, components: str) -> str:
    found = read_checkpoint(path)
    words = [found.kind.title]
    if found.prediction_type:
        words.append(_prediction_words(*choose_prediction(prediction_type, found.prediction_type, found.zero_snr)))
    else:
        refuse_choice(prediction_type, found.kind.title)
    words.append(found.precision)
    words.append(f"{found.weights / 1e9:.2g} billion weights" if found.weights > 1e8 else f"{found.weights:,} weights")
    if found.kind.pipeline not in ARCHITECTURES:
        raise ModelError(f"{path} is {', '.join(words)}, which cannot be trained yet. Supported: {supported()}.")
    lacking = "its settings" if found.is_whole else "text encoders, VAE and settings"
    doubt = found.doubt if prediction_type == "auto" else ""
    return f"{path}: {', '.join(words)}; {lacking} from {resolve_components(found, components)}. {doubt}".rstrip()


def _prediction_words(prediction_type: str, zero_snr: bool) -> str:
    return prediction_type.replace("_", "-") + (" with zero-terminal SNR" if zero_snr else "")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. The model's folder is damaged; get it again.") from error
