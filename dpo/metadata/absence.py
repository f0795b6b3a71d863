"""Why a file tells no prompt: one of REASONS for the tables, and a sentence that a person can act on."""

from __future__ import annotations

import re
from os.path import splitext

from dpo.metadata.containers import Container, TextField
from dpo.metadata.records import Generation

PNG_PLACES = "its text chunks, EXIF and XMP"
PLACES = {"PNG": PNG_PLACES, "JPEG": "EXIF, XMP and the comment", "GIF": "its comment"}

# Texts that are known and no prompt: what the field is called, a pattern in its text, what wrote it. First those of image
# generators that store no prompt; then those of programs that generate nothing.
WITHOUT_PROMPT = (
    ("Comment", r'"req_type"', "NovelAI's director tools, which store no prompt"),
    ("C2PA", r"", "content credentials (C2PA, as the tools of OpenAI, Google and Adobe write them), which hold no prompt"),
    ("UserComment", r"aigc_info", "the mark of Dreamina or CapCut, which store no prompt"),
    ("AIGC", r"", "a mark that it was made by a machine, without a prompt"),
    ("DigitalSourceType", r"(?i)algorithmicmedia", "a mark that it was made by a machine, without a prompt"),
)  # fmt: skip
NO_GENERATOR = (
    ("Software", r"GIMP", "the mark of GIMP, which drops a generator's metadata"),
    ("Comment|comment|ImageDescription", r"GIMP", "a comment by GIMP, which drops a generator's metadata"),
    ("Software|CreatorTool", r"(?i)photoshop|lightroom|krita|paint|canva", "the mark of an image editor"),
    ("Make", r"", "what a camera writes"),
    ("date:.*|filename:.*", r"", "the times ImageMagick wrote"),
)


def explain_absence(name: str, container: Container, generation: Generation | None) -> tuple[str, str]:
    """(code of REASONS, sentence) for the file `name`, whose metadata is `generation`, without a prompt, or unknown."""
    beside = f"{splitext(name)[0]}.txt"
    remedy = f"Put the prompt into {beside} beside it, type it in the Pairs tab, or save the image again with its metadata."
    if found := _recognise(container.fields, WITHOUT_PROMPT):
        return "no_prompt", f"{name}: has {found}. {remedy}"
    if generation:
        return "no_prompt", f"{name}: its {generation.generator} metadata ({generation.where}) has no prompt. {remedy}"
    missing = f"{name}: no generation metadata (looked in {PLACES.get(container.format, 'EXIF and XMP')}"
    if found := _recognise(container.fields, NO_GENERATOR):
        return "no_metadata", f"{missing}; found only {found}). {remedy}"
    if container.fields:
        found = ", ".join(dict.fromkeys(field.where for field in container.fields[:5]))
        return "unknown_metadata", f"{missing}; found only {found}, of no known generator). {remedy}"
    return "no_metadata", f"{missing}). {remedy}"


def _recognise(fields: tuple[TextField, ...], known: tuple[tuple[str, str, str], ...]) -> str:
    for name, pattern, what in known:
        for field in fields:
            if re.fullmatch(name, field.name) and re.search(pattern, field.text[:10_000], re.DOTALL):
                return what
    return ""
