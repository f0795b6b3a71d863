"""What AI feedback answers a page, without one; and the order of what is least certain."""

import threading

import pytest

from dpo import StudioError
from dpo.groups import View
from dpo.jobs import JobRegistry
from dpo.scorer_choice import ScorerChoice
from dpo.scores import Ask
from tests.asking import Page, open_painted
from tests.clip import save_clip
from tests.operations import best_worst, keys, review
from ui.picker_answers import answer_page
from ui.places import PlaceError
from ui.review_answers import Checkup, answer_pairs
from ui.scorers_part import add_pairs, begin_scoring, discard_pairs, stop_scoring, tell_scores
from ui.session import Session, Studio, page_session
from ui.shelf_answers import answer_lines


@pytest.fixture
def studio(tmp_path):
    return Studio(open_painted(tmp_path), JobRegistry(), b"secret")


@pytest.fixture
def view(tmp_path):
    return View(str(tmp_path / "images"))


@pytest.fixture
def groups(studio, view):
    return studio.project.library.groups(view.folder)


@pytest.fixture
def chosen(tmp_path):
    return {"kind": "clip", "model": str(save_clip(tmp_path / "tiny"))}


def put(studio, groups, chosen, scores):
    choice = ScorerChoice(**chosen)
    for group, row in zip(groups, scores, strict=True):
        asks = [Ask(image.key, image.path, choice.text_of(image.record.prompt)) for image in group.images]
        studio.project.scores.put(choice.identity, zip(asks, row, strict=True))


def test_scoring_from_the_page_ends_with_what_was_scored_and_how_often_it_agrees(studio, view, groups, chosen):
    assert tell_scores(studio, view, chosen)["facts"] == ""
    begin_scoring(studio, view, chosen)
    assert studio.jobs.find("score").finished.wait(60)
    answer = tell_scores(studio, view, chosen)
    assert answer["job"]["text"] == "12 of 12 images scored, 12 of them now. 3 prompts are longer than the scorer reads; " \
        "their ends were cut."  # fmt: skip
    assert answer["facts"] == "3 of 3 groups scored. No pair that you picked is scored yet."
    studio.project.picks.apply([best_worst(groups[0])])
    assert "Agrees with your picks in" in tell_scores(studio, view, chosen)["facts"]


def test_a_scorer_that_fails_says_why_and_can_be_tried_again(studio, view):
    begin_scoring(studio, view, {"kind": "clip", "model": "nobody/nothing"})
    assert studio.jobs.find("score").finished.wait(60)
    job = tell_scores(studio, view, {"kind": "clip", "model": ""})["job"]
    assert "nobody/nothing cannot be loaded" in job["error"]
    assert not job["is_active"]


def test_scoring_that_waits_for_the_device_can_be_stopped(studio, view, chosen):
    gate = threading.Event()
    studio.jobs.submit("export", "exporting cats", "cats", lambda job: gate.wait(20))
    answer = begin_scoring(studio, view, chosen)
    assert answer["job"]["text"] == "Exporting cats has the device; scoring is next in line."
    assert stop_scoring(studio, view, chosen)["job"]["text"] == "Stopped."
    gate.set()


def test_proposals_wait_in_the_review_under_a_state_of_their_own_and_keep_makes_them_used(studio, view, groups, chosen):
    put(studio, groups, chosen, [[3, 0, 1, 1]] * 3)
    answer = add_pairs(studio, view, chosen | {"automatic": False})
    assert (answer["said"], answer["proposed"]) == ("3 pairs wait in the review for you to keep or delete.", 3)
    payload = page_session(studio, Session()) | {"wanted": {"state": "proposed"}, "count": 9}
    sheet = answer_pairs(studio, Checkup(), payload)
    assert (sheet["total"], sheet["states"]) == (3, {"proposed": 3})
    pair = next(pair for pair in sheet["pairs"] if pair["group"] == groups[0].key)
    assert (pair["state"], pair["images"]) == ("proposed", keys(groups[0])[:2])
    keep = review("confirm", groups[0])
    after = answer_pairs(studio, Checkup(), payload | {"operations": [keep]})
    assert (after["total"], after["states"]) == (2, {"proposed": 2, "used": 1})
    assert discard_pairs(studio, view, chosen | {"automatic": False})["said"] == "2 pairs taken back."
    assert len(studio.project.picks.pairs()) == 1


def test_automatic_pairs_are_counted_and_taken_back_by_themselves(studio, view, groups, chosen):
    put(studio, groups, chosen, [[3, 0, 1, 1]] * 3)
    assert add_pairs(studio, view, chosen | {"automatic": True})["used"] == 3
    assert add_pairs(studio, view, chosen)["said"] == "No scored group is left that nobody has said anything of."
    assert discard_pairs(studio, view, chosen | {"automatic": False})["used"] == 3
    assert discard_pairs(studio, view, chosen | {"automatic": True})["used"] == 0


def test_a_shared_page_reaches_no_model_outside_the_project(studio, view, chosen):
    studio.is_shared = True
    with pytest.raises(PlaceError, match="outside the project folder"):
        begin_scoring(studio, view, chosen)
    with pytest.raises(StudioError):
        begin_scoring(studio, view, {"kind": "adapter", "model": chosen["model"]})
    assert tell_scores(studio, view, chosen)["facts"] == ""


@pytest.mark.parametrize(
    "payload", [{}, {"kind": 3, "model": []}, {"kind": "adapter", "model": "../x"}], ids=["empty", "types", "path"]
)
def test_what_a_page_makes_up_is_a_sentence(studio, view, payload):
    with pytest.raises(StudioError):
        begin_scoring(studio, view, payload)
    assert tell_scores(studio, view, payload)["facts"] == ""


def test_the_least_certain_groups_come_first_in_the_list_and_in_the_picker(studio, view, groups, chosen):
    put(studio, groups, chosen, [[0, 0, 0, 9], [0, 0, 0, 5], [0, 0, 0, 1]])
    order = [group.key for group in reversed(groups)]
    lines = answer_lines(studio, view, {"sort": "uncertain", "start": 0, "count": 9, "wanted": {}})["lines"]
    assert [line["key"] for line in lines] == order
    payload = page_session(studio, Session(folder=view.folder)) | {"mode": "best_worst", "want": 9, "client": "page-a"}
    assert [screen["group"] for screen in answer_page(studio, view, payload | {"sort": "uncertain"})["screens"]] == order
    answer_page(studio, view, payload | {"want": 0, "left": "page-a"})
    wanted = Page(studio.project, view).ask(first=groups[0].key, order=tuple(order)).screens
    assert [screen.group.key for screen in wanted] == [groups[0].key, order[0], order[1]]
