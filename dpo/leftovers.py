"""What killed processes left half-written in a project, cleared away when it is opened next.

Whatever is written gets its name when it is whole, and has another until then, which nobody reads. What is found under such a
name is in the making, or left behind. It is left behind if nobody has the device, under which all long work is done, and if the
process that a name tells is not alive.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

import psutil

from dpo.claims import DEVICE, Claim
from dpo.runs import unfinished_parts

# In a project's folder. What is in a run: dpo/runs.py.
PATTERNS = (
    ".restoring-*", "picks.backup.sqlite.[0-9]*", "cache/tensors/*.partial", "exports/*/unchecked-*", "exports/.*.unfinished*",
    "rounds/*/.unfinished", "rounds/*/*.partial", "tests/*/unfinished-*", "tests/*/*.partial",
    ".unpacking-[0-9]*", "packed/.*.unfinished", "packed/.*.picks.[0-9]*",
)  # fmt: skip
_MAKER = re.compile(r"[.-](\d+)(\.partial|\.unfinished(\.zip)?)?$")  # its process, at the end of a name

_log = logging.getLogger(__name__)


def clear_leftovers(project: Path) -> list[Path]:
    """Delete them, and return what was deleted. Nothing where another process is at work; what cannot be deleted stays."""
    claim = Claim(project, DEVICE)
    try:
        if not claim.take("clearing up"):
            return []
    except OSError:  # a disk that refuses says so where something must be written
        return []
    try:
        others = (path for pattern in PATTERNS for path in project.glob(pattern))
        left = [*unfinished_parts(project / "runs"), *(path for path in others if not _has_maker(path))]
        cleared = [path for path in left if _delete(path)]
    finally:
        claim.give_up()
    if cleared:
        _log.info("Cleared away what a killed process left: %s", ", ".join(str(path.relative_to(project)) for path in cleared))
    return cleared


def _has_maker(path: Path) -> bool:
    told = _MAKER.search(path.name)
    return told is not None and int(told[1]) != os.getpid() and psutil.pid_exists(int(told[1]))


def _delete(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        _log.warning("%s cannot be deleted: %s", path, error)
        return False
    return True
