"""Reading painted pictures back into facts, by measuring pixels. Pictures are (64, 64, 3) uint8.

`read_scene` tells what a picture shows. The `MEASURES` score how much of a preference it has, each twice and by two
principles: the first finds the object by its *colour* and chooses pairs, the second finds it by its *contrast* with the
edges of the picture, never chooses a pair, and judges.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from dpo.demo import world

COLOR_RADIUS = 50.0  # distance in RGB within which a pixel counts as a named colour
FEWEST_PIXELS = 12
CONTRAST = 70.0


@dataclass(frozen=True)
class Reading:
    """What a picture shows. `color` is None if no object was found; then the rest but `background` means nothing."""

    color: str | None
    background: str
    object: str | None
    area: float  # share of the picture with the object's colour
    extent: float  # geometric mean of the coloured part's sides, share of the picture's side
    x: float  # centre of the coloured part


def read_scene(picture: np.ndarray) -> Reading:
    color, mask = find_object(picture)
    background = read_background(picture, mask)
    if color is None:
        return Reading(None, background, None, 0.0, 0.0, 0.5)
    left, top, right, bottom = _box(mask)
    extent = np.sqrt((right - left) * (bottom - top)) / world.SIDE
    return Reading(color, background, read_object(picture, color, mask), mask.mean(), extent, (left + right) / 2 / world.SIDE)


def find_object(picture: np.ndarray) -> tuple[str | None, np.ndarray]:
    """(colour, mask): the named colour that covers most, and where it and its lighter and darker tones are."""
    names = list(world.COLORS)
    distances = np.stack([_distance(picture, world.COLORS[name]) for name in names])
    nearest = distances.argmin(0)
    counts = [int(((nearest == i) & (distances[i] < COLOR_RADIUS)).sum()) for i in range(len(names))]
    best = int(np.argmax(counts))
    if counts[best] < FEWEST_PIXELS:
        return None, np.zeros(picture.shape[:2], bool)
    main = np.array(world.COLORS[names[best]], float)
    tones = (main, main + (255 - main) * 0.28, main * 0.82)
    mask = np.min([_distance(picture, tone) for tone in tones], 0) < COLOR_RADIUS
    return names[best], _largest_blob(mask)


def read_background(picture: np.ndarray, mask: np.ndarray) -> str:
    """The background whose paintings are nearest, in 8x8 cells, to the part of the picture the object leaves visible."""
    visible = np.ones(mask.shape, bool)
    if mask.any():
        left, top, right, bottom = _box(mask)
        width, height = right - left, bottom - top
        # Roofs stand above the coloured part, trunks, stems, strings and hulls below it.
        visible[
            max(0, round(top - 0.8 * height)) : round(bottom + 1.2 * height) + 1,
            max(0, round(left - 0.35 * width)) : round(right + 0.35 * width) + 1,
        ] = False
        if visible.mean() < 0.15:
            visible = ~mask
    weight = visible.reshape(8, 8, 8, 8).mean((1, 3))
    cells = picture.reshape(8, 8, 8, 8, 3).astype(float)
    shown = visible.reshape(8, 8, 8, 8, 1)
    cells = (cells * shown).sum((1, 3)) / np.maximum(shown.sum((1, 3)), 1)
    scores = {}
    for background in world.BACKGROUNDS:
        gaps = np.linalg.norm(_paintings(background) - cells, axis=-1).clip(max=120)
        scores[background] = ((gaps * weight).sum((1, 2)) / weight.sum()).min()
    return min(scores, key=scores.get)


def read_object(picture: np.ndarray, color: str, mask: np.ndarray) -> str:
    """Paint every object where the coloured part is, and take the one that explains the picture best."""
    left, top, right, bottom = _box(mask)
    area = picture.astype(float)
    misfits = {}
    for obj in world.OBJECTS:
        part_left, part_top, part_right, part_bottom = _colored_part(obj)
        size = 0.5 * ((right - left) / (part_right - part_left) + (bottom - top) / (part_bottom - part_top)) / world.SIDE
        x = (left + right) / 2 / world.SIDE - size * (part_left + part_right) / 2
        base = (top + bottom) / 2 / world.SIDE - size * ((part_top + part_bottom) / 2 - 1)
        layer = np.asarray(world.object_layer(obj, color, min(size, 0.6), x, base)).astype(float)
        painted = layer[..., 3] > 127
        union = painted | mask
        gap = np.linalg.norm(area - layer[..., :3], axis=-1).clip(max=200)
        misfits[obj] = np.where(painted, gap, 200)[union].mean()
    return min(misfits, key=misfits.get)


def contrast_mask(picture: np.ndarray) -> np.ndarray:
    """Where a picture differs from both of its own side edges in the same row: the object, seen without knowing colours."""
    pixels = picture.astype(float)
    edges = [np.median(pixels[:, columns], 1, keepdims=True) for columns in (slice(0, 4), slice(-4, None))]
    return np.min([np.linalg.norm(pixels - edge, axis=-1) for edge in edges], 0) > CONTRAST


def _size_by_color(picture: np.ndarray) -> float:
    return read_scene(picture).extent


def _size_by_contrast(picture: np.ndarray) -> float:
    return float(contrast_mask(picture).mean())


def _centre_by_color(picture: np.ndarray) -> float:
    return -abs(read_scene(picture).x - 0.5)


def _centre_by_contrast(picture: np.ndarray) -> float:
    columns = contrast_mask(picture).sum(0)
    if not columns.any():
        return -0.5
    return -abs(float((columns * (np.arange(world.SIDE) + 0.5)).sum() / columns.sum()) / world.SIDE - 0.5)


def _warmth_by_color(picture: np.ndarray) -> float:
    color, mask = find_object(picture)
    return 0.0 if color is None else float(mask.sum()) * (1 if color in world.WARM else -1)


def _warmth_by_contrast(picture: np.ndarray) -> float:
    pixels = picture[contrast_mask(picture)].astype(float)
    return float((pixels[:, 0] - pixels[:, 2]).mean()) if len(pixels) else 0.0


def _sharpness_by_color(picture: np.ndarray) -> float:
    """How steep the object's own outline is: the 90th percentile of brightness steps around the coloured part."""
    _, mask = find_object(picture)
    near = np.asarray(
        Image.fromarray(mask).resize((16, 16), Image.Resampling.BOX).resize((64, 64), Image.Resampling.NEAREST), bool
    )
    brightness = picture.astype(float).mean(-1)
    steps = np.hypot(np.gradient(brightness, axis=0), np.gradient(brightness, axis=1))
    return float(np.percentile(steps[near], 90)) if near.any() else 0.0


