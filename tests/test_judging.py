"""Hand-worked cases of what picks come to. Images are named by letters; the group of a pick is "g" unless a test says so."""

import itertools

import pytest

from dpo.judging import judge, rank_pool
from dpo.operations import Pick
from dpo.ranking import BAR, CLEAR_WEIGHT, Vote, fit, grid_confidence, probability_better
from dpo.rules import PickRules

ONE, TWO = PickRules(), PickRules(pairs_per_group=2)


def pick(op, keys, result="", chosen="", rejected="", **more) -> dict:
    return {"op": op, "keys": tuple(keys), "result": result, "chosen": chosen, "rejected": rejected, **more}


def grid(keys, best, worst, **more) -> dict:
    return pick("best_worst", keys, "", best, worst, **more)


def duel(left, right, result="left", **more) -> dict:
    chosen, rejected = {"left": (left, right), "right": (right, left)}.get(result, ("", ""))
    return pick("duel", (left, right), result, chosen, rejected, **more)


def label(key, result, **more) -> dict:
    return pick("triage", (key,), result, **more)


def stored(*said) -> list[Pick]:
    defaults = {"client": "page", "group": "g", "prompt": "a cat", "rater": "ann"}
    return [
        Pick(**{**defaults, "position": n, "number": n, "made": float(n), **fields}) for n, fields in enumerate(said, start=1)
    ]


def judged(images, *said, rules=ONE, group="g"):
    return judge(tuple(images), stored(*said), rules, group)


def pairs(judgement) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in judgement.pairs]


# ------------------------------------------------------------------------------------------------ rule 1: direct pairs


def test_best_and_worst_are_a_pair_at_once_as_sure_as_a_grid_of_that_size():
    judgement = judged("abcd", grid("abcd", "c", "a"))
    (pair,) = judgement.pairs
    assert (pair.chosen, pair.rejected, pair.confidence) == ("c", "a", grid_confidence(4))
    assert (pair.source, pair.group, pair.position, pair.rater, pair.state) == ("best_worst", "g", 1, "ann", "used")
    assert (judgement.pool, judgement.used) == (("b", "d"), {"a", "c"})


def test_of_two_grids_that_want_an_image_the_earlier_has_it():
    judgement = judged("abcd", grid("abcd", "a", "b"), grid("acd", "a", "c", rater="bob"), grid("cd", "c", "d"))
    assert pairs(judgement) == [("a", "b"), ("c", "d")]


def test_of_two_grids_of_the_same_images_by_the_same_person_the_later_counts():
    assert pairs(judged("abc", grid("abc", "a", "b"), grid("cba", "c", "a"))) == [("c", "a")]


def test_two_people_on_the_same_images_do_not_overrule_each_other():
    assert pairs(judged("abc", grid("abc", "a", "b"), grid("abc", "b", "a", rater="bob"))) == [("a", "b")]


def test_grids_make_as_many_pairs_as_are_picked_whatever_the_rules_say():
    assert len(judged("abcd", grid("abcd", "a", "b"), grid("cd", "c", "d")).pairs) == 2


def test_an_image_paired_in_another_group_is_out_of_the_pool_and_no_pair_of_this_one():
    judgement = judged("abc", grid("az", "a", "z", group="other"))
    assert (judgement.pairs, judgement.pool, judgement.used) == ((), ("b", "c"), {"a"})


def test_an_import_is_a_pair_with_its_own_confidence_and_uses_its_images_up():
    imported = pick("import", "ab", "", "a", "b", source="cats", confidence=0.6)
    (pair,) = judged("abc", imported).pairs
    assert (pair.chosen, pair.rejected, pair.confidence, pair.source) == ("a", "b", 0.6, "import: cats")


