"""SwarmUI's JSON, `{"sui_image_params": {"prompt": ..., "seed": ...}, "sui_extra_data": ...}`: PNG `parameters`, EXIF elsewhere.

The prompt is the one that was drawn, its wildcards resolved where SwarmUI stored it so; groups compare images of one such
prompt. What was typed, where it differs, is an alternative. No parameter is guaranteed and values may be strings (SwarmUI
`docs/Image Metadata Format.md`). The first files have the parameters without an envelope.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, find_objects, parse_json, to_float, to_int, to_loras, to_size, to_text

FIELDS = ("parameters", "UserComment", "Model", "comment")  # the first StableSwarmUI used EXIF Model
SIGNS = ("sui_image_params", '"negativeprompt"', '"cfgscale"', '"swarm_version"')
OWN_KEYS = {"negativeprompt", "cfgscale", "swarm_version"}  # its spelling


def parse(fields: Sequence[TextField]) -> Generation | None:
    for data, field in find_objects(fields, FIELDS, *SIGNS):
        if isinstance(data.get("parameters"), str):  # a PNG's texts in one, by a converter
            data = parse_json(data["parameters"])
        params = data.get("sui_image_params", data) if isinstance(data, dict) else None
        if isinstance(params, dict) and (params is not data or OWN_KEYS & params.keys()):
            return _read(data, params, field.where)
    return None


def _read(data: dict, params: dict, where: str) -> Generation:
    extra = data.get("sui_extra_data")
    extra = params | extra if isinstance(extra, dict) else params  # 2024: among the parameters
    prompt, original = to_text(params.get("prompt")), to_text(extra.get("original_prompt"))
    return Generation(
        prompt=prompt or original,
        negative_prompt=to_text(params.get("negativeprompt")),
        alternatives=(original,) if prompt and original not in ("", prompt) else (),
        seed=to_int(params.get("seed")),
        steps=to_int(params.get("steps")),
        sampler=to_text(params.get("sampler")) or to_text(params.get("comfyuisampler")),
        guidance=to_float(params.get("cfgscale")),
        model=to_text(params.get("model")),
        loras=_loras(params),
        written_size=to_size((params.get("width"), params.get("height"))),
        generator="swarmui",
        where=where,
    )


def _loras(params: dict) -> tuple[Lora, ...]:
    """Names and strengths stand in two lists, or in two texts with commas."""
    names, strengths = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        for value in (params.get("loras"), params.get("loraweights"))
    )
    return to_loras([(name, strengths[i] if i < len(strengths) else None) for i, name in enumerate(names)])
