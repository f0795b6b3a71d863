import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dpo.drawing import AbsentError, Drawer, DrawerError, draw, draw_all
from dpo.metadata import content_key
from dpo.pixels import PixelError, difference_hash, open_pixels, pixel_digest
from dpo.project import open_project
from tests.pictures import plain, write_prompted
from tests.shelf import Shelf, kept, making_previews, opened, paint, wait_for, wait_until


@pytest.fixture
def make(tmp_path):
    yield from making_previews(tmp_path / "previews")


def test_the_maker_leaves_nothing_to_draw_and_notes_what_the_pixels_are(make, tmp_path, monkeypatch):
    paths = paint(tmp_path / "in", 5)
    shelf = Shelf(*paths)
    previews = make(shelf)
    assert previews.progress is None
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    monkeypatch.setattr("dpo.previews.draw", lambda *arguments: pytest.fail("it was not there yet"))
    for path in paths:
        image, key = open_pixels(path), shelf.key(path)
        assert shelf.notes[key] == (pixel_digest(image), difference_hash(image))
        assert opened(previews.get(key, "thumb")[0]).size == (256, 192)
        assert opened(previews.get(key, "preview")[0]).size == (320, 240)
    assert previews.progress is None


def test_the_maker_waits_for_others_and_draws_only_what_is_not_there(make, tmp_path, monkeypatch):
    (path,) = paint(tmp_path / "in", 1)
    shelf = Shelf(path)
    previews, key, asked, ask = make(shelf), shelf.key(path), [], Drawer.ask

    def watched(drawer, path, key, kinds):
        asked.append(list(kinds))
        return ask(drawer, path, key, kinds)

    monkeypatch.setattr(Drawer, "ask", watched)
    with previews.turn(key):
        previews.prepare(tmp_path / "in")
        time.sleep(0.5)  # time enough for it to begin, if it would
        assert asked == []
        previews.keep(key, "preview", b"drawn meanwhile")
    wait_for(previews)
    assert asked == [["thumb"]] and len(shelf.notes[key][0]) == 32


def test_one_decoding_gives_all_that_is_asked_for(tmp_path, monkeypatch):
    (path,) = paint(tmp_path / "in", 1)
    calls = []
    monkeypatch.setattr("dpo.drawing.open_pixels", lambda *arguments: calls.append(arguments) or open_pixels(*arguments))
    drawn = draw_all(path, content_key(path), ["preview", "thumb"])
    assert calls == [(path,)], "of every pixel: the digest of a smaller image would fold images that differ"
    assert list(drawn.images) == ["preview", "thumb"]


def test_broken_images_are_noted_once_and_absent_ones_are_left_for_another_time(make, tmp_path):
    paths = paint(tmp_path / "in", 4)
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    shelf = Shelf(*paths)
    paths[2].unlink()
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    broken = shelf.key(paths[1])
    assert list(shelf.broken) == [broken] and "01.png" in shelf.broken[broken]
    assert shelf.key(paths[2]) not in shelf.notes
    assert all(len(shelf.notes[shelf.key(paths[number])][0]) == 32 for number in (0, 3))


def test_images_are_drawn_in_the_order_of_the_library_and_late_ones_join(make, tmp_path, monkeypatch):
    first, late = paint(tmp_path / "in", 3), paint(tmp_path / "in" / "late", 2)
    shelf = Shelf(*reversed(first))
    noted, note = [], shelf.note_pixels

    def note_and_add(rows):
        noted.extend(key for key, *_ in rows)
        note(rows)
        shelf.paths |= Shelf(*late).paths

    shelf.note_pixels = note_and_add
    monkeypatch.setattr("dpo.maker.MOST_DRAWERS", 1)
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert noted == [content_key(path) for path in (*reversed(first), *late)]


def test_preparing_again_starts_nothing_until_the_index_changes(make, tmp_path):
    paths = paint(tmp_path / "in", 2)
    shelf = Shelf(paths[0])
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    asked, unprepared = [], shelf.unprepared
    shelf.unprepared = lambda *arguments: asked.append(arguments) or unprepared(*arguments)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert asked == []
    shelf.paths |= Shelf(paths[1]).paths
    shelf.changes += 1
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert len(shelf.notes) == 2


