"""The next duels: what they may never be, what they go for, and how few top-two needs."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from dpo.ranking import BAR, PAIRINGS, Vote, elo_ratings, next_duels, stand
from tests.benchmarks.ranking import duels_needed
from tests.test_ranking import some_votes


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("size", [2, 3, 7, 8, 16])
def test_every_image_is_shown_within_the_first_half_of_n_duels(pairing, size):
    for seed in range(5):
        votes, seen = [], set()
        for _ in range(math.ceil(size / 2)):
            ((i, j),) = next_duels(size, votes, (), 1, seed, pairing)
            votes.append(Vote(max(i, j), min(i, j)))
            seen |= {i, j}
        assert seen == set(range(size))
        assert set().union(*next_duels(size, [], (), math.ceil(size / 2), seed, pairing)) == set(range(size))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_no_duel_is_asked_that_is_held_or_was_skipped(pairing):
    everything = list(itertools.combinations(range(5), 2))
    votes = some_votes(5, 12)
    for number in range(30):
        avoid = [pair[::-1] for pair in everything if hash((number, pair)) % 3]
        free = set(everything) - {pair[::-1] for pair in avoid}
        found = next_duels(5, votes, avoid, 20, number, pairing)
        assert len(found) == len(set(found)) == len(free) and set(found) == free
    assert next_duels(5, votes, everything, 3, 0, pairing) == []


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_same_question_has_the_same_answer_and_another_seed_another(pairing):
    def orders(seed: int) -> tuple:
        return tuple(next_duels(9, some_votes(9, count), {(0, 1)}, 3, seed, pairing)[0] for count in range(8))

    assert orders(1) == orders(1)
    assert len({orders(seed) for seed in range(6)}) > 1


def test_top_two_asks_at_the_best_end_and_at_the_worst_by_turns():
    votes = [Vote(i, j) for i, j in itertools.combinations(range(6), 2) if j - i > 1] * 20  # 0|1 and 4|5 are open
    votes += [Vote(i, i + 1) for i in (1, 2, 3)] * 20
    ends = [{0, 1}, {4, 5}]
    for extra in range(6):
        more = [Vote(2, 3)] * extra
        ((i, j),) = next_duels(6, votes + more, (), 1, 0)
        assert {i, j} == ends[(len(votes) + extra) % 2]
    assert set(next_duels(6, votes, (), 2, 0)) == {(0, 1), (4, 5)}


def test_top_two_asks_the_foremost_that_are_free_where_it_is_sure():
    votes = [Vote(i, j) for i, j in itertools.combinations(range(6), 2)] * 200
    assert len(votes) % 2 == 0
    assert next_duels(6, votes, (), 1, 0) == [(0, 1)]
    assert next_duels(6, votes, {(0, 1), (4, 5)}, 2, 0) == [(0, 2), (3, 5)]


def test_elo_moves_by_half_of_32_between_equals_and_by_hand_after_it():
    assert elo_ratings(3, [Vote(0, 1)]).tolist() == [1516, 1484, 1500]
    expected = 1 / (1 + 10 ** (-16 / 400))  # of 1516 against 1500
    assert elo_ratings(3, [Vote(0, 1), Vote(2, 0)]) == pytest.approx([1516 - 32 * expected, 1484, 1500 + 32 * expected])
    assert elo_ratings(2, [Vote(0, 1, is_tie=True)]).tolist() == [1500, 1500]
    assert elo_ratings(2, [Vote(0, BAR)]).tolist() == [1516, 1500]


def test_elo_lets_neighbours_in_rating_meet_each_as_often():
    votes = [Vote(i, j) for i, j in itertools.combinations([4, 0, 3, 1, 2], 2)]  # in this order, 1 against 2 the last duel
    assert elo_ratings(5, votes).argsort().tolist() == [2, 1, 3, 0, 4]
    found = Counter(next_duels(5, votes, (), 1, seed, "elo")[0] for seed in range(400))
    assert set(found) == {(0, 4), (0, 3), (1, 3)} and min(found.values()) > 90


def test_elo_does_not_ask_the_last_two_duels_again():
    votes = some_votes(6, 20)
    for seed in range(20):
        ((i, j),) = next_duels(6, votes, (), 1, seed, "elo")
        votes.append(Vote(i, j))
        asked = [tuple(sorted(vote[:2])) for vote in votes[20:]]
        assert len(set(asked[-3:])) == len(asked[-3:])
    assert next_duels(2, [Vote(0, 1)], (), 1, 0, "elo") == [(0, 1)]  # where there is no other, it does


def test_swiss_plays_rounds_of_equals_without_meeting_again():
    votes, asked = [], []
    for duel in range(12):  # three rounds of eight; the lower index wins
        ((i, j),) = next_duels(8, votes, (), 1, 3, "swiss")
        wins = Counter(vote.better for vote in votes)
        if duel < 8:
            assert wins[i] == wins[j]
        votes.append(Vote(i, j))
        asked.append((i, j))
        shown = Counter(itertools.chain.from_iterable(asked))
        assert max(shown.values()) - min(shown[image] for image in range(8)) <= 1
    assert len(set(asked)) == 12


@pytest.mark.parametrize("size", range(3, 10))
def test_swiss_lets_nobody_meet_twice_and_nobody_sit_out(size):
    spreads = []
    for seed in range(15):
        random, votes = np.random.default_rng(seed), []
        for _ in range(stand(size, [], 0, "swiss").likely_left):
            ((i, j),) = next_duels(size, votes, (), 1, seed, "swiss")
            votes.append(Vote(i, j) if random.random() < 0.5 else Vote(j, i))
            shown = Counter(itertools.chain.from_iterable(vote[:2] for vote in votes))
            spreads.append(max(shown.values()) - min(shown[image] for image in range(size)))
        assert len({frozenset(vote[:2]) for vote in votes}) == len(votes)
    assert max(spreads) <= 2 and np.mean(np.array(spreads) <= 1) > 0.9


def test_top_two_needs_far_fewer_duels_than_elo():
    assert duels_needed("top_two", 8, 150) < 0.75 * duels_needed("elo_similar", 8, 150)
