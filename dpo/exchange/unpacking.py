"""A data set that somebody sent as a zip becomes a folder. Names stay as they are, for pairs are matched by them; what is not
part of a data set stays in the zip."""

from __future__ import annotations

import shutil
from pathlib import Path

from dpo.archive import ArchiveError, Entry, list_entries, open_archive, read_entry
from dpo.exchange.dataset import ExchangeError, Left, shown
from dpo.scan import IMAGE_ENDINGS

ENDINGS = (*IMAGE_ENDINGS, ".txt", ".json", ".jsonl", ".ndjson", ".csv", ".parquet")
LARGEST_TOTAL = 8 << 30  # bytes, unpacked
LONGEST_PART = 200  # bytes of UTF-8; systems end at 255
_FORBIDDEN = set('<>:"|?*')


def unpack(path: Path, folder: Path) -> tuple[Path, list[Left]]:
    """Unpack into a folder that is made for it. Returns the folder the data set is in, that or the only one in it, and what was
    not taken. Raises ExchangeError if nothing can be: then there is no folder."""
    left = []
    try:
        total = 0
        with open_archive(path) as archive:
            for entry in list_entries(archive, path.stat().st_size):
                name, reason = entry if isinstance(entry, tuple) else ("/".join(entry.parts), _refuse(entry))
                if not reason:
                    total += entry.size
                    if total > LARGEST_TOTAL:
                        raise ExchangeError(
                            f"It unpacks to over {LARGEST_TOTAL >> 30} GB. Put it on the machine and name its folder."
                        )
                    try:
                        _write(archive, entry, folder.joinpath(*entry.parts))
                    except ArchiveError as error:
                        reason = str(error)
                if reason:
                    left.append(Left(shown(name), reason))
        if not folder.is_dir():
            raise ExchangeError(f"There is no data set in it (looked for {', '.join(ENDINGS)}).")
    except (ArchiveError, ExchangeError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = f"it cannot be unpacked into {folder}: {error.strerror}." if isinstance(error, OSError) else str(error)
        raise ExchangeError(f"{shown(path.name)}: {reason}") from error
    inside = list(folder.iterdir())
    return (inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "images" else folder), left


def _refuse(entry: Entry) -> str:
    """Why this file is not taken, or ""."""
    if not entry.parts[-1].lower().endswith(ENDINGS):
        return "It is not part of a data set."
    for part in entry.parts:
        if not part.isprintable() or set(part) & _FORBIDDEN or len(part.encode()) > LONGEST_PART or part[-1] in " .":
            return "Its name is one that not every system can have. Rename it, then make the zip again."
    return ""


def _write(archive, entry: Entry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb") as file:
            for piece in read_entry(archive, entry):
                file.write(piece)
    except FileExistsError as error:
        raise ArchiveError("Two files in the zip have this name.") from error
    except ArchiveError:
        target.unlink(missing_ok=True)
        raise
