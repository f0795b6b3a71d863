"""NovelAI: JSON in the PNG text `Comment`, beside `Description`, `Software` and `Source`; the same texts inside one JSON object
in EXIF UserComment (WebP) and in the pixels (stealth).

Version 4 has a prompt per character besides the one that NovelAI calls the prompt: both together, a line each, are an
alternative, and a warning says so. The oldest files have their prompt only in `Description`. Director tools (line art, remove
background, ...) write a `Comment` without a prompt. Other programs, too, call a text `Comment` (GIMP): it is NovelAI's by its
keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, find_objects, parse_json, to_float, to_int, to_size, to_text

SIGNS = ('"uc"', '"v4_prompt"', '"req_type"', '"Comment"')
PLACES = ("Comment", "UserComment", "parameters", "comment")


def parse(fields: Sequence[TextField]) -> Generation | None:
    for data, field in find_objects(fields, PLACES, *SIGNS):
        beside = {other.name: other.text for other in fields}
        if isinstance(data.get("Comment"), str):  # all texts in one
            beside |= {name: text for name, text in data.items() if isinstance(text, str)}
            data = parse_json(data["Comment"])
        if not isinstance(data, dict):
            continue
        if "req_type" in data:
            return Generation(prompt="", generator="novelai", where=field.where)
        if "steps" in data and "scale" in data:
            return _read(data, beside, field.where)
    return None


def _read(data: dict, beside: dict[str, str], where: str) -> Generation:
    description = to_text(beside.get("Description", beside.get("ImageDescription", "")).strip("\0"))
    prompt = to_text(data.get("prompt")) or to_text(_caption(data.get("v4_prompt")).get("base_caption")) or description
    characters = _characters(data.get("v4_prompt"))
    return Generation(
        prompt=prompt,
        negative_prompt="\n".join((to_text(data.get("uc")), *_characters(data.get("v4_negative_prompt")))).strip(),
        alternatives=("\n".join((prompt, *characters)),) if prompt and characters else (),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("sampler")),
        guidance=to_float(data.get("scale")),
        model=to_text(beside.get("Source")) or to_text(beside.get("Software")),
        written_size=to_size((data.get("width"), data.get("height"))),
        generator="novelai",
        where=where,
        warnings=("Its characters have prompts of their own, which are not in the prompt.",) if characters else (),
    )


def _caption(prompt: object) -> dict:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    return caption if isinstance(caption, dict) else {}


def _characters(prompt: object) -> list[str]:
    captions = _caption(prompt).get("char_captions")
    captions = captions if isinstance(captions, list) else []
    return [text for item in captions if isinstance(item, dict) and (text := to_text(item.get("char_caption")))]
