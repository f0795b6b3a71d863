import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import dpo.scan
from dpo.groups import View
from dpo.library import LibraryError, StandIns, content_key
from dpo.metadata import ImageRecord, stealth
from dpo.project import open_project
from tests.metadata.files import hide
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
    problems = {
        image.path.rsplit("/", 1)[1]: image.record.error for image in project.library.images(folder) if image.record.error
    }
    assert sorted(problems) == ["broken.png", "silent.png", "torn.jpg"]
    assert all(len(reason) > 20 for reason in problems.values())
    catalogue = project.library.catalogue(View(str(folder)))
    assert (catalogue.images, catalogue.prompts) == (15, 3)
    assert sum(catalogue.reasons.values()) == 3 and catalogue.reasons["no_metadata"] == 1
    assert catalogue.example == problems["silent.png"]


def test_an_image_alone_with_its_prompt_is_counted_with_the_reason(project, folder):
    lonely = write_prompted(folder / "lonely.png", "nobody else", plain())
    project.library.scan(folder)
    assert project.library.catalogue(View(str(folder))).reasons == {"alone": 1}
    ((path, _, reason),) = project.library.left_out(folder, "alone", 0, 9)
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
    (problem,) = project.library.left_out(folder, "unreadable", 0, 9)
    assert problem.path.endswith("0002_3.png")
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


def test_reading_processes_give_the_same_rows_in_the_same_order_as_one(project, folder, tmp_path):
    paint_folder(folder / "more", prompts=40, per_prompt=5, seed=1)
    (folder / "broken.png").write_bytes(b"no picture")
    other = open_project(tmp_path / "other")
    assert project.library.scan(folder, processes=0).read == other.library.scan(folder, processes=3).read == 213
    assert project.library.images(folder) == other.library.images(folder)
    asked = "SELECT id, path FROM images ORDER BY id"
    assert project.library._database.tuples(asked) == other.library._database.tuples(asked)


def test_scanning_an_unchanged_folder_starts_no_process(project, folder, monkeypatch):
    project.library.scan(folder)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert project.library.scan(folder).unchanged == 12


def test_many_files_are_read_in_processes_and_this_one_opens_none(project, folder, monkeypatch):
    monkeypatch.setattr("dpo.index.FEW", 5)
    assert files_opened_by(lambda: project.library.scan(folder)) == []
    assert len(project.library.groups(folder)) == 3


def test_a_reading_process_imports_neither_torch_nor_the_page_nor_pillow():
    program = "import sys, dpo.scan; print([name for name in ('torch', 'gradio', 'PIL', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_reading_processes_end_with_the_scan_also_when_it_is_stopped(project, folder, monkeypatch):
    started, stop = [], threading.Event()
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **named: started.append(start(*args, **named)) or started[-1])
    monkeypatch.setattr(dpo.scan, "BATCH", 1)
    report = project.library.scan(folder, lambda done, total: done and stop.set(), stop, processes=2)
    assert report.stopped and 0 < report.read < 12
    assert len(started) == 2 and all(process.poll() == 0 for process in started)
    assert project.library.scan(folder, processes=2).unchanged == report.read


def test_a_reading_process_that_dies_ends_the_scan_with_a_sentence_and_what_was_read_is_kept(project, folder, monkeypatch):
    started = []
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **named: started.append(start(*args, **named)) or started[-1])
    monkeypatch.setattr(dpo.scan, "BATCH", 1)

    def kill(done, total):
        if done == 3:
            for process in started:
                process.send_signal(signal.SIGKILL)

    with pytest.raises(LibraryError, match=r"(?s)ended \(exit status -9\).*is kept. Scan again"):
        project.library.scan(folder, kill, processes=2)
    assert 3 <= len(project.library.images(folder)) < 12
    assert project.library.scan(folder).total == 12


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes in /proc")
def test_reading_processes_do_not_outlive_an_app_that_is_killed(folder, tmp_path):
    program = (
        "import sys, os, dpo.scan, threading\n"
        "with dpo.scan._start_readers(2) as readers:\n"
        "    print(*(readers.get().pid for _ in range(2)), flush=True)\n"
        "    threading.Event().wait()\n"
    )
    app = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    readers = app.stdout.readline().split()
    assert len(readers) == 2 and all(map(is_running, readers))
    app.kill()
    app.wait()
    app.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(is_running, readers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, readers))


def is_running(process: str) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_that_moved_are_counted_and_what_is_known_of_them_goes_along(project, folder):
    project.library.scan(folder)
    (moved, other) = project.library.images(folder)[:2]
    project.library.note_pixels([(moved.key, "1" * 32, "0" * 16)])
    project.library.give_prompt(moved.key, "typed")
    (folder / "deeper").mkdir()
    os.rename(moved.path, folder / "deeper" / "renamed.png")
    report = project.library.scan(folder)
    assert (report.read, report.moved, report.gone) == (1, 1, 0)
    image = project.library.image(moved.key)
    assert (image.path, image.record.prompt) == (str(folder / "deeper" / "renamed.png"), "typed")
    assert moved.key not in dict(project.library.unprepared(folder, 99)) and other.key in dict(
        project.library.unprepared(folder, 99)
    )


