"""A project goes into a zip, everything is deleted, and it is there again elsewhere; a zip that is none harms nothing."""

import json
import os
import shutil
import sqlite3
import stat
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpo.bundle import BundleError, pack, take_over, unpack
from dpo.bundle.places import MARK
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, RunStarted, SamplesSaved
from dpo.outcomes import find_outcome
from dpo.project import open_project
from dpo.rules import PickRules
from dpo.runs import clone_config, create_run, find_run
from dpo.standins import StandIns
from tests.blind import Voter, make_test
from tests.operations import best_worst, duel, undo
from tests.pictures import paint_folder
from ui.session import project_secret

PROMPT = "a red circle \u202e${1}"


@pytest.fixture
def home(tmp_path):
    """A machine of its own, that can be deleted."""
    return tmp_path / "home"


@pytest.fixture
def project(home):
    """With picks of images inside and outside, votes, a run that started from an adapter of elsewhere, and an export."""
    paint_folder(home / "pictures" / "cats", prompts=4, per_prompt=3)
    paint_folder(home / "pictures" / "unpicked", prompts=1, per_prompt=3, seed=2)
    project = open_project(home / "project")
    paint_folder(project.path / "candidates", prompts=3, per_prompt=3, seed=1)
    for folder in (home / "pictures", project.path / "candidates"):
        project.library.scan(folder)
    groups = [*project.library.groups(home / "pictures" / "cats"), *project.library.groups(project.path / "candidates")]
    first = duel(groups[1], "right", 1)
    project.picks.apply([best_worst(groups[0], 0), first, undo(first, 2), best_worst(groups[5], 3)])
    project.picks.apply([best_worst(group, 10 + number) for number, group in enumerate(groups[2:5])])
    project.picks.set_rules(PickRules(2, live_folder=str(home / "live")))
    (home / "pictures" / "prompts.csv").write_text("file,prompt\n0000_0.png,a cat\n")
    project.library.set_stand_ins(home / "pictures", StandIns(True, False, "prompts.csv", False))
    (home / "pictures" / "cats" / "0000_0.txt").write_text("a caption")
    make_run(project, home)
    test = make_test(project, items=4, adapter=str(project.runs / "cats-1/adapter/pytorch_lora_weights.safetensors"))
    voter = Voter(project, test, "Ann")
    for item in range(4):
        voter.vote(item, "adapter")
    (project.exports / "20260101").mkdir()
    (project.exports / "20260101" / "train.csv").write_text("prompt,chosen\n")
    (project.exports / "20260101.zip").write_bytes(b"the same again")
    (project.cache / "tensors").mkdir()
    (project.cache / "tensors" / "a.safetensors").write_bytes(b"cached")
    project_secret(project.path)
    return project


def make_run(project, home):
    home.joinpath("start.safetensors").write_bytes(b"start")
    config = TrainConfig(starting_adapter=str(home / "start.safetensors"), model=str(home / "models/base.safetensors"))
    run = create_run(project.runs, "cats-1", config, project.picks.pairs())
    run.adapter.write_bytes(os.urandom(1000))
    (run.checkpoints / "step-000002.pt").write_bytes(b"checkpoint")
    run.append(RunStarted(0, 2, 4, 0))
    run.append(CheckpointSaved(2, str(run.checkpoints / "step-000002.pt")))
    run.append(SamplesSaved(2, str(run.samples / "step-000002")))
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"type": "Torn')
    run.request_stop()
    return run


def said(project) -> list:
    """All that the picks come to, without where files are."""
    pairs = [replace(found, pair=replace(found.pair, chosen="", rejected="")) for found in project.picks.picked_pairs()]
    return [pairs, [replace(pick, paths=()) for pick in project.picks.live()]]


