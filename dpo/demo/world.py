"""The painted world of the demo model: six objects, seven colours, twelve backgrounds, drawn at 64x64.

A `Scene` says everything about one picture; `draw` paints it; `caption` describes it and leaves things out at random, so
that a model trained on it has freedom where a prompt is silent. Coordinates are shares of the picture's side, y down.
Object colours keep their distance from every background and from every accessory (roofs, trunks, hulls), so that
`measures` can find an object by its colour alone.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 64
SUPERSAMPLING = 4

COLORS = {
    "red": (220, 32, 36),
    "orange": (250, 128, 16),
    "yellow": (252, 220, 30),
    "green": (28, 156, 62),
    "blue": (34, 88, 226),
    "purple": (134, 46, 184),
    "pink": (252, 120, 182),
}
WARM = ("red", "orange", "yellow", "pink")
OBJECTS = ("balloon", "house", "tree", "mushroom", "boat", "cat")
PLAINS = {
    "white": (246, 246, 244),
    "black": (22, 22, 28),
    "gray": (136, 138, 144),
    "peach": (255, 222, 204),
    "mint": (196, 236, 210),
    "lilac": (218, 208, 246),
}
SCENES = {
    "night": "at night",
    "sunset": "at sunset",
    "meadow": "in a meadow",
    "sea": "by the sea",
    "desert": "in the desert",
    "snow": "in the snow",
}
BACKGROUNDS = (*PLAINS, *SCENES)

SMALLEST, LARGEST = 0.16, 0.42
SMALL, LARGE = 0.235, 0.335  # sizes under and over these may be called small and large
LEFT, RIGHT = 0.42, 0.58  # centres before and after these may be called left and right

_BARK, _ROOF, _CREAM, _INK = (104, 68, 44), (92, 52, 48), (250, 238, 214), (38, 32, 40)


@dataclass(frozen=True)
class Scene:
    """One picture: `size` is half the object's extent, `x` its centre, `base` where it stands (or hangs), `softness` the
    blur in pixels, `mood` seeds what nobody names: hills, stars, clouds, shading."""

    object: str
    color: str
    background: str
    size: float
    x: float
    base: float
    softness: float
    mood: int


def random_scene(rng: random.Random) -> Scene:
    size = rng.uniform(SMALLEST, LARGEST)
    obj = rng.choice(OBJECTS)
    margin = size * 0.9
    lowest = 0.97
    # Balloons float; everything else stands on the ground, in the lower part of the picture.
    highest = max(2 * size + 0.02, 0.0 if obj == "balloon" else 0.80)
    return Scene(
        object=obj,
        color=rng.choice(list(COLORS)),
        background=rng.choice(BACKGROUNDS),
        size=size,
        x=rng.uniform(margin, 1 - margin),
        base=rng.uniform(min(highest, lowest), lowest),
        softness=rng.uniform(0.7, 1.4) if rng.random() < 0.15 else 0.0,
        mood=rng.randrange(1 << 30),
    )


def background_phrase(background: str) -> str:
    return SCENES.get(background, f"on a {background} background")


def describe(obj: str, color: str | None, background: str | None, size: str | None = None, place: str | None = None) -> str:
    """The one grammar of captions and prompts, e.g. `a small red house on the left by the sea`."""
    words = [size, color, obj, place and f"on the {place}", background and background_phrase(background)]
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption that leaves attributes out at random. What it says is true of the scene."""
    size = "small" if scene.size < SMALL else "large" if scene.size > LARGE else None
    place = "left" if scene.x < LEFT else "right" if scene.x > RIGHT else None
    return describe(
        scene.object,
        scene.color if rng.random() < 0.9 else None,
        scene.background if rng.random() < 0.9 else None,
        size if rng.random() < 0.45 else None,
        place if rng.random() < 0.45 else None,
    )


def draw(scene: Scene) -> np.ndarray:
    """Paint the scene: (64, 64, 3) uint8."""
    rng = random.Random(scene.mood)
    picture = Image.fromarray(draw_background(scene.background, rng))
    layer = object_layer(scene.object, scene.color, scene.size, scene.x, scene.base)
    shadow = Image.new("RGBA", layer.size, (0, 0, 0, 0))
    shadow.putalpha(layer.getchannel("A").filter(ImageFilter.GaussianBlur(2)).point(lambda a: a * 0.28))
    picture.paste(shadow, (1, 1), shadow)
    picture.paste(layer, (0, 0), layer)
    if scene.softness:
        picture = picture.filter(ImageFilter.GaussianBlur(scene.softness))
    return np.asarray(picture)


