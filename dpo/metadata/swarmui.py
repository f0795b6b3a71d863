"""SwarmUI's JSON, `{"sui_image_params": {"prompt": ..., "seed": ...}, "sui_extra_data": ...}`: PNG `parameters`, EXIF elsewhere.

The prompt is the one that was drawn, its wildcards resolved where SwarmUI stored it so; groups compare images of one such
prompt. No parameter is guaranteed and numbers may be strings (SwarmUI `docs/Image Metadata Format.md`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, parse_json, to_float, to_int

FIELDS = ("parameters", "UserComment", "Model")  # the first StableSwarmUI used EXIF Model
OWN_KEYS = {"negativeprompt", "cfgscale", "swarm_version"}  # its spelling; early files have them without the envelope


def parse(fields: Sequence[TextField]) -> Generation | None:
    for field in fields:
        data = parse_json(field.text) if field.name in FIELDS else None
        params = data.get("sui_image_params", data) if isinstance(data, dict) else None
        if isinstance(params, dict) and (params is not data or OWN_KEYS & params.keys()):
            return Generation(
                prompt=str(params.get("prompt") or "").strip(),
                negative_prompt=str(params.get("negativeprompt") or "").strip(),
                seed=to_int(params.get("seed")),
                steps=to_int(params.get("steps")),
                sampler=str(params.get("sampler") or params.get("comfyuisampler") or ""),
                guidance=to_float(params.get("cfgscale")),
                model=str(params.get("model") or ""),
                generator="swarmui",
                where=field.where,
            )
    return None
