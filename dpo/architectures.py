"""What is known of each architecture before one is loaded: its name in words, and where a checkpoint file gets the rest from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """title: in words. components: hub id of a pipeline that holds what a checkpoint of only the denoiser lacks."""

    title: str
    components: str


# By the name of the diffusers pipeline. `dpo.families.load_family` has a case for each.
ARCHITECTURES = {
    "StableDiffusionPipeline": Architecture("Stable Diffusion 1.x and 2.x", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "StableDiffusionXLPipeline": Architecture("Stable Diffusion XL", "stabilityai/stable-diffusion-xl-base-1.0"),
    "PixArtSigmaPipeline": Architecture("PixArt-Sigma", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"),
    "ZImagePipeline": Architecture("Z-Image", "Tongyi-MAI/Z-Image-Turbo"),
    "QwenImagePipeline": Architecture("Qwen-Image", "Qwen/Qwen-Image"),
    "SanaPipeline": Architecture("Sana", "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers"),
    "Lumina2Pipeline": Architecture("Lumina Image 2.0", "Alpha-VLLM/Lumina-Image-2.0"),
    "StableDiffusion3Pipeline": Architecture("Stable Diffusion 3 and 3.5", "stabilityai/stable-diffusion-3.5-medium"),
    "FluxPipeline": Architecture("FLUX.1", "black-forest-labs/FLUX.1-dev"),
    "ChromaPipeline": Architecture("Chroma", "lodestones/Chroma1-HD"),
    "Flux2Pipeline": Architecture("FLUX.2 dev", "black-forest-labs/FLUX.2-dev"),
    "Flux2KleinPipeline": Architecture("FLUX.2 klein", "black-forest-labs/FLUX.2-klein-4B"),
}


def supported() -> str:
    """The titles, as a list in a sentence."""
    return ", ".join(architecture.title for architecture in ARCHITECTURES.values())


# Parts of hub ids that tell the architecture, the first that fits: until a model is downloaded, its name is all there is.
_NAMES = {
    "flux.2-klein": "Flux2KleinPipeline", "flux.2": "Flux2Pipeline", "flux": "FluxPipeline", "chroma": "ChromaPipeline",
    "z-image": "ZImagePipeline", "qwen-image": "QwenImagePipeline", "sana_": "SanaPipeline", "lumina-image-2": "Lumina2Pipeline",
    "pixart-sigma": "PixArtSigmaPipeline", "stable-diffusion-3": "StableDiffusion3Pipeline", "xl-": "StableDiffusionXLPipeline",
    "sdxl": "StableDiffusionXLPipeline", "stable-diffusion-v1": "StableDiffusionPipeline",
    "stable-diffusion-2": "StableDiffusionPipeline",
}  # fmt: skip


def guess_pipeline(hub_id: str) -> str:
    """Name of the diffusers pipeline that a model of this name most likely has; "" if the name does not tell."""
    return next((pipeline for part, pipeline in _NAMES.items() if part in hub_id.lower()), "")