def draw_background(background: str, rng: random.Random) -> np.ndarray:
    """(64, 64, 3) uint8, without the object."""
    axis = (np.arange(SIDE) + 0.5) / SIDE
    x, y = np.meshgrid(axis, axis)
    if background in PLAINS:
        angle = rng.uniform(0, 2 * math.pi)
        slope = (x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)
        return _to_bytes(np.array(PLAINS[background]) * (1 + 0.10 * slope[..., None]))

    horizon = rng.uniform(0.60, 0.72)
    hill = horizon + 0.03 * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6.28))
    if background in ("sea", "sunset"):
        hill = np.full_like(x, horizon)
    ground_share = np.clip((y - hill) * SIDE, 0, 1)[..., None]
    depth = np.clip((y - hill) / (1 - hill), 0, 1)[..., None]
    height = np.clip(y / horizon, 0, 1)[..., None]
    top, low, near, far = {
        "night": ((10, 10, 38), (44, 44, 92), (20, 30, 50), (12, 18, 32)),
        "sunset": ((112, 84, 148), (250, 190, 150), (108, 78, 112), (64, 48, 84)),
        "meadow": ((132, 202, 246), (206, 236, 250), (168, 216, 112), (122, 186, 84)),
        "sea": ((188, 222, 240), (232, 242, 246), (58, 168, 184), (14, 104, 140)),
        "desert": ((248, 232, 196), (252, 242, 220), (226, 190, 128), (190, 148, 96)),
        "snow": ((150, 168, 190), (190, 204, 220), (244, 248, 252), (216, 226, 240)),
    }[background]
    sky = np.array(top) * (1 - height) + np.array(low) * height
    ground = np.array(near) * (1 - depth) + np.array(far) * depth
    if background == "night":
        for _ in range(rng.randint(10, 18)):
            _glow(sky, x, y, rng.random(), rng.uniform(0, horizon), 0.008, (250, 246, 214))
        _glow(sky, x, y, rng.uniform(0.12, 0.88), rng.uniform(0.10, 0.22), 0.055, (250, 246, 224))
    elif background == "sunset":
        _glow(sky, x, y, rng.uniform(0.15, 0.85), horizon - 0.03, 0.10, (255, 238, 196))
    elif background == "meadow":
        for _ in range(rng.randint(1, 3)):
            cloud_x, cloud_y = rng.random(), rng.uniform(0.08, 0.35)
            for k in (-1, 0, 1):
                _glow(sky, x, y, cloud_x + 0.06 * k, cloud_y + 0.015 * abs(k), 0.055, (252, 253, 255))
    elif background == "sea":
        ripple = np.sin(y * 70 + 2.5 * np.sin(x * 8 + rng.uniform(0, 6.28)))[..., None]
        ground = ground + 12 * ripple * (0.4 + depth)
    elif background == "desert":
        dune = horizon + 0.14 + 0.05 * np.sin(x * rng.uniform(4, 7) + rng.uniform(0, 6.28))
        ground = ground * (1 - 0.09 * np.clip((y - dune) * SIDE / 2, 0, 1)[..., None])
    elif background == "snow":
        for _ in range(rng.randint(12, 20)):
            _glow(sky, x, y, rng.random(), rng.uniform(0, horizon), 0.011, (250, 252, 255))
    return _to_bytes(sky * (1 - ground_share) + ground * ground_share)


