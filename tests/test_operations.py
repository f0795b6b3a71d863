import pytest

from dpo.operations import Refused, check_name, check_result, check_shape
from dpo.rules import MOST_PAIRS_PER_GROUP, PickRules, RulesError

ONE, OTHER, THIRD = "a" * 24, "b" * 24, "c" * 24
NAME = {"client": "page-1", "number": 3, "group": "0" * 27}
SOUND = {
    "best_worst": {**NAME, "op": "best_worst", "images": [ONE, OTHER, THIRD], "result": [ONE, THIRD]},
    "duel": {**NAME, "op": "duel", "images": [ONE, OTHER], "result": "left", "clearly": True, "second": False, "size": 8},
    "triage": {**NAME, "op": "triage", "images": [ONE], "result": "good", "rater": "Ann B."},
    "skip": {**NAME, "op": "skip", "images": [ONE], "result": "triage", "size": 0},
    "drop": {**NAME, "op": "drop", "images": [ONE, OTHER]},
    "drop of one that needs a reject": {**NAME, "op": "drop", "images": [ONE]},
    "swap": {**NAME, "op": "swap", "images": [ONE, OTHER], "rater": ""},
    "reopen": {**NAME, "op": "reopen"},
    "undo": {"client": "page-1", "number": 4, "op": "undo", "undoes": ["page-1", 3]},
    "clearly": {"client": "page-1", "number": 4, "op": "clearly", "of": ["page-1", 3]},
}


def check(operation) -> None:
    check_shape(operation)
    if "result" in operation:
        check_result(operation)
    for name in ("undoes", "of"):
        if name in operation:
            check_name(operation[name])


@pytest.mark.parametrize("name", SOUND)
def test_sound_operations_pass(name):
    check(SOUND[name])


@pytest.mark.parametrize("name", SOUND)
def test_no_operation_may_lack_a_field_or_have_one_that_is_not_its_own(name):
    operation = SOUND[name]
    for field in operation.keys() - {"rater", "clearly", "second", "size"}:
        with pytest.raises(Refused):
            check({key: value for key, value in operation.items() if key != field})
    with pytest.raises(Refused, match="not"):
        check({**operation, "extra": 1})


@pytest.mark.parametrize(
    "name, changes",
    [
        ("best_worst", {"client": "a b"}),
        ("best_worst", {"client": "\ud800" * 4}),
        ("best_worst", {"number": -1}),
        ("best_worst", {"number": True}),
        ("best_worst", {"number": 2**70}),
        ("best_worst", {"group": "../../x"}),
        ("best_worst", {"images": []}),
        ("best_worst", {"images": [ONE]}),
        ("best_worst", {"images": [ONE, ONE]}),
        ("best_worst", {"images": [ONE, "z"]}),
        ("best_worst", {"images": ONE}),
        ("best_worst", {"result": [ONE, ONE]}),
        ("best_worst", {"result": [ONE, "d" * 24]}),
        ("best_worst", {"result": "left"}),
        ("best_worst", {"clearly": True}),
        ("best_worst", {"rater": "x" * 61}),
        ("best_worst", {"rater": None}),
        ("best_worst", {"rater": "\ud800"}),
        ("duel", {"images": [ONE, OTHER, THIRD]}),
        ("duel", {"result": "up"}),
        ("duel", {"result": ["left"]}),
        ("duel", {"clearly": 1}),
        ("duel", {"second": "yes"}),
        ("duel", {"size": 1}),
        ("duel", {"size": -1}),
        ("duel", {"size": "8"}),
        ("triage", {"images": [ONE, OTHER]}),
        ("triage", {"result": "left"}),
        ("skip", {"result": "good"}),
        ("skip", {"result": "duel"}),
        ("drop", {"images": []}),
        ("drop", {"images": [ONE, ""]}),
        ("swap", {"images": [ONE]}),
        ("reopen", {"images": [ONE, OTHER]}),
        ("reopen", {"op": "import"}),
        ("reopen", {"op": ["reopen"]}),
        ("undo", {"undoes": "page-1"}),
        ("undo", {"undoes": ["page-1", 2**70]}),
        ("clearly", {"of": ["page-1"]}),
        ("clearly", {"of": [3, "page-1"]}),
    ],
)
def test_what_says_nothing_is_refused_with_a_reason(name, changes):
    with pytest.raises(Refused) as reason:
        check({**SOUND[name], **changes})
    assert str(reason.value)


@pytest.mark.parametrize("operation", ["undo", None, [], {}, {"op": "drop table"}])
def test_what_is_no_operation_is_refused(operation):
    with pytest.raises(Refused):
        check_shape(operation)


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs_per_group": 0},
        {"pairs_per_group": MOST_PAIRS_PER_GROUP + 1},
        {"pairs_per_group": "1"},
        {"pairs_per_group": True},
        {"pairing": "chess"},
        {"pairing": ["elo"]},
        {"agreement": 1},
        {"live_folder": None},
    ],
)
def test_a_rule_out_of_range_is_refused_by_its_name_and_value(changes):
    ((name, value),) = changes.items()
    with pytest.raises(RulesError, match=f"{name}=") as reason:
        PickRules(**changes)
    assert repr(value) in str(reason.value)


def test_rules_come_back_from_json_and_unknown_ones_are_left_out():
    rules = PickRules(pairs_per_group=3, pairing="swiss", agreement=True, live_folder="pairs")
    assert PickRules.from_json(rules.to_json()) == rules
    assert PickRules.from_json('{"pairs_per_group": 2, "later": 1}') == PickRules(pairs_per_group=2)
