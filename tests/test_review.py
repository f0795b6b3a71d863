"""What the review and the data sets answer a page, without one: filters, removal at once, uploads, live folders."""

import json
import shutil
import time
import zipfile

import pytest
from PIL import Image

from dpo import StudioError
from dpo.exchange import ExchangeError, LiveFolder
from dpo.exchange.unpacking import unpack
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.picks import ImportedPair, PickedPair
from dpo.project import open_project
from ui.dataset_jobs import LiveKeeper, Tasks, adopt
from ui.datasets import Datasets, begin_export, begin_import, keep_live
from ui.places import PlaceError
from ui.review_answers import Checkup, answer_pairs, answer_remove_gone, choose_pairs, pair_id, read_wanted
from ui.session import Session, Studio, page_session
from ui.words import ago


def make_pair(number: int, **changes) -> PickedPair:
    pair = Pair(
        changes.pop("prompt", f"prompt {number}"), "a", "b", changes.pop("confidence", 0.9), changes.pop("source", "duel")
    )
    values = {
        "group": "0" * 16, "chosen": f"{2 * number:016x}", "rejected": f"{2 * number + 1:016x}", "rater": "", "made": 0.0,
        "position": number, "state": "used", "is_swapped": False, "missing": (), "is_validation": False,
    }  # fmt: skip
    return PickedPair(pair, **(values | changes))


def chosen(pairs, checkup=None, **wanted) -> list[int]:
    return [picked.position for picked in choose_pairs(pairs, read_wanted(wanted), checkup or Checkup())]


@pytest.fixture
def studio(tmp_path):
    """Three imported pairs of flat colours, none of which a person made."""
    project = open_project(tmp_path / "project")
    paths = []
    for number in range(6):
        path = project.path / f"{number}.png"
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(path)
        paths.append(str(path))
    keys = project.library.add_files(paths)
    project.picks.import_pairs(
        [
            ImportedPair(f"prompt {number}", keys[one], keys[other], (one, other), 0.9, "elsewhere", str(number))
            for number, (one, other) in enumerate(zip(paths[::2], paths[1::2], strict=True))
        ]
    )
    return Studio(project, JobRegistry(), b"secret")


def payload(studio, **values) -> dict:
    return page_session(studio, Session()) | values


def test_all_but_the_deleted_are_shown_newest_first_unless_something_else_is_wanted():
    pairs = [make_pair(0), make_pair(1, state="deleted"), make_pair(2, missing=("a",)), make_pair(3, state="needs_reject")]
    assert chosen(pairs) == [3, 2, 0]
    assert [chosen(pairs, state=state) for state in ("used", "deleted", "gone", "needs_reject")] == [[0], [1], [2], [3]]


def test_every_word_must_be_in_the_prompt_whatever_its_case():
    pairs = [make_pair(0, prompt="A red Fox in snow"), make_pair(1, prompt="a red boat"), make_pair(2, prompt="STRASSE")]
    assert chosen(pairs, words="FOX red") == [0]
    assert chosen(pairs, words=" red ") == [1, 0]
    assert chosen(pairs, words="straße") == [2]


def test_sources_raters_and_the_split_are_told_apart():
    pairs = [make_pair(0, source="import: a", rater="Anna"), make_pair(1, is_validation=True), make_pair(2, rater="Ben")]
    assert chosen(pairs, source="import: a") == [0]
    assert chosen(pairs, rater="") == [1]
    assert (chosen(pairs, split="validation"), chosen(pairs, split="training")) == ([1], [2, 0])


def test_pairs_can_be_sorted_by_how_sure_they_are_either_way():
    pairs = [make_pair(0, confidence=0.9), make_pair(1, confidence=0.6), make_pair(2, confidence=0.95)]
    assert (chosen(pairs, order="least"), chosen(pairs, order="most")) == ([1, 0, 2], [2, 0, 1])


