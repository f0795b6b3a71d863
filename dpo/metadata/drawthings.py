"""Draw Things: XMP, with JSON as exif:UserComment ("c" is the prompt, "uc" the negative one) and a text as dc:description, whose
second line is the negative prompt behind a "-". A description without Draw Things as its CreatorTool is a photo's."""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.a1111 import split_parameters
from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, find_objects, to_float, to_int, to_size, to_text

PROGRAM = "Draw Things"


def parse(fields: Sequence[TextField]) -> Generation | None:
    for data, field in find_objects(fields, ("UserComment", "Comment", "comment"), '"c"'):
        if isinstance(data.get("c"), str) and "uc" in data and "scale" in data:
            return _read(data, field.where)
    if any(field.name == "CreatorTool" and field.text.startswith(PROGRAM) for field in fields):
        for field in fields:
            if field.name == "description":
                return _read_description(field)
    return None


def _read(data: dict, where: str) -> Generation:
    loras = data.get("lora")
    loras = [lora for lora in loras if isinstance(lora, dict)] if isinstance(loras, list) else []
    return Generation(
        prompt=to_text(data["c"]),
        negative_prompt=to_text(data["uc"]),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("sampler")),
        guidance=to_float(data.get("scale")),
        model=to_text(data.get("model")),
        loras=tuple(Lora(name, to_float(lora.get("weight"))) for lora in loras if (name := to_text(lora.get("model")))),
        written_size=to_size(data.get("size")),
        generator="drawthings",
        where=where,
    )


def _read_description(field: TextField) -> Generation:
    text, _, settings = split_parameters(field.text)
    prompt, _, negative = text.partition("\n-")
    return Generation(
        prompt=prompt.strip(),
        negative_prompt=negative.strip(),
        seed=to_int(settings.get("seed")),
        steps=to_int(settings.get("steps")),
        sampler=settings.get("sampler", ""),
        guidance=to_float(settings.get("guidance scale")),
        model=settings.get("model", ""),
        written_size=to_size(settings.get("size")),
        generator="drawthings",
        where=field.where,
    )
