"""Votes are kept for good, each once, and what they come to: first votes, second opinions, verdicts, pairs."""

import json

import pytest
from PIL import Image

from dpo.cards import CardError, write_card
from dpo.outcomes import count_votes, drawn_by_lot, latest_outcome, make_pairs
from dpo.project import open_project
from dpo.verdict import judge
from tests.blind import Voter, make_test


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


@pytest.fixture
def test(project):
    return make_test(project, items=12)


def test_a_vote_says_which_side_was_preferred_wherever_it_was_shown(project, test):
    ada = Voter(project, test, "Ada")
    for item, side in enumerate(("base", "adapter", "", "base", "adapter")):
        ada.vote(item, side)
    assert [vote.preferred for vote in project.votes.votes(test.name, "overall")] == ["base", "adapter", "", "base", "adapter"]
    assert {vote.result for vote in project.votes.votes(test.name, "overall")} == {"left", "right", "tie"}


def test_a_vote_sent_twice_counts_once_and_outlives_the_process(project, test):
    operation = {"client": "page-1", "number": 0, "op": "vote", "test": test.name, "item": 3, "question": "overall"}
    operation |= {"left": "base", "result": "left"}
    assert [project.votes.apply([operation]).new for _ in range(2)] == [1, 0]
    again = open_project(project.path)
    assert [vote.item for vote in again.votes.votes(test.name, "overall")] == [3]


def test_an_undo_takes_back_one_vote_once(project, test):
    ada = Voter(project, test, "Ada")
    ada.vote(0, "adapter")
    ada.undo(ada.vote(1, "adapter"))
    assert [vote.item for vote in project.votes.votes(test.name, "overall")] == [0]
    applied = project.votes.apply([{"client": "page-9", "number": 0, "op": "undo", "undoes": [ada.client, 1]}])
    assert applied.new == 0 and "taken back already" in applied.refused[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"client": "no"}, {"number": -1}, {"op": "swap"}, {"item": True}, {"item": "3"}, {"left": "right"}, {"result": "both"},
        {"rater": "x" * 61}, {"rater": "\ud800"}, {"test": ""}, {"op": "undo"},
    ],
    ids=["client", "number", "op", "item", "item text", "left", "result", "long name", "no text", "test", "undo of nothing"],
)  # fmt: skip
def test_what_is_no_vote_is_refused_and_the_others_are_kept(project, wrong):
    good = {"client": "page-1", "number": 0, "op": "vote", "test": "cats-1", "item": 3, "question": "overall"}
    good |= {"left": "base", "result": "left", "rater": "Ada"}
    applied = project.votes.apply([good | {"number": 1} | wrong, good, "nothing"])
    assert (applied.new, len(applied.refused)) == (1, 2)


# ------------------------------------------------------------------------------------------------ what they come to


def test_each_item_counts_once_by_its_first_decisive_vote_however_many_people_vote(project, test):
    ada, bo = Voter(project, test, "Ada"), Voter(project, test, "Bo")
    ada.vote(0, "")
    bo.vote(0, "adapter")
    ada.vote(1, "base")
    bo.vote(1, "adapter")
    ada.vote(2, "adapter")
    bo.vote(2, "adapter")
    ada.vote(3, "")
    verdict = ada.outcome().verdict
    assert (verdict.wins, verdict.votes, verdict.ties) == (2, 3, 1)
    assert verdict == judge([True, False, True], ties=1)


def test_a_person_s_second_vote_on_an_item_changes_nothing_unless_the_first_is_taken_back(project, test):
    ada = Voter(project, test, "Ada")
    first = ada.vote(0, "base")
    ada.vote(0, "adapter")
    assert ada.outcome().verdict.wins == 0
    ada.undo(first)
    assert ada.outcome().verdict.wins == 1


def test_people_are_told_apart_and_compared(project, test):
    ada, bo = Voter(project, test, "Ada"), Voter(project, test, "Bo")
    for item in range(4):
        ada.vote(item, "adapter")
    for item, side in enumerate(("adapter", "base", "", "adapter")):
        bo.vote(item, side)
    first, second = ada.outcome().voters
    assert (first.name, first.wins, first.votes, first.ties, first.agreed, first.shared) == ("Ada", 4, 4, 0, 2, 3)
    assert (second.name, second.wins, second.votes, second.ties, second.agreed, second.shared) == ("Bo", 2, 3, 1, 2, 3)


def test_questions_of_one_test_are_counted_apart(project, test):
    Voter(project, test, "Ada").vote(0, "adapter")
    appeal = Voter(project, test, "Ada", "appeal")
    appeal.vote(0, "base")
    assert appeal.outcome().verdict.wins == 0


