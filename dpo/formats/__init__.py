"""Adapter files for other programs: which formats there are, and for which models and adapters each is offered.

What is offered is exact: a program that reads the file computes what training computed, up to the rounding of the precision.
What would not be exact is not offered, with the reason. Nothing here imports torch.

naming.py    what a layer is called in each format
factors.py   an adapter on a denoiser, layer by layer, and as tensors under those names
reading.py   such tensors back onto a denoiser, where diffusers does not do it
header.py    what the file says of itself
card.py      the README.md beside it
writing.py   the file, the card, and the proof: the file on a fresh pipeline gives the same image
merging.py   two adapters as one
jobs.py      what the page and the command line call
"""

from __future__ import annotations

from dpo import StudioError
from dpo.architectures import ARCHITECTURES

FORMATS = {
    "diffusers": "diffusers and peft, and this program",
    "comfyui": "ComfyUI, Forge",
    "kohya": "A1111, Forge, sd-scripts, ComfyUI",
}
KINDS = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}

UNETS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
LUMINA = "Lumina2Pipeline"
# What ComfyUI puts before the names that diffusers has for the layers of a transformer: comfy/lora.py, model_lora_keys_unet.
PREFIXES = {
    "StableDiffusion3Pipeline": "transformer.",
    "FluxPipeline": "transformer.",
    "ChromaPipeline": "transformer.",
    "Flux2Pipeline": "transformer.",
    "Flux2KleinPipeline": "transformer.",
    "PixArtSigmaPipeline": "transformer.",
    "ZImagePipeline": "diffusion_model.",
    "QwenImagePipeline": "diffusion_model.",
    LUMINA: "diffusion_model.",
}


class ExportError(StudioError):
    """An adapter that cannot be exported, or an export that is not what was trained."""


def why_not(pipeline: str, kind: str, format: str) -> str:
    """Why an adapter of this kind for this diffusers pipeline is not offered in this format; "" if it is."""
    if format == "diffusers":
        return ""
    if pipeline not in UNETS and pipeline not in PREFIXES:
        title = ARCHITECTURES[pipeline].title if pipeline in ARCHITECTURES else pipeline
        return f"ComfyUI, Forge and A1111 load no adapters for {title}."
    if kind == "oft":
        return "This OFT rotates what goes into a layer; ComfyUI and LyCORIS rotate what comes out of it."
    if format == "kohya" and pipeline not in UNETS:
        return "Kohya's trainers name the layers of this model after its original code; ComfyUI and Forge read the comfyui file."
    if format == "kohya" and kind == "dora":
        return "Its readers differ on the norm that the magnitude of a DoRA replaces: A1111 takes columns, LyCORIS rows."
    if pipeline == LUMINA and kind in ("loha", "lokr"):
        return "ComfyUI keeps q, k and v of Lumina 2 in one matrix, and three of these are none of the whole."
    return ""


def offered(pipeline: str, kind: str) -> list[str]:
    """The formats that an adapter of this kind can be exported to."""
    return [format for format in FORMATS if not why_not(pipeline, kind, format)]


def check_offer(pipeline: str, kind: str, format: str) -> None:
    """Raises ExportError with the reason, and with what is offered instead."""
    if format not in FORMATS:
        raise ExportError(f"format={format!r} is not known. Choose one of: {', '.join(FORMATS)}.")
    reason = why_not(pipeline, kind, format)
    if reason:
        raise ExportError(
            f"{KINDS[kind]} for this model is not exported as {format}. {reason} Choose {' or '.join(offered(pipeline, kind))}."
        )


def has_alpha_in_factors(pipeline: str, kind: str, format: str) -> bool:
    """Whether alpha / rank is multiplied into a factor, and the file's own alpha is its rank.

    With Kohya's names every reader looks for an alpha. With others some do not, and diffusers refuses one for most transformers.
    A LoKr's readers differ on when they use it.
    """
    return format != "diffusers" and (kind == "lokr" or (kind in ("lora", "dora") and pipeline not in UNETS))


def table() -> list[list[str]]:
    """Rows of the README's table: models that are alike, and for each format the kinds of adapters that are offered."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for pipeline, architecture in ARCHITECTURES.items():
        kinds = ([KINDS[kind] for kind in KINDS if not why_not(pipeline, kind, format)] for format in FORMATS)
        cells = tuple(", ".join(found) or "none" for found in kinds)
        rows.setdefault(cells, []).append(architecture.title)
    return [[", ".join(titles), *cells] for cells, titles in rows.items()]


def reasons() -> list[list[str]]:
    """Rows of the README's other table: what is not offered, and why."""
    found: dict[str, tuple[list[str], list[str], list[str]]] = {}
    for pipeline, architecture in ARCHITECTURES.items():
        for kind, title in KINDS.items():
            for format in FORMATS:
                reason = why_not(pipeline, kind, format)
                if reason:
                    for seen, one in zip(
                        found.setdefault(reason, ([], [], [])), (title, format, architecture.title), strict=True
                    ):
                        if one not in seen:
                            seen.append(one)
    return [[*(", ".join(seen) for seen in lists), reason] for reason, lists in found.items()]
