import errno
import io
import os
import stat
import struct
import time
import zipfile
from pathlib import Path

import pytest

from dpo import archive, intake
from dpo.intake import IntakeError, safe_name, take_in
from dpo.metadata import read_image
from dpo.project import open_project
from tests.metadata.files import png, text_chunk

IMAGE = png(text_chunk("parameters", "a cat\nSteps: 20, Sampler: Euler a, Size: 1x1"))
OTHER = png(text_chunk("parameters", "a dog\nSteps: 20, Sampler: Euler a, Size: 1x1"))


@pytest.fixture
def sent(tmp_path):
    """Files as Gradio hands them over: each in a folder of its own, so that equal names can meet."""
    count = iter(range(1000))

    def sent(name: str, data: bytes = IMAGE) -> Path:
        path = tmp_path / "sent" / f"{next(count)}" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    return sent


@pytest.fixture
def target(tmp_path):
    return tmp_path / "uploads" / "20260101-120000"


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue()


def taken(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def reasons(report) -> dict[str, str]:
    return dict(report.skipped)


# ------------------------------------------------------------------------------------------------ what arrives


def test_images_arrive_byte_for_byte_and_can_be_scanned(sent, target, tmp_path):
    report = take_in([sent("a.png"), sent("b.zip", zipped(("b.png", IMAGE), ("c.png", OTHER)))], target)
    assert (report.kept, report.skipped, report.folder) == (3, [], target)
    assert taken(target) == {"a.png": IMAGE, "b.png": IMAGE, "c.png": OTHER}
    assert read_image(target / "c.png").prompt == "a dog"
    project = open_project(tmp_path / "project")
    project.library.scan(target)
    assert sorted(Path(image.path).name for image in project.library.images(target)) == ["a.png", "b.png", "c.png"]


def test_the_metadata_is_read_before_a_file_is_touched(sent, target, monkeypatch):
    path, order = sent("a.png"), []
    read, link = intake.read_file, intake._link_or_copy
    monkeypatch.setattr("dpo.intake.read_file", lambda path: order.append(("read", Path(path))) or read(path))
    monkeypatch.setattr("dpo.intake._link_or_copy", lambda *paths: order.append(("touch", paths[0])) or link(*paths))
    take_in([path], target)
    assert order == [("read", path), ("touch", path)]


def test_what_was_sent_may_be_deleted_afterwards_and_on_another_disk_it_is_copied(sent, target, monkeypatch):
    def other_disk(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    first, second = sent("a.png"), sent("b.png")
    take_in([first], target)
    monkeypatch.setattr(os, "link", other_disk)
    take_in([second], target)
    for path in (first, second):
        path.unlink()
    assert taken(target) == {"a.png": IMAGE, "b.png": IMAGE}


def test_images_without_a_prompt_are_taken_for_something_may_stand_in(sent, target):
    assert take_in([sent("a.png", png())], target).kept == 1


def test_the_folders_of_a_zip_stay_for_their_names_may_be_the_prompts(sent, target):
    entries = (("a red cat/1.png", IMAGE), ("a red cat/2.png", OTHER), ("ein Hund/über/1.png", IMAGE), ("leer/", b""))
    report = take_in([sent("a.zip", zipped(*entries))], target)
    assert (report.kept, report.skipped) == (3, [])
    assert sorted(taken(target)) == ["a red cat/1.png", "a red cat/2.png", "ein Hund/über/1.png"]


def test_a_file_of_a_zip_keeps_its_time(sent, target):
    info = zipfile.ZipInfo("a.png", date_time=(2024, 5, 6, 7, 8, 10))
    take_in([sent("a.zip", zipped((info, IMAGE)))], target)
    assert time.localtime((target / "a.png").stat().st_mtime)[:6] == (2024, 5, 6, 7, 8, 10)


def test_what_systems_add_to_a_zip_is_passed_over_silently(sent, target):
    entries = (
        ("__MACOSX/a.png", IMAGE),
        ("in/.DS_Store", b"x"),
        ("in/Thumbs.db", b"x"),
        ("in/._a.png", b"x"),
        ("in/a.png", IMAGE),
    )
    report = take_in([sent("a.zip", zipped(*entries))], target)
    assert (report.kept, report.skipped, list(taken(target))) == (1, [], ["in/a.png"])


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name, safe",
    [
        ("cat 01 (final)", "cat 01 (final)"),
        ("Katze süß 猫 кот 👩‍🚀", "Katze süß 猫 кот 👩‍🚀"),
        ("u\u0308ber", "über"),
        ('a<b>c:d"e/f\\g|h?i*j', "a_b_c_d_e_f_g_h_i_j"),
        ("line\nbreak\0", "line_break_"),
        ("gnp\u202etxt", "gnp_txt"),
        ("..hidden.", "hidden"),
        ("...", "_"),
        ("", "_"),
        ("NUL", "_NUL"),
        ("com1.old", "_com1.old"),
        ("x" * 300, "x" * 150),
        ("猫" * 100, "猫" * 50),
    ],
)
def test_names_stay_as_they_were_as_far_as_every_system_can_have_them(name, safe):
    assert safe_name(name, 150) == safe


def test_equal_names_are_numbered_also_where_only_capitals_differ(sent, target):
    files = [
        sent("cat.png"),
        sent("cat.png", OTHER),
        sent("CAT.PNG"),
        sent("cat-2.png", OTHER),
        sent("z.zip", zipped(("cat.png", OTHER))),
    ]
    assert take_in(files, target).kept == 5
    assert list(taken(target)) and sorted(taken(target)) == ["CAT-3.PNG", "cat-2-2.png", "cat-2.png", "cat-4.png", "cat.png"]
    assert taken(target)["cat-2.png"] == OTHER


def test_nothing_that_is_there_already_is_replaced(sent, target):
    take_in([sent("cat.png")], target)
    take_in([sent("cat.jpg", OTHER), sent("cat.png", OTHER)], target)
    assert taken(target) == {"cat.png": IMAGE, "cat-2.jpg": OTHER, "cat-2.png": OTHER}


def test_an_old_or_a_macos_zip_has_readable_names(sent, target):
    """macOS writes UTF-8 and does not say so; zipfile then reads it as code page 437."""
    data = zipped(("k_tze.png", IMAGE)).replace(b"k_tze", "kätz".encode())
    assert take_in([sent("a.zip", data)], target).kept == 1
    assert list(taken(target)) == ["kätz.png"]


# ------------------------------------------------------------------------------------------------ texts beside images


def test_texts_stay_beside_their_image_under_its_new_name(sent, target):
    """Two uploads of the same two files: each text goes with the image it came with."""
    one = zipped(("cat.png", IMAGE), ("cat.txt", b"one"), ("cat.png.json", b"{}"))
    two = zipped(("cat.txt", b"two"), ("cat.png", OTHER))
    assert take_in([sent("1.zip", one), sent("2.zip", two)], target).kept == 2
    assert taken(target) == {
        "cat.png": IMAGE, "cat.txt": b"one", "cat.png.json": b"{}", "cat-2.png": OTHER, "cat-2.txt": b"two",
    }  # fmt: skip


def test_an_image_never_finds_itself_beside_the_text_of_another(sent, target):
    """cat.jpg of the second zip would be beside cat.txt of the first, were only equal names numbered."""
    take_in([sent("1.zip", zipped(("cat.png", IMAGE), ("cat.txt", b"one"))), sent("2.zip", zipped(("cat.jpg", OTHER)))], target)
    assert sorted(taken(target)) == ["cat-2.jpg", "cat.png", "cat.txt"]


def test_loose_files_of_equal_names_keep_their_texts_only_if_it_is_clear_whose_they_are(sent, target, tmp_path):
    clear = [sent("a.png"), sent("a.txt", b"1"), sent("a.png", OTHER), sent("a.txt", b"2")]
    assert take_in(clear, target).skipped == []
    assert taken(target) == {"a.png": IMAGE, "a.txt": b"1", "a-2.png": OTHER, "a-2.txt": b"2"}
    report = take_in([sent("a.png"), sent("a.png", OTHER), sent("a.txt", b"1")], tmp_path / "other")
    assert sorted(taken(tmp_path / "other")) == ["a-2.png", "a.png"]
    assert "not clear which it belongs to" in reasons(report)["a.txt"]


def test_a_text_without_its_image_is_a_row_and_a_table_is_taken_by_itself(sent, target):
    report = take_in(
        [sent("notes.txt", b"x"), sent("bad.png", b"no image"), sent("bad.txt", b"x"), sent("prompts.csv", b"x")], target
    )
    assert list(taken(target)) == ["prompts.csv"] and report.kept == 0
    assert reasons(report)["notes.txt"] == reasons(report)["bad.txt"] == "No image of its name was taken."


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("a.exe", b"MZ", "not an image: the name ends with none of .png"),
        (".png", IMAGE, "not an image: the name ends with none of .png"),
        ("a.png", b"<html>", "not a PNG"),
        ("a.png", IMAGE[:60], "cut short"),
        ("a.rar", b"Rar!", "Unpack it, or send a zip"),
        ("a.zip", b"no zip", "not a whole zip file"),
        ("a.zip", zipped(("a.png", IMAGE))[:-30], "not a whole zip file"),
        ("a.txt", b"x" * (5 << 20), "the most that is taken of one such file is 4,194,304"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_taken_says_why_and_the_others_are_taken(sent, target, name, data, reason):
    report = take_in([sent(name, data), sent("b.png")], target)
    assert report.kept == 1 and list(taken(target)) == ["b.png"]
    assert reason in reasons(report)[name]


def test_links_are_not_followed(sent, target, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(sent("a.png"))
    inside = zipfile.ZipInfo("in.png")
    inside.external_attr = (stat.S_IFLNK | 0o777) << 16
    report = take_in([link, sent("a.zip", zipped((inside, b"/etc/passwd"))), tmp_path, tmp_path / "gone.png"], target)
    assert not target.exists() and report.kept == 0
    assert "It is a link" in reasons(report)["a.zip/in.png"]
    assert all("not a file" in reasons(report)[name] for name in ("link.png", tmp_path.name, "gone.png"))


@pytest.mark.parametrize(
    "name", ["../a.png", "in/../../a.png", "/etc/a.png", "C:/a.png", "c:a.png", "..\\a.png", "\\\\host\\a.png"]
)
def test_names_that_lead_out_of_the_folder_are_refused(sent, target, name):
    report = take_in([sent("a.zip", zipped((name, IMAGE), ("b.png", IMAGE)))], target)
    assert list(taken(target.parent)) == [f"{target.name}/b.png"]
    ((shown, reason),) = report.skipped
    assert shown.endswith("a.png") and "leads out of the folder" in reason


def test_encrypted_nested_and_oddly_packed_files_are_rows(sent, target):
    data = bytearray(zipped(("a.png", IMAGE), ("in.zip", zipped(("x.png", IMAGE))), ("odd.png", IMAGE), ("z.png", IMAGE)))
    (directory,) = struct.unpack_from("<I", data, len(data) - 6)
    data[directory + 8] |= 1  # of a.png: encrypted
    odd = data.index(b"odd.png", directory) - 46
    struct.pack_into("<H", data, odd + 10, 97)  # a way of packing that nobody knows
    report = take_in([sent("a.zip", bytes(data))], target)
    assert list(taken(target)) == ["z.png"]
    assert "encrypted" in reasons(report)["a.zip/a.png"] and "archive inside" in reasons(report)["a.zip/in.zip"]
    assert "packed in a way" in reasons(report)["a.zip/odd.png"]


def test_in_a_zip_too_names_are_not_believed_and_folders_have_a_bottom(sent, target):
    report = take_in([sent("a.zip", zipped(("a.png", b"<html>"), ("in/" * 9 + "b.png", IMAGE)))], target)
    assert report.kept == 0 and not target.exists()
    assert "a.png: not a PNG" in reasons(report)["a.zip/a.png"]
    assert "more than 8 folders" in reasons(report)["a.zip/" + "in/" * 9 + "b.png"]


def test_a_file_damaged_inside_its_zip_leaves_nothing_behind(sent, target):
    data = zipped(("a.png", IMAGE), ("b.png", OTHER))
    place = data.index(b"a cat")
    left = []
    report = take_in(
        [sent("a.zip", data[:place] + b"a rat" + data[place + 5 :])], target, lambda done, total: left.extend(target.glob(".*/*"))
    )
    assert left == []
    assert taken(target) == {"b.png": OTHER} and "damaged inside the zip" in reasons(report)["a.zip/a.png"]


def test_a_bomb_is_refused_before_a_byte_of_it_is_unpacked(sent, target):
    bomb = zipped(("a.png", bytes(50_000_000)), ("b.png", IMAGE), compression=zipfile.ZIP_DEFLATED)
    report = take_in([sent("a.zip", bomb)], target)
    assert list(taken(target)) == ["b.png"]
    assert (
        "It would unpack 48," in reasons(report)["a.zip/a.png"]
        and "to 50,000,000: no image does" in reasons(report)["a.zip/a.png"]
    )


def test_a_bomb_of_files_that_overlap_is_refused_whole(sent, target, monkeypatch):
    """A hundred names for the same bytes: each alone is no larger than it may be."""
    monkeypatch.setattr(archive, "MOST_RATIO", 5)
    monkeypatch.setattr(archive, "FREE_BYTES", 10_000)
    data = zipped(("a.png", os.urandom(2000)))
    local, directory = data[: data.index(b"PK\x01\x02")], data[data.index(b"PK\x01\x02") : -22]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 100, 100, len(directory) * 100, len(local), 0)
    report = take_in([sent("a.zip", local + directory * 100 + end), sent("b.png")], target)
    assert list(taken(target)) == ["b.png"] and "no zip of images does" in reasons(report)["a.zip"]


@pytest.mark.parametrize("is_long", [False, True])
def test_a_list_of_too_many_files_is_not_even_read(sent, target, monkeypatch, is_long):
    monkeypatch.setattr(archive.open_archive, "__defaults__", (9, archive.MOST_DIRECTORY))
    data = zipped(*((f"{number}.png", IMAGE) for number in range(10)))
    if is_long:  # the count stands in a second, longer record
        end = data[-22:]
        _, *_, length, start, _ = struct.unpack("<4s4H2IH", end)
        record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10, 10, length, start)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(data) - 22, 1)
        data = data[:-22] + record + locator + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, length, start, 0)
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            assert len(file.infolist()) == 10, "else this is no trick"
    monkeypatch.setattr(zipfile, "ZipFile", lambda *arguments: pytest.fail("it was read"))
    report = take_in([sent("a.zip", data)], target)
    assert "It holds 10 files; at most 9 are taken at once" in reasons(report)["a.zip"]


