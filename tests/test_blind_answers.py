"""What the app answers the blind test's page: nothing that reveals a side, votes by what was shown, words, the card, pairs."""

import json
import math

import pytest

from dpo.blind import write_test
from dpo.jobs import JobRegistry
from dpo.project import open_project
from dpo.verdict import Verdict, judge
from tests.blind import Voter, make_test
from ui.blind import CARD, VOTING
from ui.blind_answers import answer_voter, describe_card, keep_card, make_images, pair_votes
from ui.blind_words import evidence_words, needed_words, short_verdict, verdict_words
from ui.session import Session, Studio, page_session


@pytest.fixture
def studio(tmp_path) -> Studio:
    project = open_project(tmp_path / "project")
    return Studio(project, JobRegistry(), b"s" * 32)


class Page:
    """A page that votes as a browser does: by the keys of the images it was shown."""

    def __init__(self, studio: Studio, rater: str = "", login: str = "", client: str = "page-1") -> None:
        self.studio, self.rater, self.login, self.client, self.number = studio, rater, login, client, 0

    def ask(self, **payload) -> dict:
        page = page_session(self.studio, Session(login=self.login))
        return answer_voter(self.studio, page | {"rater": self.rater, "want": 99, **payload})

    def vote(self, answer: dict, screen: dict, result: str, **more) -> dict:
        operation = {"client": self.client, "number": self.number, "op": "vote", "test": answer["test"], "item": screen["item"]}
        operation |= {"question": answer["question"], "images": [image["key"] for image in screen["images"]], "result": result}
        self.number += 1
        return self.ask(operations=[operation | {"rater": self.rater} | more])


def test_nothing_of_an_answer_says_which_side_is_which(studio):
    test = make_test(studio.project, items=12)
    lefts = []
    for number in range(8):
        answer = Page(studio, client=f"page-{number}").ask(recent=True)
        text = json.dumps(answer).lower()
        assert "base" not in text and "adapter" not in text and test.name in text
        paths = {url: side for item in test.items for side, url in _urls(studio, test, item).items()}
        lefts += [paths[screen["images"][0]["url"]] for screen in answer["screens"]]
        for screen in answer["screens"]:
            one, other = ({**image, "key": 0, "url": 0, "full": 0} for image in screen["images"])
            assert one == other
    assert 24 <= lefts.count("base") <= 72  # of 96 coins: out of this range once in two million
    assert "adapter" not in VOTING.lower() and "base" not in VOTING.lower() and "adapter" in CARD


def _urls(studio, test, item) -> dict[str, str]:
    from ui.images import file_url

    return {side: file_url(studio, test.image(item, side)) for side in ("base", "adapter")}


def test_a_vote_is_for_what_was_shown_there(studio):
    test = make_test(studio.project, items=10)
    page = Page(studio, "Ada")
    answer = page.ask()
    for screen in answer["screens"]:
        item = test.items[screen["item"]]
        is_left = screen["images"][0]["url"] == _urls(studio, test, item)["adapter"]
        answer = page.vote(answer, screen, "left" if is_left else "right") | {"screens": answer["screens"]}
    assert {vote.preferred for vote in studio.project.votes.votes(test.name, "overall")} == {"adapter"}
    assert (answer["done"], answer["total"], answer["left"]) == (10, 10, 0)
    assert answer["verdict"]["decided"] and answer["verdict"]["share"] == 1.0
    assert answer["verdict"]["words"].startswith("10 of 10 for one of the two; the evidence is 93 to 1; that decides it")


def test_a_vote_on_images_that_are_not_this_pair_s_is_refused(studio):
    make_test(studio.project, items=2)
    page = Page(studio, "Ada")
    answer = page.ask()
    first, second = answer["screens"]
    for wrong in (first | {"images": second["images"]}, first | {"item": 99}, first | {"images": first["images"][:1]}):
        assert len(page.vote(answer, wrong, "left")["refused"]) == 1
    assert page.vote(answer, first, "left", test="../candidates")["refused"]
    assert page.vote(answer, first, "left", question="appeal")["refused"]
    assert page.ask()["done"] == 0


