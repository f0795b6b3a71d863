"""What becomes of pairs that a scorer proposes, beside what people say: they never take anything from a person."""

import pytest

from dpo.groups import View
from dpo.picks import ImportedPair
from dpo.project import open_project
from tests.asking import Page, open_painted
from tests.operations import best_worst, duel, keys, make, reopen, review, skip, triage, undo


@pytest.fixture
def project(tmp_path):
    return open_painted(tmp_path)


@pytest.fixture
def groups(project, tmp_path):
    return project.library.groups(tmp_path / "images")


def propose(group, number=0, chosen=0, rejected=1, result="proposed", confidence=0.7, scorer="clip"):
    images = [keys(group)[chosen], keys(group)[rejected]]
    return make(
        "propose", number, "scorer-a", group=group.key, images=images, result=result, scorer=scorer, confidence=confidence
    )


def standing(project) -> list[tuple[str, str, str]]:
    return [(picked.state, picked.pair.source, picked.rater) for picked in project.picks.picked_pairs()]


def test_an_unconfirmed_proposal_trains_nothing_and_an_automatic_pair_does_under_its_own_source(project, groups):
    operations = [propose(groups[0]), propose(groups[1], 1, result="used", confidence=0.9)]
    assert project.picks.apply(operations).refused == ()
    assert standing(project) == [("proposed", "AI proposal: clip", ""), ("used", "AI: clip", "")]
    (pair,) = project.picks.pairs()
    assert (pair.source, pair.confidence, pair.rater, pair.prompt) == ("AI: clip", 0.9, "", groups[1].prompt)


def test_a_proposal_that_a_person_confirms_trains_as_theirs_until_that_is_undone(project, groups):
    project.picks.apply([propose(groups[0])])
    confirm = review("confirm", groups[0]) | {"rater": "ann"}
    project.picks.apply([confirm])
    (pair,) = project.picks.pairs()
    assert (pair.source, pair.rater, pair.confidence) == ("confirmed: clip", "ann", 0.83)  # as a pick of two: grid_confidence
    assert pair.chosen == groups[0].images[0].path
    project.picks.apply([undo(confirm, 1)])
    assert standing(project) == [("proposed", "AI proposal: clip", "")]


@pytest.mark.parametrize("result", ["proposed", "used"])
def test_a_proposal_that_a_person_turns_round_is_theirs_with_the_other_image_chosen(project, groups, result):
    project.picks.apply([propose(groups[0], result=result), review("swap", groups[0]) | {"rater": "ann"}])
    (pair,) = project.picks.pairs()
    assert (pair.source, pair.rater, pair.chosen) == ("confirmed: clip", "ann", groups[0].images[1].path)


def test_a_dropped_proposal_stays_deleted_and_its_restoring_brings_back_the_proposal(project, groups):
    drop = review("drop", groups[0])
    project.picks.apply([propose(groups[0]), drop])
    assert standing(project) == [("deleted", "AI proposal: clip", "")]
    project.picks.apply([undo(drop, 1)])
    assert standing(project) == [("proposed", "AI proposal: clip", "")]


SAID = {
    "best and worst of others": lambda group: best_worst(group, best=2, worst=3),
    "a duel with one of its images": lambda group: duel(group, "tie", left=0, right=3),
    "triage": lambda group: triage(group, "bad"),
    "skip": skip,
}


@pytest.mark.parametrize("result", ["proposed", "used"])
@pytest.mark.parametrize("name", SAID)
def test_an_ai_pair_gives_way_to_whatever_a_person_says_of_its_group_and_comes_back_with_an_undo(project, groups, name, result):
    said = SAID[name](groups[0])
    project.picks.apply([propose(groups[0], result=result)])
    before = standing(project)
    project.picks.apply([said])
    assert not [picked for picked in project.picks.picked_pairs() if picked.pair.source.startswith("AI")]
    project.picks.apply([undo(said, 1)])
    assert standing(project) == before


def test_a_proposal_made_after_a_pick_of_the_same_group_counts_for_nothing(project, groups):
    project.picks.apply([best_worst(groups[0]), propose(groups[0], result="used", chosen=2, rejected=3)])
    assert standing(project) == [("used", "best_worst", "")]


def test_an_ai_pair_gives_way_to_an_import_of_the_same_images_which_is_not_taken_for_known(project, groups):
    project.picks.apply([propose(groups[0], result="used")])
    (one, other), paths = keys(groups[0])[:2], [image.path for image in groups[0].images[:2]]
    row = ImportedPair(groups[0].prompt, one, other, tuple(paths), 1.0, "a set", "set")
    assert project.picks.import_pairs([row]) == 1
    assert standing(project) == [("used", "import: a set", "")]


def test_a_confirmed_proposal_takes_no_image_from_an_earlier_pick(project, groups):
    """Somebody picked from the group while another page still showed the proposal."""
    project.picks.apply([propose(groups[0]), best_worst(groups[0], best=1, worst=2), review("confirm", groups[0], 5)])
    assert standing(project) == [("used", "best_worst", "")]


def test_two_scorers_propose_one_pair_of_a_group_the_first_one(project, groups):
    project.picks.apply([propose(groups[0]), propose(groups[0], 1, chosen=2, rejected=3, scorer="pickscore")])
    assert standing(project) == [("proposed", "AI proposal: clip", "")]


def test_the_picker_asks_of_groups_with_proposals_as_if_there_were_none_and_of_confirmed_ones_no_more(project, groups, tmp_path):
    view = View(str(tmp_path / "images"))
    before = Page(project, view).ask()
    project.picks.apply([propose(groups[0]), propose(groups[1], 1, result="used")])
    after = Page(project, view).ask()
    assert (after.done, after.total) == (0, 3)
    shown = [[screen.group.key, [image.key for image in screen.images]] for screen in before.screens]
    assert [[screen.group.key, [image.key for image in screen.images]] for screen in after.screens] == shown
    assert project.picks.unpicked(project.library, view, "best_worst") == {}  # none looks begun
    project.picks.apply([review("confirm", groups[0], 7)])
    assert Page(project, view).ask().done == 1


def test_a_proposal_does_not_change_how_duels_of_its_group_stand(project, groups, tmp_path):
    other = open_project(tmp_path / "without")
    other.library.scan(tmp_path / "images")
    said = [duel(groups[0], "left", number, left=0, right=right, size=4) for number, right in ((1, 2), (2, 3))]
    project.picks.apply([propose(groups[0]), *said])
    other.picks.apply(said)
    shown = keys(groups[0])
    assert project.picks.book().judge(shown, groups[0].key) == other.picks.book().judge(shown, groups[0].key)


def test_a_group_that_is_opened_again_forgets_its_proposal(project, groups):
    project.picks.apply([propose(groups[0]), reopen(groups[0])])
    assert standing(project) == []


@pytest.mark.parametrize(
    "wrong, reason",
    [
        ({"confidence": 0.5}, "confidence=0.5 is not above 0.5"),
        ({"confidence": "1"}, "confidence='1'"),
        ({"scorer": ""}, "scorer='' is not a name"),
        ({"result": "good"}, "result='good' of a propose"),
    ],
    ids=["no confidence", "text", "nobody", "result"],
)
def test_a_proposal_that_says_nothing_sensible_is_refused(project, groups, wrong, reason):
    (refused,) = project.picks.apply([propose(groups[0]) | wrong]).refused
    assert reason in refused
