"""Scores of a folder's groups: made once and kept, what they say, the pairs that come of them, and the command."""

import json
import math
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpo.__main__ import main
from dpo.agreement import (
    agreement_with_person,
    group_scores,
    kendall_distance,
    order_by_disagreement,
    score_comparison,
    start_score_test,
    uncertain_groups,
)
from dpo.blind import BlindItem, BlindTest, write_test
from dpo.groups import View
from dpo.jobs import AlreadyRunning, JobRegistry
from dpo.picks import ImportedPair
from dpo.progress import Asking
from dpo.project import open_project
from dpo.proposals import Proposal, add_proposals, discard_proposals, learn_slope, propose_pairs, spread_within
from dpo.scorer_choice import ScorerChoice, ScorerError
from dpo.scorers import load_scorer
from dpo.scores import Ask, score_library, score_view
from dpo.votes import SIDES
from tests.asking import add_group
from tests.blind import make_test
from tests.clip import save_clip
from tests.operations import best_worst, keys, review, undo
from tests.pictures import paint_folder
from ui.blind_scorers import comparison_words


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return ScorerChoice("pickscore", str(save_clip(tmp_path_factory.mktemp("models") / "clip")))


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A scanned project of four groups of four."""
    place = tmp_path_factory.mktemp("painted")
    paint_folder(place / "images", prompts=4, per_prompt=4)
    open_project(place / "project").library.scan(place / "images")
    return place


@pytest.fixture
def here(painted, tmp_path):
    """That project, to be changed: project, view, groups in their order, and `put` to score images by hand."""
    shutil.copytree(painted / "project", tmp_path / "project")
    project, view = open_project(tmp_path / "project"), View(str(painted / "images"))
    groups = project.library.groups(painted / "images")

    def put(choice, scores):
        """`scores`: of each group, the scores of its images in their order."""
        for group, row in zip(groups, scores, strict=False):
            asks = [Ask(image.key, image.path, choice.text_of(image.record.prompt)) for image in group.images]
            project.scores.put(choice.identity, zip(asks, row, strict=False))

    return SimpleNamespace(project=project, view=view, groups=groups, put=put)


# ------------------------------------------------------------------------------------------------ making them


def test_every_image_of_the_groups_is_scored_as_the_scorer_scores_it(here, clip):
    report = score_view(here.project, here.view, clip)
    assert (report.images, report.scored, report.new, report.broken) == (16, 16, 16, 0)
    scores = group_scores(here.project, here.view, clip.identity)
    assert set(scores) == {group.key for group in here.groups}
    image = here.groups[1].images[2]
    (expected,) = load_scorer(clip, here.project.cache).score([Ask("", image.path, image.record.prompt)])
    assert scores[here.groups[1].key][image.key] == pytest.approx(expected, abs=1e-4)


def test_what_is_scored_is_not_computed_again_and_needs_no_model(here, tmp_path):
    model = save_clip(tmp_path / "clip")
    choice = ScorerChoice("clip", str(model))
    score_view(here.project, here.view, choice)
    shutil.rmtree(model)
    report = score_view(open_project(here.project.path), here.view, choice)
    assert (report.scored, report.new) == (16, 0)


def test_a_stop_keeps_what_was_scored_and_the_next_time_goes_on_from_there(here, clip, monkeypatch):
    monkeypatch.setattr("dpo.scores.AT_ONCE", 4)
    stop, seen = threading.Event(), []

    def report(done, total, message):
        seen.append(done)
        if done == 4:
            stop.set()

    first = score_view(here.project, here.view, clip, report, stop)
    assert (seen, first.scored) == ([0, 4], 8)
    second = score_view(here.project, here.view, clip)
    assert (second.scored, second.new) == (16, 8)


def test_a_broken_file_is_counted_and_the_others_are_scored(tmp_path, clip):
    add_group(tmp_path / "images", "a cat", 3)
    project = open_project(tmp_path / "project")
    project.library.scan(tmp_path / "images")
    broken = next((tmp_path / "images").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    report = score_view(project, View(str(tmp_path / "images")), clip)
    assert (report.images, report.scored, report.broken) == (3, 2, 1)
    assert "1 could not be opened" in report.sentence


def test_long_prompts_are_said_to_be_cut(here, clip):
    assert score_view(here.project, here.view, clip).cut == 4  # the tiny model reads 14 letters


def test_scoring_is_a_job_that_is_queued_once_and_whose_failure_is_a_sentence(here, clip):
    jobs = JobRegistry()
    gate = threading.Event()
    jobs.submit("export", "something else", "x", lambda job: gate.wait(20))
    job = score_library(here.project, jobs, here.view, clip)
    with pytest.raises(AlreadyRunning, match="scoring with pickscore"):
        score_library(here.project, jobs, here.view, clip)
    bad = score_library(here.project, jobs, here.view, ScorerChoice("clip", "nobody/nothing"))
    gate.set()
    assert job.finished.wait(60) and bad.finished.wait(60)
    assert (job.state, job.result.scored, bad.state) == ("done", 16, "failed")
    assert "nobody/nothing cannot be loaded" in bad.message


def test_an_image_that_is_given_another_prompt_is_scored_anew(here, clip):
    score_view(here.project, here.view, clip)
    for image in here.groups[0].images[:2]:
        here.project.library.give_prompt(image.key, "something else altogether")
    assert score_view(here.project, here.view, clip).new == 2


def test_a_scores_file_that_is_damaged_is_made_anew_and_nothing_else_is_lost(here):
    here.project.picks.apply([best_worst(here.groups[0])])
    for leftover in here.project.path.glob("scores.sqlite*"):
        leftover.write_bytes(b"no database " * 99)
    again = open_project(here.project.path)
    assert (again.scores.scorers(), len(again.picks.pairs())) == ([], 1)


# ------------------------------------------------------------------------------------------------ what they say


def test_agreement_counts_the_persons_own_pairs_with_ties_as_a_half(here, clip):
    """Right, wrong and a tie: 1.5 of 3. A fourth pair is no person's, and a fifth is confirmed, which proves nothing."""
    here.put(clip, [[2, 1, 0, 0], [1, 2, 0, 0], [1, 1, 0, 0], [5, 0, 1, 2]])
    here.project.picks.apply([best_worst(group, number) for number, group in enumerate(here.groups[:3])])
    share = agreement_with_person(here.project, clip.identity)
    assert (share.wins, share.count) == (1.5, 3)
    assert 0 <= share.low < 0.5 < share.high <= 1
    assert add_proposals(here.project, propose_pairs(here.project, here.view, clip), clip, automatic=True) == 1
    assert agreement_with_person(here.project, clip.identity) == share
    here.project.picks.apply([review("swap", here.groups[3], 9, chosen=0, rejected=1)])
    assert here.project.picks.pairs()[-1].source == "confirmed: pickscore clip"
    assert agreement_with_person(here.project, clip.identity) == share


