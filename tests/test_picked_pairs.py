"""The pairs of a project as review, training and export see them."""

import itertools
import shutil
from pathlib import Path

import pytest

from dpo.pairs import Like, Pair, Ranking, held_out_prompts
from dpo.picks import Agreement, ImportedPair, Sides
from dpo.project import open_project
from dpo.ranking import grid_confidence
from dpo.rules import PickRules
from tests.operations import best_worst, duel, keys, reopen, review, skip, triage, undo
from tests.pictures import paint_folder


@pytest.fixture
def project(tmp_path):
    paint_folder(tmp_path / "images", prompts=4, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(tmp_path / "images")
    return project


@pytest.fixture
def groups(project, tmp_path):
    return project.library.groups(tmp_path / "images")


@pytest.fixture
def picks(project):
    return project.picks


def imported(number=1, rejected=True, **changes) -> ImportedPair:
    names = [f"{number:023}{side}" for side in ("c", "d")[: 1 + rejected]]
    paths = tuple(f"{name}.png" for name in names)
    fields = {"prompt": "a cat", "confidence": 0.75, "source": "cats", "origin": "the folder of cats", **changes}
    return ImportedPair(chosen_key=names[0], rejected_key=names[1] if rejected else "", paths=paths, **fields)


def states(picks) -> list[str]:
    return [picked.state for picked in picks.picked_pairs()]


def test_a_pair_says_where_it_comes_from_and_how_sure_it_is(picks, groups):
    picks.apply([best_worst(groups[0], 0, rater="Ann"), duel(groups[1], "right", 1)])
    first, second = picks.picked_pairs()
    images = groups[0].images
    assert first.pair == Pair(groups[0].prompt, images[0].path, images[1].path, grid_confidence(4), "best_worst", "Ann")
    assert (first.group, first.chosen, first.rejected, first.rater) == (groups[0].key, *keys(groups[0])[:2], "Ann")
    assert (first.state, first.is_swapped, first.missing) == ("used", False, ())
    assert first.position < second.position and first.made <= second.made
    assert second.pair.source == "duel" and 0.7 < second.pair.confidence < 0.9


def test_a_skip_makes_no_pair_of_what_went_before(picks, groups):
    picks.apply([skip(groups[0], 0), duel(groups[1], "tie", 1), triage(groups[2], "good", 2)])
    assert picks.picked_pairs() == []


def test_one_duel_of_a_group_that_has_more_images_is_no_pair_yet(picks, groups):
    picks.apply([duel(groups[0], "left", 0, size=4), duel(groups[1], "left", 1, size=2)])
    assert [picked.group for picked in picks.picked_pairs()] == [groups[1].key]


def test_a_dropped_pair_stays_in_sight_is_not_trained_on_and_can_be_restored(picks, groups):
    drop = review("drop", groups[0], 2)
    picks.apply([best_worst(groups[0], 0), best_worst(groups[1], 1), drop])
    assert states(picks) == ["deleted", "used"]
    assert [pair.prompt for pair in picks.pairs()] == [groups[1].prompt]
    picks.apply([undo(drop, 3)])
    assert states(picks) == ["used", "used"]


def test_a_swapped_pair_is_trained_on_the_other_way_round(picks, groups):
    picks.apply([best_worst(groups[0], 0), review("swap", groups[0], 1)])
    (picked,) = picks.picked_pairs()
    assert (picked.is_swapped, picked.chosen, picked.rejected) == (True, keys(groups[0])[1], keys(groups[0])[0])
    assert picks.pairs()[0].chosen == groups[0].images[1].path
    picks.apply([review("swap", groups[0], 2, chosen=1, rejected=0)])
    assert picks.pairs()[0].chosen == groups[0].images[0].path


def test_a_group_opened_again_makes_its_pairs_anew(picks, groups):
    picks.apply([best_worst(groups[0], 0), review("drop", groups[0], 1), reopen(groups[0], 2)])
    assert picks.picked_pairs() == []
    picks.apply([best_worst(groups[0], 3, worst=2)])
    assert (states(picks), picks.pairs()[0].rejected) == (["used"], groups[0].images[2].path)


def test_more_pairs_per_group_are_found_in_the_same_duels(picks, groups):
    number = 0
    for _ in range(4):
        for left, right in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
            picks.apply([duel(groups[0], "left", number, left, right)])
            number += 1
    assert len(picks.pairs()) == 1
    picks.set_rules(PickRules(pairs_per_group=2))
    images = [image.path for image in groups[0].images]
    assert {(pair.chosen, pair.rejected) for pair in picks.pairs()} == {(images[0], images[3]), (images[1], images[2])}


def test_validation_pairs_are_those_whose_prompts_are_kept_out(picks, groups):
    picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    held_out = held_out_prompts([pair.prompt for pair in picks.pairs()], 0.1)
    assert {picked.pair.prompt for picked in picks.picked_pairs() if picked.is_validation} == held_out != set()


def test_when_all_validation_pairs_are_deleted_others_take_their_place(picks, groups):
    picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    for number, picked in enumerate(picks.picked_pairs()):
        if picked.is_validation:
            group = next(group for group in groups if group.key == picked.group)
            picks.apply([review("drop", group, 10 + number)])
    left = [picked.is_validation for picked in picks.picked_pairs() if picked.state == "used"]
    assert True in left and False in left


def test_pairs_are_worked_out_once_until_something_is_said_or_a_file_goes(picks, groups):
    picks.apply([best_worst(groups[0], 0), best_worst(groups[1], 1)])
    first = picks.picked_pairs()
    assert picks.picked_pairs() is first
    picks.apply([best_worst(groups[2], 2)])
    second = picks.picked_pairs()
    assert (len(first), len(second)) == (2, 3)
    Path(second[0].pair.chosen).unlink()
    assert [len(picked.missing) for picked in picks.picked_pairs()] == [1, 0, 0]


def test_a_file_that_comes_back_is_used_again(picks, groups, tmp_path):
    picks.apply([best_worst(groups[0], 0)])
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    (picked,) = picks.picked_pairs()
    assert len(picked.missing) == 2 and picks.pairs() == []
    shutil.move(tmp_path / "elsewhere", tmp_path / "images")
    assert len(picks.pairs()) == 1


# ------------------------------------------------------------------------------------------------ rankings and likes


def rank_to_the_end(picks, group, size=4) -> list[str]:
    """Every duel of the group three times, the earlier image the better one; returns the files, best first."""
    places = list(itertools.combinations(range(size), 2)) * 3
    picks.apply([duel(group, "left", 100 + number, *pair, rater="Ann", size=4) for number, pair in enumerate(places)])
    return [image.path for image in group.images][:size]


def test_a_group_ranked_to_the_end_is_a_ranking_of_its_files(picks, groups):
    files = rank_to_the_end(picks, groups[0])
    (ranking,) = picks.rankings()
    assert ranking == Ranking(groups[0].prompt, tuple(files), ranking.confidence, "duel", "Ann")
    assert 0.9 < ranking.confidence < 1


def test_a_ranking_of_part_of_a_group_is_none_yet(picks, groups):
    rank_to_the_end(picks, groups[0], size=3)
    assert picks.rankings() == []


def test_a_ranking_goes_on_without_a_file_that_is_gone_down_to_three(picks, groups):
    files = rank_to_the_end(picks, groups[0])
    Path(files[1]).unlink()
    assert picks.rankings()[0].images == (files[0], *files[2:])
    Path(files[0]).unlink()
    assert picks.rankings() == []


def test_labels_that_made_no_pair_are_likes(picks, groups):
    """In group 0 one image is good: nothing to pair it with. In group 1 good and bad make a pair, and one is left."""
    picks.apply([triage(groups[0], "good", 0, rater="Ann"), triage(groups[1], "good", 1), triage(groups[1], "bad", 2, image=1)])
    picks.apply([triage(groups[1], "bad", 3, image=2, rater="Bob"), triage(groups[2], "skip", 4)])
    (pair,) = picks.pairs()
    (left,) = {groups[1].images[place].path for place in (1, 2)} - {pair.rejected}
    liked, disliked = picks.likes()
    assert liked == Like(groups[0].prompt, groups[0].images[0].path, True, 1.0, "triage", "Ann")
    assert (disliked.image, disliked.liked, disliked.prompt) == (left, False, groups[1].prompt)


def test_a_like_follows_its_file_and_goes_with_it(project, picks, groups, tmp_path):
    picks.apply([triage(groups[0], "good", 0)])
    place = Path(groups[0].images[0].path)
    moved = tmp_path / "images" / f"moved {place.name}"
    place.rename(moved)
    assert picks.likes() == []
    project.library.scan(tmp_path / "images")
    assert [like.image for like in picks.likes()] == [str(moved)]


def test_a_pair_that_two_people_made_names_neither(picks, groups):
    picks.apply([best_worst(groups[0], 0, rater="Ann"), duel(groups[1], "left", 1, size=2, rater="Ann")])
    picks.apply([duel(groups[2], "left", 2, size=2, rater="Ann"), duel(groups[2], "left", 3, size=2, rater="Bob")])
    assert [pair.rater for pair in picks.pairs()] == ["Ann", "Ann", ""]


# ------------------------------------------------------------------------------------------------ imports


def test_an_imported_pair_counts_once_wherever_it_comes_from(picks, tmp_path):
    assert picks.import_pairs([imported(1), imported(2), imported(1)]) == 2
    assert picks.import_pairs([imported(2), imported(1, origin="a copy", prompt=" a  cat,")]) == 0
    assert picks.import_pairs([imported(1, prompt="a dog")]) == 1
    first, second = picks.picked_pairs()
    assert first.pair == Pair("a cat", *imported(1).paths, 0.75, "import: cats")
    assert first.missing == (first.pair.chosen, first.pair.rejected)
    assert first.group == second.group


def test_imports_of_one_prompt_and_origin_are_a_group(picks):
    picks.import_pairs([imported(1), imported(2, prompt="a dog"), imported(3, origin="dogs"), imported(4)])
    first, other_prompt, other_origin, same = (picked.group for picked in picks.picked_pairs())
    assert first == same and len({first, other_prompt, other_origin}) == 3


def test_an_import_can_be_dropped_restored_and_comes_again_once_its_group_was_opened(picks):
    picks.import_pairs([imported(1)])
    (picked,) = picks.picked_pairs()
    name = {"client": "client-a", "group": picked.group}
    drop = {**name, "number": 0, "op": "drop", "images": [picked.chosen, picked.rejected]}
    assert picks.apply([drop]).refused == ()
    assert (states(picks), picks.import_pairs([imported(1)])) == (["deleted"], 0)
    picks.apply([undo(drop, 1)])
    assert states(picks) == ["used"]
    picks.apply([{**name, "number": 2, "op": "reopen"}])
    assert states(picks) == []
    assert picks.import_pairs([imported(1)]) == 1
    assert (states(picks), picks.import_pairs([imported(1)])) == (["used"], 0)


def test_a_pair_that_needs_a_reject_is_listed_and_not_trained_on(picks):
    picks.import_pairs([imported(1, rejected=False)])
    (picked,) = picks.picked_pairs()
    assert (picked.state, picked.rejected, picked.pair.rejected, picks.pairs()) == ("needs_reject", "", "", [])
    assert picks.import_pairs([imported(1)]) == 1
    assert states(picks) == ["used"]


def test_a_deleted_pair_that_needs_a_reject_is_gone_for_good(picks):
    picks.import_pairs([imported(1, rejected=False)])
    (picked,) = picks.picked_pairs()
    drop = {"client": "client-a", "number": 0, "op": "drop", "group": picked.group, "images": [picked.chosen]}
    assert picks.apply([drop]).refused == ()
    assert states(picks) == ["deleted"]


def test_imports_are_no_picks_to_undo(picks):
    picks.import_pairs([imported(1)])
    assert (picks.recent(None, 9), [pick.op for pick in picks.live()]) == ([], ["import"])


# ------------------------------------------------------------------------------------------------ two people


def test_sides_are_counted_over_all_duels(picks, groups):
    results = ["left", "left", "right", "tie", "both_bad", "skip"]
    picks.apply([duel(groups[number % 4], result, number) for number, result in enumerate(results)])
    picks.apply([duel(groups[0], "left", 9, second=True)])
    assert picks.sides() == Sides(left=3, right=1, ties=1)


def test_agreement_compares_what_two_people_said_of_the_same_two_images(picks, groups):
    """Ann chose the left image of what Bob was shown in groups 0 and 1, and the right one in 2 and 3. Bob: left, right, right,
    tie; so they agree twice of four times. By chance: (2 x 1 + 2 x 2 + 0 x 1) / 16 = 6/16, so kappa = (1/2 - 3/8) / (5/8)."""
    picks.apply([best_worst(group, number, rater="Ann") for number, group in enumerate(groups)])
    said = [("left", 0, 1), ("right", 0, 1), ("right", 1, 0), ("tie", 1, 0)]
    for number, (result, left, right) in enumerate(said):
        picks.apply([duel(groups[number], result, 10 + number, left, right, second=True, rater="Bob")])
    assert picks.agreement() == Agreement(count=4, agreed=2, kappa=pytest.approx(0.2))


def test_agreement_leaves_out_what_says_nothing_of_two_people(picks, groups):
    picks.apply([best_worst(groups[0], 0, rater="Ann"), best_worst(groups[1], 1, rater="Ann"), best_worst(groups[2], 2)])
    picks.apply(
        [
            duel(groups[0], "left", 10, rater="Ann", second=True),  # the same person
            duel(groups[1], "skip", 11, rater="Bob", second=True),
            duel(groups[2], "left", 12, 2, 3, rater="Bob", second=True),  # of two that are no pair
            duel(groups[3], "left", 13, rater="Bob", second=True),
        ]
    )
    assert picks.agreement() == Agreement(0, 0, None)


def test_a_pair_turned_round_in_the_review_does_not_change_what_the_first_person_said(picks, groups):
    picks.apply([best_worst(groups[0], 0, rater="Ann"), duel(groups[0], "left", 1, rater="Bob", second=True)])
    picks.apply([review("swap", groups[0], 2), review("drop", groups[0], 3)])
    assert picks.agreement() == Agreement(1, 1, None)