def test_pairs_nobody_has_voted_on_go_first_and_one_s_own_never_come_again(studio):
    make_test(studio.project, items=6)
    ada, bo = Page(studio, "Ada", client="page-a"), Page(studio, "Bo", client="page-b")
    answer = ada.ask()
    voted = [screen["item"] for screen in answer["screens"][:3]]
    for screen in answer["screens"][:3]:
        ada.vote(answer, screen, "left")
    assert set(screen["item"] for screen in ada.ask()["screens"]).isdisjoint(voted)
    order = [screen["item"] for screen in bo.ask()["screens"]]
    assert set(order[3:]) == set(voted) and len(order) == 6
    assert [screen["item"] for screen in bo.ask()["screens"]] == order
    assert [screen["item"] for screen in bo.ask(have=order[:4])["screens"]] == order[4:]


def test_a_login_is_the_voter_whatever_the_page_says(studio):
    test = make_test(studio.project, items=2)
    page = Page(studio, "Grace", login="Ada")
    answer = page.ask()
    page.vote(answer, answer["screens"][0], "left")
    assert [vote.rater for vote in studio.project.votes.votes(test.name, "overall")] == ["Ada"]


def test_after_a_reload_votes_can_be_undone_on_the_very_screen_they_were_made_on(studio):
    make_test(studio.project, items=6)
    page = Page(studio, "Ada")
    answer = page.ask()
    for screen in answer["screens"][:4]:
        page.vote(answer, screen, "tie")
    recent = page.ask(recent=True)["recent"]
    assert [entry["screen"] for entry in recent] == answer["screens"][:4]
    assert [entry["vote"] for entry in recent] == [["page-1", number] for number in range(4)]
    page.ask(operations=[{"client": "page-2", "number": 0, "op": "undo", "undoes": recent[-1]["vote"]}])
    assert len(page.ask(recent=True)["recent"]) == 3
    assert Page(studio, "Bo").ask(recent=True)["recent"] == []


def test_voting_begins_with_the_first_pair_and_it_is_told_how_many_are_still_to_be_made(studio):
    test = make_test(studio.project, items=5)
    for item in test.items[1:]:
        test.image(item, "adapter").unlink()
    answer = Page(studio).ask()
    assert [screen["item"] for screen in answer["screens"]] == [0]
    assert answer["making"] == {"words": "1 of 5 pairs made.", "active": False, "missing": True}


def test_without_a_test_the_page_is_told_so_and_a_question_that_is_not_asked_falls_back(studio):
    assert Page(studio).ask()["tests"] == []
    make_test(studio.project, name="old", made=1.0)
    make_test(studio.project, name="new", made=2.0, questions=("appeal", "prompt"))
    answer = Page(studio).ask(test="gone", question="overall")
    assert (answer["tests"], answer["test"], answer["question"]) == (["new", "old"], "new", "appeal")
    assert answer["questions"] == [["appeal", "Which looks better?"], ["prompt", "Which follows the prompt better?"]]
    assert Page(studio).ask(test="old")["test"] == "old"


def test_the_making_of_images_can_be_taken_out_of_the_queue(studio, tmp_path):
    test = make_test(studio.project, items=2)
    running = studio.jobs.submit("train", "training", "x", lambda job: job.stop.wait(20))
    job = studio.jobs.submit("test", "making", test.name, lambda job: None)
    test.image(test.items[0], "base").unlink()
    assert Page(studio).ask()["making"]["words"] == "1 of 2 pairs made. The rest waits for the device."
    make_images(studio, {"test": test.name, "do": "stop"})
    assert job.state == "stopped"
    running.stop.set()
    running.finished.wait(10)


# ------------------------------------------------------------------------------------------------ the result


def test_the_card_has_the_verdict_with_names_and_the_pairs_to_look_at(studio):
    test = make_test(studio.project, items=12, pairs=60, steps=100, run="cats-1")
    ada = Voter(studio.project, test, "Ada")
    for item in range(10):
        ada.vote(item, "adapter" if item else "base")
    ada.vote(10, "")
    card = describe_card(studio, test.name, "overall")
    assert card["rate"].startswith("90% for the adapter, 95% interval ")
    assert card["words"].startswith("9 of 10 for the adapter; the evidence is 9 to 1; go on, or stop")
    assert card["facts"] == ["10 votes", "1 tie", "11 prompts", "1 person", "trained on 60 pairs in 100 steps", "strength 1"]
    assert card["voters"] == ["Ada: 9 of 10 for the adapter, 1 tie"]
    assert len(card["pairs"]) == 6 and {pair["chosen"] for pair in card["pairs"]} <= {"base", "adapter"}
    links = keep_card(studio, {"test": test.name, "question": "overall"})
    assert links["picture"].endswith("blind-cats-1-overall.png") and links["record"].endswith(".json")
    assert (studio.project.exports / "blind-cats-1-overall.png").is_file()


