"""What a project's zip may hold, and under which names; a name that is right here is right on every system."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from dpo import StudioError
from dpo.intake import safe_name
from dpo.runs import CHECKPOINT_SUFFIX
from dpo.scan import IMAGE_ENDINGS

IMAGES = ("used", "all", "none")  # which images come along: those that pairs, runs and votes are about, or every one
MANIFEST, PICKS = "project.json", "picks.sqlite"
FORMAT = 1
RUNS, ROUNDS, TESTS, ELSEWHERE, ADAPTERS, TABLES = "runs", "rounds", "tests", "images", "adapters", "tables"
PICTURES = ("candidates", "uploads", "imports", "rejects", "compare", ROUNDS)  # folders of images inside a project
FOLDERS = {RUNS, TESTS, ELSEWHERE, ADAPTERS, TABLES, "exports", *PICTURES}
TEXTS = (".txt", ".json", ".jsonl", ".ndjson", ".csv")
ENDINGS = (*IMAGE_ENDINGS, *TEXTS, ".parquet", ".md", ".safetensors", ".sha256")
RECORDS = "events.out.tfevents."  # begins the name of what TensorBoard reads
LONGEST_PART = 150  # bytes of UTF-8; systems end at 255
MOST_FILES = 200_000
MOST_DIRECTORY = 64 << 20  # bytes of their names and places


class BundleError(StudioError):
    """A project that cannot be packed, or a zip that is none. Nothing half-written is left behind."""


def is_content(parts: Sequence[str], with_checkpoints: bool = True) -> bool:
    """Whether a file with these folders and this name, from the project's folder, belongs into a zip."""
    if len(parts) == 1:
        return parts[0] in (MANIFEST, PICKS)
    if parts[0] not in FOLDERS or any(part.startswith(".") for part in parts):
        return False
    ending = PurePosixPath(parts[-1]).suffix.lower()
    if ending == CHECKPOINT_SUFFIX:
        return with_checkpoints and parts[0] == RUNS and len(parts) == 4 and parts[2] == "checkpoints"
    return ending in ENDINGS or (parts[0] == RUNS and parts[-1].startswith(RECORDS))


def portable(parts: Sequence[str]) -> tuple[str, ...]:
    """Names that every system can have, the same for the same names, and different for different ones."""
    return tuple(map(_portable, parts))


def _portable(part: str) -> str:
    if is_portable(part):
        return part
    name = PurePosixPath(part)
    mark = hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{safe_name(name.stem, LONGEST_PART - 40)}-{mark}{safe_name(name.suffix, 20) if name.suffix else ''}"


def is_portable(part: str) -> bool:
    return safe_name(part, LONGEST_PART) == part