def test_agreement_counts_votes_of_blind_tests_but_no_other_import(here, clip):
    here.put(clip, [[2, 1, 0, 0], [1, 2, 0, 0]])
    for group, source in zip(here.groups[:2], ("blind test cats", "a set"), strict=True):
        paths = tuple(image.path for image in group.images[:2])
        here.project.picks.import_pairs([ImportedPair(group.prompt, *keys(group)[:2], paths, 1.0, source, source)])
    share = agreement_with_person(here.project, clip.identity)
    assert (share.wins, share.count) == (1, 1)


def test_agreement_without_pairs_is_none(here, clip):
    share = agreement_with_person(here.project, clip.identity)
    assert (share.count, share.low, share.high, str(share)) == (0, 0.0, 1.0, "none")


def test_kendall_distance_is_the_share_of_pairs_in_the_other_order():
    """Of a, b, c by 3 > 2 > 1: the other way round is 1; swapping the last two is 1 of 3; a tie of one alone is a half of 3."""
    one = {"a": 3, "b": 2, "c": 1}
    assert kendall_distance(one, {"a": 30, "b": 20, "c": 10}) == 0
    assert kendall_distance(one, {"a": 1, "b": 2, "c": 3}) == 1
    assert kendall_distance(one, {"a": 3, "b": 1, "c": 2}) == pytest.approx(1 / 3)
    assert kendall_distance(one, {"a": 3, "b": 1, "c": 1}) == pytest.approx(1 / 6)


