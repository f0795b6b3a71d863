"""What a generated image says about itself: `read_image(path)` -> `ImageRecord`.

    containers.py   an open file -> its texts and the picture's size, with boxes.py (AVIF, HEIF, JPEG XL) and exif.py (EXIF, XMP),
                    all by filewalk.py, which keeps the limits
    a1111.py  civitai.py  comfyui.py  drawthings.py  fooocus.py  invokeai.py  novelai.py  plainjson.py  swarmui.py
                    texts -> `Generation`: one file per format, each with a `parse(fields)` that returns None for "not mine";
                    comfyui.py needs more of them, comfy*.py
    absence.py      why a file without a prompt has none, and what a person can do
    stealth.py      texts hidden in pixels: decodes the picture, so only where it is asked for
    records.py      `ImageRecord`, `Generation`, `MetadataError`
    writer.py       the way back: `write_image` with the text of `format_parameters`

To read another generator, write its file and put its `parse` into `PARSERS`. Not here: sidecar files and other stand-ins.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from dpo.metadata import a1111, civitai, comfyui, drawthings, fooocus, invokeai, novelai, plainjson, swarmui
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.absence import explain_absence
from dpo.metadata.containers import TextField, read_container
from dpo.metadata.records import Generation, ImageRecord, Lora, MetadataError

__all__ = [
    "Generation", "ImageRecord", "Lora", "MetadataError", "TextField",
    "content_key", "format_parameters", "read_file", "read_image", "read_texts",
]  # fmt: skip

# Most trusted first, for files with several sources: a program's own JSON is exact; a text was resolved when the image was
# made; a graph has to be interpreted.
PARSERS = (
    swarmui.parse, invokeai.parse, novelai.parse, civitai.parse, fooocus.parse, drawthings.parse, plainjson.parse,
    a1111.parse, comfyui.parse,
)  # fmt: skip

HEAD = TAIL = 16 << 10  # bytes that tell one file from another, together with its size


def read_image(path: str | Path, stealth: bool = False) -> ImageRecord:
    """Read what a file says. Never raises for what is in a file, or for one that cannot be read: `error` then says why.

    With `stealth`, a file that tells no prompt otherwise is searched for one hidden in its pixels. It takes a hundred times
    as long as reading texts.
    """
    return _read(path, stealth, with_key=False)[1]


def read_file(path: str | Path, stealth: bool = False) -> tuple[str, ImageRecord]:
    """(`content_key`, record) of a file that is opened once; the key is "" for one that cannot be read."""
    return _read(path, stealth, with_key=True)


def _read(path: str | Path, stealth: bool, with_key: bool) -> tuple[str, ImageRecord]:
    path, key = str(path), ""
    name = os.path.basename(path)
    try:
        with _open(path) as file:
            if with_key:
                key = _digest(file)
            container = read_container(file, name)
    except MetadataError as error:
        return key, ImageRecord(path=path, reason=error.reason, error=str(error))
    except OSError as error:
        sentence = f"{name}: cannot be read ({error.strerror or error}). Check the file, or skip it."
        return key, ImageRecord(path=path, reason="unreadable", error=sentence)
    generation = _most_trusted(container.fields)
    if stealth and not (generation and generation.prompt):
        from dpo.metadata.stealth import read_stealth

        generation = _most_trusted(read_stealth(path)) or generation
    if not generation:
        reason, error = explain_absence(name, container, None)
        return key, ImageRecord(
            path, width=container.width, height=container.height, warnings=container.warnings, reason=reason, error=error
        )
    generation = _storable(generation)
    reason, error = ("", None) if generation.prompt else explain_absence(name, container, generation)
    return key, ImageRecord(
        path=path,
        prompt=generation.prompt or None,
        negative_prompt=generation.negative_prompt,
        alternatives=generation.alternatives,
        seed=generation.seed,
        steps=generation.steps,
        sampler=generation.sampler,
        guidance=generation.guidance,
        model=generation.model,
        loras=generation.loras,
        written_size=generation.written_size,
        course=generation.course,
        generator=generation.generator,
        width=container.width,
        height=container.height,
        where=generation.where,
        certainty=generation.certainty if generation.prompt else "",
        warnings=container.warnings + generation.warnings,
        reason=reason,
        error=error,
    )


def read_texts(path: str | Path) -> list[TextField]:
    """Every text in a file, as it is: for a person to look at where no prompt was found. [] for an unreadable file."""
    try:
        with _open(path) as file:
            return list(read_container(file, os.path.basename(path)).fields)
    except (MetadataError, OSError):
        return []


def content_key(path: str | Path) -> str:
    """Identify a file by its size, head and tail: 24 hex characters, the same wherever the file lies. Raises OSError."""
    with _open(path) as file:
        return _digest(file)


def _open(path: str | Path) -> BinaryIO:
    """Without a buffer, which would read around each of the few places that are looked at; and without waiting, should it be a
    pipe."""
    return open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def _digest(file: BinaryIO) -> str:
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    digest.update(file.read(HEAD))
    file.seek(max(HEAD, size - TAIL))
    digest.update(file.read(TAIL))
    return digest.hexdigest()


def _most_trusted(fields: Sequence[TextField]) -> Generation | None:
    """The first source with a prompt; or else the first of any."""
    best = None
    for parse in PARSERS:
        generation = parse(fields)
        if generation and generation.prompt:
            return generation
        best = best or generation
    return best


def _storable(generation: Generation) -> Generation:
    """Halves of surrogate pairs, which JSON can hold and no file or database can store, become question marks."""
    names = [lora.name for lora in generation.loras]
    texts = (generation.prompt, generation.negative_prompt, generation.sampler, generation.model)
    try:
        "".join((*texts, *generation.alternatives, *names)).encode()
    except UnicodeEncodeError:
        prompt, negative_prompt, sampler, model = map(_without_halves, texts)
        return replace(
            generation,
            prompt=prompt,
            negative_prompt=negative_prompt,
            sampler=sampler,
            model=model,
            alternatives=tuple(map(_without_halves, generation.alternatives)),
            loras=tuple(Lora(_without_halves(lora.name), lora.strength) for lora in generation.loras),
        )
    return generation


def _without_halves(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
