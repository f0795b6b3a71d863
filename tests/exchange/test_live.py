"""The live folder: always exactly the used pairs, whatever was killed before, and no more work than what changed."""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dpo.exchange import ExchangeError, LiveFolder, import_dataset, read_dataset, read_manifest
from dpo.exchange.live import LiveChange
from dpo.groups import View
from dpo.pairs import split_pairs
from dpo.picks import ImportedPair
from dpo.progress import Asking
from dpo.project import open_project


@pytest.fixture
def picked(project, pairs):
    """The twelve pairs as the project has them."""
    keys = project.library.add_files(path for pair in pairs for path in (pair.chosen, pair.rejected))
    rows = [
        ImportedPair(pair.prompt, keys[pair.chosen], keys[pair.rejected], (pair.chosen, pair.rejected), pair.confidence, "x", "x")
        for pair in pairs
    ]
    assert project.picks.import_pairs(rows) == 12
    return project.picks.picked_pairs()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "live"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def is_whole(folder: Path, picked: list) -> bool:
    """Whether the folder holds these pairs and nothing else."""
    files = content(folder)
    manifest = json.loads(files.pop("manifest.json"))
    for name in ("concepts.json", "README.md"):
        files.pop(name, None)
    expected = {}
    for entry, pair in zip(manifest["pairs"], picked, strict=True):
        assert (entry["prompt"], entry["chosen_key"], entry["rejected_key"]) == (pair.pair.prompt, pair.chosen, pair.rejected)
        for side in ("chosen", "rejected"):
            place = "/".join(filter(None, (side, entry["split"])))
            expected[f"{place}/{entry[f'{side}_file']}"] = Path(getattr(pair.pair, side)).read_bytes()
            expected[f"{place}/{entry['stem']}.txt"] = pair.pair.prompt.encode()
    return files == expected


def test_every_used_pair_is_there_with_its_prompt_and_what_is_known_of_it(picked, folder):
    change = LiveFolder(folder).bring_up_to_date(picked)
    assert change == LiveChange(added=12, removed=0, files_written=12 * 4 + 1)
    assert is_whole(folder, picked)
    entry, pair = read_manifest(folder)[3], picked[3]
    assert entry == {
        "stem": entry["stem"], "split": "", "prompt": pair.pair.prompt, "group": pair.group,
        "chosen_file": f"{entry['stem']}.png", "rejected_file": f"{entry['stem']}.png",
        "chosen_key": pair.chosen, "rejected_key": pair.rejected,
        "chosen_source": pair.pair.chosen, "rejected_source": pair.pair.rejected,
        "confidence": 0.78, "source": "import: x", "rater": "", "made": pair.made,
    }  # fmt: skip
    assert [row.prompt for row in read_dataset(folder, kind="onetrainer").rows] != []  # others read it by its folders


