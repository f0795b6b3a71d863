"""Ranking: values worked out by hand or by another method, laws of the model, and pairs. The duels: test_next_duels.py."""

import itertools
import math

import numpy as np
import pytest

from dpo.ranking import (
    BAR,
    SURE,
    Posterior,
    RankedPair,
    Vote,
    cohens_kappa,
    fit,
    grid_confidence,
    next_duels,
    order_confidence,
    probability_better,
    rank_pairs,
    stand,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def some_votes(size: int, count: int, seed: int = 0) -> list[Vote]:
    """Votes of a rater to whom a lower index is better, with mistakes, a tie in five, and some "clearly"."""
    random = np.random.default_rng(seed)
    votes = []
    for _ in range(count):
        i, j = sorted(random.choice(size, 2, replace=False).tolist())
        better, worse = (i, j) if random.random() < sigmoid(j - i) else (j, i)
        votes.append(Vote(better, worse, weight=float(random.integers(1, 3)), is_tie=bool(random.random() < 0.2)))
    return votes


def certain(*means: float, sd: float = 0.01) -> Posterior:
    return Posterior(np.array(means), np.eye(len(means)) * sd**2)


# ------------------------------------------------------------------------------------------------ the fit


def one_vote_mode() -> float:
    """x of the winner (the loser has -x) after one vote: sigmoid(-2x) = x / PRIOR_SD^2, by bisection."""
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(-2 * middle) > middle / 4 else (low, middle)
    return low


def test_one_vote_between_two_images_is_the_root_of_its_equation():
    x = one_vote_mode()
    posterior = fit(2, [Vote(0, 1)])
    assert posterior.mean == pytest.approx([x, -x], abs=1e-8)
    curvature = sigmoid(2 * x) * sigmoid(-2 * x)
    gap_variance = 2 / (1 / 4 + 2 * curvature)  # of x0 - x1, from the 2x2 Hessian [[1/4 + c, -c], [-c, 1/4 + c]]
    expected = 0.5 * (1 + math.erf(2 * x / math.sqrt(2 * gap_variance)))
    assert probability_better(posterior, 0, 1) == pytest.approx(expected, abs=1e-8)


def test_no_votes_leave_the_prior():
    posterior = fit(3, [])
    assert posterior.mean.tolist() == [0, 0, 0]
    assert posterior.covariance == pytest.approx(4 * np.eye(3))
    assert fit(2, [], prior_sd=3.0).covariance == pytest.approx(9 * np.eye(2))


def log_posterior(qualities: np.ndarray, votes: list[Vote]) -> float:
    """Written down vote by vote, as the model is said."""
    total = -(qualities**2).sum() / (2 * 2.0**2)
    for better, worse, weight, is_tie in votes:
        for winner, loser, share in ((better, worse, 0.5 if is_tie else 1.0), (worse, better, 0.5 if is_tie else 0.0)):
            total += share * weight * math.log(sigmoid(qualities[winner] - qualities[loser]))
    return total


def test_the_fit_is_the_mode_and_its_covariance_the_inverse_curvature():
    votes, h, axes = some_votes(5, 30), 1e-4, np.eye(5)
    posterior = fit(5, votes)

    def at(*steps: np.ndarray) -> float:
        return log_posterior(posterior.mean + h * sum(steps, np.zeros(5)), votes)

    slopes = [(at(axis) - at(-axis)) / (2 * h) for axis in axes]
    assert slopes == pytest.approx([0] * 5, abs=1e-6)
    curvature = [[(at(a, b) - at(a, -b) - at(-a, b) + at(-a, -b)) / (4 * h * h) for a in axes] for b in axes]
    assert posterior.covariance == pytest.approx(np.linalg.inv(-np.array(curvature)), abs=1e-5)


def test_the_order_of_votes_does_not_matter():
    votes = [*some_votes(6, 40), Vote(2, BAR), Vote(BAR, 4)]
    one, other = fit(6, votes), fit(6, votes[::-1])
    assert one.mean == pytest.approx(other.mean, abs=1e-9) and one.covariance == pytest.approx(other.covariance, abs=1e-9)


def test_images_renumbered_have_the_same_qualities():
    votes, number = some_votes(6, 40), [3, 0, 5, 1, 4, 2]
    renumbered = fit(6, [Vote(number[vote.better], number[vote.worse], vote.weight, vote.is_tie) for vote in votes])
    assert renumbered.mean[number] == pytest.approx(fit(6, votes).mean, abs=1e-9)


def test_every_vote_turned_round_turns_the_ranking_round():
    votes = some_votes(6, 40)
    turned = fit(6, [Vote(vote.worse, vote.better, vote.weight, vote.is_tie) for vote in votes])
    assert turned.mean == pytest.approx(-fit(6, votes).mean, abs=1e-9)


def test_another_win_makes_the_winner_more_probably_better():
    votes = some_votes(5, 10)
    chances = [probability_better(fit(5, votes + [Vote(4, 0)] * wins), 4, 0) for wins in range(8)]
    assert chances == sorted(set(chances))


def test_a_vote_of_weight_two_counts_as_two_votes():
    assert fit(3, [Vote(0, 1, weight=2.0), Vote(1, 2)]).mean == pytest.approx(fit(3, [Vote(0, 1), Vote(0, 1), Vote(1, 2)]).mean)


def test_a_tie_favours_nobody_and_says_that_the_two_are_near():
    tie = fit(2, [Vote(0, 1, is_tie=True)])
    assert tie.mean.tolist() == [0, 0]
    assert np.array([1, -1]) @ tie.covariance @ np.array([1, -1]) < 8 - 1  # 8 before the vote
    uneven = [Vote(0, 2), Vote(0, 1, is_tie=True)]
    assert fit(3, uneven).mean == pytest.approx(fit(3, [Vote(0, 2), Vote(1, 0, is_tie=True)]).mean)


def test_an_image_that_never_lost_stays_finite():
    posterior = fit(2, [Vote(0, 1)] * 2000)
    assert 3 < posterior.mean[0] < 8 and np.isfinite(posterior.covariance).all()


def test_the_bar_is_one_more_item_and_is_not_told_of():
    x = one_vote_mode()
    posterior = fit(3, [Vote(0, BAR), Vote(BAR, 1)])
    assert posterior.mean.shape == (3,) and posterior.covariance.shape == (3, 3)
    assert posterior.mean[0] == pytest.approx(-posterior.mean[1]) and posterior.mean[0] > x  # the bar stands still between them
    assert posterior.mean[2] == 0 and posterior.covariance[2].tolist() == [0, 0, 4]
    assert fit(2, [Vote(0, BAR)]).mean == pytest.approx([x, 0], abs=1e-8)
    assert posterior.covariance[0, 1] > 0  # both are known against the same bar


@pytest.mark.parametrize("vote", [Vote(0, 3), Vote(-2, 0), Vote(1, 1)], ids=str)
def test_a_vote_on_no_image_is_our_own_mistake(vote):
    with pytest.raises(AssertionError):
        fit(3, [vote])


# ------------------------------------------------------------------------------------------------ how sure


def test_probability_better_is_that_of_the_normal_gap():
    posterior = Posterior(np.array([1.0, 0.0]), np.array([[1.0, 0.5], [0.5, 1.0]]))  # the gap is N(1, 1)
    assert probability_better(posterior, 0, 1) == pytest.approx(0.8413447, abs=1e-6)
    assert probability_better(posterior, 1, 0) == pytest.approx(1 - 0.8413447, abs=1e-6)
    assert probability_better(posterior, 1, 1) == 0.5


def test_for_two_images_the_span_is_the_better_one_being_better():
    votes = [Vote(0, 1)] * 3
    standing = stand(2, votes, 3)
    assert standing.span_probability == pytest.approx(probability_better(fit(2, votes), 0, 1), abs=0.03)


def test_the_span_is_counted_against_the_whole_range():
    """Of three equal strangers, P(first minus second >= 0.8 of the range): drawn here by another generator."""
    draws = np.random.default_rng(5).normal(size=(100_000, 3))
    expected = (draws[:, 0] - draws[:, 1] >= 0.8 * np.ptp(draws, axis=1)).mean()
    assert stand(3, [], 0).span_probability == pytest.approx(expected, abs=0.03)


def test_a_clear_order_finishes_a_group_and_a_vague_one_does_not():
    clear = [Vote(i, j) for i, j in itertools.combinations(range(4), 2)] * 3
    assert stand(4, clear, 15).is_finished and stand(4, clear, 15).span_probability >= SURE
    assert not stand(4, clear[:2], 2).is_finished


def test_four_duels_an_image_are_the_end_also_of_ties():
    ties = [Vote(0, 1, is_tie=True)] * 23
    assert not stand(6, ties, 23).is_finished and stand(6, ties, 23).likely_left == 1
    finished = stand(6, ties, 24)
    assert finished.is_finished and finished.likely_left == 0 and finished.span_probability < SURE


@pytest.mark.parametrize(
    ("pairing", "size", "duels"),
    [
        ("elo", 3, 12), ("elo", 4, 15), ("elo", 8, 24), ("elo", 12, 44), ("elo", 16, 64), ("elo", 32, 128),
        ("swiss", 2, 1), ("swiss", 3, 3), ("swiss", 4, 4), ("swiss", 5, 8), ("swiss", 8, 12), ("swiss", 16, 32),
    ],
)  # fmt: skip
def test_elo_and_swiss_take_a_number_of_duels_known_before(pairing, size, duels):
    sure = [Vote(i, j) for i, j in itertools.combinations(range(size), 2)] * 5
    for votes in ([], sure):
        assert stand(size, votes, 0, pairing).likely_left == duels
        assert not stand(size, votes, duels - 1, pairing).is_finished and stand(size, votes, duels, pairing).is_finished


@pytest.mark.parametrize("size", [0, 1])
def test_less_than_two_images_are_finished(size):
    assert stand(size, [], 0).is_finished and next_duels(size, [], (), 3, 0) == []


def simulated(size: int, number: int):
    """The standing before each duel, until top-two has finished a group of a simulated rater."""
    random = np.random.default_rng((size, number))
    qualities, votes, standings = random.normal(0, 2, size), [], []
    while not (standing := stand(size, votes, len(votes))).is_finished:
        standings.append(standing)
        ((i, j),) = next_duels(size, votes, (), 1, number)
        votes.append(Vote(i, j) if random.random() < sigmoid(qualities[i] - qualities[j]) else Vote(j, i))
    return standings


@pytest.mark.parametrize("size", [4, 8])
def test_likely_left_is_what_simulated_raters_took(size):
    groups = [simulated(size, number) for number in range(40)]
    took = np.concatenate([np.arange(len(standings), 0, -1) for standings in groups])
    told = np.array([standing.likely_left for standings in groups for standing in standings])
    sure = np.array([standing.span_probability for standings in groups for standing in standings])
    for some in (sure < 0.5, sure >= 0.5, sure >= 0.75):
        assert told[some].mean() == pytest.approx(took[some].mean(), rel=0.2)
    budget = np.concatenate([4 * size - np.arange(len(standings)) for standings in groups])
    assert ((told - took) ** 2).mean() < 0.8 * ((budget - took) ** 2).mean()
    for standings in groups:
        assert all(1 <= standing.likely_left <= 4 * size - duels for duels, standing in enumerate(standings))


# ------------------------------------------------------------------------------------------------ pairs


def test_best_stands_against_worst_as_soon_as_that_is_sure():
    assert rank_pairs(certain(0, 2, 1, -1), 1) == [RankedPair(1, 3, 0.99)]
    almost = Posterior(np.array([1.2, 0.0]), np.eye(2) / 2)  # the gap is N(1.2, 1): 0.885
    assert rank_pairs(almost, 1) == []
    ((chosen, rejected, confidence),) = rank_pairs(almost, 1, is_finished=True)
    assert (chosen, rejected) == (0, 1) and confidence == pytest.approx(0.885, abs=0.001)
    sure = Posterior(np.array([1.3, 0.0]), np.eye(2) / 2)  # 0.903
    assert rank_pairs(sure, 1)[0].confidence == pytest.approx(0.903, abs=0.001)


def test_an_order_is_as_sure_as_its_comparisons_on_average():
    posterior = fit(4, [Vote(2, 0), Vote(0, 3), Vote(0, 3), Vote(3, 1), Vote(2, 1, is_tie=True)])
    order = [2, 0, 3, 1]
    chances = [probability_better(posterior, one, other) for one, other in itertools.combinations(order, 2)]
    assert order_confidence(posterior, order) == pytest.approx(sum(chances) / 6)
    assert order_confidence(posterior, order[::-1]) == pytest.approx(1 - sum(chances) / 6)
    assert order_confidence(certain(3, 2, 1), [0, 1, 2]) == 0.99


@pytest.mark.parametrize("size", [4, 8])
def test_an_order_is_right_about_as_often_as_it_says(size):
    """Raters of PRIOR_SD, all duels asked once, 300 groups: the share of comparisons that the order has right. After few duels
    the Laplace covariance is too wide, so what is said is rather too little."""
    random, said, right = np.random.default_rng(0), [], []
    for _ in range(300):
        qualities = random.normal(0, 2, size)
        votes = []
        for i, j in itertools.combinations(range(size), 2):
            is_better = random.random() < 1 / (1 + math.exp(qualities[j] - qualities[i]))
            votes.append(Vote(i, j) if is_better else Vote(j, i))
        posterior = fit(size, votes)
        order = (-posterior.mean).argsort()
        said.append(order_confidence(posterior, order))
        right += [qualities[i] > qualities[j] for i, j in itertools.combinations(order, 2)]
    assert -0.05 < np.mean(said) - np.mean(right) < 0.01


@pytest.mark.parametrize(("gap", "pairs"), [(0.52, 0), (0.53, 1)])  # 0.698 and 0.702
def test_a_finished_group_without_an_opinion_gives_no_pair(gap, pairs):
    assert len(rank_pairs(Posterior(np.array([gap, 0.0]), np.eye(2) / 2), 1, is_finished=True)) == pairs


def test_more_pairs_go_from_the_outside_in_and_share_no_image():
    found = rank_pairs(certain(5, 4, 3, 2, 1), 8)
    assert [pair[:2] for pair in found] == [(0, 4), (1, 3)]
    assert rank_pairs(certain(5, 4, 3, 2, 1), 1) == found[:1]


def test_only_the_first_pair_may_be_unsure_and_without_it_there_is_none():
    unsure = Posterior(np.array([1.2, 0.9, 0.0, 0.1]), np.eye(4) / 2)
    assert [pair[:2] for pair in rank_pairs(unsure, 2, is_finished=True)] == [(0, 2)]
    # Image 1 is surely better than image 2, but the widest gap is one of hearsay.
    hearsay = Posterior(np.array([2.0, 1.0, 0.0]), np.diag([25.0, 0.01, 0.01]))
    assert rank_pairs(hearsay, 2) == []


def test_an_unsure_gap_does_not_keep_a_narrower_sure_one_back():
    posterior = Posterior(np.array([9, 2, 1, 0.9, 0, -9.0]), np.diag([0.01, 9.0, 0.01, 0.01, 0.01, 0.01]))
    assert [pair[:2] for pair in rank_pairs(posterior, 3)] == [(0, 5), (2, 4)]


def test_a_barred_image_is_never_chosen_but_may_be_rejected():
    assert [pair[:2] for pair in rank_pairs(certain(3, 2, 1, 0), 4, barred={0})] == [(1, 3)]
    assert [pair[:2] for pair in rank_pairs(certain(3, 2, 1, 0), 4, barred={3})] == [(0, 3), (1, 2)]
    assert rank_pairs(certain(3, 2, 1), 4, barred={0, 1, 2}, is_finished=True) == []
    assert rank_pairs(certain(3, 2, 1), 4, barred={0, 1}, is_finished=True) == []


def test_confidence_is_never_that_of_certainty():
    assert rank_pairs(certain(100, -100), 1)[0].confidence == 0.99


# ------------------------------------------------------------------------------------------------ grid and agreement


@pytest.mark.parametrize("shown", range(2, 10))
def test_grid_confidence_is_what_a_simulation_gives(shown):
    """Best by Luce's choice (Gumbel noise has the differences of a duel), then the worst of the others likewise."""
    random, rows = np.random.default_rng(shown), np.arange(100_000)
    qualities = random.normal(0, 2, (len(rows), shown))
    best = (qualities + random.gumbel(size=qualities.shape)).argmax(axis=1)
    badness = random.gumbel(size=qualities.shape) - qualities
    badness[rows, best] = -np.inf
    is_right = qualities[rows, best] > qualities[rows, badness.argmax(axis=1)]
    assert grid_confidence(shown) == pytest.approx(is_right.mean(), abs=0.004)


def test_more_than_nine_on_a_screen_are_worth_nine():
    assert grid_confidence(24) == grid_confidence(9)


def test_kappa_by_hand():
    """20 both yes, 15 both no, 5 and 10 apart: agreed 0.70, by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.50."""
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohens_kappa(one, other) == pytest.approx(0.4) == cohens_kappa(other, one)
    assert cohens_kappa(["a", "b"], ["a", "b"]) == 1 and cohens_kappa(["a", "b"], ["b", "a"]) == -1
    assert cohens_kappa(["a", "b"], ["c", "d"]) == 0


def test_kappa_is_not_defined_where_nobody_could_disagree():
    assert cohens_kappa([], []) is None and cohens_kappa(["a", "a"], ["a", "a"]) is None
    assert cohens_kappa(["a", "a"], ["b", "b"]) == 0
