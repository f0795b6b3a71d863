"""Reading what other programs wrote: folders, concepts, tables, rankings. Everything that is not taken is named."""

import json
from pathlib import Path

import pytest

from dpo.exchange import ExchangeError, read_dataset
from tests.pictures import plain

COLOURS = ("red", "green", "blue", "black", "white", "yellow")


def paint(path: Path, colour: str = "red", caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain(colour, (8, 8)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def pairs_of(dataset) -> list[tuple]:
    return [(row.prompt, row.chosen.name, row.rejected and row.rejected.name) for row in dataset.rows]


def reasons(dataset) -> dict[str, str]:
    return {left.where: left.reason for left in dataset.left}


# ------------------------------------------------------------------------------------------------ folders


def test_files_are_matched_by_their_stem_inside_the_folder_whatever_their_ending(tmp_path):
    paint(tmp_path / "chosen/cats/1.png", caption="a cat")
    paint(tmp_path / "rejected/cats/1.webp")
    paint(tmp_path / "chosen/dogs/1.jpg", caption="a dog")
    paint(tmp_path / "rejected/dogs/1.PNG", caption="a dog")
    dataset = read_dataset(tmp_path)
    assert (dataset.kind, dataset.left) == ("onetrainer", [])
    assert pairs_of(dataset) == [("a cat", "1.png", "1.webp"), ("a dog", "1.jpg", "1.PNG")]


def test_two_files_of_one_stem_unmatched_files_and_differing_captions_are_named(tmp_path):
    for name in ("good.png", "twice.png", "twice.webp", "alone.png", "differs.png"):
        paint(tmp_path / "chosen" / name, caption="a cat")
    for name, caption in (("good.png", "a  cat,"), ("twice.png", "a cat"), ("lost.png", "a cat"), ("differs.png", "a dog")):
        paint(tmp_path / "rejected" / name, caption=caption)
    dataset = read_dataset(tmp_path)
    assert pairs_of(dataset) == [("a cat", "good.png", "good.png")]
    assert reasons(dataset) == {
        "twice": "2 files have this stem on the chosen side: twice.png and twice.webp. Keep one, or rename the others.",
        "alone": "alone.png has no rejected image: no file has its stem there.",
        "lost": "lost.png has no chosen image: no file has its stem there.",
        "differs": "Its captions differ: “a cat” and “a dog”. A pair is of one prompt.",
    }


def test_the_caption_may_stand_on_either_side_and_hidden_folders_are_passed_over(tmp_path):
    paint(tmp_path / "chosen/1.png")
    paint(tmp_path / "rejected/1.png", caption="a cat")
    paint(tmp_path / "chosen/.thumbnails/1.png")
    assert pairs_of(read_dataset(tmp_path)) == [("a cat", "1.png", "1.png")]


def test_folders_of_pairs_right_inside_the_folder_are_found(tmp_path):
    for split in ("train", "val"):
        paint(tmp_path / split / "chosen/1.png", caption=split)
        paint(tmp_path / split / "rejected/1.png")
    assert [row.prompt for row in read_dataset(tmp_path).rows] == ["train", "val"]


# ------------------------------------------------------------------------------------------------ concepts


def write_concepts(folder: Path, *concepts: dict) -> Path:
    (folder / "concepts.json").write_text(json.dumps([{"name": "", "enabled": True, **concept} for concept in concepts]))
    return folder


def test_several_explicit_concepts_are_paired_in_the_order_of_the_file(tmp_path):
    concepts = []
    for number in range(3):
        paint(tmp_path / f"good{number}/x.png", caption=f"prompt {number}")
        paint(tmp_path / f"bad{number}/x.png")
    for number in (2, 0, 1):
        concepts.append({"type": "DPO_CHOSEN" if number else "DPO_CHOSEN_VAL", "path": str(tmp_path / f"good{number}")})
    for number in (0, 2, 1):
        concepts.append({"type": "DPO_REJECTED" if number else "DPO_REJECTED_VAL", "path": str(tmp_path / f"bad{number}")})
    dataset = read_dataset(write_concepts(tmp_path, *concepts, {"type": "STANDARD", "path": "elsewhere"}))
    assert dataset.kind == "onetrainer_concepts"
    assert [(row.prompt, row.chosen.parent.name, row.rejected.parent.name) for row in dataset.rows] == [
        ("prompt 2", "good2", "bad2"), ("prompt 1", "good1", "bad1"), ("prompt 0", "good0", "bad0"),
    ]  # fmt: skip


def test_unequal_counts_of_concepts_are_refused_and_those_switched_off_do_not_count(tmp_path):
    paint(tmp_path / "a/1.png", caption="a cat")
    paint(tmp_path / "b/1.png")
    both = {"type": "DPO_CHOSEN", "path": "a"}, {"type": "DPO_REJECTED", "path": "b"}
    assert len(read_dataset(write_concepts(tmp_path, *both, {**both[0], "enabled": False})).rows) == 1
    with pytest.raises(ExchangeError, match="2 concepts of type DPO_CHOSEN and 1 of type DPO_REJECTED"):
        read_dataset(write_concepts(tmp_path, *both, both[0]))


def test_subfolders_of_a_concept_count_only_where_it_says_so(tmp_path):
    for side in ("a", "b"):
        paint(tmp_path / side / "1.png", caption="a cat")
        paint(tmp_path / side / "deep/2.png", caption="a dog")
    concepts = [{"type": "DPO_CHOSEN", "path": "a"}, {"type": "DPO_REJECTED", "path": "b"}]
    assert [row.prompt for row in read_dataset(write_concepts(tmp_path, *concepts)).rows] == ["a cat"]
    deep = [{**concept, "include_subdirectories": True} for concept in concepts]
    assert [row.prompt for row in read_dataset(write_concepts(tmp_path, *deep)).rows] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "files"),
    [
        ("{}", "{}_bad", ("x.png", "x_bad.jpg")),
        ("{}_good", "{}", ("x_good.png", "x.png")),
        ("Chosen/{}", "rejected/{}", ("chosen/deep/x.png", "rejected/deep/X.webp")),
        ("good-{}.png", "bad-{}.jpg", ("good-x.png", "bad-x.jpg")),
        ("a\\{}", "b\\{}", ("a/x.png", "b/x.png")),
    ],
)
def test_patterns_find_both_sides_in_one_folder(chosen, rejected, files, tmp_path):
    paint(tmp_path / "set" / files[0], caption="a cat")
    paint(tmp_path / "set" / files[1])
    concept = {"path": str(tmp_path / "set"), "include_subdirectories": True, "type": "STANDARD"}
    dataset = read_dataset(write_concepts(tmp_path, {**concept, "dpo_chosen_pattern": chosen, "dpo_rejected_pattern": rejected}))
    assert (dataset.kind, dataset.left) == ("onetrainer_pattern", [])
    assert pairs_of(dataset) == [("a cat", Path(files[0]).name, Path(files[1]).name)]


