"""Importing into a project: every row of a dataset is taken, known already, or left with its reason."""

import csv
import json
import os
from pathlib import Path

import pytest

from dpo import StudioError
from dpo.exchange import EXPORT_KINDS, export_dataset, import_dataset
from dpo.project import open_project
from tests.pictures import paint_folder, plain


def write_table(path: Path, *rows: tuple) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "chosen", "rejected"), *rows])
    return path


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_an_export_imported_into_another_project_makes_the_same_pairs(kind, project, pairs, tmp_path):
    folder = export_dataset(pairs, tmp_path / "export", kind, share=0.25)
    counted = []
    report = import_dataset(project, folder, report=lambda done, total: counted.append((done, total)))
    assert (report.taken, report.already, report.needs_reject, report.left) == (12, 0, 0, [])
    assert report.sentence == "12 pairs taken from export."
    assert counted[-1] == (24, 24)
    taken = {(pair.prompt, Path(pair.chosen).read_bytes(), Path(pair.rejected).read_bytes()) for pair in project.picks.pairs()}
    assert taken == {(pair.prompt, Path(pair.chosen).read_bytes(), Path(pair.rejected).read_bytes()) for pair in pairs}
    assert {pair.source for pair in project.picks.pairs()} == {"import: export"}
    if kind in ("csv", "jsonl", "parquet"):
        confidences = {pair.prompt: pair.confidence for pair in project.picks.pairs()}
        assert confidences == {pair.prompt: pair.confidence for pair in pairs}


def test_an_import_that_is_repeated_brings_nothing_new_and_says_so(project, pairs, tmp_path):
    folder = export_dataset(pairs, tmp_path / "export", "csv", share=0.25)
    import_dataset(project, folder)
    report = import_dataset(project, folder)
    assert (report.taken, report.already, report.left) == (0, 12, [])
    assert report.sentence == "0 pairs taken from export. 12 pairs were here before."
    assert len(project.picks.pairs()) == 12


def test_images_inside_a_dataset_go_into_the_project_and_nowhere_else(project, pairs, tmp_path):
    folder = export_dataset(pairs, tmp_path / "export", "parquet", share=0)
    before = {path for path in tmp_path.rglob("*") if project.path not in path.parents}
    import_dataset(project, folder)
    assert {path for path in tmp_path.rglob("*") if project.path not in path.parents} == before
    assert len(list((project.path / "imports/export").iterdir())) == 24


def test_a_pair_without_a_reject_is_kept_as_one_that_needs_it(project, images, tmp_path):
    table = write_table(tmp_path / "t.csv", ("a cat", images[0], images[1]), ("a dog", images[2], ""))
    report = import_dataset(project, table)
    assert (report.taken, report.needs_reject) == (1, 1)
    assert "1 more pair needs a rejected image" in report.sentence
    assert [picked.state for picked in project.picks.picked_pairs()] == ["used", "needs_reject"]
    assert len(project.picks.pairs()) == 1


def test_a_prompt_that_the_dataset_does_not_say_is_read_from_the_image(project, images, tmp_path):
    plain().save(tmp_path / "silent.png")
    plain("blue").save(tmp_path / "other.png")
    table = write_table(tmp_path / "t.csv", ("", images[0], images[1]), ("", "silent.png", "other.png"))
    report = import_dataset(project, table)
    project.library.scan(images[0].parent)
    (pair,) = project.picks.pairs()
    assert pair.prompt == project.library.images(images[0].parent)[0].record.prompt != ""
    assert [(left.where, left.reason) for left in report.left] == [
        ("line 3", "No prompt: neither the dataset nor silent.png says one.")
    ]


def test_files_that_are_no_images_are_left_with_what_is_wrong(project, images, tmp_path):
    (tmp_path / "notes.txt").write_text("to myself: the secret is 42")
    (tmp_path / "cut.png").write_bytes(images[0].read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.png")
    rows = [("p", tmp_path / name, images[1]) for name in ("notes.txt", "cut.png", "pipe.png")]
    report = import_dataset(project, write_table(tmp_path / "t.csv", *rows, ("p", images[2], images[2])))
    assert (report.taken, len(report.left)) == (0, 4)
    for left, name in zip(sorted(report.left), ("notes.txt", "cut.png", "pipe.png", images[2].name), strict=False):
        assert name in left.reason and "secret" not in left.reason
    assert project.picks.picked_pairs() == []


def test_an_image_may_be_in_several_pairs_and_a_contradiction_is_named(project, images, tmp_path):
    rows = [(0, 1), (1, 2), (1, 0), (3, 4), (0, 1)]
    table = write_table(tmp_path / "t.csv", *((f"p{a}", images[a], images[b]) for a, b in rows))
    report = import_dataset(project, table)
    assert (report.taken, report.already) == (3, 1)
    assert [(left.where, "the other way round" in left.reason) for left in report.left] == [("line 4", True)]
    assert [(pair.chosen, pair.rejected) for pair in project.picks.pairs()] == [
        (str(images[a]), str(images[b])) for a, b in (rows[0], rows[1], rows[3])
    ]


def test_whoever_may_not_use_every_file_of_the_machine_is_refused_the_others(project, images, tmp_path):
    inside = paint_folder(project.path / "uploads", prompts=1, per_prompt=2)
    (inside[0].parent / "link.png").symlink_to(images[0])
    for side in ("good", "bad"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "1.txt").write_text(f"a secret of the {side} folder")
        plain(("red", "blue")[side == "bad"]).save(tmp_path / side / "1.png")
        plain().save(tmp_path / side / f"secret {side}.png")

    def check(path: str) -> None:
        if not Path(path).is_relative_to(project.path):
            raise StudioError(f"{path} is outside the project folder.")

    rows = ("p", inside[0], inside[1]), ("p", inside[0], "link.png"), ("p", images[2], inside[1]), ("p", tmp_path / "no.png", "")
    report = import_dataset(project, write_table(inside[0].parent / "t.csv", *rows), check=check)
    assert (report.taken, [left.reason.endswith("is outside the project folder.") for left in report.left]) == (1, [True] * 3)
    concepts = [{"type": f"DPO_{name}", "path": str(tmp_path / side)} for name, side in (("CHOSEN", "good"), ("REJECTED", "bad"))]
    (inside[0].parent / "concepts.json").write_text(json.dumps(concepts))
    for side, folder in (("chosen", "good"), ("rejected", "bad")):
        (project.path / "linked" / side).mkdir(parents=True)
        (project.path / "linked" / side / "1.png").symlink_to(tmp_path / folder / "1.png")
        (project.path / "linked" / side / "1.txt").symlink_to(tmp_path / folder / "1.txt")
    for place in (inside[0].parent / "concepts.json", project.path / "linked"):
        report = import_dataset(project, place, check=check)
        assert report.taken == 0 and "secret" not in report.sentence and "outside the project folder" in report.sentence
        said = import_dataset(open_project(tmp_path / "mine"), place).sentence
        assert "secret" in said, "whoever may, is told that the captions differ"


def test_an_import_is_one_commit_so_a_full_disk_keeps_no_part_of_it(project, pairs, tmp_path, monkeypatch):
    folder = export_dataset(pairs, tmp_path / "export", "csv", share=0.25)
    monkeypatch.setattr(project.picks, "import_pairs", lambda rows: (_ for _ in ()).throw(StudioError("The disk is full.")))
    with pytest.raises(StudioError, match="disk is full"):
        import_dataset(project, folder)
    assert project.picks.picked_pairs() == []