def test_another_folder_is_turned_to_at_once(make, tmp_path):
    many, few = paint(tmp_path / "many", 60, (700, 700)), paint(tmp_path / "few", 2)
    shelf = Shelf(*many, *few)
    previews = make(shelf)
    previews.prepare(tmp_path / "many")
    wait_until(lambda: kept(tmp_path))
    before = previews._maker._work
    previews.prepare(tmp_path / "few")
    wait_for(previews)
    wait_until(lambda: before.is_over)
    assert all(shelf.key(path) in shelf.notes for path in few)
    assert sum(shelf.key(path) in shelf.notes for path in many) < 60


def test_stopping_is_prompt_and_preparing_can_go_on_later(make, tmp_path):
    paths = paint(tmp_path / "in", 24, (500, 500))
    shelf = Shelf(*paths)
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_until(lambda: (previews.progress or (0, 0))[0] >= 2)
    done, total = previews.progress
    assert total == 24 and done < 24
    work = previews._maker._work
    shelf.changes += 1
    previews.prepare(tmp_path / "in")
    assert previews._maker._work is work, "it goes on, and looks for what came when it is through"
    process = next(iter(work._drawers))._process
    os.kill(process.pid, signal.SIGSTOP)  # as if it were at an image for ever
    began = time.monotonic()
    previews.stop()
    assert time.monotonic() - began < 30
    assert process.poll() is not None and previews.progress is None
    assert 0 < len(shelf.notes) < 24, "what was drawn is noted"
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert len(shelf.notes) == 24


def test_a_killed_process_is_replaced_and_no_image_is_blamed(make, tmp_path, monkeypatch):
    monkeypatch.setattr("dpo.maker.MOST_DRAWERS", 1)
    paths = paint(tmp_path / "in", 20, (400, 400))
    shelf = Shelf(*paths)
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_until(lambda: (previews.progress or (0, 0))[0] >= 3)
    process = next(iter(previews._maker._work._drawers))._process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(previews)
    assert len(shelf.notes) == 20 and all(len(digest) == 32 for digest, _ in shelf.notes.values())
    assert process.poll() == -signal.SIGKILL


def test_an_image_that_ends_every_process_is_noted_as_broken_and_the_others_are_drawn(make, tmp_path, monkeypatch):
    paths = paint(tmp_path / "in", 4)
    ask = Drawer.ask

    def die_at_the_second(drawer, path, key, kinds):
        if path == str(paths[1]):
            drawer.kill()
        return ask(drawer, path, key, kinds)

    monkeypatch.setattr(Drawer, "ask", die_at_the_second)
    shelf = Shelf(*paths)
    previews = make(shelf)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert list(shelf.broken) == [shelf.key(paths[1])]
    assert sorted(shelf.notes) == sorted(shelf.key(paths[number]) for number in (0, 2, 3))


def test_processes_that_do_not_come_up_end_the_preparing_and_blame_no_image(make, tmp_path, monkeypatch, capsys):
    paths = paint(tmp_path / "in", 2)
    shelf = Shelf(*paths)
    monkeypatch.setattr("dpo.maker.MOST_DRAWERS", 1)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    previews = make(shelf)
    for _ in range(3):
        previews.prepare(tmp_path / "in")
        wait_for(previews)
    assert shelf.notes == {}
    assert capsys.readouterr().err.count("DrawerError: No process to draw previews in could be started") == 1
    assert previews.get(shelf.key(paths[0]), "preview")


def test_no_process_outlives_an_app_that_was_killed(tmp_path):
    paint(tmp_path / "in", 1)
    program = "from dpo.drawing import Drawer; import time; print(Drawer()._process.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as app:
        drawer = int(app.stdout.readline())
        os.kill(drawer, 0)
        app.kill()
    wait_until(lambda: not is_running(drawer))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # whoever adopted it may not have collected it


