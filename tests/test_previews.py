import io
import os
import threading
import time

import pytest
from PIL import Image

from dpo.drawing import PREVIEW_BYTES, AbsentError, draw
from dpo.metadata import content_key
from dpo.pixels import PixelError, open_pixels
from dpo.previews import Previews
from tests.shelf import Shelf, kept, making_previews, opened, paint, wait_until


@pytest.fixture
def make(tmp_path):
    yield from making_previews(tmp_path / "previews")


# ------------------------------------------------------------------------------------------------ one image


def test_each_kind_has_its_size_and_is_kept(make, tmp_path):
    (path,) = paint(tmp_path / "in", 1, (1600, 800))
    shelf = Shelf(path)
    previews, key = make(shelf), shelf.key(path)
    for kind, size in (("thumb", (256, 128)), ("preview", (1280, 640)), ("full", (1600, 800))):
        assert previews.cached(key, kind) is None
        data, media_type = previews.get(key, kind)
        assert opened(data).size == size
        assert opened(data).get_format_mimetype() == media_type
        assert previews.cached(key, kind) == (data, media_type)


def test_a_small_image_is_without_loss_in_every_kind(make, tmp_path):
    (path,) = paint(tmp_path / "in", 1, (256, 200))
    shelf = Shelf(path)
    for kind in ("thumb", "preview", "full"):
        data, media_type = make(shelf).get(shelf.key(path), kind)
        assert media_type == "image/webp" and opened(data).convert("RGB").tobytes() == open_pixels(path).tobytes()


def test_a_thumb_of_an_image_just_too_large_to_be_shown_as_it_is_is_small(make, tmp_path):
    (path,) = paint(tmp_path / "in", 1, (257, 257))
    shelf = Shelf(path)
    data, _ = make(shelf).get(shelf.key(path), "thumb")
    assert opened(data).size == (256, 256) and len(data) < 80_000  # without loss noise takes 190 KB


def test_a_preview_too_large_at_the_better_quality_is_made_at_the_lesser(tmp_path):
    """A gradient compresses to little at 85; noise is over the bound at any quality, and then the lesser one has to do."""
    Image.linear_gradient("L").resize((1024, 1024)).convert("RGB").save(tmp_path / "gradient.png")
    (noise,) = paint(tmp_path / "in", 1, (1024, 1024))
    sizes = {}
    for path in (tmp_path / "gradient.png", noise):
        buffer = io.BytesIO()
        open_pixels(path).save(buffer, "WEBP", quality=85, method=2)
        sizes[path] = len(draw(path, content_key(path), "preview")), len(buffer.getvalue())
    assert sizes[tmp_path / "gradient.png"][0] == sizes[tmp_path / "gradient.png"][1] < PREVIEW_BYTES
    assert sizes[noise][0] < sizes[noise][1]


