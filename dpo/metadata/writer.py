"""Writing an image with metadata that every reader of A1111 texts understands, our own among them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dpo.metadata.records import MetadataError

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}  # by format
QUALITY = 95  # of JPEG and WebP


def write_image(image: Image.Image, path: Path, parameters: str, image_format: str) -> None:
    """Save as "png", "jpeg" or "webp" with a parameters text, made by `format_parameters`.

    JPEG and WebP have it as A1111 writes it: in EXIF's UserComment, as UTF-16. Raises MetadataError for a text that a JPEG, whose
    EXIF ends at 64 KB, cannot hold.
    """
    if image_format == "png":
        write_png(image, path, parameters)
        return
    import piexif
    from piexif.helper import UserComment

    exif = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: UserComment.dump(parameters, encoding="unicode")}})
    if image_format == "jpeg" and len(exif) > 65533:
        raise MetadataError(f"{path.name}: a JPEG cannot hold a prompt of {len(parameters):,} letters. Save it as PNG or WebP.")
    options = {"subsampling": 0} if image_format == "jpeg" else {"method": 4}
    image.save(path, format=image_format.upper(), quality=QUALITY, exif=exif, **options)


def write_png(image: Image.Image, path: Path, parameters: str) -> None:
    """Save a PNG with a `parameters` text, made by `format_parameters` (iTXt where the text is not Latin-1)."""
    info = PngInfo()
    info.add_text("parameters", parameters)
    image.save(path, format="PNG", pnginfo=info)
