"""Fooocus and its relatives: JSON, or an A1111 text that ends in `Version: Fooocus ...`; in PNG `parameters`, EXIF UserComment,
the comment of Fooocus-MRE.

`full_prompt` is what the styles and the prompt expansion made of the prompt, another one for every seed; the prompt is what was
typed. FooocusPlus writes the same keys as words ("Full Prompt"), RuinedFooocus has keys of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo.metadata.a1111 import split_parameters
from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, find_objects, to_float, to_int, to_loras, to_size, to_text

PLACES = ("parameters", "UserComment", "Comment", "comment")
SIGNS = ('"base_model', '"Base Model', '"full_prompt"', '"Full Prompt"', "RuinedFooocus", "Fooocus")
OWN_KEYS = {"full_prompt", "full_negative_prompt", "metadata_scheme", "real_prompt", "adm_guidance", "prompt_expansion"}
A1111_SCHEME = ", Version: Fooocus"


def parse(fields: Sequence[TextField]) -> Generation | None:
    for data, field in find_objects(fields, PLACES, *SIGNS):
        if data.get("software") == "RuinedFooocus":
            return _read_ruined(data, field.where)
        values = {key.lower().replace(" ", "_"): value for key, value in data.items()}
        if OWN_KEYS & values.keys() or "fooocus" in f"{values.get('version')} {values.get('software')}".lower():
            return _read(values, field.where)
    for field in fields:
        if field.name in PLACES and A1111_SCHEME in field.text:
            return _read_a1111(field)
    return None


def _read(values: dict, where: str) -> Generation:
    full = values.get("full_prompt") or values.get("real_prompt")
    full = ", ".join(map(to_text, full)) if isinstance(full, list) else to_text(full)
    prompt = to_text(values.get("prompt"))
    size = to_size(values.get("resolution")) or to_size((values.get("width"), values.get("height")))
    return Generation(
        prompt=prompt,
        negative_prompt=to_text(values.get("negative_prompt")),
        alternatives=(full,) if full not in ("", prompt) else (),
        seed=to_int(values.get("seed")),
        steps=to_int(values.get("steps")),
        sampler=to_text(values.get("sampler")),
        guidance=to_float(values.get("guidance_scale", values.get("cfg"))),
        model=to_text(values.get("base_model")),
        loras=to_loras(values.get("loras")) or _combined_loras(values),
        written_size=size,
        generator="fooocus",
        where=where,
    )


def _combined_loras(values: dict) -> tuple[Lora, ...]:
    """`"lora_combined_1": "name : 0.5"`, as the log has it."""
    texts = [to_text(value) for key, value in values.items() if key.startswith("lora_combined")]
    return to_loras([text.rpartition(" : ")[::2] for text in texts if " : " in text])


def _read_ruined(data: dict, where: str) -> Generation:
    loras = data.get("loras")
    if isinstance(loras, list):  # [hash, "0.5 - name"]
        texts = [to_text(lora[1]) for lora in loras if isinstance(lora, list) and len(lora) > 1]
        found = [text.partition(" - ")[::-2] for text in texts]
    else:  # "Loras:<name:0.5>,<name:1>"
        found = re.findall(r"<([^<>]+):([\d.]+)>", to_text(loras))
    return Generation(
        prompt=to_text(data.get("Prompt", data.get("prompt"))),
        negative_prompt=to_text(data.get("Negative")),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("sampler_name")),
        guidance=to_float(data.get("cfg")),
        model=to_text(data.get("base_model_name")),
        loras=to_loras(found),
        written_size=to_size((data.get("width"), data.get("height"))),
        generator="ruinedfooocus",
        where=where,
    )


def _read_a1111(field: TextField) -> Generation:
    full, negative, settings = split_parameters(field.text)
    prompt = settings.get("raw prompt") or full
    weights = [pair.rpartition(":")[::2] for pair in settings.get("lora weights", "").split(",") if ":" in pair]
    return Generation(
        prompt=prompt,
        negative_prompt=settings.get("raw negative prompt") or negative,
        alternatives=(full,) if full not in ("", prompt) else (),
        seed=to_int(settings.get("seed")),
        steps=to_int(settings.get("steps")),
        sampler=settings.get("sampler", ""),
        guidance=to_float(settings.get("cfg scale")),
        model=settings.get("model", ""),
        loras=to_loras(weights),
        written_size=to_size(settings.get("size")),
        generator="fooocus",
        where=field.where,
    )
