"""The two values of this package: what a generator's metadata says (`Generation`), and that plus the file (`ImageRecord`)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from dpo import StudioError


class MetadataError(StudioError):
    """A file that is no readable image. The message is a whole sentence with the file's name and a remedy."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one source inside a file says about how the image was made. An empty `prompt` means it says no prompt."""

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    sampler: str = ""
    guidance: float | None = None
    model: str = ""
    generator: str
    where: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One file and what its metadata says.

    `prompt` is None exactly when `error` is a sentence: why this file cannot be used, and what to do. `width` and `height`
    are pixels as shown (orientation applied), read from the header, never from the metadata's own claim; 0 when unreadable.
    `generator` is "a1111", "forge", "comfyui", "swarmui", ... or "". `where` names the source, e.g. "PNG parameters".
    """

    path: str
    prompt: str | None = None
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    sampler: str = ""
    guidance: float | None = None
    model: str = ""
    generator: str = ""
    width: int = 0
    height: int = 0
    where: str = ""
    warnings: tuple[str, ...] = ()
    error: str | None = None


def parse_json(text: str) -> object:
    """The value of a JSON text (NaN allowed: ComfyUI writes it), or None if it is not JSON."""
    if text.lstrip()[:1] not in ("{", "["):  # most texts are prompts: do not pay for an exception each
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def to_int(value: object) -> int | None:
    """A whole number out of whatever a generator wrote for one ("42", 42.0), or None; also for -1, which says "random"."""
    match = re.fullmatch(r"([0-9]{1,20})(\.0*)?", str(value).strip())
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