@pytest.mark.parametrize("pattern", ["", "chosen/", "{}/{}", "/chosen/{}", "../{}", "{name}"])
def test_patterns_that_onetrainer_would_refuse_are_refused(pattern, tmp_path):
    concept = {"path": str(tmp_path), "dpo_chosen_pattern": pattern, "dpo_rejected_pattern": "rejected/{}"}
    with pytest.raises(ExchangeError, match=r"dpo_chosen_pattern=.* is not a path inside the concept's folder"):
        read_dataset(write_concepts(tmp_path, concept))


# ------------------------------------------------------------------------------------------------ tables


@pytest.fixture
def folder(tmp_path):
    for colour in COLOURS:
        paint(tmp_path / "images" / f"{colour}.png", colour)
    return tmp_path


def test_csv_takes_a_byte_order_mark_a_column_named_reject_and_relative_paths(folder):
    text = 'Prompt,chosen,reject\n"a cat, sitting",images/red.png,images\\green.png\n"two\nlines",images/blue.png,\n'
    (folder / "pairs.csv").write_text(text, encoding="utf-8-sig")
    dataset = read_dataset(folder / "pairs.csv")
    assert (dataset.kind, dataset.name, dataset.left) == ("csv", "pairs", [])
    assert pairs_of(dataset) == [("a cat, sitting", "red.png", "green.png"), ("two lines", "blue.png", None)]


