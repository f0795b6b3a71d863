"""Civitai's on-site generator as JSON: a ComfyUI graph with an `extraMetadata` text, itself JSON, beside the nodes.

`extraMetadata` is what the person typed, and for an upscale the only place of the prompt. Its A1111 texts are read by
`a1111`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, find_objects, parse_json, to_float, to_int, to_size, to_text

FIELDS = ("UserComment", "prompt", "comment")


def parse(fields: Sequence[TextField]) -> Generation | None:
    for data, field in find_objects(fields, FIELDS, "extraMetadata"):
        extra = data.get("extraMetadata")
        extra = parse_json(extra) if isinstance(extra, str) else extra
        if isinstance(extra, dict):
            resources = extra.get("resources")
            parts = _named_parts(data.get("extra"), resources) or {
                kind: name_resources(resources, kind) for kind in ("checkpoint", "lora")
            }
            return Generation(
                prompt=to_text(extra.get("prompt")),
                negative_prompt=to_text(extra.get("negativePrompt")),
                seed=to_int(extra.get("seed")),
                steps=to_int(extra.get("steps")),
                sampler=to_text(extra.get("sampler")),
                guidance=to_float(extra.get("cfgScale")),
                model=next((part.name for part in parts.get("checkpoint", ())), ""),
                loras=tuple(parts.get("lora", ())),
                written_size=to_size((extra.get("width"), extra.get("height"))),
                generator="civitai",
                where=field.where,
            )
    return None


def name_resources(resources: object, kind: str) -> tuple[Lora, ...]:
    """Civitai's list of what took part, those of one kind ("checkpoint", "lora"): by name, or else by version number."""
    found = []
    for resource in resources if isinstance(resources, list) else ():
        if isinstance(resource, dict) and str(resource.get("type", "")).lower() == kind:
            names = (to_text(resource.get("modelName")), to_text(resource.get("modelVersionName")))
            name = " ".join(filter(None, names)) or f"civitai:{resource.get('modelVersionId')}"
            found.append(Lora(name, to_float(resource.get("weight", resource.get("strength")))))
    return tuple(found)


def _named_parts(extra: object, resources: object) -> dict[str, list[Lora]]:
    """What took part, by kind, out of names like "urn:air:sdxl:lora:civitai:827184@2514310"; strengths stand beside versions."""
    names = extra.get("airs") if isinstance(extra, dict) else None
    strengths = {
        str(resource.get("modelVersionId")): to_float(resource.get("strength"))
        for resource in (resources if isinstance(resources, list) else ())
        if isinstance(resource, dict)
    }
    parts: dict[str, list[Lora]] = {}
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and len(words := name.split(":")) == 6:
            version = words[5].partition("@")[2]
            parts.setdefault(words[3], []).append(Lora(f"civitai:{words[5]}", strengths.get(version)))
    return parts
