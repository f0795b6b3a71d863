"""What a generated image says about itself: `read_image(path)` -> `ImageRecord`.

    containers.py   file -> texts and picture size (PNG, JPEG, WebP)
    a1111.py  comfyui.py  swarmui.py  civitai.py
                    texts -> `Generation`: one file per format, each with a `parse(fields)` that returns None for "not mine"
    records.py      `ImageRecord`, `Generation`, `MetadataError`
    writer.py       the way back: `write_png` with the text of `format_parameters`

To read another generator, write its file and put its `parse` into `PARSERS`. Not here: pixels (stealth metadata), sidecar
files, AVIF and JPEG XL.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from dpo.metadata import a1111, civitai, comfyui, swarmui
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.containers import Container, read_container
from dpo.metadata.records import Generation, ImageRecord, MetadataError

__all__ = ["Generation", "ImageRecord", "MetadataError", "format_parameters", "read_image"]

# Most trusted first, for files with several sources: a program's own JSON is exact; a text was resolved when the image was
# made; a graph has to be interpreted.
PARSERS = (swarmui.parse, civitai.parse, a1111.parse, comfyui.parse)

LOOKED_IN = {"PNG": "its text chunks, EXIF and XMP", "JPEG": "EXIF, XMP and the comment", "WebP": "EXIF and XMP"}


def read_image(path: str | Path) -> ImageRecord:
    """Read what a file says. Never raises for what is in a file, or for one that cannot be read: `error` then says why."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            container = read_container(file, path.name)
    except MetadataError as error:
        return ImageRecord(path=str(path), reason=error.reason, error=str(error))
    except OSError as error:
        reason = error.strerror or str(error)
        sentence = f"{path.name}: cannot be read ({reason}). Check the file, or skip it."
        return ImageRecord(path=str(path), reason="unreadable", error=sentence)
    generation = _most_trusted(container)
    has_prompt = bool(generation and generation.prompt)
    values = asdict(generation) if generation else {}
    return ImageRecord(**values | {
        "path": str(path),
        "prompt": generation.prompt if has_prompt else None,
        "certainty": generation.certainty if has_prompt else "",
        "reason": "" if has_prompt else "no_prompt" if generation else "unknown_metadata" if container.fields else "no_metadata",
        "width": container.width,
        "height": container.height,
        "warnings": container.warnings + values.get("warnings", ()),
        "error": None if has_prompt else _no_prompt(path, container, generation),
    })  # fmt: skip


def _most_trusted(container: Container) -> Generation | None:
    """The first source with a prompt; or else the first of any."""
    best = None
    for parse in PARSERS:
        generation = parse(container.fields)
        if generation and generation.prompt:
            return generation
        best = best or generation
    return best


def _no_prompt(path: Path, container: Container, generation: Generation | None) -> str:
    remedy = "Skip the file, or save it again with its metadata."
    if generation:
        return f"{path.name}: its metadata ({generation.where}) has no prompt. {remedy}"
    found = ", ".join(field.where for field in container.fields[:5])
    unknown = f"; found only {found}, of no known generator" if found else ""
    return f"{path.name}: no generation metadata (looked in {LOOKED_IN[container.format]}{unknown}). {remedy}"