def test_nothing_is_written_when_nothing_changed_and_little_when_little_did(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:11])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert live.bring_up_to_date(picked[:11]) == LiveChange(0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert LiveFolder(folder).bring_up_to_date(picked) == LiveChange(1, 0, 5)
    assert live.bring_up_to_date([picked[0], *picked[2:]]) == LiveChange(0, 1, 1)
    assert is_whole(folder, [picked[0], *picked[2:]])


def test_deleted_pairs_go_and_swapped_ones_are_turned_round(project, picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked)
    for number, op in enumerate(("drop", "swap")):
        pair = picked[number]
        said = {"client": "test", "number": number, "op": op, "group": pair.group, "images": [pair.chosen, pair.rejected]}
        assert project.picks.apply([said]).refused == ()
    now = project.picks.picked_pairs()
    assert [pair.state for pair in now[:2]] == ["deleted", "used"]
    assert live.bring_up_to_date(now) == LiveChange(added=1, removed=2, files_written=5)
    assert is_whole(folder, now[1:])


def test_a_kill_at_any_moment_leaves_a_manifest_of_whole_pairs_and_nothing_that_stays(picked, folder, monkeypatch):
    """Every call that changes a file is a moment; the process dies there once. Then it starts again."""
    LiveFolder(folder).bring_up_to_date(picked[:2])
    real = {name: getattr(Path, name) for name in ("replace", "unlink", "write_text", "open")}
    left, survived = {"moments": 0}, set()

    def dying(name):
        def act(self, *arguments, **options):
            left["moments"] -= 1
            if left["moments"] < 0:
                raise KeyboardInterrupt  # as sudden as a kill: no handler of ours takes it
            return real[name](self, *arguments, **options)

        return act

    for name in real:
        monkeypatch.setattr(Path, name, dying(name))
    steps = [lambda live: live.bring_up_to_date(picked[1:4]), lambda live: live.finalise(0.5)]
    for moment in range(90):
        for step in steps:
            left["moments"] = moment
            with suppress(KeyboardInterrupt):
                step(LiveFolder(folder))
                survived.add(step)
            left["moments"] = 10**6
            for entry in read_manifest(folder):  # both images of every pair that the manifest names are whole, somewhere
                for side in ("chosen", "rejected"):
                    found = [path for path in (folder / side).rglob(entry[f"{side}_file"]) if not path.name.startswith(".")]
                    assert [path.read_bytes() for path in found] == [Path(entry[f"{side}_source"]).read_bytes()]
            LiveFolder(folder).bring_up_to_date(picked[:2])
            assert is_whole(folder, picked[:2])
    assert survived == set(steps), "every moment was died at, up to the last"


def test_a_copy_that_was_cut_short_is_not_taken_for_a_whole_one(picked, folder, monkeypatch):
    def cut(source, target, size):
        target.write(source.read(20))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr("dpo.exchange.live.shutil.copyfileobj", cut)
        LiveFolder(folder).bring_up_to_date(picked)
    LiveFolder(folder).bring_up_to_date(picked)
    assert is_whole(folder, picked)


def test_whoever_reads_the_manifest_while_it_is_written_reads_all_of_the_one_before(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:2])
    with (folder / "manifest.json").open() as reading:
        live.bring_up_to_date(picked)
        assert len(json.load(reading)["pairs"]) == 2
    assert len(read_manifest(folder)) == 12


def test_only_files_of_our_own_naming_are_cleaned_up(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:2])
    stray = folder / "chosen" / "pair-0123456789abcdef.png"
    mine = [folder / "notes.txt", folder / "chosen/holiday.png", folder / "rejected/pair-1.png", folder / "chosen/pair-01.txt"]
    for path in (stray, folder / "chosen" / ".arriving-pair-0123456789abcdef.png", *mine):
        path.write_bytes(b"x")
    live.bring_up_to_date(picked[:2])
    assert not stray.exists() and all(path.exists() for path in mine)
    assert not list(folder.rglob(".*"))


def test_files_that_somebody_removed_come_back(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked)
    before = content(folder)
    for path in sorted((folder / "chosen").iterdir())[:3]:
        path.unlink()
    assert live.bring_up_to_date(picked).files_written == 3
    assert content(folder) == before


def test_a_pair_without_its_original_is_left_and_one_that_was_copied_stays(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:1])
    for pair in picked[:2]:
        Path(pair.pair.chosen).rename(f"{pair.pair.chosen}.gone")
    change = live.bring_up_to_date(picked[:3])
    assert (change.added, change.removed) == (1, 0)
    assert "0001_0.png cannot be read: No such file or directory" in change.left[0].reason
    assert [entry["chosen_key"] for entry in read_manifest(folder)] == [picked[0].chosen, picked[2].chosen]
    assert not list(folder.rglob(f"*{change.left[0].where}*")), "half a pair is worse than none"


# ------------------------------------------------------------------------------------------------ finalising


def test_finalising_splits_by_prompt_writes_concepts_and_can_be_repeated(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:10])
    live.finalise(0.25)
    training, validation = split_pairs([pair.pair for pair in picked[:10]], 0.25)
    assert len(list((folder / "chosen/train").glob("*.png"))) == len(training)
    assert len(list((folder / "rejected/val").glob("*.png"))) == len(validation) > 0
    assert [entry["dpo_chosen_pattern"] for entry in json.loads((folder / "concepts.json").read_text())] == [
        "chosen/train/{}", "chosen/val/{}"
    ]  # fmt: skip
    assert f"| validation | {len(validation)} |" in (folder / "README.md").read_text()
    assert is_whole(folder, picked[:10])
    assert live.bring_up_to_date(picked[:10]).files_written == 0
    assert live.bring_up_to_date(picked) == LiveChange(2, 0, 9)
    live.finalise(0.5)
    live.finalise(0.5)
    assert {entry["split"] for entry in read_manifest(folder)} == {"train", "val"}
    assert is_whole(folder, picked)
    dataset = read_dataset(folder / "concepts.json")
    assert (len(dataset.rows), dataset.left) == (12, [])


