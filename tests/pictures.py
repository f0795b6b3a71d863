"""Small folders of images with ordinary metadata, for tests and benchmarks: painted by the demo's world, several per prompt."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from PIL import Image

from dpo.demo.world import caption, draw, random_scene
from dpo.metadata import format_parameters
from dpo.metadata.writer import write_png


def paint_folder(folder: Path, prompts: int, per_prompt: int, side: int = 64, seed: int = 0) -> list[Path]:
    """Write `prompts` x `per_prompt` PNGs named 0000_0.png, ...; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    paths, used = [], set()
    while len(used) < prompts:
        scene = random_scene(rng)
        prompt = caption(scene, rng)
        if prompt in used:
            continue
        for number in range(per_prompt):
            variant = replace(random_scene(rng), object=scene.object, color=scene.color, background=scene.background)
            path = folder / f"{len(used):04}_{number}.png"
            write_prompted(path, prompt, Image.fromarray(draw(variant)).resize((side, side)), seed=rng.randrange(1 << 31))
            paths.append(path)
        used.add(prompt)
    return paths


def write_prompted(path: Path, prompt: str, image: Image.Image, seed: int = 1) -> Path:
    size = f"{image.width}x{image.height}"
    write_png(image, path, format_parameters(prompt, steps=20, sampler="Euler a", guidance=7, seed=seed, size=size))
    return path


def plain(colour: str = "red", size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)