def image_bytes(project) -> list[bytes]:
    return [Path(path).read_bytes() for pair in project.picks.pairs() for path in pair.images]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_a_project_is_the_same_elsewhere_after_everything_was_deleted(project, home, tmp_path):
    packed = pack(project, tmp_path / "cats.zip", checkpoints=True)
    before, outcome = said(project), find_outcome(project, "cats-1", "overall")
    images, run = image_bytes(project), find_run(project.runs, "cats-1")
    adapter, made = run.adapter.read_bytes(), run.made
    shutil.rmtree(home)

    found = unpack(packed.file, tmp_path / "elsewhere" / "cats")
    there = open_project(found.folder)
    assert (found.pairs, found.runs, found.gone, packed.left) == (5, 1, 0, ())
    assert said(there) == before
    assert image_bytes(there) == images
    assert find_outcome(there, "cats-1", "overall").verdict == outcome.verdict
    assert there.picks.rules() == PickRules(2)
    assert all(there.library.image(key) for pair in there.picks.picked_pairs() for key in (pair.chosen, pair.rejected))
    table = there.path / "tables" / "prompts.csv"
    assert there.library.stand_ins(there.path / "images/cats") == StandIns(True, False, str(table), False) and table.is_file()

    run = find_run(there.runs, "cats-1")
    assert run.adapter.read_bytes() == adapter and run.made == made
    assert all(Path(path).is_file() for item in run.items for path in item.images)
    assert Path(run.config.starting_adapter).read_bytes() == b"start"
    assert run.config.model == str(home / "models/base.safetensors")  # a base model does not come along
    checkpoint, samples = run.events()[1:]
    assert checkpoint.path == str(run.checkpoint_files[0]) and run.checkpoint_files[0].read_bytes() == b"checkpoint"
    assert samples.folder == str(run.samples / "step-000002")
    assert not run.stop_requested()
    create_run(there.runs, "cats-2", clone_config(run), run.items)


def test_the_zip_holds_what_was_asked_for_in_order_and_says_nothing_of_the_machine(project, home, tmp_path):
    pack(project, tmp_path / "cats.zip")
    found = names(tmp_path / "cats.zip")
    assert found == ["project.json", *sorted(found[1:])]
    assert {name.split("/")[0] for name in found} == {
        "project.json", "picks.sqlite", "adapters", "candidates", "exports", "images", "runs", "tables", "tests",
    }  # fmt: skip
    pictures = [name for name in found if name.startswith(("images/", "candidates/")) and name.endswith(".png")]
    assert len(pictures) == 10 and "images/cats/0000_0.txt" in found  # five pairs, and what lies beside an image
    assert not [name for name in found if name.endswith((".pt", ".zip", "stop", "lock"))]
    data = (tmp_path / "cats.zip").read_bytes()
    for hidden in (project_secret(project.path), b"cached", b"the same again"):
        assert hidden not in data
    with zipfile.ZipFile(tmp_path / "cats.zip") as archive:
        for name in found:
            if not name.endswith(".json") or "config" not in name:  # which names the base model
                assert str(home).encode() not in archive.read(name), name

    pack(project, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == data
    pack(project, tmp_path / "all.zip", images="all")
    assert len([name for name in names(tmp_path / "all.zip") if name.endswith(".png")]) == 12 + 3 + 9 + 8
    pack(project, tmp_path / "none.zip", images="none")
    assert not [name for name in names(tmp_path / "none.zip") if name.endswith(".png")]
    assert unpack(tmp_path / "none.zip", tmp_path / "none").gone == 5
    with pytest.raises(BundleError, match="images='some' is not known"):
        pack(project, tmp_path / "some.zip", images="some")


def test_images_that_were_left_behind_are_found_again_by_what_is_in_them(project, home, tmp_path):
    pack(project, tmp_path / "none.zip", images="none")
    there = open_project(unpack(tmp_path / "none.zip", tmp_path / "none").folder)
    assert there.picks.pairs() == []
    for folder in (home / "pictures", project.path / "candidates"):
        there.library.scan(folder)
    assert [pair.images for pair in there.picks.pairs()] == [pair.images for pair in project.picks.pairs()]


def test_a_stop_or_a_full_disk_leaves_nothing_half_written(project, tmp_path, monkeypatch):
    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    target = tmp_path / "out" / "cats.zip"
    with pytest.raises(KeyboardInterrupt):
        pack(project, target, report=stop)
    assert list(target.parent.iterdir()) == []
    pack(project, target)
    with pytest.raises(KeyboardInterrupt):
        unpack(target, tmp_path / "there", report=stop)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    for attempt in (lambda: pack(project, target), lambda: unpack(target, tmp_path / "there")):
        with pytest.raises(BundleError, match=r"GB, and .* GB free"):
            attempt()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
    assert [path.name for path in target.parent.iterdir()] == ["cats.zip"]


def test_an_open_project_without_picks_takes_a_zip_in_and_one_with_picks_does_not(project, tmp_path):
    pack(project, tmp_path / "cats.zip")
    there = open_project(tmp_path / "fresh")
    shutil.copytree(project.path / "candidates", there.path / "candidates")  # both have the demo's
    found = take_over(there, tmp_path / "cats.zip")
    assert (found.folder, found.pairs, found.runs, found.gone) == (there.path, 5, 1, 0)
    assert said(there) == said(project) and there.picks.rules().live_folder == ""
    assert find_outcome(there, "cats-1", "overall").verdict == find_outcome(project, "cats-1", "overall").verdict
    assert open_project(there.path).id == there.id != project.id
    with pytest.raises(BundleError, match="has picks or runs of its own"):
        take_over(there, tmp_path / "cats.zip")

    other = open_project(tmp_path / "other")
    (other.path / "images" / "cats").mkdir(parents=True)
    (other.path / "images" / "cats" / "0000_0.png").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"images/cats/0000_0.png is in this project already, and another in the zip"):
        take_over(other, tmp_path / "cats.zip")
    assert other.picks.live() == [] and list(other.runs.iterdir()) == []