def test_pairs_of_a_finding_stay_its_pairs_when_they_are_turned_round():
    pair = make_pair(0)
    checkup = Checkup(pairs={"unsure": frozenset({pair_id(pair)})})
    turned = make_pair(0, chosen=pair.rejected, rejected=pair.chosen)
    assert chosen([turned, make_pair(1)], checkup, finding="unsure") == [0]
    assert chosen([turned], checkup, finding="unheard of") == []


@pytest.mark.parametrize("sent", [None, 3, [], {"words": 3, "order": "random", "state": ["used"], "rater": {}}])
def test_what_a_page_wants_is_ignored_where_it_makes_no_sense(sent):
    assert read_wanted(sent) == read_wanted({})


def test_twenty_thousand_pairs_are_searched_and_sorted_in_one_pass():
    pairs = [make_pair(number, confidence=0.5 + number % 50 / 100) for number in range(20_000)]
    started = time.perf_counter()
    assert len(chosen(pairs, words="prompt 199", order="least")) == sum("199" in str(number) for number in range(20_000))
    assert time.perf_counter() - started < 20  # far from it, on any machine, unless every pair is looked at for every other


def test_a_page_of_pairs_says_how_many_there_are_and_what_can_be_chosen(studio):
    answer = answer_pairs(studio, Checkup(), payload(studio, start=1, count=1))
    assert (answer["total"], answer["all"], len(answer["pairs"])) == (3, 3, 1)
    assert answer["pairs"][0]["prompt"] == "prompt 1"
    assert answer["sources"] == [["import: elsewhere", "import: elsewhere"]]
    assert json.dumps(answer)


def test_removing_what_is_gone_counts_once_however_often_it_is_asked(studio):
    store = studio.project.picks
    shutil.move(store.picked_pairs()[1].pair.chosen, studio.project.path / "away.png")
    ask = payload(studio, client="bulk-of-one-press")
    assert answer_remove_gone(studio, Checkup(), ask) == {"removed": 1}
    revision = store.revision()
    answer_remove_gone(studio, Checkup(), ask)
    assert store.revision() == revision
    assert [picked.state for picked in store.picked_pairs()] == ["used", "deleted", "used"]
    (deleted,) = answer_pairs(studio, Checkup(), payload(studio, count=9, wanted={"state": "deleted"}))["pairs"]
    assert deleted["dropped"] == [["bulk-of-one-press", 0]]
    store.apply([{"client": "another-page", "number": 0, "op": "undo", "undoes": deleted["dropped"][0]}])
    assert [picked.state for picked in store.picked_pairs()] == ["used"] * 3


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "just now"), (-5, "just now"), (120, "2 min ago"), (3600, "60 min ago"), (3 * 3600, "3 h ago"), (86400, "24 h ago"),
     (5 * 86400, "5 days ago"), (15 * 86400, "2 weeks ago"), (3 * 365 * 86400, "3 years ago")],
)  # fmt: skip
def test_an_age_is_said_in_the_unit_that_people_use_for_it(seconds, words):
    assert ago(seconds) == words


def wait_for(task) -> None:
    assert task.finished.wait(30)


def test_one_import_or_export_at_a_time(studio):
    tasks = Tasks()
    holding = tasks.start("export", "Exporting", lambda task: time.sleep(0.5))
    with pytest.raises(StudioError, match="not done yet"):
        tasks.start("import", "Importing", lambda task: None)
    wait_for(holding)
    wait_for(tasks.start("import", "Importing", lambda task: None))


def test_a_task_that_fails_says_why():
    def full(task):
        raise OSError(28, "No space left on device", "pairs.csv")

    def broken(task):
        raise KeyError("x")

    for work, words in ((full, "pairs.csv: No space left"), (broken, "ended unexpectedly: KeyError")):
        task = Tasks().start("export", "Exporting", work)
        wait_for(task)
        assert words in task.error


def test_an_export_of_the_page_is_a_zip_with_both_sides_of_the_split(studio):
    datasets = Datasets(studio)
    begin_export(datasets, payload(studio, kind="csv", share=0.4))
    wait_for(datasets.tasks.current)
    names = zipfile.ZipFile(studio.project.exports / datasets.tasks.current.archive).namelist()
    assert {"train.csv", "validation.csv", "README.md"} <= set(names)