def test_more_than_is_taken_at_once_is_one_row(sent, target, monkeypatch):
    monkeypatch.setattr(intake, "MOST_FILES", 3)
    report = take_in([sent(f"{number}.png") for number in range(10)], target)
    assert report.kept == 3 and list(reasons(report)) == ["7 more files"]
    monkeypatch.setattr(intake, "LARGEST_TOTAL", 2 * len(IMAGE))
    report = take_in([sent(f"{number}.png") for number in range(3)], target)
    assert report.kept == 2 and list(reasons(report)) == ["1 more file"]


# ------------------------------------------------------------------------------------------------ on the way


def test_progress_counts_files_and_stopping_keeps_what_was_taken(sent, target):
    seen = []
    files = [sent(f"{number}.png") for number in range(5)]
    report = take_in(files, target, lambda done, total: seen.append((done, total)), lambda: len(seen) == 2)
    assert seen == [(1, 5), (2, 5)] and sorted(taken(target)) == ["0.png", "1.png"]
    assert report.kept == 2
    assert report.skipped == [
        ("3 more files", "The upload was stopped. The 2 images taken before are kept; send the rest again.")
    ]


def test_a_full_disk_keeps_what_was_taken_and_says_so(sent, target, monkeypatch):
    link, calls = intake._link_or_copy, []

    def full(source, arrived):
        calls.append(source)
        if len(calls) == 3:
            arrived.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        link(source, arrived)

    monkeypatch.setattr("dpo.intake._link_or_copy", full)
    report = take_in([sent(f"{number}.png") for number in range(5)], target)
    assert report.kept == 2 and sorted(taken(target)) == ["0.png", "1.png"]
    ((name, reason),) = report.skipped
    assert name == "3 more files" and "No space left on device. Free some space. The 2 images taken before are kept" in reason


def test_a_target_that_cannot_be_made_is_an_error(sent, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IntakeError, match="cannot be written: Not a directory. Free some space, then upload again"):
        take_in([sent("a.png")], tmp_path / "file" / "uploads")
