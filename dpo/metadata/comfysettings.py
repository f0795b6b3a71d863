"""The settings of a sampler in a ComfyUI graph: its own, or those of the nodes behind its wires."""

from __future__ import annotations

import re

from dpo.metadata.comfygraph import Node, plain
from dpo.metadata.comfywalk import SIDES, Walk
from dpo.metadata.records import Lora, to_float, to_int

# Inputs that do not lead to a sampler's own settings; what a picture was drawn by before, and encoders, have theirs.
ASIDE = re.compile(r"(?!.*_embeds)(positive|negative|(.*_)?cond|latent|image|pixels|samples|clip|vae|text|prompt|control|mask)")
ASIDE_OF_NUMBERS = re.compile(ASIDE.pattern + r"|model|.*lora")
MODEL_NAMES = ("ckpt_name", "unet_name", "base_ckpt_name", "model_name", "model", "diffusion_model", "gguf_name")
LORA_NAME = re.compile(r"(?:lora|lora_name|lora_(?=\d))_?(\d*)$")
STRENGTHS = ("strength_model", "lora_model_strength", "strength", "model_strength", "lora_strength", "lora_weight")
NUMBERED_STRENGTHS = (
    "strength_{}",
    "model_weight_{}",
    "lora_wt_{}",
    "model_str_{}",
    "lora_{}_strength",
    "lora_{}_model_strength",
)
LORA_TAG = re.compile(r"<lora:([^<>:]+)(?::(-?[\d.]+))?[^<>]*>")
SIZES = (("width", "height"), ("empty_latent_width", "empty_latent_height"))
MAX_LORAS = 50


def settings_of(walk: Walk, sampler: str, texts: tuple[str, ...]) -> dict:
    """The fields of a `Generation` that tell how the sampler drew. `texts` may hold <lora:..> tags."""
    guidance = to_float(_number(walk, sampler, "cfg", "cfg_scale", "true_gs"))
    if guidance is None or guidance == 1:
        distilled = to_float(_guidance(walk, sampler))
        guidance = guidance if distilled is None else distilled
    return {
        "seed": to_int(_number(walk, sampler, "seed", "noise_seed", "seed_value")),
        "steps": to_int(_number(walk, sampler, "steps", "steps_total")),
        "sampler": _name(_number(walk, sampler, "sampler_name", "sampler")),
        "guidance": guidance,
        "model": _model(walk, sampler),
        "loras": _loras(walk, sampler, texts),
        "written_size": _written_size(walk, sampler),
    }


def _number(walk: Walk, sampler: str, *names: str) -> object:
    """The value of the first of these inputs on the way up from a sampler, its own before those of nodes behind it."""
    for key in walk.upstream([sampler], ASIDE_OF_NUMBERS):
        inputs = walk.graph[key].inputs
        for name in names:
            if name in inputs:
                value = plain(walk.graph, inputs[name], *names)
                if isinstance(value, str | int | float):
                    return value
    return None


def _guidance(walk: Walk, sampler: str) -> object:
    """What FluxGuidance, or an encoder that has it built in, gives a model that was distilled to it."""
    sides = [wire.source for wire in walk.wires[sampler] if not SIDES["negative"].match(wire.name)]
    for key in [sampler, *walk.upstream(sides, re.compile(r"negative|latent|image|pixels|samples|clip|vae|model"))]:
        if "guidance" in (inputs := walk.graph[key].inputs):
            return plain(walk.graph, inputs["guidance"], "guidance")
    return None


def _model(walk: Walk, sampler: str) -> str:
    for key in walk.upstream([sampler], ASIDE):
        inputs = walk.graph[key].inputs
        for name in MODEL_NAMES:
            if name in inputs and (value := _name(plain(walk.graph, inputs[name], *MODEL_NAMES))):
                return value
    return ""


def _loras(walk: Walk, sampler: str, texts: tuple[str, ...]) -> tuple[Lora, ...]:
    found: dict[str, Lora] = {}
    for key in walk.upstream([sampler], ASIDE):
        for lora in _loras_of(walk, walk.graph[key]):
            found.setdefault(lora.name, lora)
    for text in texts:
        for name, strength in LORA_TAG.findall(text):
            found.setdefault(name, Lora(name, to_float(strength)))
    return tuple(found.values())[:MAX_LORAS]


def _loras_of(walk: Walk, node: Node) -> list[Lora]:
    inputs, found = node.inputs, []
    for name, value in inputs.items():
        if isinstance(value, dict):  # rgthree's: {"on": true, "lora": "x.safetensors", "strength": 1}
            if isinstance(value.get("lora"), str) and value.get("on") is not False:
                found.append(Lora(value["lora"], to_float(value.get("strength"))))
            continue
        match = LORA_NAME.match(name)
        if not match or not isinstance(value, str | list):
            continue
        value, number = plain(walk.graph, value), match[1]
        if not isinstance(value, str) or value in ("", "None") or inputs.get(f"switch_{number}") == "Off":
            continue
        count = inputs.get("lora_count")
        if number and isinstance(count, int) and int(number) > count:
            continue
        names = [pattern.format(number) for pattern in NUMBERED_STRENGTHS] if number else STRENGTHS
        strength = next((inputs[other] for other in names if other in inputs), None)
        found.append(Lora(value, to_float(plain(walk.graph, strength))))
    return found


def _written_size(walk: Walk, sampler: str) -> tuple[int, int] | None:
    """Of the empty latent that the sampler began with; None where it began with a picture."""
    starts = [wire.source for wire in walk.wires[sampler] if not re.match(r"positive|negative|model|clip|vae", wire.name)]
    for key in walk.upstream(starts, re.compile(r"positive|negative|cond|model|clip|vae|text|sigmas|noise|guider")):
        inputs = walk.graph[key].inputs
        for names in SIZES:
            if all(name in inputs for name in names):
                width, height = (to_int(plain(walk.graph, inputs[name], name)) for name in names)
                return (width, height) if width and height else None
    return None


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""
