"""Uploads within their bounds: pixels are counted before any is decoded, and a shared page takes so much in all."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from dpo.intake import take_in
from dpo.project import open_project
from tests.pictures import plain, write_prompted
from ui.uploads import UploadError, Uploads, uploads_folder


def write_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


def test_an_image_of_too_many_pixels_is_not_taken(tmp_path):
    bomb = write_bomb(tmp_path / "bomb.png", 60_000, 60_000)
    report = take_in([bomb, write_prompted(tmp_path / "a.png", "a", plain())], tmp_path / "taken")
    assert report.kept == 1 and [name for name, _ in report.skipped] == ["bomb.png"]
    assert "60000 x 60000 pixels" in report.skipped[0][1]


def test_no_more_is_taken_than_there_is_room_for(tmp_path):
    files = [write_prompted(tmp_path / f"{number}.png", "a", plain()) for number in range(3)]
    room = files[0].stat().st_size + files[1].stat().st_size
    report = take_in(files, tmp_path / "taken", largest_total=room)
    assert report.kept == 2 and report.skipped[0][0] == "1 more file"


def test_a_shared_page_takes_uploads_up_to_a_limit_in_all(tmp_path, monkeypatch):
    project, uploads = open_project(tmp_path / "project"), Uploads()
    image = write_prompted(tmp_path / "a.png", "a", plain())
    monkeypatch.setattr("ui.uploads.MOST_UPLOADED", image.stat().st_size)
    upload = uploads.start(project, [image], is_shared=True)
    assert upload.finished.wait(20) and upload.report.kept == 1
    with pytest.raises(UploadError, match="the most that a shared page takes"):
        uploads.start(project, [write_prompted(tmp_path / "b.png", "b", plain())], is_shared=True)
    assert uploads.start(project, [write_prompted(tmp_path / "b.png", "b", plain())]).finished.wait(20), "one's own machine"
    assert len(list(uploads_folder(project).rglob("*.png"))) == 2
