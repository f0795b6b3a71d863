"""What the app answers the picker's page: who picked, by which rules, and what only a browser said counts for little."""

import pytest

from dpo.jobs import JobRegistry
from dpo.project import open_project
from dpo.rules import PickRules
from tests.pictures import paint_folder
from ui.picker_answers import answer_page
from ui.session import Session, Studio, page_session, restore_session, stored_session, token_login, token_view


@pytest.fixture
def studio(tmp_path) -> Studio:
    paint_folder(tmp_path / "project" / "candidates", prompts=3, per_prompt=4, side=32)
    project = open_project(tmp_path / "project")
    project.library.scan(project.path / "candidates")
    return Studio(project, JobRegistry(), b"s" * 32)


def ask(studio: Studio, login: str = "", **payload) -> dict:
    page = page_session(studio, Session(login=login))
    return answer_page(studio, token_view(studio, page), page | {"client": "page-1", "want": 3, **payload})


def best_worst(screen: dict, number: int, client: str = "page-1", **more) -> dict:
    keys = [image["key"] for image in screen["images"]]
    names = {"client": client, "number": number, "op": "best_worst", "group": screen["group"]}
    return names | {"images": keys, "result": keys[:2]} | more


def test_the_login_is_the_name_whatever_the_page_says(studio):
    (screen, *_) = ask(studio)["screens"]
    ask(studio, login="Ada", rater="Grace", operations=[best_worst(screen, 0, rater="Grace")])
    assert [pick.rater for pick in studio.project.picks.live()] == ["Ada"]


def test_a_login_can_be_neither_forged_nor_kept_by_a_browser(studio):
    page = page_session(studio, Session(login="Ada"))
    assert token_login(page) == "Ada"
    nonce, _, signature = page["token"].split(".")
    other = page_session(studio, Session(login="Grace"))["token"].split(".")[1]
    assert token_view(studio, page | {"token": f"{nonce}.{other}.{signature}"}) is None
    assert restore_session({**stored_session(Session(login="Ada")), "login": "Grace"}).login == ""


def test_undo_offers_one_s_own_picks_and_those_without_a_name(studio):
    screens = ask(studio)["screens"]
    names = ("Ada", "Grace", "")
    operations = [
        best_worst(screen, number, rater=name) for number, (screen, name) in enumerate(zip(screens, names, strict=True))
    ]
    ask(studio, operations=operations)
    assert [entry["pick"][1] for entry in ask(studio, rater="Ada", recent=10)["recent"]] == [2, 0]
    assert [entry["pick"][1] for entry in ask(studio, rater="", recent=10)["recent"]] == [2]


def test_a_page_goes_on_reading_its_older_picks_where_it_stopped(studio):
    screens = ask(studio)["screens"]
    ask(studio, operations=[best_worst(screen, number) for number, screen in enumerate(screens)])
    first = ask(studio, recent=2)
    assert [entry["pick"][1] for entry in first["recent"]] == [2, 1]
    rest = ask(studio, recent=2, before=first["oldest"])
    assert ([entry["pick"][1] for entry in rest["recent"]], rest["oldest"]) == ([0], None)


def test_an_undone_screen_is_described_as_it_was_shown(studio):
    (screen, *_) = ask(studio)["screens"]
    turned = {**screen, "images": screen["images"][::-1]}
    ask(studio, operations=[best_worst(turned, 0)])
    (entry,) = ask(studio, recent=1)["recent"]
    assert entry["screen"]["images"] == turned["images"]


def test_rules_are_changed_one_by_one_and_a_bad_one_is_told_with_everything_else(studio):
    studio.project.picks.set_rules(PickRules(live_folder="kept"))
    assert ask(studio, rules={"pairs_per_group": 2})["rules"]["pairs_per_group"] == 2
    answer = ask(studio, rules={"pairs_per_group": 99})
    assert "pairs_per_group=99 must be a whole number from 1 to 8" in answer["problem"]
    assert len(answer["screens"]) == 3
    ask(studio, rules={"pairing": "elo", "live_folder": "stolen", "agreement": "yes", "pairs_per_group": True})
    assert studio.project.picks.rules() == PickRules(2, "elo", False, "kept")


def test_both_sides_of_a_duel_are_as_likely(studio):
    sides = [ask(studio, mode="duel", want=1)["screens"][0]["images"][0]["key"] for _ in range(40)]
    assert len(set(sides)) == 2  # by chance alone once in 10^11 times


@pytest.mark.parametrize(
    "nonsense",
    [{"operations": 7}, {"have": [7, {}, {"mode": "x"}, {"mode": "duel", "images": 3}]}, {"mode": ["duel"]}, {"want": "many"},
     {"first": {}}, {"before": "x", "recent": 3}, {"rules": [1]}, {"rater": 7}, {"left": None}, {"client": 5}],
)  # fmt: skip
def test_nonsense_of_a_page_is_answered_as_if_it_was_not_said(studio, nonsense):
    assert ask(studio, **nonsense)["total"] == 3