# ------------------------------------------------------------------------------------------------ zips of strangers


def rezip(source: Path, target: Path, change) -> Path:
    """`change(entries)` of name -> bytes, which are written anew."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, data, zipfile.ZIP_DEFLATED if info.filename.endswith("bomb.txt") else None)
    return target


def there_is(folder: Path) -> list[Path]:
    """Without the project that was packed: its databases come and go with whoever has them open."""
    return sorted(path for path in folder.rglob("*") if not path.is_relative_to(folder / "home"))


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("images/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def twice() -> zipfile.ZipInfo:
    return zipfile.ZipInfo("images//cats/0000_0.png")


@pytest.fixture
def small(home, tmp_path):
    """A zip of little: two groups picked."""
    paint_folder(home / "cats", prompts=2, per_prompt=2)
    project = open_project(home / "project")
    project.library.scan(home / "cats")
    project.picks.apply([best_worst(group, number) for number, group in enumerate(project.library.groups(home / "cats"))])
    return pack(project, tmp_path / "small.zip").file


HOSTILE = {
    "../../out.png": "Its name leads out of the folder",
    "/out.png": "Its name leads out of the folder",
    "C:/out.png": "Its name leads out of the folder",
    "images\\..\\..\\out.png": "Its name leads out of the folder",
    link(): "It is a link",
    twice(): "images/cats/0000_0.png and images/cats/0000_0.png are one file on some systems",
    "images/CATS/0000_0.png": "are one file on some systems",
    "images/cats/0000_0.png/a.png": "is a file and a folder at once",
    "images/inner.zip": "It is an archive inside an archive",
    "images/bomb.txt": "It would unpack",
    "images/a\u202egnp.png": "is a name that not every system can have",
    "images/con.png": "is a name that not every system can have",
    "secret": "secret is no part of a project",
    "index.sqlite": "index.sqlite is no part of a project",
    "cache/a.png": "cache/a.png is no part of a project",
    "images/.hidden.png": "is no part of a project",
    "images/page.html": "images/page.html is no part of a project",
    "images/picture.svg": "is no part of a project",
    "exports/run.py": "is no part of a project",
    "exports/weights.pt": "exports/weights.pt is no part of a project",
    "runs/cats/adapter/weights.ckpt": "is no part of a project",
}


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: getattr(name, "filename", name))
def test_a_zip_with_something_that_has_no_place_in_a_project_is_refused_with_its_name(small, tmp_path, name):
    data = b"0" * (2 << 20) if "bomb" in str(name) else b"not really"
    path = rezip(small, tmp_path / "hostile.zip", lambda entries: entries.update({name: data}))
    before = there_is(tmp_path)
    with pytest.raises(BundleError, match=HOSTILE[name]):
        unpack(path, tmp_path / "there")
    assert there_is(tmp_path) == before


def edit(said: str):
    """Change the picks of a zip by a statement."""

    def change(entries):
        place = Path("picks.sqlite")
        place.write_bytes(entries["picks.sqlite"])
        with sqlite3.connect(place) as database:
            database.executescript(said)
        database.close()
        entries["picks.sqlite"] = place.read_bytes()

    return change


def manifest(**changes):
    return lambda entries: entries.update({"project.json": json.dumps(json.loads(entries["project.json"]) | changes).encode()})


WRONG = {
    "no manifest": (lambda entries: entries.pop("project.json"), "It is no project: project.json and picks.sqlite"),
    "no picks": (lambda entries: entries.pop("picks.sqlite"), "It is no project"),
    "another format": (manifest(format=2), "packed by another version"),
    "a manifest of nothing": (lambda entries: entries.update({"project.json": b"[]"}), "Its project.json cannot be read"),
    "no database": (lambda entries: entries.update({"picks.sqlite": b"SQLite" * 1000}), "cannot be read: file is not a database"),
    "a damaged database": (
        lambda entries: entries.update(
            {"picks.sqlite": entries["picks.sqlite"][:4096] + b"\7" * (len(entries["picks.sqlite"]) - 4096)}
        ),
        r"\(picks.sqlite\)",
    ),
    "a trigger": (edit("CREATE TRIGGER t AFTER UPDATE ON picks BEGIN DELETE FROM picks; END"), "is not laid out as in a project"),
    "a newer version": (edit("PRAGMA user_version=99"), "packed by a newer version"),
    "no version": (edit("PRAGMA user_version=0"), "is not laid out as in a project"),
    "paths that are none": (edit("UPDATE picks SET paths = 'nothing'"), "cannot be read"),
    "a pick of nothing": (edit("UPDATE picks SET paths = '[\"a\"]'"), "cannot be understood"),
    "rules that are none": (edit("INSERT INTO facts VALUES ('rules', '{\"pairing\": 1}')"), "cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_zip_whose_picks_are_none_is_refused_and_leaves_nothing(small, tmp_path, monkeypatch, what):
    (tmp_path / "edits").mkdir()
    monkeypatch.chdir(tmp_path / "edits")
    change, why = WRONG[what]
    path = rezip(small, tmp_path / "wrong.zip", change)
    before = there_is(tmp_path)
    with pytest.raises(BundleError, match=why):
        unpack(path, tmp_path / "there")
    assert there_is(tmp_path) == before


def test_a_zip_cannot_name_files_outside_the_project_as_images_models_or_live_folder(small, tmp_path, monkeypatch):
    (tmp_path / "edits").mkdir()
    monkeypatch.chdir(tmp_path / "edits")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    outside = [str(secret), f"{MARK}../secret.png", f"{MARK}/../../secret.png"]
    items = [{"kind": "pair", "prompt": "a", "chosen": outside[0], "rejected": outside[1]}] * 4
    config = json.dumps(asdict(TrainConfig(model=str(secret), base_adapter="~/a.safetensors", starting_adapter="../x")))

    def change(entries):
        edit(
            f"UPDATE picks SET paths = '{json.dumps(outside[:2])}';"
            "INSERT INTO facts VALUES ('rules', '{\"live_folder\": \"/\"}');"
            "INSERT INTO stand_ins VALUES ('/', 1, 1, '/a.csv', 1)"
        )(entries)
        entries["runs/cats/pairs.json"], entries["runs/cats/config.json"] = json.dumps(items).encode(), config.encode()

    def refuse(path):
        raise BundleError("not allowed")

    found = unpack(rezip(small, tmp_path / "outside.zip", change), tmp_path / "there", check=refuse)
    there = open_project(found.folder)
    assert there.picks.rules() == PickRules() and there.library.stand_ins("/tmp") == StandIns()
    run = find_run(there.runs, "cats")
    paths = [path for item in run.items for path in item.images] + [path for pick in there.picks.live() for path in pick.paths]
    paths += [run.config.model, run.config.base_adapter, run.config.starting_adapter]
    for path in paths:
        assert Path(path).is_relative_to(found.folder) and not Path(path).exists(), path


def test_nothing_is_unpacked_over_what_is_there(small, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="is there already"):
        unpack(small, tmp_path / "there")
    with pytest.raises(BundleError, match="It is not a whole zip"):
        (tmp_path / "no.zip").write_bytes(b"PK")
        unpack(tmp_path / "no.zip", tmp_path / "new")
