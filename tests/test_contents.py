import os

import pytest

from dpo import contents
from dpo.contents import Contents, read_digest


@pytest.fixture
def reads(monkeypatch):
    """Paths whose contents were read."""
    paths = []

    def counting(path):
        paths.append(path)
        return read_digest(path)

    monkeypatch.setattr(contents, "read_digest", counting)
    return paths


@pytest.fixture
def old(tmp_path):
    """A file that has not changed for a while, as far as its own time tells; what the disk says of it is taken as given."""
    path = tmp_path / "image.png"
    path.write_bytes(b"one")
    return str(path)


def remembered(tmp_path) -> Contents:
    return Contents(tmp_path / "cache" / "contents")


def test_a_file_is_read_once_also_across_runs(tmp_path, old, reads, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED", -1.0)
    found = remembered(tmp_path)
    assert found.digest(old) == found.digest(old) == read_digest(old)
    found.flush()
    assert remembered(tmp_path).digest(old) == read_digest(old)
    assert reads == [old]


def test_a_file_of_the_same_size_with_its_old_time_put_back_is_still_another_file(tmp_path, old, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED", -1.0)
    found = remembered(tmp_path)
    before, times = found.digest(old), os.stat(old)
    os.remove(old)
    with open(old, "wb") as file:
        file.write(b"two")
    os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found.digest(old) == read_digest(old) != before


def test_a_file_that_changed_just_now_is_not_trusted_to_stay(tmp_path, old, reads):
    """Within one tick of the disk's clock it could change once more, and look the same."""
    found = remembered(tmp_path)
    found.digest(old)
    found.digest(old)
    assert len(reads) == 2


def test_torn_lines_and_a_deleted_file_cost_only_a_second_reading(tmp_path, old, reads, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED", -1.0)
    found = remembered(tmp_path)
    found.digest(old)
    found.flush()
    file = tmp_path / "cache" / "contents"
    file.write_bytes(b"\xff\xfe[1]\n" + file.read_bytes() + b'\n["torn')
    assert remembered(tmp_path).digest(old) == read_digest(old) and len(reads) == 1
    file.unlink()
    assert remembered(tmp_path).digest(old) == read_digest(old) and len(reads) == 2
    found.flush()
    assert not file.exists()  # nothing was new


def test_a_file_that_is_gone_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        remembered(tmp_path).digest(str(tmp_path / "gone.png"))
