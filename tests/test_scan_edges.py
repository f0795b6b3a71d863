"""Folders as they are found: odd names, long paths, links in circles, pipes, what changes meanwhile.

Whatever has the name of an image is a row, or is read; the index and `python -m dpo scan --json` agree about each.
"""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import unicodedata

import pytest

import dpo.metadata
from dpo.__main__ import main
from dpo.project import open_project
from tests.metadata.files import png, text_chunk

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NAMES = [
    "with spaces.png", " at both ends .png", "emoji 🐈‍⬛ 🏳️‍🌈.png", "狐の面.png", "مرحبا.png", "new\nline.png",
    "tab\tand \x7f.png", "quote\"s and 'others'.png", "back\\slash.png", "-rf.png", "*.png", "%20 # ? &.png", "<b>.png",
    "${x} $(y) `z`.png", "UPPER.PNG", "a.jpg.png", "\ufeffmark.png", "\u202egnp.png", "n" * 251 + ".png", "é" * 125 + ".png",
]  # fmt: skip
MANY = 250  # more than a scan reads in its own process


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def rows(tmp_path, folder, capsys):
    """Scan twice, into an index and to JSON. Returns {path below the folder: (prompt, reason, error)}; both said the same."""

    def scan() -> dict[str, tuple]:
        library = open_project(tmp_path / "project").library
        library.scan(folder)
        indexed = {image.path: image.record for image in library.images(folder)}
        capsys.readouterr()
        assert main(["scan", str(folder), "--json"]) == 0
        printed = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
        said = {row["path"]: (row["prompt"], row["reason"], row["error"]) for row in printed}
        assert said == {path: (record.prompt, record.reason, record.error) for path, record in indexed.items()}
        assert len(said) == len(printed)
        return {os.path.relpath(path, folder): row for path, row in said.items()}

    return scan


def write(path, prompt="a cat"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(text_chunk("parameters", f"{prompt}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 1x1")))
    return path


def in_time(action, seconds=60):
    """What the action returns; it is given up on when it hangs."""
    results = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"still not done after {seconds} seconds, or failed"
    return results[0]


# ------------------------------------------------------------------------------------------------ names and paths


@pytest.mark.parametrize("others", [0, MANY], ids=["read in the scan's thread", "read in processes"])
def test_a_file_is_read_under_whatever_name_it_has(folder, rows, others):
    for number, name in enumerate(NAMES):
        write(folder / name, f"prompt {number}")
    for number in range(others):
        write(folder / "others" / f"{number}.png")
    found = rows()
    assert {name: found[name] for name in NAMES} == {name: (f"prompt {n}", "", None) for n, name in enumerate(NAMES)}
    assert len(found) == len(NAMES) + others


def test_names_that_look_the_same_and_are_not_are_two_files(folder, rows):
    composed, decomposed = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))
    write(folder / composed, "one")
    write(folder / decomposed, "other")
    if len(list(folder.iterdir())) == 1:
        pytest.skip("this file system takes both names for one")
    assert {name: row[0] for name, row in rows().items()} == {composed: "one", decomposed: "other"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names, or change them")
def test_a_name_that_is_no_text_is_a_row_in_valid_json_and_stops_nothing(folder, rows):
    write(folder / "whole.png", "still read")
    os.rename(write(folder / "half.png"), os.path.join(os.fsencode(folder), b"half \xff\xf0.png"))
    os.mkdir(os.path.join(os.fsencode(folder), b"folder \xe9"))
    write(folder / os.fsdecode(b"folder \xe9") / "inside.png")
    found = rows()
    assert found.pop("whole.png")[0] == "still read"
    assert len(found) == 2
    for path, (_, reason, error) in found.items():
        assert path.encode("utf-8") and reason == "unreadable" and "Rename" in error

    # Also where the terminal is set to a narrower encoding: JSON has only one.
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "dpo", "scan", str(folder), "--json"]
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode("utf-8")
    assert len([json.loads(line) for line in output.splitlines()]) == 3