def test_an_import_without_a_reject_waits_and_steps_back_when_its_image_is_in_a_pair():
    waiting = pick("import", "a", "", "a", "")
    (pair,) = judged("ab", waiting).pairs
    assert (pair.state, pair.rejected, pair.keys) == ("needs_reject", "", ())
    assert judged("ab", waiting).pool == ("a", "b")
    assert pairs(judged("ab", waiting, grid("ab", "b", "a"))) == [("b", "a")]


# ------------------------------------------------------------------------------------------------ rule 2: votes


def test_each_answer_is_the_vote_it_says():
    judgement = judged(
        "abcd", duel("a", "b", "left"), duel("a", "b", "right"), duel("c", "b", "left", is_clear=True), duel("a", "d", "tie"),
        duel("c", "d", "both_bad"), duel("a", "c", "skip"), label("a", "good"), label("b", "bad"), label("c", "skip"),
    )  # fmt: skip
    assert judgement.votes == (
        Vote(0, 1), Vote(1, 0), Vote(2, 1, CLEAR_WEIGHT), Vote(0, 3, is_tie=True),
        Vote(2, 3, is_tie=True), Vote(BAR, 2), Vote(BAR, 3), Vote(0, BAR), Vote(BAR, 1),
    )  # fmt: skip
    assert (judgement.duels, judgement.avoid, judgement.labelled) == (6, {(0, 2)}, {"a", "b", "c"})


def test_votes_about_images_that_are_in_a_pair_or_of_another_group_say_nothing_of_the_pool():
    judgement = judged("abcde", grid("ab", "a", "b"), duel("a", "c"), duel("c", "x"), duel("d", "c"))
    assert (judgement.pool, judgement.votes, judgement.duels) == (("c", "d", "e"), (Vote(1, 0),), 1)


def test_a_label_given_again_replaces_the_first_of_the_same_person_only():
    again = judged("abc", label("a", "good"), label("a", "bad"), label("a", "good", rater="bob"))
    assert again.votes == (Vote(BAR, 0), Vote(0, BAR))


def test_the_same_duel_asked_again_is_another_vote():
    assert judged("abc", duel("a", "b"), duel("b", "a", "right")).votes == (Vote(0, 1), Vote(0, 1))


# ------------------------------------------------------------------------------------------------ rules 3 and 4: ranked pairs


def test_one_duel_finishes_a_group_of_two_and_says_how_sure_it_is():
    judgement = judged("ab", duel("b", "a", "left"))
    (pair,) = judgement.pairs
    assert (pair.chosen, pair.rejected, pair.source) == ("b", "a", "duel")
    assert pair.confidence == pytest.approx(probability_better(fit(2, [Vote(1, 0)]), 1, 0))
    assert (judgement.is_finished, judgement.likely_left, judgement.used) == (True, 0, {"a", "b"})


def test_the_same_duel_among_more_images_is_not_enough_for_a_pair():
    judgement = judged("abc", duel("b", "a", "left"))
    assert (judgement.pairs, judgement.is_finished) == ((), False)
    assert judgement.likely_left >= 1


@pytest.mark.parametrize("result", ["tie", "both_bad", "skip"])
def test_two_images_of_which_neither_is_better_are_finished_without_a_pair(result):
    judgement = judged("ab", duel("a", "b", result))
    assert (judgement.pairs, judgement.is_finished) == ((), True)


def test_ties_alone_never_make_a_pair():
    said = [duel(one, other, "tie") for one, other in itertools.combinations("abcd", 2)] * 3
    judgement = judged("abcd", *said)
    assert (judgement.is_finished, judgement.pairs) == (True, ())


def test_a_pair_that_is_sure_comes_before_the_group_is_finished():
    said = [duel("a", "b")] * 3  # nothing is known of the others
    judgement = judged("abcdefgh", *said)
    assert not judgement.is_finished
    assert pairs(judgement) == [("a", "b")]
    assert judgement.pairs[0].confidence >= 0.9
    assert judgement.pool == tuple("abcdefgh") and judgement.used == {"a", "b"}


