"""What is in a zip somebody sent: its files, or why one of them is not taken. Nothing is unpacked here, and no name trusted."""

from __future__ import annotations

import os
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpo import StudioError

ENDINGS = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".cbz")
MOST_ENTRIES = 50_000
MOST_DIRECTORY = 32 << 20  # bytes of names and places; unpacked into objects they take twenty times as much memory
# Images are compressed already, so a zip of them is about as large as they are.
MOST_RATIO, FREE_BYTES = 100, 1 << 20
PIECE = 1 << 20
_END, _END_64, _PLACE_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_DRIVE = re.compile(r"[A-Za-z]:")


class ArchiveError(StudioError):
    """A zip, or a file in it, that is not taken. The message says why."""


@dataclass(frozen=True)
class Entry:
    """A file in a zip. `parts`: its folders and its name as they are written there. `made`: unix time, None if not written."""

    parts: tuple[str, ...]
    size: int
    made: float | None
    info: zipfile.ZipInfo


def open_archive(path: Path, most_entries: int = MOST_ENTRIES, most_directory: int = MOST_DIRECTORY) -> zipfile.ZipFile:
    """Raises ArchiveError for what is no zip, or one of too many files, before its list is read into memory. `most_directory`: in
    bytes."""
    try:
        _check_directory(path, most_entries, most_directory)
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise ArchiveError("It is not a whole zip file. Make it again, or send its files one by one.") from error
    except OSError as error:
        raise ArchiveError(f"It cannot be read: {error.strerror or error}.") from error


def list_entries(archive: zipfile.ZipFile, archive_bytes: int) -> Iterator[Entry | tuple[str, str]]:
    """Each file as an Entry, or as (name, reason) if it is not taken. What systems add on their own is passed over.

    Raises ArchiveError if all that is left is still far more than a zip of this size can hold.
    """
    unpacked = 0
    for info in archive.infolist():
        name = _name(info)
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if info.is_dir() or not parts or _is_added_by_systems(parts):
            continue
        if reason := _refuse(info, name, parts):
            yield name, reason
            continue
        unpacked += info.file_size
        if unpacked > max(FREE_BYTES, MOST_RATIO * archive_bytes):
            raise ArchiveError(
                f"It says to hold over {unpacked:,} bytes in {archive_bytes:,}: no zip of images does. Not unpacked."
            )
        yield Entry(parts, info.file_size, _time(info), info)


def read_entry(archive: zipfile.ZipFile, entry: Entry) -> Iterator[bytes]:
    """The file's bytes in pieces, never more than it was said to have. Raises ArchiveError if it is damaged."""
    try:
        with archive.open(entry.info) as file:
            while piece := file.read(PIECE):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ArchiveError("It is damaged inside the zip. Make the zip again.") from error
    except (NotImplementedError, RuntimeError) as error:
        raise ArchiveError("It is packed in a way that cannot be unpacked here. Make an ordinary zip of it.") from error


def _refuse(info: zipfile.ZipInfo, name: str, parts: tuple[str, ...]) -> str:
    """Why this file is not taken, or ""."""
    if name.startswith("/") or _DRIVE.match(name) or ".." in parts:
        return "Its name leads out of the folder. Make the zip again from inside the folder of images."
    if stat.S_ISLNK(info.external_attr >> 16):
        return "It is a link, not a file. Put the file itself into the zip."
    if info.flag_bits & 1:
        return "It is encrypted. Make the zip without a password."
    if parts[-1].lower().endswith(ENDINGS):
        return "It is an archive inside an archive. Send it by itself, unpacked or as a zip."
    if info.file_size > max(FREE_BYTES, MOST_RATIO * info.compress_size):
        return f"It would unpack {info.compress_size:,} bytes to {info.file_size:,}: no image does. Not unpacked."
    return ""


def _name(info: zipfile.ZipInfo) -> str:
    """As it was written: Windows separates by backslashes, and macOS writes UTF-8 without saying so."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass  # really an old zip with an old code page: the name is odd, but a name
    return name.replace("\\", "/")


def _is_added_by_systems(parts: tuple[str, ...]) -> bool:
    is_shadow = parts[-1].startswith("._")  # of macOS
    return is_shadow or parts[0] == "__MACOSX" or parts[-1].lower() in (".ds_store", "thumbs.db", "desktop.ini")


def _time(info: zipfile.ZipInfo) -> float | None:
    try:
        return time.mktime((*info.date_time, 0, 0, -1)) if info.date_time[0] > 1980 else None
    except (ValueError, OverflowError):
        return None


def _check_directory(path: Path, most_entries: int, most_directory: int) -> None:
    """Raises ArchiveError if the list of files is too long. zipfile would read it whole, whatever its length."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        tail_start = max(0, size - (1 << 16) - 22)
        file.seek(tail_start)
        tail = file.read()
        has_comment = tail[-22:-18] != _END or tail[-2:] != b"\0\0"
        place = tail.rfind(_END) if has_comment else len(tail) - 22
        if place < 0:
            raise zipfile.BadZipFile("no end of the list of files")
        entries, length = struct.unpack_from("<HI", tail, place + 10)
        if tail[max(0, place - 20) : place].startswith(_PLACE_64):
            file.seek(max(0, tail_start + place - 20 - 56))
            end = file.read(56)
            if not end.startswith(_END_64):
                raise zipfile.BadZipFile("no end of the long list of files")
            entries, length = struct.unpack_from("<QQ", end, 32)
    if entries > most_entries or length > most_directory:
        raise ArchiveError(f"It holds {entries:,} files; at most {most_entries:,} are taken at once. Send it in parts.")
