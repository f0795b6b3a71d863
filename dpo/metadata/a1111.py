"""The text of AUTOMATIC1111 and its relatives: Forge, reForge, SD.Next, stable-diffusion.cpp, AI Horde, Civitai, ComfyUI savers,
us.

    a cat on a sofa,                                    prompt: any number of lines, perhaps none
    in the rain
    Negative prompt: blurry,                            optional, any number of lines
    lowres
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 1, b: 2"

As in the reference (reForge `modules/infotext_utils.py`), the last line is settings if it holds three `key: value` pairs
or more, and belongs to the prompt otherwise; here, one of the pairs has to be known as well. Values with a comma are JSON; keys
come in any order and any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from dpo.metadata.civitai import name_resources
from dpo.metadata.containers import TextField
from dpo.metadata.records import Course, Generation, Lora, parse_json, to_float, to_int, to_size

NEGATIVE = "Negative prompt:"
KEY = re.compile(r"\s*(\w[\w \-/]*):\s*")  # the key of a pair
PLAIN_VALUE = re.compile(r"[^,]*")
PLAIN_PAIR = re.compile(r'\s*(\w[\w \-/]*):\s*([^\s,"\[{][^,]*)(?:,|\Z)')  # most pairs, in one step
JSON_OBJECT = re.compile(r'\s*\{\s*"')
JOINED = re.compile(r"[,\s]{1,9}(?=Steps: \d+, ?[A-Z][\w ]+: )")  # where settings begin in a text of one line
ENCODERS = ("T5 Prompt:", "CLIP Prompt:")  # how "Save Image With Metadata (Universal)" labels the prompts of a model with two
TEMPLATE = re.compile(r"(?:Negative )?Template:", re.IGNORECASE)
LORA_TAG = re.compile(r"<(?:lora|lyco|lycoris|locon|hypernet):([^<>]{1,300})>")
FIELDS = ("parameters", "UserComment", "ImageDescription", "comment")  # in order of trust
# Cameras write "key: value" into UserComment, too.
KNOWN_KEYS = {"steps", "sampler", "seed", "cfg scale", "model", "model hash", "schedule type"}
SIGNS = ("teps:", "eed:", "ampler:", "egative prompt:")  # a text without any needs no closer look
SETTING_NAMES = {"guidance": "CFG scale", "size": "Size"}


def parse(fields: Sequence[TextField]) -> Generation | None:
    """The first text with settings among the fields, or else a PNG `parameters` that is only a prompt."""
    for name in FIELDS:
        for field in fields:
            if field.name == name and any(map(field.text.__contains__, SIGNS)) and (generation := _read(field, fields)):
                return generation
    for field in fields:
        if field.name == "parameters" and not JSON_OBJECT.match(field.text):
            return _read(field, fields, without_settings=True)
    return None


def _read(field: TextField, fields: Sequence[TextField], without_settings: bool = False) -> Generation | None:
    prompt, negative_prompt, settings = split_parameters(field.text)
    if not settings and not without_settings and not (negative_prompt and not JSON_OBJECT.match(field.text)):
        return None
    prompt = "" if prompt == "unknown" else prompt  # what "Save Image w/Metadata" writes when it found none
    negative_prompt, template = _split_template(negative_prompt)
    others = [settings.get("template", template)]
    if prompt.startswith(ENCODERS[0]) and ENCODERS[1] in prompt:
        parts = prompt.removeprefix(ENCODERS[0]).partition(ENCODERS[1])
        prompt, other = (text.strip().rstrip(",") for text in parts[::2])
        others.append(other)
    resources = parse_json(settings.get("civitai resources", ""))
    checkpoints = name_resources(resources, "checkpoint")
    return Generation(
        prompt=prompt,
        negative_prompt=negative_prompt,
        alternatives=tuple(other for other in others if prompt and other not in ("", prompt)),
        seed=to_int(settings.get("seed")),
        steps=to_int(settings.get("steps")),
        sampler=settings.get("sampler", "").removeprefix("Undefined"),  # Civitai's word for "the model's own"
        guidance=to_float(settings.get("cfg scale")),
        model=settings.get("model") or settings.get("unet") or (checkpoints[0].name if checkpoints else ""),
        loras=_loras(prompt, settings, resources),
        written_size=to_size(settings.get("size")),
        course=_course(settings),
        generator=_generator(settings, fields),
        where=field.where,
    )


def split_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """Split a parameters text into prompt, negative prompt and settings (keys in lower case, the first of each counts)."""
    text = text.replace("\r\n", "\n").strip().rstrip("\0")
    if "\n" not in text:  # some sites join the lines: part them again
        text = JOINED.sub("\n", text, count=1)
        text = re.sub(rf"[,\s]{{0,9}}{NEGATIVE}", f"\n{NEGATIVE}", text, count=1) if NEGATIVE in text else text
    lines = text.split("\n")
    settings: dict[str, str] = {}
    for index in _settings_candidates(lines):
        pairs = _read_pairs(lines[index])
        if len(pairs) >= 3 and any(key.lower() in KNOWN_KEYS for key, _ in pairs):
            for key, value in pairs:
                settings.setdefault(key.lower(), value)
            if template := "\n".join(lines[index + 1 :]):
                settings.setdefault("template", _split_template("\n" + template)[1])
            lines = lines[:index]
            break
    negative_at = next((i for i, line in enumerate(lines) if line.strip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[negative_at:]).strip().removeprefix(NEGATIVE)
    return "\n".join(lines[:negative_at]).strip(), negative.strip(), settings


def format_parameters(prompt: str, negative_prompt: str = "", **settings: object) -> str:
    """The parameters text that `read_image` reads back to the same values.

    `settings` (none, or at least three: fewer are not taken for settings by any reader) are `steps`, `sampler`,
    `guidance`, `seed`, `size` ("512x768"), `model`, and whatever else is worth keeping, in the order given. A prompt with a line
    that starts with "Negative prompt:" cannot be told from a negative prompt: the format has no escape for it.
    """
    assert not 0 < len(settings) < 3, settings
    pairs = []
    for name, value in settings.items():
        key = SETTING_NAMES.get(name) or name[0].upper() + name[1:].replace("_", " ")
        is_plain = re.fullmatch(r'[^\s,:"\[{]([^,:\n]*[^\s,:])?', str(value))
        pairs.append(f"{key}: {value if is_plain else json.dumps(str(value), ensure_ascii=False)}")
    lines = [prompt, f"{NEGATIVE} {negative_prompt}" if negative_prompt else "", ", ".join(pairs)]
    return "\n".join(line for line in lines if line)


def _course(settings: dict[str, str]) -> Course | None:
    """What this program writes of images that branch from one course."""
    seed, place = to_int(settings.get("branch seed")), to_float(settings.get("branch"))
    return None if seed is None or place is None or not 0 < place < 1 else Course(seed, place)


def _settings_candidates(lines: list[str]) -> list[int]:
    """The last line; and, as dynamic prompts append `Template:` lines behind it, the last one that starts with "Steps:"."""
    return [len(lines) - 1, *(i for i in reversed(range(len(lines))) if lines[i].startswith("Steps:"))][:2]


def _read_pairs(line: str) -> list[tuple[str, str]]:
    """The `key: value` pairs of a settings line; none if the line does not begin with one."""
    pairs, position = [], 0
    while position < len(line):
        if match := PLAIN_PAIR.match(line, position):
            pairs.append((match[1], match[2].rstrip()))
            position = match.end()
            continue
        if match := KEY.match(line, position):
            value, position = _read_value(line, match.end())
            pairs.append((match[1], value))
        elif not pairs:
            break
        comma = line.find(",", position)
        position = comma + 1 if comma >= 0 else len(line)
    return pairs


def _read_value(line: str, start: int) -> tuple[str, int]:
    """A value and where it ends. A comma ends a plain one, but not one in JSON: a quoted text, a list, an object."""
    if line[start : start + 1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(line, start)
        except (ValueError, RecursionError):
            pass  # a plain value that happens to begin like JSON
        else:
            return (value if isinstance(value, str) else line[start:end]), end
    match = PLAIN_VALUE.match(line, start)
    return match[0].strip(), match.end()


def _split_template(text: str) -> tuple[str, str]:
    """(what stands before, the template): what a dynamic prompt was made from, in lines behind the negative prompt or the
    settings. A negative prompt's template is left out."""
    before, template = [], []
    target = before
    for line in text.split("\n"):
        if match := TEMPLATE.match(line):
            target = [] if match[0].lower().startswith("negative") else template
            line = line[match.end() :]
        target.append(line)
    return "\n".join(before).strip(), "\n".join(template).strip()


