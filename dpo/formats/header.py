"""What an exported file says of itself: for A1111 and sd-scripts (`ss_`), for readers of Stability's ModelSpec 1.0.0
(`modelspec.`), and for this program (`dpo.`). Only what is known is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from safetensors.torch import save
from torch import Tensor

from dpo.formats import UNETS
from dpo.formats.origin import Origin

# ModelSpec's names for architectures, and Kohya's for base models ("" where sd-scripts has none).
ARCHITECTURES = {
    "StableDiffusionPipeline": ("stable-diffusion-v1", "sd_v1"),
    "StableDiffusionXLPipeline": ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
    "StableDiffusion3Pipeline": ("stable-diffusion-3", ""),
    "FluxPipeline": ("flux-1-dev", "flux1"),
    "ChromaPipeline": ("chroma", "chroma"),
    "Flux2Pipeline": ("flux-2-dev", ""),
    "Flux2KleinPipeline": ("flux-2-klein", ""),
    "ZImagePipeline": ("z-image", ""),
    "QwenImagePipeline": ("qwen-image", ""),
    "Lumina2Pipeline": ("lumina-2", "lumina2"),
    "SanaPipeline": ("sana", ""),
    "PixArtSigmaPipeline": ("pixart-sigma", ""),
}
WIDTH_OF_SD_2 = 1024  # of its text embeddings
STABILITY = "https://github.com/Stability-AI/generative-models"
LUMINA = "https://github.com/Alpha-VLLM/Lumina-Image-2.0"


def header_of(
    tensors: dict[str, Tensor],
    origin: Origin,
    pipeline,
    *,
    denoiser,
    kind: str,
    format: str,
    ranks: Iterable[int],
    alphas: Iterable[float],
    base_hash: str,
) -> dict[str, str]:
    """The header of a file with these tensors. ranks, alphas: of its layers, as a reader of the file sees them. denoiser: its
    config."""
    name = type(pipeline).__name__
    is_v = pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    architecture, version = _architecture(name, denoiser, is_v=is_v)
    said = {
        "format": "pt",
        **_modelspec(tensors, origin, name, architecture, format, is_v=is_v),
        "dpo.format": format,
        "dpo.pipeline": name,
        "dpo.adapter": kind,
        "dpo.base_model_hash": base_hash,
        "dpo.model": origin.model,
        "dpo.date": origin.date,
        "dpo.step": str(origin.step or ""),
        "dpo.pairs": str(origin.pairs or ""),
        "dpo.held_out": str(origin.held_out or ""),
        "dpo.config": json.dumps(origin.settings) if origin.settings else "",
        "dpo.metrics": json.dumps(origin.metrics) if origin.metrics else "",
        **_kohya(origin, name, version, kind, set(ranks), set(alphas), is_v=is_v, is_sd2="v2" in architecture),
    }
    return {key: value for key, value in said.items() if value}


def _architecture(pipeline: str, config, *, is_v: bool) -> tuple[str, str]:
    if pipeline == "StableDiffusionPipeline" and config.get("cross_attention_dim") == WIDTH_OF_SD_2:
        return ("stable-diffusion-v2-768-v", "sd_v2_768_v") if is_v else ("stable-diffusion-v2-512", "sd_v2")
    if pipeline == "FluxPipeline" and not config.get("guidance_embeds"):
        return "flux-1-schnell", "flux1"
    return ARCHITECTURES.get(pipeline, (pipeline, ""))


def _modelspec(tensors, origin: Origin, pipeline: str, architecture: str, format: str, *, is_v: bool) -> dict[str, str]:
    side = origin.settings.get("resolution")
    implementation = "diffusers"
    if format != "diffusers" and pipeline == "StableDiffusionXLPipeline":
        implementation = STABILITY
    if format != "diffusers" and pipeline == "Lumina2Pipeline":
        implementation = LUMINA
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": implementation,
        "modelspec.title": origin.name,
        "modelspec.description": origin.comment,
        "modelspec.date": origin.date,
        "modelspec.resolution": f"{side}x{side}" if side else "",
        "modelspec.prediction_type": ("v" if is_v else "epsilon") if pipeline in UNETS else "",
        "modelspec.tags": "dpo",
        "modelspec.hash_sha256": f"0x{_hash(tensors)}",
    }


def _kohya(
    origin: Origin, pipeline: str, version: str, kind: str, ranks: set[int], alphas: set[float], *, is_v: bool, is_sd2: bool
) -> dict[str, str]:
    settings = origin.settings
    is_lycoris = kind in ("loha", "lokr")
    said = {
        "ss_network_module": "lycoris.kohya" if is_lycoris else "networks.lora",
        "ss_network_args": json.dumps({"algo": kind}) if is_lycoris else "",
        "ss_network_dim": str(min(ranks)) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{min(alphas):g}" if len(alphas) == 1 else "Dynamic",
    }
    if kind == "oft":  # which has none of these
        said = {}
    said |= {
        "ss_base_model_version": version,
        "ss_sd_model_name": origin.model,
        "ss_output_name": origin.name,
        "ss_steps": str(origin.step or ""),
        "ss_training_comment": origin.comment,
    }
    if pipeline in UNETS:
        said |= {"ss_v2": str(is_sd2), "ss_v_parameterization": str(is_v)}
    if settings:
        side = settings["resolution"]
        said |= {
            "ss_max_train_steps": str(settings["max_steps"]),
            "ss_learning_rate": f"{settings['learning_rate']:g}",
            "ss_optimizer": str(settings["optimizer"]),
            "ss_lr_scheduler": str(settings["scheduler"]),
            "ss_seed": str(settings["seed"]),
            "ss_resolution": f"({side}, {side})",
            "ss_gradient_accumulation_steps": str(settings["accumulation"]),
        }
    return said


def _hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a file's tensors, as they lie in it after the header."""
    data = save(tensors)
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