def object_layer(obj: str, color: str, size: float, x: float, base: float) -> Image.Image:
    """The object alone as a 64x64 RGBA layer: centre `x`, lowest point `base`, half its extent `size`."""
    scale = SIDE * SUPERSAMPLING
    canvas = Image.new("RGBA", (scale, scale), (*COLORS[color], 0))
    pen = ImageDraw.Draw(canvas)
    main = COLORS[color]
    light = tuple(int(c + (255 - c) * 0.28) for c in main)
    dark = tuple(int(c * 0.82) for c in main)

    def at(points):
        return [((x + size * px) * scale, (base + size * (py - 1)) * scale) for px, py in points]

    def polygon(fill, *points):
        pen.polygon(at(points), fill=fill)

    def ellipse(fill, left, top, right, bottom, **angles):
        box = [c for point in at([(left, top), (right, bottom)]) for c in point]
        if angles:
            pen.pieslice(box, angles["start"], angles["end"], fill=fill)
        else:
            pen.ellipse(box, fill=fill)

    def line(fill, width, *points):
        pen.line(at(points), fill=fill, width=max(2, round(width * size * scale)), joint="curve")

    if obj == "balloon":
        line(_INK, 0.045, (0, 0.42), (0.06, 0.62), (-0.05, 0.82), (0, 1))
        polygon(dark, (-0.12, 0.52), (0.12, 0.52), (0, 0.34))
        ellipse(main, -0.64, -1, 0.64, 0.44)
        ellipse(light, -0.40, -0.80, -0.08, -0.36)
    elif obj == "house":
        polygon(main, (-0.72, -0.12), (0.72, -0.12), (0.72, 1), (-0.72, 1))
        polygon(_ROOF, (-0.98, -0.08), (0, -1), (0.98, -0.08))
        polygon(_CREAM, (-0.50, 0.36), (-0.14, 0.36), (-0.14, 1), (-0.50, 1))
        polygon(_CREAM, (0.14, 0.18), (0.54, 0.18), (0.54, 0.56), (0.14, 0.56))
    elif obj == "tree":
        polygon(_BARK, (-0.16, 0.4), (0.16, 0.4), (0.16, 1), (-0.16, 1))
        polygon(dark, (-0.82, 0.66), (0, -0.2), (0.82, 0.66))
        polygon(main, (-0.68, 0.20), (0, -0.62), (0.68, 0.20))
        polygon(main, (-0.82, 0.60), (0, -0.2), (0.82, 0.60))
        polygon(light, (-0.50, -0.30), (0, -1), (0.50, -0.30))
    elif obj == "mushroom":
        polygon(_CREAM, (-0.28, 0.0), (0.28, 0.0), (0.36, 1), (-0.36, 1))
        ellipse(main, -0.98, -1, 0.98, 1.0, start=180, end=360)
        ellipse(dark, -0.98, -0.16, 0.98, 0.18)
        for spot_x, spot_y, radius in ((-0.5, -0.42, 0.17), (0.08, -0.62, 0.2), (0.56, -0.32, 0.14)):
            ellipse(_CREAM, spot_x - radius, spot_y - radius, spot_x + radius, spot_y + radius)
    elif obj == "boat":
        line(_INK, 0.07, (0, -1), (0, 0.6))
        polygon(main, (0.07, -0.98), (0.07, 0.42), (0.92, 0.42))
        polygon(light, (-0.07, -0.70), (-0.07, 0.42), (-0.70, 0.42))
        polygon(_BARK, (-0.98, 0.52), (0.98, 0.52), (0.62, 1), (-0.62, 1))
    elif obj == "cat":
        polygon(main, (-0.86, -1), (-0.24, -0.62), (-0.84, 0.1))
        polygon(main, (0.86, -1), (0.24, -0.62), (0.84, 0.1))
        ellipse(main, -0.94, -0.68, 0.94, 1)
        for side in (-1, 1):
            ellipse(_CREAM, side * 0.38 - 0.22, -0.18, side * 0.38 + 0.22, 0.26)
            ellipse(_INK, side * 0.36 - 0.11, -0.12, side * 0.36 + 0.11, 0.22)
        polygon(_INK, (-0.12, 0.42), (0.12, 0.42), (0, 0.56))
        line(_INK, 0.05, (-0.26, 0.60), (-0.12, 0.70), (0, 0.60), (0.12, 0.70), (0.26, 0.60))
    else:
        raise ValueError(f"{obj!r} is not an object of this world. Use one of {', '.join(OBJECTS)}.")
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def _glow(sky: np.ndarray, x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float, color) -> None:
    share = np.clip((radius - np.hypot(x - cx, y - cy)) * SIDE + 0.5, 0, 1)[..., None]
    sky += share * (np.array(color) - sky)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
