"""The settings of a sampler in a ComfyUI graph: its own, or those of the nodes behind its wires."""

from __future__ import annotations

import re

from dpo.metadata.comfygraph import Node, plain
from dpo.metadata.comfynames import NO_GUIDANCE, NO_LATENT, NO_NUMBER, NO_SETTING
from dpo.metadata.comfywalk import Walk
from dpo.metadata.records import Lora, to_float, to_int

# Of what a picture is drawn with, before those of what may also be something else (an upscaler, a motion module).
MODEL_NAMES = ("ckpt_name", "unet_name", "base_ckpt_name", "diffusion_model", "gguf_name"), ("model_name", "model")
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
LORA_TAG = re.compile(r"<lora:([^<>:]{1,200})(?::(-?[\d.]{1,9}))?[^<>]{0,40}>")  # bounded: prompts may be crafted
SIZES = (("width", "height"), ("empty_latent_width", "empty_latent_height"))
MAX_LORAS = 50


def settings_of(walk: Walk, sampler: str, texts: tuple[str, ...]) -> dict:
    """The fields of a `Generation` that tell how the sampler drew. `texts` may hold <lora:..> tags."""
    behind = [walk.graph[key] for key in walk.upstream([sampler], NO_SETTING)]
    guidance = to_float(_value(walk, sampler, "cfg", "cfg_scale", "true_gs"))
    if guidance is None or guidance == 1:
        distilled = to_float(_guidance(walk, sampler))
        guidance = guidance if distilled is None else distilled
    return {
        "seed": to_int(_value(walk, sampler, "seed", "noise_seed", "seed_value")),
        "steps": to_int(_value(walk, sampler, "steps", "steps_total")),
        "sampler": _name(_value(walk, sampler, "sampler_name", "sampler")),
        "guidance": guidance,
        "model": _model(walk, behind),
        "loras": _loras(walk, behind, texts),
        "written_size": _written_size(walk, sampler),
    }


def _value(walk: Walk, sampler: str, *names: str) -> object:
    """The value of the first of these inputs, of the sampler or else of what is behind it, the nearest first."""
    for key in walk.upstream([sampler], NO_NUMBER):
        inputs = walk.graph[key].inputs
        for name in names:
            if name in inputs:
                value = plain(walk.graph, inputs[name], *names)
                if isinstance(value, str | int | float):
                    return value
    return None


def _guidance(walk: Walk, sampler: str) -> object:
    """What FluxGuidance, or an encoder that has it built in, gives a model that was distilled to it."""
    for key in walk.upstream([sampler], NO_GUIDANCE):
        if "guidance" in (inputs := walk.graph[key].inputs):
            return plain(walk.graph, inputs["guidance"], "guidance")
    return None


def _model(walk: Walk, nodes: list[Node]) -> str:
    for names in MODEL_NAMES:
        for node in nodes:
            for name in names:
                if name in node.inputs and (value := _name(plain(walk.graph, node.inputs[name], *names))):
                    return value
    return ""


def _loras(walk: Walk, nodes: list[Node], texts: tuple[str, ...]) -> tuple[Lora, ...]:
    found: dict[str, Lora] = {}
    for node in nodes:
        for lora in _loras_of(walk, node):
            found.setdefault(lora.name, lora)
    for text in texts if any("<lora:" in text for text in texts) else ():
        for name, strength in LORA_TAG.findall(text):
            found.setdefault(name, Lora(name, to_float(strength)))
    return tuple(found.values())[:MAX_LORAS]


def _loras_of(walk: Walk, node: Node) -> list[Lora]:
    inputs, found = node.inputs, []
    for name, value in inputs.items():
        if isinstance(value, dict) and name.startswith("lora"):
            found += _loras_of_rows(value)
            continue
        match = LORA_NAME.match(name) if name.startswith("lora") else None
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


def _loras_of_rows(value: dict) -> list[Lora]:
    """Two suites store rows: {"on": true, "lora": "x", "strength": 1} each, or a list of {"active": true, "name": "x", ..}."""
    rows = value.get("__value__", [value])
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [
        Lora(name, to_float(row.get("strength")))
        for row in rows
        if isinstance(name := row.get("lora", row.get("name")), str) and row.get("on", row.get("active")) is not False
    ]


def _written_size(walk: Walk, sampler: str) -> tuple[int, int] | None:
    """Of the empty latent that the sampler began with; None where it began with a picture."""
    for key in walk.upstream([sampler], NO_LATENT):
        inputs = walk.graph[key].inputs
        if size := _size_of(walk, inputs):
            return size
    return None


def _size_of(walk: Walk, inputs: dict) -> tuple[int, int] | None:
    for name in ("resolution", "aspect_ratio", "dimensions"):  # "832 x 1216 (0.68)"; "custom" leaves it to the numbers
        if isinstance(value := inputs.get(name), str) and (match := re.search(r"(\d{2,5}) ?[x×*] ?(\d{2,5})", value)):
            return int(match[1]), int(match[2])
    for names in SIZES:
        if all(name in inputs for name in names):
            width, height = (to_int(plain(walk.graph, inputs[name], name)) for name in names)
            if width and height:
                return width, height
    return None


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""
