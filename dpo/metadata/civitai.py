"""Civitai's on-site generator as JSON: a ComfyUI graph with an `extraMetadata` text, itself JSON, beside the nodes.

`extraMetadata` is what the person typed, and for an upscale the only place of the prompt. Its A1111 texts are read by
`a1111`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, parse_json, to_float, to_int


def parse(fields: Sequence[TextField]) -> Generation | None:
    for field in fields:
        if field.name != "UserComment" or "extraMetadata" not in field.text:
            continue
        data = parse_json(field.text)
        extra = data.get("extraMetadata") if isinstance(data, dict) else None
        extra = parse_json(extra) if isinstance(extra, str) else extra
        if isinstance(extra, dict):
            return Generation(
                prompt=str(extra.get("prompt") or "").strip(),
                negative_prompt=str(extra.get("negativePrompt") or "").strip(),
                seed=to_int(extra.get("seed")),
                steps=to_int(extra.get("steps")),
                sampler=str(extra.get("sampler") or ""),
                guidance=to_float(extra.get("cfgScale")),
                generator="civitai",
                where=field.where,
            )
    return None
