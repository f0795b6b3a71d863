"""NovelAI: JSON in the PNG text `Comment`, beside `Description`, `Software` and `Source`; the same texts inside one JSON object
in EXIF UserComment (WebP) and in the pixels (stealth).

Version 4 has a prompt per character: they follow the base prompt, a line each. The oldest files have their prompt only in
`Description`. Director tools (line art, remove background, ...) write a `Comment` without a prompt. Other programs, too,
call their texts `Comment` (GIMP): it is NovelAI's by its keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, find_objects, parse_json, to_float, to_int, to_text

SIGNS = ('"uc"', '"v4_prompt"', '"req_type"', '\\"uc\\"', '\\"v4_prompt\\"', '\\"req_type\\"')  # as JSON, and as JSON in JSON
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
    base = to_text(data.get("prompt")) or _caption(data.get("v4_prompt"), "base_caption") or description
    characters = _characters(data.get("v4_prompt"))
    return Generation(
        prompt="\n".join((base, *characters)).strip(),
        negative_prompt="\n".join((to_text(data.get("uc")), *_characters(data.get("v4_negative_prompt")))).strip(),
        alternatives=(base,) if base and characters else (),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("sampler")),
        guidance=to_float(data.get("scale")),
        model=to_text(beside.get("Source")) or to_text(beside.get("Software")),
        written_size=_size(data),
        generator="novelai",
        where=where,
    )


def _caption(prompt: object, key: str) -> object:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    return to_text(caption.get(key)) if isinstance(caption, dict) else ""


def _characters(prompt: object) -> list[str]:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    captions = caption.get("char_captions") if isinstance(caption, dict) else None
    captions = captions if isinstance(captions, list) else []
    return [text for item in captions if isinstance(item, dict) and (text := to_text(item.get("char_caption")))]


def _size(data: dict) -> tuple[int, int] | None:
    width, height = to_int(data.get("width")), to_int(data.get("height"))
    return (width, height) if width and height else None