def test_json_lines_and_json_say_the_same(folder):
    rows = [
        {"prompt": "a cat", "chosen": "images/red.png", "rejected": "images/green.png", "confidence": 0.8, "source": "duel"},
        {"caption": "a dog", "chosen": str(folder / "images/blue.png"), "rejected": None},
    ]
    (folder / "a").mkdir()
    lines = (folder / "pairs.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    whole = (folder / "pairs.json", json.dumps(rows))
    for path, text in (lines, whole):
        path.write_text(text, encoding="utf-8")
        dataset = read_dataset(path)
        assert pairs_of(dataset) == [("a cat", "red.png", "green.png"), ("a dog", "blue.png", None)]
        assert [(row.confidence, row.source) for row in dataset.rows] == [(0.8, "duel"), (1.0, "")]


def test_lines_that_cannot_be_meant_are_named_and_the_others_taken(folder):
    rows = [
        ('{"prompt": "p", "chosen": "images/red.png", "rejected": "images/green.png"}', None),
        ('{"prompt": "p", "chosen": "images/none.png", "rejected": "images/green.png"}', "images/none.png is not there"),
        ('{"prompt": "p", "chosen": "", "rejected": "images/green.png"}', "no chosen image"),
        ('{"prompt": "p", "chosen": "https://a.example/1.png", "rejected": "x"}', "an address on the web"),
        ('{"prompt": "p", "chosen": 7, "rejected": "x"}', "Its chosen image is 7, not a path"),
        ('{"prompt": "p", "chosen": "images/blue.png", "rejected": "images/red.png", "confidence": 0.5}', "confidence 0.5"),
        ('{"prompt": "p", "chosen": "images/a\\u0000.png"}', "is not there"),
        ("{broken", "no valid JSON"),
        ("[1]", "no object"),
        ('{"prompt": "p", "chosen": "images"}', "images is not there"),
    ]
    (folder / "pairs.jsonl").write_text("\n".join(line for line, _ in rows))
    dataset = read_dataset(folder / "pairs.jsonl")
    assert len(dataset.rows) == 1 and len(dataset.left) == 9
    for number, (_, reason) in enumerate(rows, start=1):
        assert reason is None or reason in reasons(dataset)[f"line {number}"], number


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"prompt,good,bad\na,b,c\n", "no row has prompt,chosen,rejected"),
        (b"prompt,chosen\n\xff\xfe,x\n", "not UTF-8"),
        (b"", "no row has prompt,chosen,rejected"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(text, says, tmp_path):
    (tmp_path / "pairs.csv").write_bytes(text)
    with pytest.raises(ExchangeError, match=says):
        read_dataset(tmp_path / "pairs.csv")


def test_a_ranking_gives_its_best_against_its_worst_and_a_tie_gives_none(folder):
    rankings = [
        {"prompt": "a", "images": [f"images/{colour}.png" for colour in COLOURS[:4]], "ranks": [3, 1, 4, 2]},
        {"prompt": "b", "image_path": ["images/white.png", "images/red.png", "images/yellow.png"], "rank": [2, 1, 2]},
        {"prompt": "c", "images": ["images/red.png", "images/green.png"], "ranks": [1, 1]},
        {"prompt": "d", "images": ["images/red.png", "images/green.png"], "ranks": [1]},
        {"prompt": "e", "images": ["images/red.png", "images/green.png"], "ranks": [1, None]},
        {"prompt": "f", "images": ["images/red.png", "images/none.png"], "ranks": [1, 2]},
    ]
    for path, text in ((folder / "r.json", json.dumps(rankings)), (folder / "r.jsonl", "\n".join(map(json.dumps, rankings)))):
        path.write_text(text)
        dataset = read_dataset(path)
        assert dataset.kind == "rankings"
        assert pairs_of(dataset) == [("a", "green.png", "blue.png"), ("b", "red.png", "white.png")]
        said = [left.reason for left in dataset.left]
        assert [words in reason for words, reason in zip(("same rank", "a rank for each", "not all numbers", "none.png"), said,
                                                         strict=True)] == [True] * 4  # fmt: skip


# ------------------------------------------------------------------------------------------------ what it is


def test_what_is_no_dataset_says_what_was_looked_for(folder):
    with pytest.raises(ExchangeError, match="no pairs found .*folders named chosen and rejected"):
        read_dataset(folder)
    with pytest.raises(ExchangeError, match="does not exist.*kind=hub"):
        read_dataset("owner/name")
    with pytest.raises(ExchangeError, match="of no kind we read"):
        read_dataset(folder / "images/red.png")
    with pytest.raises(ExchangeError, match="kind='zip' is not known"):
        read_dataset(folder, kind="zip")
    (folder / "a.csv").write_text("x")
    (folder / "a.parquet").write_text("x")
    with pytest.raises(ExchangeError, match=r"tables of several kinds \(csv, parquet\)"):
        read_dataset(folder)


def test_the_hub_needs_a_name_a_limit_and_a_place_for_its_images(tmp_path):
    with pytest.raises(ExchangeError, match="names no dataset"):
        read_dataset("../secrets", kind="hub", images=tmp_path, limit=1)
    with pytest.raises(ExchangeError, match="limit=1000"):
        read_dataset("owner/name", kind="hub", images=tmp_path)
    with pytest.raises(ExchangeError, match="Import it into a project"):
        read_dataset("owner/name", kind="hub", limit=5)
    with pytest.raises(ExchangeError, match="the dataset owner/name cannot be read"):  # tests are offline
        read_dataset("owner/name", kind="hub", images=tmp_path, limit=5)