@pytest.mark.parametrize("share", [0.9, -1, None, "much", float("nan")])
def test_a_share_that_training_would_refuse_is_refused_by_its_name(studio, share):
    with pytest.raises(StudioError, match="validation_share="):
        begin_export(Datasets(studio), payload(studio, kind="csv", share=share))


def test_a_shared_page_reaches_nothing_outside_the_project(studio, tmp_path):
    studio.is_shared = True
    datasets = Datasets(studio)
    for ask in (begin_import, keep_live):
        with pytest.raises(PlaceError):
            ask(datasets, payload(studio, path=str(tmp_path), folder=str(tmp_path)))
    with pytest.raises(PlaceError):  # looks like a name on the hub, and is a folder here
        begin_import(datasets, payload(studio, path="dpo/exchange"))


def test_the_live_folder_follows_the_picks_and_stops_when_it_is_told_to(studio, tmp_path):
    datasets = Datasets(studio)
    keep_live(datasets, payload(studio, folder=str(tmp_path / "live")))
    wait_for(datasets.tasks.current)
    wait_until_done(datasets.live)
    assert datasets.live.pairs == 3
    picked = studio.project.picks.picked_pairs()[0]
    drop = {"client": "some-page", "number": 0, "op": "drop", "group": picked.group, "images": [picked.chosen, picked.rejected]}
    studio.project.picks.apply([drop])
    assert not datasets.live.is_up_to_date
    datasets.live.wake()
    wait_until_done(datasets.live)
    assert datasets.live.pairs == 2
    keep_live(datasets, payload(studio, folder=""))
    assert studio.project.picks.rules().live_folder == ""


def wait_until_done(live: LiveKeeper) -> None:
    end = time.monotonic() + 30
    while not live.is_up_to_date:
        assert time.monotonic() < end and not live.error, live.error
        time.sleep(0.02)


def test_a_live_folder_that_cannot_be_written_says_why_and_is_tried_again_after_the_next_pick(studio, tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "manifest.json").write_text("[]")
    datasets = Datasets(studio)
    keep_live(datasets, payload(studio, folder=str(tmp_path / "live")))
    wait_for(datasets.tasks.current)
    assert "is of another program" in datasets.tasks.current.error
    assert studio.project.picks.rules().live_folder == ""


def test_a_live_folder_with_the_only_copies_of_somebody_s_pairs_is_not_taken_over(studio, tmp_path):
    LiveFolder(tmp_path / "live").bring_up_to_date(studio.project.picks.picked_pairs())
    next((tmp_path / "live" / "rejected").glob("*.png")).unlink()  # so this pair cannot come along
    other = open_project(tmp_path / "other")
    before = (tmp_path / "live" / "manifest.json").read_bytes()
    for number in range(6):
        (studio.project.path / f"{number}.png").unlink()
    with pytest.raises(StudioError, match="1 pair that this project cannot take"):
        adopt(other, tmp_path / "live", lambda done, total: None, check=lambda path: None)
    assert (tmp_path / "live" / "manifest.json").read_bytes() == before


def make_zip(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_zip_keeps_its_names_and_what_is_no_data_stays_in_it(tmp_path):
    files = {"set/chosen/1.png": b"x", "set/chosen/1.txt": b"y", "set/run.sh": b"z", "../outside.png": b"x", "set/a:b.png": b"x"}
    place, left = unpack(make_zip(tmp_path / "a.zip", files), tmp_path / "out")
    assert place == tmp_path / "out" / "set"
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"set/chosen/1.png", "set/chosen/1.txt"}
    assert {entry.where for entry in left} == {"set/run.sh", "../outside.png", "set/a:b.png"}
    assert not (tmp_path / "outside.png").exists()


@pytest.mark.parametrize("files", [{"notes.md": b"x"}, {}])
def test_a_zip_without_a_data_set_leaves_nothing_behind(tmp_path, files):
    with pytest.raises(ExchangeError, match="no data set in it"):
        unpack(make_zip(tmp_path / "a.zip", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()
