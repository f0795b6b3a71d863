"""What is exported comes back the same, in every layout; and an export is whole or not there."""

import csv
import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from dpo.exchange import EXPORT_KINDS, ExchangeError, export_dataset, new_export_folder, read_dataset
from dpo.pairs import Ranking, split_pairs

READ_AS = dict(zip(EXPORT_KINDS, EXPORT_KINDS, strict=True)) | {"onetrainer": "onetrainer_pattern"}  # as its concepts.json says
WITH_CONFIDENCE = ("csv", "jsonl", "rankings", "parquet")


def said(rows, kind: str) -> Counter:
    """Pairs by what they say, wherever the files lie now."""
    extra = (lambda row: (row.confidence, row.source)) if kind in WITH_CONFIDENCE else (lambda row: ())
    return Counter((row.prompt, Path(row.chosen).read_bytes(), Path(row.rejected).read_bytes(), *extra(row)) for row in rows)


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_dataset_comes_back_with_the_same_pairs_prompts_and_sides(kind, pairs, tmp_path):
    folder = export_dataset(pairs, tmp_path / "export", kind, share=0.25)
    dataset = read_dataset(folder, images=tmp_path / "inside")
    assert (dataset.kind, dataset.name, dataset.left) == (READ_AS[kind], "export", [])
    assert said(dataset.rows, kind) == said(pairs, kind)


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_dataset_that_was_moved_to_another_place_still_comes_back(kind, pairs, tmp_path):
    export_dataset(pairs, tmp_path / "export", kind, share=0.25).rename(tmp_path / "moved")
    for pair in pairs:  # so that nothing can be read but the copies
        Path(pair.chosen).rename(f"{pair.chosen}.gone")
    dataset = read_dataset(tmp_path / "moved", images=tmp_path / "inside")
    assert dataset.left == [] and len(dataset.rows) == 12


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_originals_stay_where_they_are(kind, pairs, images, tmp_path):
    before = {path: path.read_bytes() for path in images}
    export_dataset(pairs, tmp_path / "export", kind, share=0.1)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "images").iterdir())} == before


def test_onetrainer_has_captions_of_one_line_beside_every_image_on_both_sides(pairs, tmp_path):
    from dataclasses import replace

    pairs = [replace(pairs[0], prompt="first line\nsecond  line"), *pairs[1:]]
    folder = export_dataset(pairs, tmp_path / "export", "onetrainer", share=0.25)
    for split in ("train", "val"):
        names = [sorted(path.name for path in (folder / side / split).iterdir()) for side in ("chosen", "rejected")]
        assert names[0] == names[1]
        assert {Path(name).suffix for name in names[0]} == {".png", ".txt"}
    captions = [path.read_text(encoding="utf-8") for path in folder.rglob("*.txt")]
    assert captions.count("first line second line") == 2


