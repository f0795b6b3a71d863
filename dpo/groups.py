"""Groups: images that may be compared, because they share a prompt and a shape; and what a screen shows of one.

Pure functions. Shapes come from decoded pixels: the size a generator wrote down is often that of an earlier stage, and
rounding in upscalers moves the ratio a little, so ratios within `ASPECT_TOLERANCE` count as one.

A group's key says its prompt, the options it was made with and the ratio of the image that came first. So it stays the
same when files join the group later, in whatever order, and the same index asked again gives the same keys.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from dpo.metadata import ImageRecord

ASPECT_TOLERANCE = 0.015
SCREEN_SIZE = 9  # the number keys
MODES = ("best_worst", "duel", "triage")
LORA_TAG = re.compile(r"<(?:lora|lyco|lycoris|locon|lokr|hypernet)\s*:[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """Which images of a folder are looked at, and what makes them comparable. The filters apply before the grouping.

    `search`: words that all stand in the prompt, case ignored. `since` and `until`: days of the file's time, "2026-11-20",
    both included. `size`: pixels as shown, "1024x1024". With `same_model` (`same_seed`) a group has one model (seed); files
    that name none count as having the same. `unsure`: of the groups that scorers have scored, only the half of which they are
    less certain; see dpo/agreement.py.
    """

    folder: str
    search: str = ""
    generator: str = ""
    model: str = ""
    since: str = ""
    until: str = ""
    size: str = ""
    ignore_loras: bool = False
    ignore_case: bool = False
    same_model: bool = False
    same_seed: bool = False
    unsure: bool = False


@dataclass(frozen=True)
class IndexedImage:
    """An image file under its content id: moving or renaming the file keeps the key."""

    key: str
    path: str
    record: ImageRecord


@dataclass(frozen=True)
class Group:
    """`prompt` is normalised, `aspect` is width over height, `images` are ordered by key: unrelated to seed or file name."""

    key: str
    prompt: str
    aspect: float
    images: tuple[IndexedImage, ...]


class GroupLine(NamedTuple):
    """A group as a list knows it; what is shown of few, `Library.faces` tells. `prompt` is the number of its text
    (`PromptForms.exact`), `size` counts different images, `newest` is the unix time of its youngest file."""

    key: str
    prompt: int
    aspect: float
    size: int
    newest: float


class Face(NamedTuple):
    """What a list shows of a group: the text of its prompt, and the key of its first image."""

    prompt: str
    first: str


@dataclass(frozen=True)
class Screen:
    """What is shown at once: up to nine images of a group, two of them, or one; in the order of the group.

    `rest`: how many further images of the group could still be shown in this mode, but are not on this screen. `finishes`:
    any answer makes the group done. `likely_left`: duels that the group probably takes, this one included; 0 where that
    means nothing. `is_second`: the group has its pair, and somebody else is asked about the same two.
    """

    group: Group
    mode: str  # one of MODES
    images: tuple[IndexedImage, ...]
    rest: int
    finishes: bool
    likely_left: int = 0
    is_second: bool = False


class PromptForms(NamedTuple):
    """A normalised prompt and what it is the same as. `exact`, `caseless`, `bare` (without LoRA tags) and `both` name texts
    by 64 bits of their hash: equal numbers, equal texts. `folded` is the text to search in."""

    exact: int
    caseless: int
    bare: int
    both: int
    text: str
    folded: str


def normalise_prompt(prompt: str | None) -> str:
    """NFC, single spaces for any run of whitespace, no commas or spaces at the ends. Case and inner commas stay.

    Halves of surrogate pairs, which broken metadata can hold and no file can store, become question marks.
    """
    valid = (prompt or "").encode("utf-8", "replace").decode()
    return " ".join(unicodedata.normalize("NFC", valid).split()).strip(" ,")


def without_loras(text: str) -> str:
    """A normalised prompt without its LoRA tags, and without the commas that stood between them."""
    if "<" not in text:
        return text
    bare = LORA_TAG.sub(" ", text)
    return text if bare == text else normalise_prompt(re.sub(r"[\s,]*,[\s,]*", ", ", bare))


def prompt_forms(prompt: str | None) -> PromptForms | None:
    """None for a prompt that says nothing."""
    text = normalise_prompt(prompt)
    if not text:
        return None
    bare, folded = without_loras(text), text.casefold()
    exact = identify(text)
    caseless = exact if folded == text else identify(folded)
    if bare == text:
        return PromptForms(exact, caseless, exact, caseless, text, folded)
    return PromptForms(exact, caseless, identify(bare), identify(bare.casefold()), text, folded)


def identify(text: str) -> int:
    """64 bits of a text's hash, signed: what SQLite keeps as an integer."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def cluster_shapes(shapes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """For each (width, height) the first shape of the cluster it is in, given in the order in which images arrived.

    No two ratios of a cluster differ by more than the tolerance. A shape joins the first cluster that has room for it; one
    that comes later never moves those before it.
    """
    clusters: list[list] = []  # lowest ratio, highest ratio, first shape
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for shape in shapes:
        if shape in found:
            continue
        ratio = shape[0] / shape[1]
        for cluster in clusters:
            low, high = min(cluster[0], ratio), max(cluster[1], ratio)
            if high <= low * (1 + ASPECT_TOLERANCE):
                cluster[:2] = low, high
                found[shape] = cluster[2]
                break
        else:
            clusters.append([ratio, ratio, shape])
            found[shape] = shape
    return found


def group_key(prompt: int, ending: str) -> str:
    """The key of a group: `prompt` is the form that the view compares by (see `prompt_of_key` for the way back)."""
    return f"{prompt & 0xFFFFFFFFFFFFFFFF:016x}{ending}"


def key_ending(view: View, width: int, height: int, *shared: str) -> str:
    """What a group's key says besides its prompt: the ratio of its first image, and its model and seed (`shared`), as far as
    the view asks for them."""
    divisor = math.gcd(width, height)
    options = view.ignore_loras + 2 * view.ignore_case + 4 * view.same_model + 8 * view.same_seed
    ending = f"{options:x}{width // divisor:05x}{height // divisor:05x}"
    if shared:
        ending += f"{identify('/'.join(shared)) & 0xFFFFFFFFFFFFFFFF:016x}"
    return ending


def prompt_of_key(key: str) -> int | None:
    """The prompt's number that a group's key begins with; None for what is no such key."""
    if not re.fullmatch(r"[0-9a-f]{27,64}", key):
        return None
    number = int(key[:16], 16)
    return number - (1 << 64) if number >> 63 else number