def test_with_one_scorer_the_groups_whose_best_and_worst_are_nearest_come_first():
    groups = {"wide": {"a": 9, "b": 0}, "narrow": {"a": 1, "b": 0}, "middle": {"a": 5, "b": 2}}
    assert order_by_disagreement({"clip": groups}) == ["narrow", "middle", "wide"]


def test_with_two_scorers_the_groups_that_they_rank_differently_come_first():
    one = {"agreed": {"a": 1, "b": 0}, "contradicted": {"a": 9, "b": 0}}
    other = {"agreed": {"a": 1, "b": 0}, "contradicted": {"a": 0, "b": 9}}
    assert order_by_disagreement({"one": one, "other": other}) == ["contradicted", "agreed"]


def test_the_unit_of_a_scorer_does_not_decide_which_group_is_uncertain():
    """Ten times the score says nothing: "near" is the nearer one by both, relative to what is usual for each."""
    small = {"near": {"a": 0.1, "b": 0}, "usual": {"a": 1, "b": 0}, "far": {"a": 2, "b": 0}}
    large = {"other": {"a": 600, "b": 0}, "usual too": {"a": 1000, "b": 0}, "far too": {"a": 2000, "b": 0}}
    assert order_by_disagreement({"small": small, "large": large})[:2] == ["near", "other"]


def test_the_order_of_uncertain_groups_follows_new_scores(here, clip):
    here.put(clip, [[0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 0, 9], [0, 5, 5, 5]])
    order = [here.groups[place].key for place in (1, 0, 3, 2)]
    assert uncertain_groups(here.project, here.view) == order
    here.put(clip, [[0, 0, 0, 0.5]])
    assert uncertain_groups(here.project, here.view)[0] == here.groups[0].key


def test_a_view_of_what_scorers_are_unsure_of_has_the_less_certain_half_and_all_that_is_not_scored(here, clip):
    unsure = replace(here.view, unsure=True)
    everything = [line.key for line in here.project.library.catalogue(here.view).lines]
    assert [line.key for line in here.project.library.catalogue(unsure).lines] == everything, "nobody is sure of anything yet"
    here.put(clip, [[0, 1, 2, 3], [0, 0, 0, 9], [0, 0, 0, 1]])  # the fourth group has no scores
    first, second, third, fourth = (group.key for group in here.groups)
    shown = here.project.library.catalogue(unsure)
    assert {line.key for line in shown.lines} == {first, third, fourth} and second in everything
    assert here.project.library.catalogue(unsure) is shown, "asked again it is the same, so that nothing is worked out anew"
    screens = here.project.picks.next_screens(here.project.library, unsure, Asking("best_worst", 9))
    assert screens.total == 3 and second not in {screen.group.key for screen in screens.screens}


# ------------------------------------------------------------------------------------------------ proposals


def test_the_best_is_proposed_against_the_worst_and_the_widest_gap_is_the_surest(here, clip):
    """The spread within groups, by hand: squares 0.75 + 12 + 0 = 12.75 over 9 degrees of freedom; one group is flat."""
    here.put(clip, [[0, 1, 0, 0], [4, 0, 4, 4], [1, 1, 1, 1]])
    unit = math.sqrt(12.75 / 9)
    first, second = propose_pairs(here.project, here.view, clip)
    assert (first.group, first.gap) == (here.groups[1].key, pytest.approx(4 / unit))
    assert first.rejected == keys(here.groups[1])[1]
    assert (second.group, second.chosen) == (here.groups[0].key, keys(here.groups[0])[1])
    assert first.confidence == pytest.approx(1 / (1 + math.exp(-0.87 * 4 / unit)))
    assert first.confidence > second.confidence > 0.5


def test_nothing_is_proposed_where_anybody_has_said_anything(here, clip):
    here.put(clip, [[0, 1, 2, 3]] * 4)
    pick = best_worst(here.groups[0], 0)
    here.project.picks.apply([pick, undo(best_worst(here.groups[1], 1), 2), best_worst(here.groups[1], 3)])
    proposals = propose_pairs(here.project, here.view, clip)
    assert {proposal.group for proposal in proposals} == {here.groups[2].key, here.groups[3].key}
    assert add_proposals(here.project, proposals[:1], clip, automatic=False) == 1
    assert [proposal.group for proposal in propose_pairs(here.project, here.view, clip)] == [proposals[1].group]
    here.project.picks.apply([undo(pick, 4)])
    assert here.groups[0].key in {proposal.group for proposal in propose_pairs(here.project, here.view, clip)}


