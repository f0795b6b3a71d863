"""Writing an image with metadata that every reader of A1111 texts understands, our own among them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def write_png(image: Image.Image, path: Path, parameters: str) -> None:
    """Save a PNG with a `parameters` text, made by `format_parameters` (iTXt where the text is not Latin-1)."""
    info = PngInfo()
    info.add_text("parameters", parameters)
    image.save(path, format="PNG", pnginfo=info)