def test_nobody_is_paired_who_was_never_shown():
    """All that was shown is bad, and one of it far the worst: what was not shown is surely better than that."""
    said = [*[duel(key, "a") for key in "bcd"] * 20, *[label(key, "bad") for key in "abcd"]]
    assert judged("abcde", *said).pairs == ()
    assert pairs(judged("abcde", *said, label("e", "good"))) == [("e", "a")]


def test_who_wins_all_duels_is_chosen_and_who_loses_all_is_rejected():
    said = [duel(one, other) for one, other in itertools.combinations("abcd", 2)] * 3
    judgement = judged("dbca", *said)
    assert judgement.is_finished
    assert pairs(judgement) == [("a", "d")]


def test_two_pairs_of_a_group_share_no_image_and_are_both_sure():
    said = [duel(one, other) for one, other in itertools.combinations("abcd", 2)] * 4
    judgement = judged("abcd", *said, rules=TWO)
    assert pairs(judgement) == [("a", "d"), ("b", "c")]
    assert min(pair.confidence for pair in judgement.pairs) >= 0.9
    assert judgement.used == set("abcd")


def test_a_grid_pair_counts_against_the_pairs_that_a_ranking_may_add():
    said = [grid("ef", "e", "f"), *[duel(one, other) for one, other in itertools.combinations("abcd", 2)] * 4]
    assert pairs(judged("abcdef", *said)) == [("e", "f")]
    assert pairs(judged("abcdef", *said, rules=TWO)) == [("e", "f"), ("a", "d")]


def test_labels_alone_make_a_pair_of_a_good_and_a_bad_image():
    judgement = judged("abc", label("a", "good"), label("b", "bad"), label("c", "skip"))
    assert (judgement.is_finished, pairs(judgement)) == (True, [("a", "b")])
    assert judgement.pairs[0].source == "triage"


@pytest.mark.parametrize("said", [[label("a", "bad"), label("b", "bad")], [label("a", "good"), label("b", "good")]])
def test_labels_that_are_all_alike_make_no_pair(said):
    judgement = judged("ab", *said)
    assert (judgement.is_finished, judgement.pairs) == (True, ())


def test_an_image_called_bad_is_never_chosen_however_often_it_wins():
    wins = [duel("a", "b")] * 6
    assert pairs(judged("ab", *wins)) == [("a", "b")]
    assert pairs(judged("ab", *wins, label("a", "bad"))) == []
    assert pairs(judged("ab", *wins, duel("a", "b", "both_bad"))) == []
    assert pairs(judged("ab", *wins, label("a", "bad"), label("a", "good"))) == [("a", "b")]
    assert pairs(judged("ab", *wins, duel("a", "b", "both_bad"), label("a", "good"))) == [("a", "b")]
    assert pairs(judged("ab", label("a", "good"), *wins, duel("a", "b", "both_bad"), label("a", "good"))) == [("a", "b")]


def test_clearly_makes_a_pair_surer():
    plain, clear = judged("ab", duel("a", "b")), judged("ab", duel("a", "b", is_clear=True))
    assert clear.pairs[0].confidence > plain.pairs[0].confidence


def test_duels_and_labels_count_together():
    """A good and a bad label alone leave the pair open; a duel of a third image does not change who they are."""
    judgement = judged("abc", label("a", "good"), label("b", "bad"), label("c", "good"), duel("a", "c"), duel("a", "b"))
    assert (pairs(judgement), judgement.pairs[0].source) == ([("a", "b")], "duel")


def test_when_every_duel_was_skipped_nothing_is_left_to_ask():
    said = [duel(one, other, "skip") for one, other in itertools.combinations("abc", 2)]
    assert not judged("abc", *said[:2]).is_finished
    judgement = judged("abc", *said)
    assert (judgement.is_finished, judgement.likely_left, judgement.pairs) == (True, 0, ())