def test_nothing_scored_is_said_and_so_is_a_scorer_that_is_always_wrong(here, clip, monkeypatch):
    with pytest.raises(ScorerError, match="Nothing here is scored by pickscore clip yet"):
        propose_pairs(here.project, here.view, clip)
    monkeypatch.setattr("dpo.proposals.ENOUGH", 2)
    here.put(clip, [[0, 9, 1, 1]] * 4)
    here.project.picks.apply([best_worst(group, number) for number, group in enumerate(here.groups[:3])])
    with pytest.raises(ScorerError, match="no more often than chance"):
        propose_pairs(here.project, here.view, clip)


def test_the_slope_is_learned_from_twenty_pairs_and_taken_for_the_usual_one_before_that():
    assert learn_slope([1.0] * 19, 0.87) == 0.87
    assert learn_slope([-1.0] * 30, 0.87) == 0
    # 30 pairs of a gap of 1, 24 of them right, and one of each added: the odds of 25 to 7 are exp(slope).
    assert learn_slope([1.0] * 24 + [-1.0] * 6, 0.87) == pytest.approx(math.log(25 / 7), abs=1e-6)
    assert learn_slope([1.0] * 30, 0.87) == pytest.approx(math.log(31), abs=1e-6)  # not without end


def test_the_spread_within_groups_knows_nothing_of_differences_between_them():
    assert spread_within({"low": {"a": 0, "b": 2}, "high": {"a": 100, "b": 102}}) == pytest.approx(math.sqrt(4 / 2))
    assert spread_within({"flat": {"a": 1, "b": 1}}) == 1


def test_unconfirmed_proposals_are_taken_back_at_once_and_nothing_that_a_person_said_of_them(here, clip):
    here.put(clip, [[3, 0, 1, 1]] * 4)
    proposals = sorted(propose_pairs(here.project, here.view, clip), key=lambda p: [g.key for g in here.groups].index(p.group))
    add_proposals(here.project, proposals[:3], clip, automatic=False)
    add_proposals(here.project, proposals[3:], clip, automatic=True)
    here.project.picks.apply([review("confirm", here.groups[0], 0), review("drop", here.groups[1], 1)])
    assert discard_proposals(here.project, automatic=False) == 1
    standing = [(picked.group, picked.state) for picked in here.project.picks.picked_pairs()]
    places = {group.key: number for number, group in enumerate(here.groups)}
    assert sorted((places[group], state) for group, state in standing) == [(0, "used"), (1, "deleted"), (3, "used")]
    assert discard_proposals(here.project, automatic=True) == 1
    assert [proposal.group for proposal in propose_pairs(here.project, here.view, clip)] == [
        group.key for group in sorted(here.groups[2:], key=lambda group: group.key)
    ]


def test_a_proposal_whose_images_are_gone_from_the_index_is_left_out(here, clip):
    gone = Proposal(here.groups[0].key, "0" * 16, keys(here.groups[0])[0], 1.0, 0.8)
    assert add_proposals(here.project, [gone], clip, automatic=False) == 0


# ------------------------------------------------------------------------------------------------ base beside adapter


def test_a_comparison_says_how_often_the_scorer_prefers_the_adapter_and_by_how_much(here, clip):
    images = [image for group in here.groups for image in group.images]
    scores = dict(
        zip(
            [image.path for image in images],
            load_scorer(clip, here.project.cache).score([Ask("", image.path, image.record.prompt) for image in images]),
            strict=True,
        )
    )
    rows = [(group.prompt, group.images[0].path, group.images[1].path) for group in here.groups]
    found = score_comparison(here.project, rows, clip)
    gaps = [scores[adapter] - scores[base] for _, base, adapter in rows]
    assert found.preferred.wins == sum(gap > 0 for gap in gaps)
    assert found.preferred.count == 4
    assert found.mean_difference == pytest.approx(sum(gaps) / 4, abs=1e-3)
    assert found.interval[0] < found.mean_difference < found.interval[1]
    assert found.sentence == f"pickscore clip prefers the adapter in {found.preferred.wins:g} of 4."
    turned = score_comparison(here.project, [(prompt, adapter, base) for prompt, base, adapter in rows], clip)
    assert turned.mean_difference == pytest.approx(-found.mean_difference, abs=1e-6)