def test_a_folder_that_moved_is_known_where_it_is_and_forgotten_where_it_was(project, folder, tmp_path):
    project.library.scan(folder)
    folder.rename(tmp_path / "renamed")
    report = project.library.scan(tmp_path / "renamed")
    assert (report.read, report.moved) == (12, 12)
    assert project.library.images(folder) == []


def test_files_that_cannot_be_read_are_not_taken_for_one_another(project, folder):
    (folder / "gone.png").symlink_to(folder / "nowhere")
    project.library.scan(folder)
    (folder / "gone.png").rename(folder / "other.png")
    report = project.library.scan(folder)
    assert (report.moved, report.gone, report.read) == (0, 1, 1)


def test_an_image_without_any_pixels_is_damaged_whatever_it_says(project, folder, monkeypatch):
    monkeypatch.setattr("dpo.scan.read_file", lambda path, _: ("0" * 24, ImageRecord(path, "a cat", width=8, height=0)))
    project.library.scan(folder)
    assert project.library.catalogue(View(str(folder))).reasons == {"damaged": 12}


def test_a_folder_whose_name_is_no_text_is_refused_with_the_remedy(project, folder):
    bad = os.fsdecode(os.fsencode(folder) + b"\xff")
    os.mkdir(bad)
    with pytest.raises(LibraryError, match="Rename the folder"):
        project.library.scan(bad)


def test_a_copy_is_not_taken_for_a_move(project, folder):
    project.library.scan(folder)
    shutil.copy(folder / "0000_0.png", folder / "copy.png")
    assert project.library.scan(folder).moved == 0
    assert len(project.library.images(folder)) == 13


def test_after_a_move_and_new_files_every_image_has_its_own_row(project, folder):
    project.library.scan(folder)
    os.rename(folder / "0002_3.png", folder / "z.png")  # the last to arrive before
    write_prompted(folder / "a.png", "new", plain("blue"))
    assert project.library.scan(folder).moved == 1
    assert len({image.path for image in project.library.images(folder)}) == 13


def test_files_are_read_again_when_the_reader_changed_and_stay_usable_until_then(project, folder, monkeypatch):
    project.library.scan(folder)
    monkeypatch.setattr(dpo.scan, "_READER", "another")
    again = open_project(project.path)
    assert len(again.library.groups(folder)) == 3
    assert again.library.scan(folder).read == 12
    assert again.library.scan(folder).read == 0


def test_a_folder_that_cannot_be_listed_is_a_row_and_the_others_are_read(project, folder, monkeypatch):
    paint_folder(folder / "locked", prompts=1, per_prompt=2)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert project.library.scan(folder).total == 13
    (row,) = project.library.left_out(folder, "unreadable", 0, 9)
    assert row.path == str(folder / "locked") and row.key == "" and "Permission denied" in row.sentence
    assert project.library.scan(folder).read == 0


def test_the_rate_and_the_time_left_leave_out_what_needed_no_reading(project):
    scan = dpo.scan.Scan("/x", done=1010, total=1100, unchanged=1000, started=time.monotonic() - 1)
    assert scan.rate == pytest.approx(10, rel=0.1) and scan.seconds_left == pytest.approx(9, rel=0.1)
    assert dpo.scan.Scan("/x", done=1000, total=1100, unchanged=1000).seconds_left is None


def test_a_second_scan_of_another_folder_is_refused_while_one_runs(project, folder, tmp_path, monkeypatch):
    may_read = threading.Event()
    monkeypatch.setattr("dpo.scan.read_file", lambda path, stealth: may_read.wait(20) and ("", ImageRecord(path)))
    scan = project.library.start_scan(folder)
    with pytest.raises(LibraryError, match="is being scanned"):
        project.library.start_scan(tmp_path)
    scan.stop.set()
    may_read.set()
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


def test_pixels_are_searched_where_asked_for_once_and_only_of_files_that_say_nothing_else(project, folder, monkeypatch):
    hide("hidden words\nSteps: 20, Sampler: Euler, Seed: 1", "stealth_pnginfo").save(folder / "silent.png")
    project.library.scan(folder)
    asked, search = [], stealth.read_stealth
    monkeypatch.setattr(stealth, "read_stealth", lambda path: asked.append(path) or search(path))
    assert project.library.catalogue(View(str(folder))).reasons == {"no_metadata": 1} and asked == [], "nobody asked for it"
    project.library.set_stand_ins(folder, StandIns(pixels=True))
    assert project.library.scan(folder).read == 1
    assert asked == [str(folder / "silent.png")]
    silent = next(image for image in project.library.images(folder) if image.path.endswith("silent.png"))
    assert (silent.record.prompt, silent.record.where) == ("hidden words", "stealth pixels")
    assert project.library.scan(folder).read == 0
    assert open_project(project.path).library.stand_ins(folder) == StandIns(pixels=True)
    project.library.set_stand_ins(folder, StandIns())
    assert project.library.scan(folder).read == 0, "what was found stays"