def test_a_ranked_pair_says_who_was_the_last_to_speak_of_it():
    judgement = judged("abc", *[duel("a", "b")] * 3, duel("b", "a", "right", rater="bob"), label("c", "skip", rater="cat"))
    (pair,) = judgement.pairs
    assert (pair.position, pair.rater, pair.made) == (4, "bob", 4.0)


def test_prompts_that_differ_in_lora_tags_leave_the_pair_the_chosen_one_without_them():
    said = [duel("a", "b", prompt="A cat <lora:x:1>"), duel("a", "b", prompt="a cat")]
    assert judged("ab", *said).pairs[0].prompt == "a cat"
    assert judged("ab", *said[:1]).pairs[0].prompt == "A cat <lora:x:1>"
    assert judged("ab", *said[::-1]).pairs[0].prompt == "A cat"
    lost = duel("a", "b", "right", prompt="not what a was made with")
    assert judged("ab", *said[:1] * 4, lost).pairs[0].prompt == "A cat"


def test_what_order_a_group_is_listed_in_changes_nothing():
    """Also not that of images nobody has seen, of which one who judges may know only how many they are."""
    said = [duel("a", "b"), duel("c", "d"), duel("a", "c"), duel("d", "b", "right"), duel("a", "d")]
    found = [judged(order, *said) for order in ("abcdef", "fedcba", "xaybcd")]
    assert len({(judgement.is_finished, judgement.likely_left, judgement.pairs) for judgement in found}) == 1


def test_rankings_are_asked_for_as_if_images_had_no_names():
    asked = []

    def rank(*arguments):
        asked.append(arguments)
        return rank_pool(*arguments)

    judge("ab", stored(duel("a", "b")), ONE, "g", rank)
    judge("xy", stored(duel("y", "x")), ONE, "g", rank)
    assert len(asked) == 2 and asked[0] == asked[1]


# ------------------------------------------------------------------------------------------------ rankings

ALL_DUELS = [duel(one, other) for one, other in itertools.combinations("abcd", 2)] * 3


def test_a_group_ranked_to_the_end_is_a_ranking_of_all_its_images():
    ranking = judged("dbca", *ALL_DUELS).ranking
    assert (ranking.images, ranking.group, ranking.prompt, ranking.made_by) == (tuple("abcd"), "g", "a cat", "ann")
    assert ranking.position == len(ALL_DUELS) and 0.9 < ranking.confidence <= 0.99


@pytest.mark.parametrize(
    "images, said",
    [
        ("abcdefgh", ALL_DUELS[:6]),  # not finished
        ("ab", [duel("a", "b")]),  # a pair
        ("abc", [duel(one, other, "tie") for one, other in itertools.combinations("abc", 2)] * 4),
        ("abc", [label("a", "good"), label("b", "bad"), label("c", "bad")]),  # two heaps
        ("abc", [label("a", "good"), label("b", "bad"), label("c", "bad"), duel("b", "c"), duel("a", "c", "skip")]),
    ],
)
def test_what_puts_no_three_images_in_order_is_no_ranking(images, said):
    assert judged(images, *said).ranking is None


def test_an_image_that_was_in_no_duel_has_no_place_in_the_ranking():
    said = [*ALL_DUELS, *(label(key, "good") for key in "abcd"), label("e", "bad")]
    assert judged("abcde", *said).ranking.images == tuple("abcd")
    assert judged("abcde", *said, duel("d", "e"), duel("c", "e")).ranking.images == tuple("abcde")


def test_a_ranking_that_somebody_corrected_in_the_review_is_none():
    assert judged("abcd", *ALL_DUELS, pick("swap", "ad")).ranking is None
    assert judged("abcd", *ALL_DUELS, pick("drop", "ad")).ranking is None
    assert judged("abcdef", grid("ef", "e", "f"), *ALL_DUELS, pick("drop", "ef")).ranking.images == tuple("abcd")