def test_prompts_are_told_one_by_one_and_the_bootstrap_draws_them_whole(project):
    test = make_test(project, items=8, prompts=2, name="two")
    ada = Voter(project, test, "Ada")
    for item in range(8):
        ada.vote(item, "adapter" if item % 2 == 0 else "base")
    outcome = ada.outcome()
    assert [(line.wins, line.votes) for line in outcome.prompts] == [(4, 4), (0, 4)]
    assert outcome.by_prompt == (0.5, 0.0, 1.0)  # two prompts that disagree say nothing


def test_the_verdict_in_the_list_of_runs_is_of_that_very_run_and_its_newest_test(project):
    class Run:
        name, made = "cats-1", 7

    assert latest_outcome(project, Run) is None
    old = make_test(project, name="old", run="cats-1", run_made=7, made=1.0)
    new = make_test(project, name="new", run="cats-1", run_made=7, made=2.0)
    other = make_test(project, name="other", run="cats-1", run_made=8, made=3.0)  # of a run that was deleted
    for test, side in ((old, "base"), (other, "base")):
        Voter(project, test, "Ada").vote(0, side)
    assert latest_outcome(project, Run).test.name == "old"
    Voter(project, new, "Bo").vote(0, "adapter")
    assert latest_outcome(project, Run).verdict.wins == 1


# ------------------------------------------------------------------------------------------------ pairs of votes


def test_votes_become_pairs_by_majority_once_and_their_files_say_which(project, test):
    people = [Voter(project, test, name) for name in ("Ada", "Bo", "Cy")]
    for person, sides in zip(
        people, (("adapter", "base", "base"), ("adapter", "adapter", ""), ("base", "base", "adapter")), strict=True
    ):
        for item, side in enumerate(sides):
            person.vote(item, side)
    outcome = people[0].outcome()
    made = make_pairs(project, outcome)
    assert (made.new, made.already, made.undecided) == (2, 0, 1)  # the third: one for each, one tie
    pairs = project.picks.pairs()
    assert [pair.source for pair in pairs] == ["import: blind test cats-1"] * 2
    assert [pair.chosen.rpartition("-")[2] for pair in pairs] == ["adapter.png", "base.png"]
    assert [round(pair.confidence, 2) for pair in pairs] == [0.67, 0.67]
    assert [pair.prompt for pair in pairs] == ["a cat, number 0", "a cat, number 1"]
    again = make_pairs(project, outcome)
    assert (again.new, again.already) == (0, 2)


def test_a_pair_that_stands_the_other_way_round_is_left_to_the_person(project, test):
    ada = Voter(project, test, "Ada")
    first = ada.vote(0, "adapter")
    make_pairs(project, ada.outcome())
    ada.undo(first)
    ada.vote(0, "base")
    made = make_pairs(project, ada.outcome())
    assert (made.new, made.contrary) == (0, 1)
    assert len(project.picks.pairs()) == 1


def test_it_is_told_how_many_prompts_are_not_held_out_any_more(project):
    test = make_test(project, items=40)
    ada = Voter(project, test, "Ada")
    for item in range(40):
        ada.vote(item, "adapter")
    made = make_pairs(project, ada.outcome())
    held_out = {picked.pair.prompt for picked in project.picks.picked_pairs() if picked.is_validation}
    assert made.new == 40 and made.trained == 40 - len(held_out) and 0 < len(held_out) < 20


# ------------------------------------------------------------------------------------------------ the card


def test_the_card_says_what_the_votes_say_and_six_pairs_are_drawn_by_lot(project):
    test = make_test(project, items=20, prompts=10, run="cats-1", pairs=60, steps=100, name="hostile")
    ada = Voter(project, test, "Ada")
    for item in range(18):
        ada.vote(item, "adapter" if item else "base")
    outcome = ada.outcome()
    shown = drawn_by_lot(outcome, 6)
    assert len({item.prompt for item in shown}) == 6 and shown == drawn_by_lot(outcome, 6)
    picture, record = write_card(project, outcome, "17 of 18 for the adapter; ${hostile} $\\frac")
    with Image.open(picture) as image:
        assert image.size == (1200, 1500)
    said = json.loads(record.read_text())
    assert (said["wins"], said["votes"], said["ties"], said["pairs"], said["steps"]) == (17, 18, 0, 60, 100)
    assert said["winner"] == "adapter" and said["low"] > 0.5 and said["by_prompt"]["win_rate"] > 0.8
    assert len(said["prompts"]) == 10 and said["voters"][0]["name"] == "Ada"


def test_no_card_is_made_of_nothing(project, test):
    with pytest.raises(CardError, match="Nobody has voted on cats-1 yet"):
        write_card(project, count_votes(test, "overall", []), "")