def test_an_image_that_is_not_in_the_index_or_cannot_be_decoded_is_an_error(make, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    shelf = Shelf(tmp_path / "broken.png")
    with pytest.raises(PixelError, match="not in the index. Scan its folder again"):
        make(shelf).get("0" * 24, "preview")
    with pytest.raises(PixelError, match=r"broken\.png cannot be decoded"):
        make(shelf).get(shelf.key(tmp_path / "broken.png"), "preview")


def test_a_file_that_became_another_image_is_never_kept_under_the_old_key(make, tmp_path):
    first, second = paint(tmp_path / "in", 2)
    shelf = Shelf(first)
    first.write_bytes(second.read_bytes())
    with pytest.raises(AbsentError, match=r"00\.png is another image than when it was scanned\. Scan its folder again"):
        make(shelf).get(shelf.key(first), "preview")
    first.unlink()
    with pytest.raises(AbsentError, match=r"00\.png cannot be opened: No such file"):
        make(shelf).get(shelf.key(first), "preview")
    assert kept(tmp_path) == {}


def test_many_who_ask_at_once_get_an_image_that_was_drawn_once(make, tmp_path, monkeypatch):
    (path,) = paint(tmp_path / "in", 1)
    shelf = Shelf(path)
    previews, key, calls = make(shelf), shelf.key(path), []

    def slow_draw(*arguments):
        calls.append(arguments)
        time.sleep(0.2)
        return draw(*arguments)

    monkeypatch.setattr("dpo.previews.draw", slow_draw)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(previews.get(key, "preview"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(answers) == 8 and len(set(answers)) == 1


def test_a_drawing_that_fails_lets_the_next_one_try(make, tmp_path, monkeypatch):
    (path,) = paint(tmp_path / "in", 1)
    shelf = Shelf(path)
    previews = make(shelf)
    with monkeypatch.context() as patch:
        patch.setattr("dpo.previews.draw", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            previews.get(shelf.key(path), "preview")
    assert previews.get(shelf.key(path), "preview")


def test_nobody_ever_reads_half_an_image(make):
    previews, key, sizes = make(Shelf()), "ab" * 12, set()
    previews.keep(key, "full", bytes(8_000_000))

    def read_on():
        while not is_over.is_set():
            data, _ = previews.cached(key, "full")
            sizes.add(len(data))

    is_over = threading.Event()
    reader = threading.Thread(target=read_on)
    reader.start()
    for _ in range(20):
        previews.keep(key, "full", bytes(8_000_000))
    is_over.set()
    reader.join()
    assert sizes == {8_000_000}


# ------------------------------------------------------------------------------------------------ the bound


def fill(previews, count, size=1000):
    """Keep `count` images of `size` bytes, each last used a minute before the next; wait until clearing is over."""
    for number in range(count):
        key = f"{number:024x}"
        previews.keep(key, "preview", bytes(size))
        used = time.time() - 60 * (count - number)
        os.utime(previews._path(key, "preview"), (used, used))
        wait_until(lambda: not previews._is_clearing)


def numbers(tmp_path) -> list[int]:
    return sorted(int(name.split("-")[0], 16) for name in kept(tmp_path))


def test_what_was_used_longest_ago_goes_first_and_no_more_than_needed(make, tmp_path):
    previews = make(Shelf(), limit_bytes=10_000)
    fill(previews, 10)
    assert numbers(tmp_path) == list(range(10))
    assert previews.cached(f"{0:024x}", "preview")  # looked at: now the newest
    previews.keep(f"{10:024x}", "preview", bytes(1000))
    wait_until(lambda: not previews._is_clearing)
    assert numbers(tmp_path) == [0, *range(3, 11)]  # down to nine tenths


def test_the_folder_never_holds_much_more_than_the_limit(make, tmp_path):
    previews = make(Shelf(), limit_bytes=20_000)
    for number in range(100):
        previews.keep(f"{number:024x}", "preview", bytes(1000))
        wait_until(lambda: not previews._is_clearing)
        assert sum(kept(tmp_path).values()) <= 21_000
    assert sum(kept(tmp_path).values()) >= 15_000


def test_the_folder_is_listed_seldom_and_what_an_earlier_run_left_counts(make, tmp_path, monkeypatch):
    fill(make(Shelf(), limit_bytes=10_000), 8)
    listed = []
    unwatched = Previews._list
    monkeypatch.setattr(Previews, "_list", lambda previews: listed.append(1) or unwatched(previews))
    previews = make(Shelf(), limit_bytes=10_000)
    for number in range(8, 60):
        previews.keep(f"{number:024x}", "preview", bytes(100))
        wait_until(lambda: not previews._is_clearing)
        assert sum(kept(tmp_path).values()) <= 10_100
    assert 2 <= len(listed) <= 8
    for number in range(50, 60):
        previews.cached(f"{number:024x}", "preview")
    assert len(listed) <= 8


def test_what_a_crash_left_half_written_is_deleted_and_what_is_being_written_is_not(make, tmp_path):
    folder = tmp_path / "previews" / "ab"
    folder.mkdir(parents=True)
    for name, age in (("abcd-preview.0123abcd", 7200), ("abef-preview.4567abcd", 5)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    previews = make(Shelf())
    previews.keep("ab" * 12, "preview", b"whole")
    wait_until(lambda: not previews._is_clearing)
    assert sorted(kept(tmp_path)) == sorted(["abef-preview.4567abcd", "ab" * 12 + "-preview"])
