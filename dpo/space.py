"""A Hugging Face Space, where it is unlike other machines: what outlives a restart, and how a GPU is had. Loads nothing heavy.

A Space says by its environment that it is one. Its disk is emptied whenever it sleeps or restarts, but for storage that its
owner attaches. On ZeroGPU a GPU is lent for seconds, to the visitor who asks for something and out of that visitor's quota.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STORAGE = "/data"  # where Spaces attach it


@dataclass(frozen=True)
class Space:
    """`name` is owner/space. `home` is where things are kept: storage that outlives a restart, if `is_kept`."""

    name: str
    home: Path
    is_kept: bool
    has_zero_gpu: bool

    @property
    def duplicate_url(self) -> str:
        """Where a visitor makes a copy of the Space of their own, and chooses its machine."""
        return f"https://huggingface.co/spaces/{self.name}?duplicate=true"


def find_space(environment: Mapping[str, str]) -> Space | None:
    """The Space this runs on; None on any other machine. `STUDIO_STORAGE` names storage that is attached elsewhere."""
    if "SPACE_ID" not in environment:
        return None
    storage = Path(environment.get("STUDIO_STORAGE", STORAGE))
    is_kept = storage.is_dir() and os.access(storage, os.W_OK)
    has_zero_gpu = environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")  # as the package `spaces` reads it
    return Space(environment["SPACE_ID"], storage if is_kept else Path("~"), is_kept, has_zero_gpu)