def test_finalising_nothing_or_with_an_odd_share_does_no_harm(picked, folder):
    assert LiveFolder(folder).finalise(0.1).files_written == 0
    with pytest.raises(ExchangeError, match="share=2"):
        LiveFolder(folder).finalise(2)
    assert not folder.exists()


# ------------------------------------------------------------------------------------------------ restarting


@pytest.mark.parametrize("originals", ["there", "gone"])
def test_a_live_folder_brings_its_pairs_into_a_project_that_knows_nothing_of_them(originals, picked, images, folder, tmp_path):
    LiveFolder(folder).bring_up_to_date(picked)
    LiveFolder(folder).finalise(0.25)
    if originals == "gone":
        for path in images:
            path.unlink()
    other = open_project(tmp_path / "other")
    report = import_dataset(other, folder)
    assert (report.taken, report.left) == (12, [])
    assert [(pair.chosen, pair.rejected) for pair in other.picks.picked_pairs()] == [
        (pair.chosen, pair.rejected) for pair in picked
    ]
    place = images[0].parent if originals == "there" else folder
    assert all(Path(pair.chosen).is_relative_to(place) for pair in other.picks.pairs())
    change = LiveFolder(folder).bring_up_to_date(other.picks.picked_pairs())
    assert (change.added, change.removed) == (0, 0)
    assert import_dataset(other, folder).already == 12


def test_groups_that_were_done_are_skipped_by_a_project_that_read_the_manifest(picked, images, folder, tmp_path):
    LiveFolder(folder).bring_up_to_date(picked[:9])
    other = open_project(tmp_path / "other")
    other.library.scan(images[0].parent)
    import_dataset(other, folder)
    asking = Asking(mode="best_worst", want=20, have=(), client="test")
    asked = other.picks.next_screens(other.library, View(str(images[0].parent)), asking)
    assert (asked.done, asked.total, len(asked.screens)) == (9, 12, 3)


def test_an_original_that_is_another_image_by_now_is_not_taken_for_it(picked, folder, tmp_path):
    LiveFolder(folder).bring_up_to_date(picked[:1])
    Path(picked[0].pair.chosen).write_bytes(Path(picked[1].pair.chosen).read_bytes())
    (row,) = read_dataset(folder).rows
    assert row.chosen.is_relative_to(folder) and not row.rejected.is_relative_to(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stem": "../../x"}, "pair 1 is not as this program writes it"),
        ({"chosen_file": "../secret.png"}, "pair 1 is not as this program writes it"),
        ({"split": "../.."}, "pair 1 is not as this program writes it"),
        ({"chosen_key": None}, "pair 1 is not as this program writes it"),
    ],
)
def test_a_manifest_that_leads_out_of_its_folder_is_refused(change, says, picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked[:1])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["pairs"][0] |= change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for act in (lambda: live.bring_up_to_date(picked[:1]), lambda: live.finalise(0.1), lambda: read_dataset(folder)):
        with pytest.raises(ExchangeError, match=says):
            act()


def test_a_manifest_of_another_program_is_not_overwritten(picked, folder):
    folder.mkdir()
    (folder / "manifest.json").write_text('{"pairs": [{"pair_id": 0}]}')
    with pytest.raises(ExchangeError, match="is of another program"):
        LiveFolder(folder).bring_up_to_date(picked)
    assert os.listdir(folder) == ["manifest.json"]


def test_a_folder_that_cannot_be_written_is_one_sentence(picked, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExchangeError, match="Not a directory"):
        LiveFolder(tmp_path / "file" / "live").bring_up_to_date(picked)


def test_a_confidence_that_grew_is_told_without_copying_anything(picked, folder):
    live = LiveFolder(folder)
    live.bring_up_to_date(picked)
    surer = [replace(picked[0], pair=replace(picked[0].pair, confidence=0.99)), *picked[1:]]
    assert live.bring_up_to_date(surer) == LiveChange(0, 0, 1)
    assert read_manifest(folder)[0]["confidence"] == 0.99
