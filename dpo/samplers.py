"""Samplers by the names people know, and which of them a model can use: known before it, or torch, is loaded.

A sampler is a scheduler of diffusers with options, made in `dpo/schedulers.py` from the settings of the model's own: what the
model predicts, its noise schedule and its shift stay.
"""

from __future__ import annotations

import json
from pathlib import Path

from dpo import StudioError
from dpo.models import pipeline_name, resolve_model

# A name -> class in diffusers and its options.
DDPM = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "DDIM": ("DDIMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
FLOW = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
DDPM_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtSigmaPipeline")
# Those that diffusers' AutoPipelineForImage2Image knows, and that take a strength.
IMAGE_TO_IMAGE = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline",
    "ZImagePipeline",
)  # fmt: skip


class SamplerError(StudioError):
    """A sampler, or a way of sampling, that does not fit the model."""


def samplers_of(pipeline: str, schedule: dict) -> dict[str, tuple[str, dict]]:
    """The samplers of a pipeline in diffusers (its class's name) with that scheduler config.

    HeunDiscreteScheduler knows no schedule that ends in pure noise, and neither it nor EulerAncestral takes a model that predicts
    the clean image.
    """
    if pipeline not in DDPM_PIPELINES:
        return FLOW
    out = set()
    if schedule.get("rescale_betas_zero_snr"):
        out.add("Heun")
    if schedule.get("prediction_type") == "sample":
        out |= {"Heun", "Euler a"}
    return {name: made for name, made in DDPM.items() if name not in out}


def sampler_names(model: str) -> list[str]:
    """For a form: what that model can be sampled with besides its own sampler, as far as its files tell. Raises ModelError."""
    return list(samplers_of(pipeline_name(model), _schedule(model)))


def check_sampling(model: str, sampler: str, *, from_picture: bool) -> None:
    """Raises SamplerError for what that model cannot do, as far as its files tell; ModelError for no model."""
    pipeline = pipeline_name(model)
    if not pipeline:
        return  # a hub id that does not tell: what is loaded will
    if sampler:
        choose_sampler(pipeline, _schedule(model), sampler)
    if from_picture:
        check_image_to_image(pipeline, sampler)


def choose_sampler(pipeline: str, schedule: dict, sampler: str) -> tuple[str, dict]:
    """(class in diffusers, its options) of a sampler's name. Raises SamplerError."""
    known = samplers_of(pipeline, schedule)
    if sampler not in known:
        raise SamplerError(
            f"sampler={sampler!r} does not fit this model. Choose one of {', '.join(known)}, or none for the model's own."
        )
    return known[sampler]


def check_image_to_image(pipeline: str, sampler: str) -> None:
    """Raises SamplerError for a pipeline whose images cannot start from a picture, or cannot with that sampler.

    The pipelines of flow models count the first of the steps that are left, and Heun's two calls a step they count double.
    """
    if pipeline not in IMAGE_TO_IMAGE:
        from dpo.architectures import ARCHITECTURES

        able = ", ".join(ARCHITECTURES[name].title for name in IMAGE_TO_IMAGE)
        title = ARCHITECTURES[pipeline].title if pipeline in ARCHITECTURES else pipeline
        raise SamplerError(f"{title} cannot start from a picture. Leave the picture out, or choose one of these models: {able}.")
    if sampler == "Heun" and pipeline not in DDPM_PIPELINES:
        raise SamplerError("Heun cannot start from a picture with this model. Leave the picture out, or choose another sampler.")


def _schedule(model: str) -> dict:
    """The scheduler's config of a model that is a folder; {} for any other."""
    source = resolve_model(model)
    path = source / "scheduler" / "scheduler_config.json" if isinstance(source, Path) else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