def test_the_split_is_the_one_that_training_makes(pairs, tmp_path):
    training, validation = split_pairs(pairs, 0.25)
    folder = export_dataset(pairs, tmp_path / "export", "onetrainer", share=0.25)
    assert len(list((folder / "chosen/train").glob("*.png"))) == len(training)
    assert len(list((folder / "rejected/val").glob("*.png"))) == len(validation) > 0
    folder = export_dataset(pairs, tmp_path / "table", "csv", share=0.25)
    with (folder / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["prompt", "chosen", "rejected", "confidence", "source"]
    assert [row["prompt"] for row in rows] == [pair.prompt for pair in validation]


def test_concepts_are_of_the_types_and_patterns_that_onetrainer_knows(pairs, tmp_path):
    root = export_dataset(pairs, tmp_path / "a", "onetrainer_concepts", share=0.25)
    concepts = json.loads((root / "concepts.json").read_text())
    assert [(concept["type"], concept["path"], concept["__version"]) for concept in concepts] == [
        ("DPO_CHOSEN", str(root / "chosen/train"), 2), ("DPO_REJECTED", str(root / "rejected/train"), 2),
        ("DPO_CHOSEN_VAL", str(root / "chosen/val"), 2), ("DPO_REJECTED_VAL", str(root / "rejected/val"), 2),
    ]  # fmt: skip
    root = export_dataset(pairs, tmp_path / "b", "onetrainer_pattern", share=0.25)
    names = ("type", "path", "dpo_chosen_pattern", "dpo_rejected_pattern", "include_subdirectories", "__version")
    assert [[concept[name] for name in names] for concept in json.loads((root / "concepts.json").read_text())] == [
        ["STANDARD", str(root / "train"), "chosen/{}", "rejected/{}", True, 3],
        ["VALIDATION", str(root / "val"), "chosen/{}", "rejected/{}", True, 3],
    ]


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_the_card_says_how_many_pairs_of_what_and_has_the_tag_dpo(kind, pairs, tmp_path):
    training, validation = split_pairs(pairs, 0.25)
    card = (export_dataset(pairs, tmp_path / "export", kind, share=0.25) / "README.md").read_text(encoding="utf-8")
    head, body = card.removeprefix("---\n").split("\n---\n")
    assert "tags: [dpo, " in head and "size_categories: [n<1K]" in head
    for line in (f"| train | {len(training)} | {len(training)} |", f"| validation | {len(validation)} |", "| duel | 6 |",
                 "0.75 at the lowest,\n0.81 in the middle; 0 pairs (0%) of 0.9 or more"):  # fmt: skip
        assert line in body
    assert ("data_files" in head) == (kind in WITH_CONFIDENCE)


def test_parquet_hides_on_which_side_the_chosen_image_is_not(pairs, tmp_path):
    from datasets import load_dataset

    folder = export_dataset(pairs, tmp_path / "export", "parquet", share=0)
    files = [str(path) for path in folder.glob("*.parquet")]
    rows = list(load_dataset("parquet", data_files=files, split="train", streaming=True))
    assert {row["label_0"] for row in rows} == {0.0, 1.0}
    for row, pair in zip(rows, pairs, strict=True):
        assert row["jpg_0" if row["label_0"] == 1 else "jpg_1"] == Path(pair.chosen).read_bytes()
        assert row["label_1"] == 1 - row["label_0"]


def test_a_pair_that_duels_ranked_is_written_as_all_of_its_ranking(pairs, images, tmp_path):
    order = (pairs[0].chosen, *map(str, images[4:7]), pairs[0].rejected)
    rankings = [
        Ranking(pairs[0].prompt, order, 0.9),
        Ranking(pairs[1].prompt, (pairs[1].rejected, order[1], pairs[1].chosen), 0.9),
    ]
    folder = export_dataset(pairs, tmp_path / "export", "rankings", share=0, rankings=rankings)
    first, *others = map(json.loads, (folder / "train.jsonl").read_text(encoding="utf-8").splitlines())
    assert [(folder / image).read_bytes() for image in first["images"]] == [Path(image).read_bytes() for image in order]
    assert (first["ranks"], first["confidence"]) == ([1, 2, 3, 4, 5], pairs[0].confidence)
    assert {tuple(row["ranks"]) for row in others} == {(1, 2)}  # also where a ranking is the other way round
    assert said(read_dataset(folder).rows, "rankings") == said(pairs, "rankings")


def test_an_image_of_two_pairs_is_copied_once_into_a_table(pairs, tmp_path):
    from dataclasses import replace

    folder = export_dataset([*pairs, replace(pairs[0], rejected=pairs[1].rejected)], tmp_path / "export", "csv", share=0)
    assert len(list((folder / "images").iterdir())) == 24
    assert len(read_dataset(folder).rows) == 13


# ------------------------------------------------------------------------------------------------ whole or not there


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_exporting_nothing_says_what_to_do(kind, tmp_path):
    with pytest.raises(ExchangeError, match="Pick some first"):
        export_dataset([], tmp_path / "export", kind, share=0.1)


def test_wrong_settings_are_said_before_anything_is_written(pairs, tmp_path):
    with pytest.raises(ExchangeError, match="kind='zip' is not known"):
        export_dataset(pairs, tmp_path / "export", "zip", share=0.1)
    with pytest.raises(ExchangeError, match="share=1 is not between 0 and 0.5"):
        export_dataset(pairs, tmp_path / "export", "csv", share=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_source_that_vanished_is_named_and_nothing_is_left_behind(kind, pairs, tmp_path):
    Path(pairs[7].rejected).unlink()
    with pytest.raises(ExchangeError, match=r"0007_1\.png.*No such file"):
        export_dataset(pairs, tmp_path / "export", kind, share=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(pairs, tmp_path, monkeypatch):
    real, copied = shutil.copyfile, []

    def copy_two(source, target):
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copied.append(real(source, target))

    monkeypatch.setattr("dpo.exchange.exporting.shutil.copyfile", copy_two)
    with pytest.raises(ExchangeError, match=r"No space left on device.*free some space"):
        export_dataset(pairs, tmp_path / "export", "onetrainer", share=0.1)
    assert copied and sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_folder_with_something_in_it_is_not_touched(pairs, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("precious")
    with pytest.raises(ExchangeError, match="nothing is overwritten"):
        export_dataset(pairs, tmp_path / "export", "csv", share=0.1)
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["mine.txt"]


def test_two_exports_of_one_second_have_folders_of_their_own(pairs, tmp_path):
    folders = {new_export_folder(tmp_path / "exports") for _ in range(3)}
    assert len(folders) == 3
    assert export_dataset(pairs, min(folders), "csv", share=0.1) == min(folders)
