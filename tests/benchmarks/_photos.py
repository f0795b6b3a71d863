"""Pictures as large and as hard to compress as photographs, painted fast: a sky, soft shapes, and a texture over both.

The texture is smooth at every scale from the whole picture down to two pixels, with about the spectrum of a photograph and no
noise of single pixels. So a preview of one weighs what a preview of a generated image does, 80 to 110 KB.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dpo.metadata import format_parameters
from tests.metadata.files import user_comment

SIDE = 1024
SHAPES = 14
OCTAVES = 9  # from two waves across the texture to one every four pixels
FALLOFF = 0.85  # of the waves' height from one octave to the next
CONTRAST = 0.16  # of the texture, as a share of the brightness below it
TEXTURES = 3
JPEG_QUALITY = 95


def photograph_folder(folder: Path, group_sizes: Iterable[int], seed: int = 0) -> list[Path]:
    """One group of JPEGs per number, each group with a prompt of its own. The same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    textures = [_paint_texture(rng) for _ in range(TEXTURES)]
    paths = []
    for group, size in enumerate(group_sizes):
        prompt = f"photograph no {group}, shapes in a landscape, soft light, 50mm"
        for number in range(size):
            path = folder / f"{group:04}_{number}.jpg"
            text = format_parameters(prompt, steps=28, sampler="Euler a", seed=int(rng.integers(1 << 31)), size=f"{SIDE}x{SIDE}")
            picture = _paint(textures[len(paths) % TEXTURES], rng)
            picture.save(path, "JPEG", quality=JPEG_QUALITY, exif=b"Exif\0\0" + user_comment(text))
            paths.append(path)
    return paths


def _paint_texture(rng: np.random.Generator) -> np.ndarray:
    """(2 SIDE, 2 SIDE) with mean about 0 and deviation 1: pictures are windows on it."""
    total = np.zeros((2 * SIDE, 2 * SIDE), np.float32)
    for octave in range(OCTAVES):
        waves = Image.fromarray(rng.normal(size=(4 << octave, 4 << octave)).astype(np.float32))
        total += np.asarray(waves.resize(total.shape, Image.Resampling.BICUBIC)) * FALLOFF**octave
    return total / total.std()


def _paint(texture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    half = SIDE // 2
    down = np.linspace(0, 1, half)[:, None, None]
    top, bottom = rng.integers(40, 220, (2, 3))
    sky = np.broadcast_to(top * (1 - down) + bottom * down, (half, half, 3))
    picture = Image.fromarray(sky.astype(np.uint8))
    brush = ImageDraw.Draw(picture)
    for _ in range(SHAPES):
        (x, y), (across, up) = rng.integers(0, half, 2), rng.integers(20, 150, 2)
        colour = tuple(int(value) for value in rng.integers(20, 240, 3))
        brush.ellipse((x - across, y - up, x + across, y + up), fill=colour)
    soft = picture.filter(ImageFilter.GaussianBlur(2)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    left, above = rng.integers(0, SIDE, 2)
    light = 1 + CONTRAST * texture[above : above + SIDE, left : left + SIDE, None]
    return Image.fromarray(np.clip(np.asarray(soft) * light, 0, 255).astype(np.uint8))