def test_the_prompt_of_a_ranking_is_that_of_its_best_image_where_lora_tags_differ():
    said = [*ALL_DUELS, duel("a", "d", prompt="A cat <lora:x:1>"), duel("b", "c", prompt="a CAT")]
    assert judged("abcd", *said).ranking.prompt == "A cat"


def test_what_several_people_made_is_nobodys_and_a_pick_by_one_is_theirs():
    assert judged("abcd", *ALL_DUELS).pairs[0].made_by == "ann"
    by_two = judged("abcdef", *ALL_DUELS, duel("b", "c", rater="bob"), grid("ef", "e", "f", rater="bob"), rules=TWO)
    assert {(pair.source, pair.made_by) for pair in by_two.pairs} == {("duel", ""), ("best_worst", "bob")}
    assert by_two.ranking.made_by == ""


# ------------------------------------------------------------------------------------------------ rule 5 and skips


def test_a_second_opinion_is_no_vote():
    judgement = judged("ab", duel("a", "b"), duel("a", "b", "right", is_second=True, rater="bob"))
    assert (pairs(judgement), judgement.duels, len(judgement.votes)) == ([("a", "b")], 1, 1)


def test_a_group_skipped_under_its_key_is_skipped_whole_and_keeps_its_pairs():
    judgement = judged("abcd", duel("a", "b"), duel("a", "b"), duel("a", "b"), pick("skip", "ab", "duel"))
    assert (judgement.is_skipped, pairs(judgement)) == (True, [("a", "b")])


def test_a_group_skipped_under_another_key_loses_the_images_that_were_shown():
    judgement = judged("abcd", pick("skip", "ab", "best_worst", group="other"))
    assert (judgement.is_skipped, judgement.pool) == (False, ("c", "d"))
    assert judged("ab", pick("skip", "abc", "best_worst", group="other")).is_skipped


def test_nothing_said_is_nothing_known():
    judgement = judged("abc")
    assert (judgement.pairs, judgement.is_finished, judgement.is_skipped, judgement.duels) == ((), False, False, 0)
    assert judgement.likely_left > 3
    assert judged("a").is_finished and judged("").is_finished


def test_a_large_group_expects_more_duels_in_proportion():
    assert judged([f"{n}" for n in range(320)]).likely_left == 10 * judged([f"{n}" for n in range(32)]).likely_left


# ------------------------------------------------------------------------------------------------ rule 6: the review


def test_a_dropped_pair_is_deleted_and_its_images_stay_used():
    judgement = judged("abcd", grid("abcd", "a", "b"), pick("drop", "ab"))
    assert [(pair.state, pair.chosen) for pair in judgement.pairs] == [("deleted", "a")]
    assert judgement.pool == ("c", "d")


def test_a_swapped_pair_is_turned_round_and_swapped_twice_is_back():
    said = [grid("abcd", "a", "b"), pick("swap", "ab"), pick("swap", "ba")]
    assert pairs(judged("abcd", *said[:2])) == [("b", "a")]
    assert judged("abcd", *said[:2]).pairs[0].is_swapped
    assert pairs(judged("abcd", *said)) == [("a", "b")]
    assert not judged("abcd", *said).pairs[0].is_swapped


def test_ranked_pairs_and_pairs_that_need_a_reject_are_reviewed_alike():
    (pair,) = judged("ab", duel("a", "b"), pick("swap", "ab"), pick("drop", "ba")).pairs
    assert (pair.chosen, pair.state, pair.is_swapped) == ("b", "deleted", True)
    (pair,) = judged("ab", duel("a", "b"), pick("drop", "ab"), pick("swap", "ab")).pairs
    assert (pair.chosen, pair.state, pair.is_swapped) == ("b", "deleted", True)
    (pair,) = judged("a", pick("import", "a", "", "a", ""), pick("drop", "a")).pairs
    assert pair.state == "deleted"


def test_a_drop_of_other_images_changes_nothing():
    assert judged("abcd", grid("abcd", "a", "b"), pick("drop", "ac")).pairs[0].state == "used"
