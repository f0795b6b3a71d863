import shutil
import sys
import threading
import time

import pytest

from dpo.library import LibraryError, content_key
from dpo.project import open_project
from tests.pictures import paint_folder, plain, write_prompted

opened: list[str] | None = None  # what the audit hook below collects while a test asks for it


def _watch(event: str, arguments: tuple) -> None:
    if opened is not None and event == "open" and str(arguments[0]).endswith(".png"):
        opened.append(str(arguments[0]))


sys.addaudithook(_watch)


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


@pytest.fixture
def folder(tmp_path):
    paint_folder(tmp_path / "images", prompts=3, per_prompt=4)
    return tmp_path / "images"


def files_opened_by(action) -> list[str]:
    global opened
    opened = []
    try:
        action()
        return sorted(set(opened))
    finally:
        opened = None


def test_a_folder_becomes_groups_of_one_prompt_each(project, folder):
    report = project.library.scan(folder)
    groups = project.library.groups(folder)
    assert (report.total, report.read, report.unchanged, report.gone, report.stopped) == (12, 12, 0, 0, False)
    assert [len(group.images) for group in groups] == [4, 4, 4]
    for group in groups:
        assert len({image.record.prompt for image in group.images}) == 1


def test_scanning_an_unchanged_folder_opens_no_file(project, folder):
    assert len(files_opened_by(lambda: project.library.scan(folder))) == 12
    again = open_project(project.path)
    assert files_opened_by(lambda: again.library.scan(folder)) == []
    assert again.library.scan(folder).unchanged == 12


def test_a_rescan_reads_only_what_changed_and_forgets_what_is_gone(project, folder):
    project.library.scan(folder)
    changed = write_prompted(folder / "0000_0.png", "another prompt", plain())
    (folder / "0001_0.png").unlink()
    added = write_prompted(folder / "new.png", "another prompt", plain("blue"))
    reports = []
    assert files_opened_by(lambda: reports.append(project.library.scan(folder))) == [str(changed), str(added)]
    assert (reports[0].read, reports[0].unchanged, reports[0].gone) == (2, 10, 1)
    assert sorted(len(group.images) for group in project.library.groups(folder)) == [2, 3, 3, 4]


def test_a_corrupt_image_is_a_row_with_its_reason_and_not_a_crash(project, folder):
    whole = (folder / "0000_0.png").read_bytes()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing like a picture")
    (folder / "torn.jpg").write_bytes(whole[:20])
    plain().save(folder / "silent.png")
    project.library.scan(folder)
    problems = {path.rsplit("/", 1)[1]: reason for path, reason in project.library.problems(folder)}
    assert sorted(problems) == ["broken.png", "silent.png", "torn.jpg"]
    assert all(len(reason) > 20 for reason in problems.values())
    summary = project.library.summary(folder)
    assert (summary.images, summary.prompts, summary.without_prompt, summary.unreadable) == (15, 3, 1, 2)


def test_an_image_alone_with_its_prompt_is_counted_with_the_reason(project, folder):
    lonely = write_prompted(folder / "lonely.png", "nobody else", plain())
    project.library.scan(folder)
    assert project.library.summary(folder).alone == 1
    ((path, reason),) = project.library.problems(folder)
    assert path == str(lonely) and "nothing to compare" in reason


def test_progress_counts_every_file_and_ends_at_the_total(project, folder):
    seen = []
    project.library.scan(folder, report=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(13)]


def test_a_stopped_scan_keeps_what_it_read_and_goes_on_from_there(project, folder):
    stop = threading.Event()
    report = project.library.scan(folder, report=lambda done, total: stop.set() if done == 5 else None, stop=stop)
    assert (report.read, report.stopped) == (5, True)
    again = project.library.scan(folder)
    assert (again.read, again.unchanged, again.stopped) == (7, 5, False)


def test_files_that_vanish_during_a_scan_are_rows_and_not_crashes(project, folder):
    def remove_the_last(done, total):
        if done == 1:
            (folder / "0002_3.png").unlink()

    project.library.scan(folder, report=remove_the_last)
    (problem,) = project.library.problems(folder)
    assert problem[0].endswith("0002_3.png")
    assert project.library.scan(folder).gone == 1


def test_an_image_is_found_by_its_content_wherever_it_was_moved(project, folder, tmp_path):
    project.library.scan(folder)
    key = content_key(folder / "0000_0.png")
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    project.library.scan(moved)
    assert project.library.image(key).path == str(moved / "0000_0.png")


def test_a_folder_whose_name_begins_like_another_is_not_part_of_it(project, folder, tmp_path):
    paint_folder(tmp_path / "images%_2", prompts=1, per_prompt=2)
    project.library.scan(folder)
    project.library.scan(tmp_path / "images%_2")
    assert len(project.library.images(folder)) == 12
    assert len(project.library.images(tmp_path / "images%_2")) == 2
    assert len(project.library.images(tmp_path)) == 14


def test_hidden_folders_and_other_files_are_left_out(project, folder):
    paint_folder(folder / ".thumbnails", prompts=1, per_prompt=2)
    paint_folder(folder / "deeper", prompts=1, per_prompt=2)
    (folder / "notes.txt").write_text("not an image")
    assert project.library.scan(folder).total == 14


@pytest.mark.parametrize(
    "name, words",
    [("nowhere", "does not exist"), ("file.png", "is a file"), ("empty", "no image files found"), ("", "No folder was given")],
)
def test_a_folder_that_cannot_be_used_says_what_to_do(project, tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(LibraryError, match=words):
        project.library.scan(tmp_path / name if name else "")


def test_a_scan_in_the_background_is_the_same_one_for_everybody_who_asks(project, folder):
    scan = project.library.start_scan(folder)
    assert project.library.start_scan(folder) in (scan, project.library.current_scan())
    assert project.library.current_scan().finished.wait(20)
    assert project.library.current_scan().report.total == 12
    assert len(project.library.groups(folder)) == 3


def test_a_second_scan_of_another_folder_is_refused_while_one_runs(project, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dpo.library.read_image", lambda path: time.sleep(0.2))
    scan = project.library.start_scan(folder)
    with pytest.raises(LibraryError, match="is being scanned"):
        project.library.start_scan(tmp_path)
    scan.stop.set()
    assert scan.finished.wait(20)


def test_a_scan_that_fails_says_so_where_it_is_watched(project, tmp_path):
    (tmp_path / "empty").mkdir()
    scan = project.library.start_scan(tmp_path / "empty")
    assert scan.finished.wait(20)
    assert "no image files found" in scan.error


def test_content_keys_tell_files_apart_that_differ_at_either_end(tmp_path):
    body = bytes(300_000)
    files = {"a": body, "b": b"1" + body[1:], "c": body[:-1] + b"1", "d": body + b"\0", "e": b"", "f": b"x"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert len({content_key(tmp_path / name) for name in files}) == len(files)
    assert content_key(tmp_path / "a") == content_key(tmp_path / "a")
