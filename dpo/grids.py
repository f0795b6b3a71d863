"""Many images as one labelled image: a column for each variant, a row for each prompt and seed. Drawn by matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.pixels import open_pixels

if TYPE_CHECKING:
    from dpo.compare import LookRow, Variant

DPI = 100
LARGEST, SMALLEST = 512, 160  # pixels of a cell's long side: smaller images are drawn larger, so that labels have room
LONGEST = 30_000  # pixels of the whole; matplotlib's canvas ends at 65,536
GAP, LEFT, LINE = 8, 240, 18  # pixels: between cells, beside them for the prompt, and of a line of text
FONT_SIZE = 9.0  # points; a letter is about 7 pixels wide
LETTER = 7
# Where they are installed, for scripts that matplotlib's own font lacks.
FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Hiragino Sans",
         "PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS", "WenQuanYi Zen Hei")  # fmt: skip


def draw_grid(rows: Sequence[LookRow], variants: Sequence[Variant], path: Path) -> None:
    """Save the grid as a PNG. Cells are as large as the images, as far as the whole stays below LONGEST pixels a side.

    Raises PixelError for an image that is gone or damaged.
    """
    import numpy as np
    from matplotlib.figure import Figure

    width, height = _cell(open_pixels(rows[0].images[0]).size, len(rows), len(variants))
    head = [_label(variant) for variant in variants]
    top = GAP + LINE * max(len(_wrap(text, width, 3)) for text in head) + GAP
    size = LEFT + len(variants) * (width + GAP) + GAP, top + len(rows) * (height + GAP) + GAP
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")
    plain = {"fontsize": FONT_SIZE, "fontfamily": _fonts(), "color": "black", "parse_math": False, "usetex": False}

    def write(x: int, y: int, lines: list[str], **more) -> None:
        """x, y: pixels from the left and the top, where the text begins."""
        figure.text(x / size[0], 1 - y / size[1], "\n".join(lines), va="top", linespacing=1.25, **plain, **more)

    for column, text in enumerate(head):
        write(LEFT + column * (width + GAP) + width // 2, GAP, _wrap(text, width, 3), ha="center", fontweight="bold")
    for number, row in enumerate(rows):
        y = top + number * (height + GAP)
        write(GAP, y, [*_wrap(row.prompt, LEFT - 2 * GAP, max(1, height // LINE - 2)), f"seed {row.seed}"], ha="left")
        for column, image in enumerate(row.images):
            pixels = np.asarray(open_pixels(image).resize((width, height)))
            # figimage counts from the bottom, and puts pixels where they are told to, one for one
            figure.figimage(pixels, LEFT + column * (width + GAP), size[1] - y - height, origin="upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")


def _cell(size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """(width, height) of a cell, in the images' proportions."""
    most = min(LARGEST, LONGEST // max(rows, 1) - GAP, (LONGEST - LEFT) // max(columns, 1) - GAP)
    longer = max(16, min(most, max(SMALLEST, max(size))))
    return tuple(max(1, side * longer // max(size)) for side in size)


def _label(variant: Variant) -> str:
    """Of a column: its name, and the strength unless the name says it."""
    strength = f"{variant.strength:g}"
    return variant.name if variant.adapter is None or variant.name.endswith(strength) else f"{variant.name} × {strength}"


def _wrap(text: str, width: int, lines: int) -> list[str]:
    """Lines that fit so many pixels; what is too long ends in an ellipsis. Wide letters, as those of Chinese, count twice."""
    from unicodedata import east_asian_width

    wide = sum(east_asian_width(letter) in "WF" for letter in text) > len(text) / 2
    return textwrap.wrap(text, max(4, width // (2 * LETTER if wide else LETTER)), max_lines=lines, placeholder=" …") or [""]


def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]
