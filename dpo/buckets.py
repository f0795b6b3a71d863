"""Which size an image is trained at: its own shape, about the same area for all, sides that the model can halve."""

from __future__ import annotations

import math


def choose_bucket(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about resolution**2 pixels in the image's aspect, both multiples of `multiple`."""
    aspect = width / height
    wide = max(1, round(resolution * math.sqrt(aspect) / multiple))
    high = max(1, round(resolution / math.sqrt(aspect) / multiple))
    return wide * multiple, high * multiple
