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
            return Generation(
                prompt=to_text(extra.get("prompt")),
                negative_prompt=to_text(extra.get("negativePrompt")),
                seed=to_int(extra.get("seed")),
                steps=to_int(extra.get("steps")),
                sampler=to_text(extra.get("sampler")),
                guidance=to_float(extra.get("cfgScale")),
                model=next(iter(name_resources(extra.get("resources"), "checkpoint")), Lora("")).name,
                loras=name_resources(extra.get("resources"), "lora"),
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
