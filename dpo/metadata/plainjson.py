"""Programs that write their settings as one plain JSON object, or as one PNG text per setting, and differ in the names only.

Easy Diffusion (settings as names or as labels), TensorArt, Stability Matrix, and the Gradio apps on Hugging Face Spaces; and
imaginAIry, whose prompt is a list of weighted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, find_objects, is_like_object, to_float, to_int, to_size, to_text


class Format(NamedTuple):
    """The names of one program's settings. Its JSON stands in a field of its own, `place`, or in a comment where it is known by
    `sign`, a name that no other program uses. `size` is one name or two."""

    generator: str
    place: str
    sign: str
    prompt: str
    negative_prompt: str
    seed: str
    steps: str
    sampler: str
    guidance: str
    model: str
    size: tuple[str, ...]


COMMENTS = ("UserComment", "parameters", "comment", "Comment")
FORMATS = (
    Format(
        "easydiffusion", "", "use_stable_diffusion_model", "prompt", "negative_prompt", "seed",
        "num_inference_steps", "sampler_name", "guidance_scale", "use_stable_diffusion_model", ("width", "height"),
    ),
    Format(
        "easydiffusion", "", "Stable Diffusion model", "Prompt", "Negative Prompt", "Seed",
        "Steps", "Sampler", "Guidance Scale", "Stable Diffusion model", ("Width", "Height"),
    ),
    Format(
        "tensorart", "generation_data", "samplerName", "prompt", "negativePrompt", "seed",
        "steps", "samplerName", "cfgScale", "baseModel", ("width", "height"),
    ),
    Format(
        "stabilitymatrix", "parameters-json", "PositivePrompt", "PositivePrompt", "NegativePrompt", "Seed",
        "Steps", "Sampler", "CfgScale", "ModelName", ("Width", "Height"),
    ),
    Format(
        "hfspace", "", "num_inference_steps", "prompt", "negative_prompt", "seed",
        "num_inference_steps", "sampler", "guidance_scale", "Model", ("resolution",),
    ),
)  # fmt: skip


SIGNS = {form.sign for form in FORMATS}


def parse(fields: Sequence[TextField]) -> Generation | None:
    by_name = {field.name: field for field in fields}
    if SIGNS.isdisjoint(by_name) and not any([is_like_object(field.text) for field in fields]):
        return None  # neither one PNG text per setting nor JSON
    for form in FORMATS:
        if form.sign in by_name and form.prompt in by_name:  # one PNG text per setting
            return _read(form, {name: field.text for name, field in by_name.items()}, by_name[form.prompt].where)
        for data, field in find_objects(fields, (form.place,), "{"):
            return _read(form, data, field.where)
        for data, field in find_objects(fields, COMMENTS, f'"{form.sign}"'):
            if form.sign in data and form.prompt in data:
                return _read(form, data, field.where)
    for data, field in find_objects(fields, COMMENTS, '"prompts"', "imaginAIry"):
        if isinstance(data.get("prompt"), dict):
            return _read_weighted(data["prompt"], field.where)
    return None


def _read(form: Format, data: dict, where: str) -> Generation:
    model = data.get(form.model)
    if isinstance(model, dict):  # TensorArt's
        model = model.get("label") or model.get("modelFileName")
    size = [data.get(name) for name in form.size]
    return Generation(
        prompt=to_text(data.get(form.prompt)),
        negative_prompt=to_text(data.get(form.negative_prompt)),
        seed=to_int(data.get(form.seed)),
        steps=to_int(data.get(form.steps)),
        sampler=to_text(data.get(form.sampler)),
        guidance=to_float(data.get(form.guidance)),
        model=to_text(model),
        loras=_loras(data),
        written_size=to_size(size[0] if len(size) == 1 else size),
        generator=form.generator,
        where=where,
    )


def _loras(data: dict) -> tuple[Lora, ...]:
    """TensorArt lists them among its models; Easy Diffusion has a name and a strength, or lists of both."""
    models = data.get("models")
    if isinstance(models, list):
        loras = [model for model in models if isinstance(model, dict) and model.get("type") == "LORA"]
        found = [(to_text(lora.get("label")) or to_text(lora.get("modelFileName")), lora.get("weight")) for lora in loras]
    else:
        names, strengths = data.get("use_lora_model"), data.get("lora_alpha")
        names = names if isinstance(names, list) else [names]
        strengths = strengths if isinstance(strengths, list) else [strengths]
        found = [(to_text(name), strengths[i] if i < len(strengths) else None) for i, name in enumerate(names)]
    return tuple(Lora(name, to_float(strength)) for name, strength in found if name)


def _read_weighted(data: dict, where: str) -> Generation:
    return Generation(
        prompt=_blend(data.get("prompts", data.get("prompt"))),
        negative_prompt=_blend(data.get("negative_prompt")),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("sampler_type")),
        guidance=to_float(data.get("prompt_strength")),
        model=to_text(data.get("model")),
        written_size=to_size((data.get("width"), data.get("height"))),
        generator="imaginairy",
        where=where,
    )


def _blend(prompts: object) -> str:
    """A list of (weight, prompt), or of objects of both, as one text: weights are named where there are several."""
    if not isinstance(prompts, list):
        return to_text(prompts)
    prompts = [(part.get("weight"), part.get("text")) if isinstance(part, dict) else part for part in prompts]
    parts = [(part[0], to_text(part[1])) for part in prompts if isinstance(part, list | tuple) and len(part) == 2]
    if len(parts) == 1:
        return parts[0][1]
    return " ".join(f"{text}:{weight}" for weight, text in parts if text)
