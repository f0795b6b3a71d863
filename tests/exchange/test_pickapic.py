"""Pick-a-Pic's columns in parquet files: ties are left, images inside come out under names of their content."""

from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value

from dpo.exchange import ExchangeError, read_dataset
from tests.pictures import plain


@pytest.fixture
def bytes_of(tmp_path):
    def paint(colour: str, ending: str = "png") -> bytes:
        path = tmp_path / f"paint.{ending}"
        plain(colour, (8, 8)).save(path)
        return path.read_bytes()

    return paint


def write(path: Path, rows: list[dict], features: Features | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features).to_parquet(path)
    return path


def row(first: bytes, second: bytes, label, caption="a cat") -> dict:
    return {"jpg_0": first, "jpg_1": second, "label_0": label, "caption": caption, "user_id": 7}


def test_the_label_says_which_side_is_chosen_and_a_tie_is_left(bytes_of, tmp_path):
    red, green = bytes_of("red"), bytes_of("green", "webp")
    path = write(
        tmp_path / "a.parquet", [row(red, green, 1.0), row(red, green, 0.0), row(red, green, 0.5), row(red, green, None)]
    )
    dataset = read_dataset(path, images=tmp_path / "inside")
    assert dataset.kind == "parquet"
    assert [(pair.chosen.read_bytes(), pair.rejected.read_bytes()) for pair in dataset.rows] == [(red, green), (green, red)]
    assert dataset.left == [
        ("row 3", "A tie: neither image is preferred."), ("row 4", "Its label_0 is None, not 0, 0.5 or 1.")
    ]  # fmt: skip


def test_an_image_that_comes_twice_is_kept_once_under_a_name_of_its_content(bytes_of, tmp_path):
    path = write(tmp_path / "a.parquet", [row(bytes_of("red"), bytes_of(colour), 1.0) for colour in ("green", "blue")])
    for _ in range(2):  # reading again writes nothing new
        dataset = read_dataset(path, images=tmp_path / "inside")
        assert dataset.rows[0].chosen == dataset.rows[1].chosen
        assert sorted(path.suffix for path in (tmp_path / "inside").iterdir()) == [".png"] * 3


def test_columns_that_are_images_of_the_hub_are_read_byte_for_byte(bytes_of, tmp_path):
    features = Features({"jpg_0": Image(), "jpg_1": Image(), "label_0": Value("int64"), "caption": Value("string")})
    red, green = ({"bytes": bytes_of(colour), "path": "../../escape.png"} for colour in ("red", "green"))
    path = write(tmp_path / "a.parquet", [{"jpg_0": red, "jpg_1": green, "label_0": 0, "caption": "a cat"}], features)
    (pair,) = read_dataset(path, images=tmp_path / "inside").rows
    assert (pair.chosen.read_bytes(), pair.chosen.parent) == (green["bytes"], tmp_path / "inside")


def test_what_is_no_image_is_named_and_the_others_are_taken(bytes_of, tmp_path):
    red = bytes_of("red")
    path = write(tmp_path / "a.parquet", [row(red, b"#!/bin/sh", 1.0), row(None, red, 1.0), row(red, bytes_of("blue"), 1.0)])
    dataset = read_dataset(path, images=tmp_path / "inside")
    assert [left.reason for left in dataset.left] == [
        "One of its images is none (9 bytes).", "jpg_0 holds no bytes of an image."
    ]  # fmt: skip
    assert len(dataset.rows) == 1


def test_a_folder_of_files_is_read_in_order_and_a_limit_counts_rows(bytes_of, tmp_path):
    red, green = bytes_of("red"), bytes_of("green")
    for number in range(3):
        write(tmp_path / f"set/data/train-{number}.parquet", [row(red, green, 0.5 if number else 1.0, f"p{number}")] * 2)
    assert len(read_dataset(tmp_path / "set", images=tmp_path / "inside").left) == 4
    dataset = read_dataset(tmp_path / "set", images=tmp_path / "inside", limit=3)
    assert ([pair.prompt for pair in dataset.rows], len(dataset.left)) == (["p0", "p0"], 1)


def test_files_on_this_machine_are_read_without_a_word_to_the_hub(bytes_of, tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", [row(bytes_of("red"), bytes_of("green"), 1.0)])
    monkeypatch.setattr("datasets.load.increase_load_count", lambda name: pytest.fail("it would be counted on the hub"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *where, **more: pytest.fail(f"it would ask {where}"))
    assert len(read_dataset(path, images=tmp_path / "inside").rows) == 1


def test_a_stream_from_the_hub_takes_no_more_rows_than_asked_for(bytes_of, tmp_path, monkeypatch):
    import datasets

    path = write(tmp_path / "a.parquet", [row(bytes_of("red"), bytes_of("green"), 1.0, f"p{number}") for number in range(9)])
    asked = []

    def load(name, **options):
        asked.append((name, options["split"], options["streaming"]))
        return datasets.IterableDataset.from_parquet(str(path), cache_dir=options["cache_dir"])

    monkeypatch.setattr("datasets.load_dataset", load)
    dataset = read_dataset("owner/name", kind="hub", images=tmp_path / "inside", limit=4)
    assert asked == [("owner/name", "train", True)]
    assert ([pair.prompt for pair in dataset.rows], dataset.name) == (["p0", "p1", "p2", "p3"], "owner/name")


def test_a_file_that_breaks_off_keeps_what_was_read_and_says_so(bytes_of, tmp_path, monkeypatch):
    def rows(name):
        yield row(bytes_of("red"), bytes_of("green"), 1.0)
        raise ConnectionError("the line is dead")

    monkeypatch.setattr("dpo.exchange.pickapic._stream_hub", rows)
    dataset = read_dataset("owner/name", kind="hub", images=tmp_path / "inside", limit=9)
    assert len(dataset.rows) == 1
    assert dataset.left[0].where == "after row 1" and "the line is dead" in dataset.left[0].reason


@pytest.mark.parametrize("name", ["a.parquet", "b.parquet"])
def test_files_that_are_not_meant_are_one_sentence(name, bytes_of, tmp_path):
    write(tmp_path / "a.parquet", [{"jpg_0": bytes_of("red"), "caption": "a cat"}])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    says = {"a.parquet": "has no column jpg_1 and no label_0", "b.parquet": "cannot be read"}[name]
    with pytest.raises(ExchangeError, match=says):
        read_dataset(tmp_path / name, images=tmp_path / "inside")
