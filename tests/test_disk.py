import pytest

from dpo.disk import Held, hold, is_held, write_text


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "Zwölf 🙂")
    assert path.read_text(encoding="utf-8") == "Zwölf 🙂"
    at_the_end = []

    def refuse(descriptor):
        at_the_end.append(path.read_text(encoding="utf-8"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpo.disk.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert at_the_end == ["Zwölf 🙂"]
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [("a.json", "Zwölf 🙂")]


def test_a_file_is_held_by_one_at_a_time_in_one_process_too(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path) and not path.exists()
    with hold(path):
        assert is_held(path)
        with pytest.raises(Held), hold(path, patience=0.05):
            pass
    assert not is_held(path)
    with hold(path):
        pass


def test_a_mistake_while_a_file_is_held_lets_go_of_it(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / "lock"):
        raise KeyError("a")
    assert not is_held(tmp_path / "lock")
