"""Groups: images that may be compared, because they share a prompt and a shape; and the screens a person sees of them.

Pure functions of images. Shapes come from decoded pixels: the size a generator wrote down is often that of an earlier
stage, and rounding in upscalers moves the ratio a little, so ratios within `ASPECT_TOLERANCE` count as one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from dpo.metadata import ImageRecord

ASPECT_TOLERANCE = 0.015
SCREEN_SIZE = 9  # the number keys
MODES = ("best_worst", "duel")


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


@dataclass(frozen=True)
class Screen:
    """What is shown at once: a grid of up to nine images of a group, or two of them. The same images have the same key."""

    key: str
    group: Group
    mode: str  # one of MODES
    images: tuple[IndexedImage, ...]


def normalise_prompt(prompt: str | None) -> str:
    """NFC, single spaces for any run of whitespace, no commas or spaces at the ends. Case and inner commas stay.

    Halves of surrogate pairs, which broken metadata can hold and no file can store, become question marks.
    """
    valid = (prompt or "").encode("utf-8", "replace").decode()
    return " ".join(unicodedata.normalize("NFC", valid).split()).strip(" ,")


def group_images(images: Iterable[IndexedImage]) -> list[Group]:
    """Group by normalised prompt and aspect, in the order of each group's first path.

    Images without a prompt or without pixels are left out; copies of one file count once. Groups of one are returned too:
    the caller decides what to say of them.
    """
    by_prompt: dict[str, dict[str, IndexedImage]] = {}
    for image in sorted(images, key=lambda image: image.path):
        prompt = normalise_prompt(image.record.prompt)
        if prompt and image.record.width > 0 and image.record.height > 0:
            by_prompt.setdefault(prompt, {}).setdefault(image.key, image)
    groups = [
        _make_group(prompt, cluster) for prompt, members in by_prompt.items() for cluster in _split_by_aspect(members.values())
    ]
    return sorted(groups, key=lambda group: min(image.path for image in group.images))


def split_into_screens(group: Group, mode: str) -> list[Screen]:
    """Every image of the group on a screen: even grids of at most nine, or duels in which each image meets one other.

    An odd image out duels the first one, so that none is left unseen. A group of one has no screen.
    """
    images = group.images
    if len(images) < 2:
        return []
    if mode == "duel":
        parts = [images[i : i + 2] for i in range(0, len(images) - 1, 2)]
        parts += [(images[-1], images[0])] if len(images) % 2 else []
    else:
        count = math.ceil(len(images) / SCREEN_SIZE)
        cuts = [round(i * len(images) / count) for i in range(count + 1)]
        parts = [images[start:end] for start, end in itertools.pairwise(cuts)]
    return [Screen(screen_key(mode, group.key, [image.key for image in part]), group, mode, tuple(part)) for part in parts]


def screen_key(mode: str, group: str, keys: Iterable[str]) -> str:
    """The name of the screen that shows these images of a group, in whatever order."""
    return _digest(mode, group, *sorted(keys))


def _split_by_aspect(images: Iterable[IndexedImage]) -> list[list[IndexedImage]]:
    """Clusters in which no ratio is more than the tolerance above the lowest. Cutting at gaps, not at fixed edges, keeps
    two nearly equal ratios together wherever they lie."""
    clusters: list[list[IndexedImage]] = []
    for image in sorted(images, key=_aspect):
        if clusters and _aspect(image) <= _aspect(clusters[-1][0]) * (1 + ASPECT_TOLERANCE):
            clusters[-1].append(image)
        else:
            clusters.append([image])
    return clusters


def _make_group(prompt: str, images: list[IndexedImage]) -> Group:
    aspect = _aspect(images[0])
    bucket = round(math.log(aspect) / math.log(1 + ASPECT_TOLERANCE))
    ordered = tuple(sorted(images, key=lambda image: image.key))
    return Group(_digest(prompt, str(bucket)), prompt, aspect, ordered)


def _aspect(image: IndexedImage) -> float:
    return image.record.width / image.record.height


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