def _sharpness_by_contrast(picture: np.ndarray) -> float:
    """The share of the whole picture's variation that is finer than four pixels."""
    spectrum = np.abs(np.fft.fft2(picture.astype(float).mean(-1))) ** 2
    frequency = np.fft.fftfreq(world.SIDE)
    fine = np.hypot(*np.meshgrid(frequency, frequency)) > 0.25
    spectrum[0, 0] = 0
    return float(spectrum[fine].sum() / max(spectrum.sum(), 1e-9))


# preference: (the measure that chooses pairs, the measure that judges); more is preferred
MEASURES = {
    "larger": (_size_by_color, _size_by_contrast),
    "centred": (_centre_by_color, _centre_by_contrast),
    "warm": (_warmth_by_color, _warmth_by_contrast),
    "sharp": (_sharpness_by_color, _sharpness_by_contrast),
}


def _distance(picture: np.ndarray, color) -> np.ndarray:
    return np.linalg.norm(picture.astype(float) - np.array(color, float), axis=-1)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom), right and bottom exclusive. Stray pixels at the fringe do not stretch it."""
    rows, columns = mask.sum(1), mask.sum(0)
    ys, xs = np.flatnonzero(rows >= min(2, rows.max())), np.flatnonzero(columns >= min(2, columns.max()))
    return xs[0], ys[0], xs[-1] + 1, ys[-1] + 1


def _largest_blob(mask: np.ndarray) -> np.ndarray:
    """The connected part with most pixels, joined with others at least a quarter as large (sails, the storeys of a tree)."""
    labels = np.zeros(mask.shape, int)
    sizes = [0]
    for y, x in np.argwhere(mask):
        if labels[y, x]:
            continue
        sizes.append(0)
        stack = [(y, x)]
        labels[y, x] = len(sizes) - 1
        while stack:
            row, column = stack.pop()
            sizes[-1] += 1
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                ny, nx = row + dy, column + dx
                if 0 <= ny < mask.shape[0] and 0 <= nx < mask.shape[1] and mask[ny, nx] and not labels[ny, nx]:
                    labels[ny, nx] = len(sizes) - 1
                    stack.append((ny, nx))
    return np.isin(labels, [i for i, size in enumerate(sizes) if i and size >= max(sizes) / 4])


@cache
def _paintings(background: str) -> np.ndarray:
    """(24, 8, 8, 3) cell means of the background with different moods."""
    paintings = np.stack([world.draw_background(background, random.Random(mood)) for mood in range(24)]).astype(float)
    return paintings.reshape(24, 8, 8, 8, 8, 3).mean((2, 4))


@cache
def _colored_part(obj: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the coloured part in the object's own units, x in [-1, 1], y in [-1, 1]."""
    size, x, base = 0.4, 0.5, 0.9
    layer = np.asarray(world.object_layer(obj, "green", size, x, base))
    main = np.array(world.COLORS["green"], float)
    tones = (main, main + (255 - main) * 0.28, main * 0.82)
    mask = (np.min([_distance(layer[..., :3], tone) for tone in tones], 0) < COLOR_RADIUS) & (layer[..., 3] > 127)
    left, top, right, bottom = (side / world.SIDE for side in _box(mask))
    return (left - x) / size, (top - base) / size + 1, (right - x) / size, (bottom - base) / size + 1