def test_a_comparison_leaves_out_rows_whose_files_cannot_be_opened(here, clip, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    good = (here.groups[0].prompt, here.groups[0].images[0].path, here.groups[0].images[1].path)
    found = score_comparison(here.project, [good, ("x", str(tmp_path / "broken.png"), good[1])], clip)
    assert found.preferred.count == 1
    nothing = score_comparison(here.project, [("x", str(tmp_path / "broken.png"), good[1])], clip)
    assert (nothing.preferred.count, nothing.interval) == (0, None)


# ------------------------------------------------------------------------------------------------ the command


def test_what_a_scorer_says_of_a_blind_test_is_a_job_and_a_sentence_beside_the_votes(here, clip):
    test, jobs = make_test(here.project, items=3), JobRegistry()
    job = start_score_test(here.project, jobs, test, clip)
    assert job.finished.wait(60) and job.state == "done", job.message
    rows = [(item.prompt, *(str(test.image(item, side)) for side in SIDES)) for item in test.items]
    assert job.result == score_comparison(here.project, rows, clip) and job.result.preferred.count == 3
    assert comparison_words(job.result).startswith(f"{clip.name} prefers the adapter in {job.result.preferred}. ")
    stop = threading.Event()
    stop.set()
    assert score_comparison(here.project, rows, clip, stop=stop).preferred.count == 0, "a stop keeps what was reached"


def test_the_command_scores_reports_agreement_and_proposes_pairs(here, clip, capsys):
    here.project.picks.apply([best_worst(here.groups[0])])
    arguments = ["score", "--project", str(here.project.path), "--folder", here.view.folder, "--scorer", "pickscore"]
    assert main([*arguments, "--model", clip.model, "--propose", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scorer"], result["groups"], result["scored"], result["proposed"]) == ("pickscore clip", 4, 16, 3)
    assert result["agreement"]["count"] == 1
    assert [picked.state for picked in here.project.picks.picked_pairs()].count("proposed") == 3
    assert main([*arguments, "--model", clip.model, "--automatic"]) == 0  # nothing is left that nobody spoke of
    assert "0 pairs added as AI pairs" in capsys.readouterr().out


def test_the_command_says_what_a_scorer_prefers_in_a_blind_test(here, clip, capsys):
    items = tuple(BlindItem(number, group.prompt, number) for number, group in enumerate(here.groups))
    path = here.project.path / "tests" / "cats"
    test = BlindTest(path, "demo", "cats.safetensors", 1.0, 4, 3.0, 0, 0, ("overall",), items, 0.0)
    write_test(test)
    rows = []
    for item, group in zip(items[:3], here.groups, strict=False):  # the fourth is not painted yet
        for side, image in zip(("base", "adapter"), group.images, strict=False):
            shutil.copy(image.path, test.image(item, side))
        rows.append((item.prompt, *(str(test.image(item, side)) for side in ("base", "adapter"))))
    arguments = ["score", "--project", str(here.project.path), "--scorer", "pickscore", "--model", clip.model, "--test", "cats"]
    assert main([*arguments, "--json"]) == 0
    found = score_comparison(here.project, rows, clip)
    assert json.loads(capsys.readouterr().out)["preferred"]["wins"] == found.preferred.wins
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"pickscore clip prefers the adapter in {found.preferred.wins:g} of 3.")


def test_the_command_names_what_is_missing(here, capsys):
    arguments = ["score", "--project", str(here.project.path), "--folder", here.view.folder]
    assert main([*arguments, "--scorer", "aesthetic"]) == 2
    assert "needs its head" in capsys.readouterr().err
    assert main([*arguments, "--scorer", "adapter", "--model", "cats"]) == 2
    assert "cats" in capsys.readouterr().err
    assert (
        main(["score", "--project", str(here.project.path), "--folder", str(Path(here.view.folder) / "no"), "--scorer", "clip"])
        == 2
    )