def _loras(prompt: str, settings: dict[str, str], resources: object) -> tuple[Lora, ...]:
    """The tags in the prompt; what `Lora hashes`, ComfyUI's savers and we name besides; Civitai's resources."""
    tags = [tag.split(":") for tag in LORA_TAG.findall(prompt)]
    found = {tag[0].strip(): to_float(tag[1]) if len(tag) > 1 else None for tag in tags}
    for pair in settings.get("lora hashes", "").split(","):
        if name := pair.partition(":")[0].strip():
            found.setdefault(name, None)
    hashes = parse_json(settings.get("hashes", ""))
    for key in hashes if isinstance(hashes, dict) else ():
        if key.lower().startswith("lora:"):
            found.setdefault(key[len("lora:") :], None)
    for key, value in settings.items():
        if key.startswith("lora_") and re.fullmatch(r"lora_\d+ model name", key) and value:
            found.setdefault(value, to_float(settings.get(key.replace("model name", "strength model"))))
    if name := settings.get("adapter"):  # ours
        found.setdefault(name, to_float(settings.get("adapter strength")))
    return tuple(Lora(*item) for item in found.items()) or name_resources(resources, "lora")


def _generator(settings: dict[str, str], fields: Sequence[TextField]) -> str:
    """Which program wrote these settings, by its version's name, or by the file's `Software`."""
    version = settings.get("version", "").lower()
    if settings.get("app") == "SD.Next":
        return "sdnext"
    if version == "stable-diffusion.cpp":
        return "sdcpp"
    if "comfyui" in version:
        return "comfyui"
    if "civitai resources" in settings or "civitai metadata" in settings:
        return "civitai"
    if re.match(r"f\d[\d.]*-v", version):
        return "easyreforge"
    if re.match(r"f1\.|f[\d.]+v\d+-v", version):
        return "reforge"
    if re.match(r"f\d|classic|neo", version):
        return "forge"
    if any("AI Horde" in field.text for field in fields if field.name == "Software"):
        return "aihorde"
    return "a1111"
