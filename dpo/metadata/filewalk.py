"""One walk over one file: reads in places, collects the texts it is given, and keeps to the limits that hold for all of it.

Every format is walked with this, and every limit is here: what a crafted file can cost is bounded by MAX_TEXT (bytes read as
text and bytes inflated) and MAX_PARTS (chunks, segments, boxes), whatever the size of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

MAX_TEXT = 4 << 20  # bytes in one file: above the largest graph seen (1.6 MB), below what a crafted file could inflate to
MAX_PARTS = 65_536  # in one file: half a gigabyte of PNG in the smallest chunks that writers make of pixels (8 KiB)
HEAD = 16 << 10  # bytes read at once: most files have all their text here


@dataclass(frozen=True)
class TextField:
    """A text found in a file. `where` says where to a person: "PNG parameters", "EXIF UserComment"."""

    name: str
    text: str
    where: str


class FileWalk:
    """`size` is that of the file in bytes; `picture` is (width, height) in pixels as stored, `is_turned` swaps them."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self.file = file
        self.head = file.read(HEAD)
        self.size = len(self.head) if len(self.head) < HEAD else file.seek(0, 2)
        self.format = ""
        self.picture = (0, 0)
        self.is_turned = False
        self.fields: list[TextField] = []
        self.warnings: list[str] = []
        self.room = MAX_TEXT

    def read(self, start: int, length: int) -> bytes:
        """Raises EOFError if they are not all in the file."""
        end = start + length
        if start <= end <= len(self.head):
            return self.head[start:end]
        if end > self.size or length < 0:
            raise EOFError
        self.file.seek(start)
        data = self.file.read(length)
        if len(data) < length:  # the file became shorter meanwhile
            raise EOFError
        return data

    def read_text(self, start: int, length: int) -> bytes:
        """What `read` reads, or nothing, and a warning, where it would be more than one file may have."""
        return self.read(start, length) if self.take(length) else b""

    def take(self, length: int) -> bool:
        """Whether so many bytes of text may still be had from this file; they then count as had."""
        if length > self.room:
            self.warn(f"Texts past {MAX_TEXT >> 20} MB were not read.")
            return False
        self.room -= length
        return True

    def add(self, name: str, text: str, where: str) -> None:
        if text and not text.isspace():
            self.fields.append(TextField(name, text, where))

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def warn_of_parts(self) -> None:
        self.warn(f"Only the first {MAX_PARTS:,} parts of the file were looked at.")


def decode(raw: bytes) -> str:
    """UTF-8, which some tools write where Latin-1 is due, or else Latin-1. Without the NULs that some put around it."""
    raw = raw.strip(b"\0")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