def test_a_process_draws_what_we_would_draw_and_names_what_is_wrong(tmp_path):
    (path,) = paint(tmp_path / "in", 1)
    (tmp_path / "broken.png").write_bytes(b"nothing of the sort")
    drawer = Drawer()
    try:
        assert drawer.ask(str(path), content_key(path), ["thumb", "preview"]) == draw_all(
            path, content_key(path), ["thumb", "preview"]
        )
        with pytest.raises(PixelError, match="not an image"):
            drawer.ask(str(tmp_path / "broken.png"), content_key(tmp_path / "broken.png"), [])
        with pytest.raises(AbsentError):
            drawer.ask(str(path), "0" * 24, [])
        assert drawer.ask(str(path), content_key(path), []).images == {}
        drawer.kill()
        with pytest.raises(DrawerError, match="ended"):
            drawer.ask(str(path), content_key(path), [])
    finally:
        drawer.close()


def test_a_process_gives_way_to_the_page_and_is_not_ended_by_ctrl_c(tmp_path):
    (path,) = paint(tmp_path / "in", 1)
    drawer = Drawer()
    try:
        niceness = os.getpriority(os.PRIO_PROCESS, drawer._process.pid)
        assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        drawer._process.send_signal(signal.SIGINT)
        assert drawer.ask(str(path), content_key(path), ["thumb"]).images
    finally:
        drawer.close()


def test_a_drawing_process_loads_neither_torch_nor_the_page():
    program = "import sys, dpo.drawing; print([name for name in ('torch', 'numpy', 'gradio', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_folder_gets_no_more_in_advance_than_its_share_but_is_noted_whole(make, tmp_path):
    paths = paint(tmp_path / "in", 12)
    shelf = Shelf(*paths)
    one = len(draw(paths[0], content_key(paths[0]), "preview"))
    previews = make(shelf, limit_bytes=one * 10)
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    wait_until(lambda: not previews._is_clearing)
    assert len(shelf.notes) == 12
    drawn = [previews.cached(key, "preview") is not None for key in shelf.paths]
    assert drawn[0] and not any(drawn[8:]), (
        "the images that are picked from first are there, the later ones did not push them out"
    )
    assert previews.get(list(shelf.paths)[-1], "preview")


def test_a_cache_that_cannot_be_written_costs_only_time(make, tmp_path):
    (path,) = paint(tmp_path / "in", 1)
    (tmp_path / "previews").write_text("in the way of the folder")
    shelf = Shelf(path)
    previews = make(shelf)
    assert previews.get(shelf.key(path), "preview") == previews.get(shelf.key(path), "preview")
    previews.prepare(tmp_path / "in")
    wait_for(previews)
    assert len(shelf.notes[shelf.key(path)][0]) == 32


def test_in_a_real_library_copies_are_folded_and_nothing_is_left_unprepared(tmp_path):
    """Two images of a prompt, a copy of one saved with another compression, one that is broken, and one of no group."""
    project = open_project(tmp_path / "project")
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = plain("red"), plain("blue")
    first.putpixel((0, 0), (0, 0, 0))
    for name, image in (("a", first), ("b", second), ("d", Image.effect_noise((64, 64), 50).convert("RGB"))):
        write_prompted(folder / f"{name}.png", "a cat", image)
    write_prompted(folder / "alone.png", "a dog", second)
    copy = PngInfo()
    copy.add_text("parameters", Image.open(folder / "a.png").text["parameters"])
    first.save(folder / "c.png", pnginfo=copy, compress_level=0)
    whole = (folder / "d.png").read_bytes()
    (folder / "d.png").write_bytes(whole[:-1000] + bytes(900) + whole[-100:])
    project.library.scan(folder)
    try:
        project.previews.prepare(folder)
        wait_for(project.previews)
        assert project.library.unprepared(folder, 10) == []
        (group,) = project.library.groups(folder)
        assert sorted(Path(image.path).name for image in group.images) == ["a.png", "b.png"]
        (broken,) = project.library.left_out(folder, "damaged", 0, 10)
        assert Path(broken.path).name == "d.png" and "damaged" in broken.sentence
        with pytest.raises(PixelError, match="damaged"):
            project.previews.get(broken.key, "preview")
        project.library.scan(folder)
        assert project.library.left_out(folder, "damaged", 0, 10) == [broken], "a scan of the unchanged folder forgets nothing"
    finally:
        project.previews.stop()
