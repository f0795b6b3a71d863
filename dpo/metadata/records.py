"""The two values of this package: what a generator's metadata says (`Generation`), and that plus the file (`ImageRecord`)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dpo import StudioError

if TYPE_CHECKING:
    from dpo.metadata.containers import TextField

# Why an image cannot be used for picking: code -> what a table calls it. The first three: the file is no readable image.
REASONS = {
    "unreadable": "cannot be opened",
    "not_image": "not an image",
    "damaged": "cut short or damaged",
    "no_metadata": "no generation metadata",
    "unknown_metadata": "metadata of no known generator",
    "no_prompt": "metadata without a prompt",
    "alone": "no other image to compare with",
    "copy": "a copy of another image",
}
NO_IMAGE = ("unreadable", "not_image", "damaged")  # of those: nothing that could be shown

# How sure a prompt is: a program's own field; worked out from a graph; a best guess; given by a person (a text beside the
# image, a table, the folder's name, typed).
CERTAINTIES = ("exact", "derived", "guess", "given")


WHOLE = re.compile(r"([0-9]{1,20})(\.0*)?")
SIZE = re.compile(r"\D{0,2}(\d{1,6}) {0,2}[x×,*|] {0,2}(\d{1,6})\D{0,2}")


class MetadataError(StudioError):
    """A file that is no readable image. The message is a whole sentence with the file's name and a remedy; `reason` is one of
    the first three REASONS."""

    def __init__(self, message: str, reason: str = "not_image") -> None:
        super().__init__(message)
        self.reason = reason


class Lora(NamedTuple):
    """A LoRA that took part, by the name its generator gave it. `strength` is None where it is not written."""

    name: str
    strength: float | None = None


class Course(NamedTuple):
    """Images of one prompt and one `seed` shared their course from the same noise (dpo/branching.py). `place` in (0, 1): below it
    in the schedule, where 0 is the clean image, this one's is its own."""

    seed: int
    place: float


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one source inside a file says about how the image was made. An empty `prompt` means it says no prompt.

    `alternatives` are other texts that may pass for the prompt (a template, a second encoder's text), surest first.
    `written_size` is what the metadata claims, (width, height); grids, upscales and thumbnails differ from it.
    """

    prompt: str
    negative_prompt: str = ""
    alternatives: tuple[str, ...] = ()
    seed: int | None = None
    steps: int | None = None
    sampler: str = ""
    guidance: float | None = None
    model: str = ""
    loras: tuple[Lora, ...] = ()
    written_size: tuple[int, int] | None = None
    course: Course | None = None
    generator: str
    where: str
    certainty: str = "exact"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One file and what its metadata says.

    `prompt` is None exactly when `error` is a sentence: why this file cannot be used, and what to do; `reason` is then one
    of REASONS, else "". `width` and `height` are pixels as shown (orientation applied), read from the header, never from the
    metadata's own claim (that is `written_size`); 0 when unreadable. `generator` is "a1111", "forge", "comfyui", "swarmui",
    ... or "". `where` names the source, e.g. "PNG parameters". `certainty` is one of CERTAINTIES, "" without a prompt.
    """

    path: str
    prompt: str | None = None
    negative_prompt: str = ""
    alternatives: tuple[str, ...] = ()
    seed: int | None = None
    steps: int | None = None
    sampler: str = ""
    guidance: float | None = None
    model: str = ""
    loras: tuple[Lora, ...] = ()
    written_size: tuple[int, int] | None = None
    course: Course | None = None
    generator: str = ""
    width: int = 0
    height: int = 0
    where: str = ""
    certainty: str = ""
    warnings: tuple[str, ...] = ()
    reason: str = ""
    error: str | None = None


def parse_json(text: str) -> object:
    """The value of a JSON text (NaN allowed: ComfyUI writes it), or None if it is not JSON."""
    if text.lstrip()[:1] not in ("{", "["):  # most texts are prompts: do not pay for an exception each
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_like_object(text: str) -> bool:
    """Whether a text begins like a JSON object, as few do: prompts are most."""
    return text.lstrip()[:1] == "{"


def to_int(value: object) -> int | None:
    """A whole number out of whatever a generator wrote for one ("42", 42.0), or None; also for -1, which says "random"."""
    match = WHOLE.fullmatch(str(value).strip())
    return int(match[1]) if match else None


def to_float(value: object) -> float | None:
    """A finite number out of whatever a generator wrote for one ("7", "6.000000"), or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_text(value: object) -> str:
    """A text without the blanks around it; "" for None and whatever else is no text."""
    return value.strip() if isinstance(value, str) else ""


def to_size(value: object) -> tuple[int, int] | None:
    """(width, height) as generators write it ("512x768", "(512, 768)", "512 × 768", [512, 768]), or None."""
    value = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    match = SIZE.fullmatch(value.strip())
    return (int(match[1]), int(match[2])) if match and int(match[1]) and int(match[2]) else None


def to_loras(pairs: object) -> tuple[Lora, ...]:
    """The LoRAs of (name, strength) pairs, or of names alone, out of whatever a generator's list of them held."""
    found = []
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        name, strength = (*pair, None)[:2] if isinstance(pair, list | tuple) and pair else (pair, None)
        if name := to_text(name):
            found.append(Lora(name, to_float(strength)))
    return tuple(dict.fromkeys(found))


def find_objects(fields: Sequence[TextField], names: Sequence[str], *signs: str) -> Iterator[tuple[dict, TextField]]:
    """The JSON objects in the fields of these names, in their order, and the fields they stand in.

    A text is only parsed if it has one of the `signs`, which makes asking for a rare format cheap.
    """
    fields = [field for field in fields if field.name in names and is_like_object(field.text)]
    for name in names if fields else ():
        for field in fields:
            if field.name == name and any(sign in field.text for sign in signs):
                data = parse_json(field.text.rstrip("\0"))
                if isinstance(data, dict):
                    yield data, field
