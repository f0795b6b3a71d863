import csv
import errno
from pathlib import Path

import pytest

from dpo.exchange import ExchangeError, export_csv, export_onetrainer, new_export_folder
from dpo.pairs import Pair
from tests.pictures import paint_folder


@pytest.fixture
def pairs(tmp_path):
    images = [str(path) for path in paint_folder(tmp_path / "images", prompts=3, per_prompt=2)]
    return [Pair(f'prompt "{n}", with comma\nand line', images[2 * n], images[2 * n + 1], source="duel") for n in range(3)]


def test_onetrainer_folders_have_matching_stems_and_a_caption_beside_each_image(pairs, tmp_path):
    folder = export_onetrainer(pairs, tmp_path / "export")
    for side in ("chosen", "rejected"):
        names = sorted(path.name for path in (folder / side).iterdir())
        assert names == ["0001.png", "0001.txt", "0002.png", "0002.txt", "0003.png", "0003.txt"]
        assert (folder / side / "0002.txt").read_text(encoding="utf-8") == pairs[1].prompt


def test_onetrainer_copies_are_the_originals_on_the_right_side(pairs, tmp_path):
    folder = export_onetrainer(pairs, tmp_path / "export")
    for number, pair in enumerate(pairs, start=1):
        for side, source in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert (folder / side / f"{number:04}.png").read_bytes() == Path(source).read_bytes()


def test_csv_has_one_row_per_pair_and_survives_commas_and_lines(pairs, tmp_path):
    path = export_csv(pairs, tmp_path / "pairs.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["prompt", "chosen", "rejected", "confidence", "source"]
    assert [Pair(**{**row, "confidence": float(row["confidence"])}) for row in rows] == pairs


@pytest.mark.parametrize("export", [export_onetrainer, export_csv])
def test_exporting_nothing_says_what_to_do(export, tmp_path):
    with pytest.raises(ExchangeError, match="Pick some first"):
        export([], tmp_path / "export")


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(pairs, tmp_path, monkeypatch):
    copied = []

    def copy_two(source, target):
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        target.write_bytes(Path(source).read_bytes())
        copied.append(target)

    monkeypatch.setattr("dpo.exchange.shutil.copyfile", copy_two)
    with pytest.raises(ExchangeError, match=r"No space left on device.*free some space"):
        export_onetrainer(pairs, tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_source_that_vanished_is_named(pairs, tmp_path):
    Path(pairs[1].rejected).unlink()
    with pytest.raises(ExchangeError, match=r"0001_1\.png"):
        export_onetrainer(pairs, tmp_path / "export")


def test_two_exports_of_one_second_have_folders_of_their_own(tmp_path):
    assert len({new_export_folder(tmp_path / "exports") for _ in range(3)}) == 3