def test_pairs_of_votes_are_told_with_what_they_cost(studio):
    test = make_test(studio.project, items=30)
    ada = Voter(studio.project, test, "Ada")
    for item in range(30):
        ada.vote(item, "adapter")
    words = pair_votes(studio, {"test": test.name, "question": "overall"})["words"]
    assert words.startswith("30 new pairs from these votes.")
    assert "will be trained on, so they are held out no more: the next test leaves them out." in words
    assert (
        pair_votes(studio, {"test": test.name, "question": "overall"})["words"]
        == "0 new pairs from these votes. 30 were there before."
    )


# ------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("wins", "losses", "words"),
    [
        (0, 0, "No votes yet."),
        (2, 2, "2 to 2; no evidence of a difference yet; go on, or stop: these numbers hold whenever you stop."),
        (29, 11, "29 of 40 for the adapter; the evidence is 12 to 1; go on, or stop: these numbers hold whenever you stop."),
        (11, 29, "29 of 40 for the base model; the evidence is 12 to 1; go on, or stop: these numbers hold whenever you stop."),
        (8, 0, "8 of 8 for the adapter; the evidence is 28 to 1; that decides it; go on, or stop: the answer will hold."),
    ],
    ids=["none", "even", "adapter", "base", "decided"],
)  # fmt: skip
def test_verdicts_in_words(wins, losses, words):
    votes = sorted(
        [((number + 0.5) / wins, True) for number in range(wins)] + [((n + 0.5) / losses, False) for n in range(losses)]
    )
    verdict = judge(is_win for _, is_win in votes)
    assert verdict_words(verdict, named=True) == words
    unnamed = verdict_words(verdict, named=False)
    assert "adapter" not in unnamed and "base" not in unnamed


def test_evidence_is_never_rounded_up_to_what_would_decide():
    assert evidence_words(Verdict(62, 94, 0, math.log(19.7), None, "")) == "the evidence is 19 to 1"
    assert evidence_words(Verdict(62, 94, 0, math.log(20.4), 94, "adapter")) == "the evidence is 20 to 1"
    assert evidence_words(judge([True] * 200)) == "the evidence is over 10,000 to 1"


def test_a_decision_that_later_votes_weaken_is_told_as_made():
    verdict = judge([True] * 8 + [False] * 4)
    assert verdict_words(verdict, named=True).endswith("it was decided after 8 votes, and that answer holds.")
    assert needed_words(verdict) == ""


def test_votes_still_needed_are_for_whoever_is_in_front():
    words = needed_words(judge([]))
    assert words == "If the truth is 60%, 65% or 70% for one side: about 210, 88 or 47 more votes."
    assert needed_words(judge([True, True, False])) == needed_words(judge([False, False, True]))


def test_the_list_of_runs_says_what_the_test_found(studio):
    test = make_test(studio.project, items=10)
    ada = Voter(studio.project, test, "Ada")
    ada.vote(0, "")
    assert short_verdict(ada.outcome()) == "blind test: ties only"
    for item in range(1, 9):
        ada.vote(item, "base")
    assert short_verdict(ada.outcome()) == "blind test: 0 of 8 for the adapter, worse than base"


def test_a_test_that_was_deleted_costs_its_votes_and_nothing_else(studio):
    make_test(studio.project, items=2, name="kept", made=1.0)
    gone = make_test(studio.project, items=2, name="gone", made=2.0)
    page = Page(studio, "Ada")
    answer = page.ask()
    for path in gone.path.iterdir():
        path.unlink()
    gone.path.rmdir()
    after = page.vote(answer, answer["screens"][0], "left")
    assert "There is no blind test named 'gone'" in after["refused"][0] and after["test"] == "kept"
    write_test(gone)
    assert page.ask(test="gone")["making"]["missing"]