def test_a_file_is_read_at_the_end_of_a_path_as_long_as_the_system_takes(folder, rows):
    deep = folder
    while len(os.fsencode(deep)) < 3800:
        deep = deep / ("ü" * 100)
    path = write(deep / ("x" * (4095 - len(os.fsencode(deep)) - 5) + ".png"), "far down")
    assert len(os.fsencode(path)) == 4095
    assert rows() == {os.path.relpath(path, folder): ("far down", "", None)}


@pytest.mark.skipif(os.mkdir not in os.supports_dir_fd, reason="no way to make a path that is too long")
def test_what_lies_deeper_than_a_path_can_say_is_a_row_and_the_rest_is_read(folder, rows):
    write(folder / "near.png", "near")
    place = os.open(folder, os.O_RDONLY)
    for _ in range(18):  # 4500 bytes
        os.mkdir("d" * 250, dir_fd=place)
        place, above = os.open("d" * 250, os.O_RDONLY, dir_fd=place), place
        os.close(above)
    os.close(os.open("far.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    found = rows()
    assert found.pop("near.png")[0] == "near"
    ((_, reason, error),) = found.values()
    assert reason == "unreadable" and os.strerror(errno.ENAMETOOLONG) in error
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ what is no file


def test_a_folder_with_the_name_of_an_image_is_a_folder(folder, rows):
    write(folder / "a.png" / "b.png", "inside")
    assert rows() == {os.path.join("a.png", "b.png"): ("inside", "", None)}


def test_links_that_lead_nowhere_or_in_circles_are_rows_with_their_reason(folder, rows):
    write(folder / "whole.png", "still read")
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "one.png").symlink_to("other.png")
    (folder / "other.png").symlink_to("one.png")
    found = rows()
    assert found.pop("whole.png")[0] == "still read"
    assert sorted(found) == ["dangling.png", "one.png", "other.png", "self.png"]
    for name, (prompt, reason, error) in found.items():
        assert (prompt, reason) == (None, "unreadable") and error.startswith(name) and error.endswith(".")


def test_a_link_to_a_folder_above_is_a_row_and_nothing_is_read_twice(folder, rows):
    write(folder / "deeper" / "a.png", "once")
    (folder / "deeper" / "up").symlink_to(folder)
    (folder / "deeper" / "up.png").symlink_to(folder)
    found = rows()
    assert found.pop(os.path.join("deeper", "a.png"))[0] == "once"
    assert sorted(found) == [os.path.join("deeper", name) for name in ("up", "up.png")]
    for _, reason, error in found.values():
        assert reason == "unreadable" and "link to a folder" in error and str(folder) in error


def test_a_link_to_a_file_elsewhere_is_read(folder, rows, tmp_path):
    (folder / "link.png").symlink_to(write(tmp_path / "elsewhere" / "real.bin", "over there"))
    assert rows() == {"link.png": ("over there", "", None)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_sockets_and_devices_named_like_images_are_rows_and_nobody_waits_for_them(folder, rows, monkeypatch):
    write(folder / "whole.png", "still read")
    os.mkfifo(folder / "pipe.png")
    (folder / "linked pipe.png").symlink_to("pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # the name of a socket must be short
        server.bind("socket.png")
        found = in_time(rows)
    assert found.pop("whole.png")[0] == "still read"
    assert {name: row[1] for name, row in found.items()} == dict.fromkeys(
        ("pipe.png", "linked pipe.png", "zero.png", "socket.png"), "unreadable"
    )
    for _, _, error in found.values():
        assert "not there" not in error  # they are there, and no images


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_that_is_read_by_name_is_a_record_that_says_so_and_nobody_waits_for_it(folder):
    os.mkfifo(folder / "pipe.png")
    record = in_time(lambda: dpo.metadata.read_image(folder / "pipe.png"), seconds=10)
    assert record.reason in ("unreadable", "not_image") and "pipe.png" in record.error


# ------------------------------------------------------------------------------------------------ what is not ours to read


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_files_and_folders_that_may_not_be_read_are_rows(folder, rows):
    write(folder / "whole.png", "still read")
    write(folder / "closed.png").chmod(0)
    write(folder / "locked" / "a.png").parent.chmod(0)
    try:
        found = rows()
    finally:
        (folder / "locked").chmod(0o700)
    assert found.pop("whole.png")[0] == "still read"
    assert sorted(found) == ["closed.png", "locked"]
    for _, reason, error in found.values():
        assert reason == "unreadable" and os.strerror(errno.EACCES) in error


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and cannot be read, also by root")
def test_a_file_that_opens_and_fails_when_it_is_read_is_a_row_with_the_systems_reason(folder, rows):
    write(folder / "whole.png", "still read")
    (folder / "memory.png").symlink_to("/proc/self/mem")  # nothing is mapped at address 0: EIO, as from a failing disk
    found = rows()
    assert found.pop("whole.png")[0] == "still read"
    assert found["memory.png"][1] == "unreadable" and os.strerror(errno.EIO) in found["memory.png"][2]


# ------------------------------------------------------------------------------------------------ what changes meanwhile


def test_files_that_vanish_after_the_listing_are_rows_and_gone_at_the_next_scan(tmp_path, folder):
    for number in range(MANY):
        write(folder / "sub" / f"{number:03}.png")
    library = open_project(tmp_path / "project").library

    def remove_the_last(done, total):
        if not done:  # listed, and nothing read
            (folder / "sub" / f"{MANY - 1}.png").unlink()

    report = library.scan(folder, report=remove_the_last)
    assert (report.total, report.read) == (MANY, MANY)
    (row,) = (image for image in library.images(folder) if image.record.error)
    assert row.path.endswith(f"{MANY - 1}.png") and row.record.reason == "unreadable" and "cannot be read" in row.record.error
    again = library.scan(folder)
    assert (again.total, again.gone, again.read) == (MANY - 1, 1, 0)


def test_a_folder_that_vanishes_after_the_listing_costs_only_its_own_files(tmp_path, folder):
    for number in range(20):
        write(folder / f"{'early' if number < 10 else 'late'}" / f"{number}.png")
    library = open_project(tmp_path / "project").library
    report = library.scan(folder, report=lambda done, total: done or shutil.rmtree(folder / "late"))
    assert (report.total, report.read) == (20, 20)
    assert sorted(image.record.reason for image in library.images(folder)) == [""] * 10 + ["unreadable"] * 10
    assert library.scan(folder).gone == 10


def test_a_file_that_is_still_being_written_is_read_again_when_it_is_whole(tmp_path, folder):
    path = write(folder / "a.png", "whole now")
    whole = path.read_bytes()
    write(folder / "b.png")
    path.write_bytes(whole[:-20])
    library = open_project(tmp_path / "project").library
    library.scan(folder)
    assert {image.record.reason for image in library.images(folder)} == {"damaged", ""}
    path.write_bytes(whole)
    assert library.scan(folder).read == 1
    assert [image.record.prompt for image in library.images(folder)] == ["whole now", "a cat"]


def test_files_that_come_after_the_listing_wait_for_the_next_scan(tmp_path, folder):
    write(folder / "a.png")
    library = open_project(tmp_path / "project").library
    assert library.scan(folder, report=lambda done, total: done or write(folder / "new" / "b.png")).total == 1
    assert library.scan(folder).read == 1


def test_rows_go_on_when_files_vanish_while_they_are_printed(folder, capsys, monkeypatch):
    paths = [write(folder / f"{number}.png") for number in range(3)]
    real = dpo.metadata.read_image

    def read_and_remove(path, **options):
        paths[2].unlink(missing_ok=True)
        return real(path, **options)

    monkeypatch.setattr("dpo.metadata.read_image", read_and_remove)
    assert main(["scan", str(folder), "--json"]) == 0
    reasons = [json.loads(line)["reason"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(reasons) == ["", "", "unreadable"]
