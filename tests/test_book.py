"""The book takes in what is appended and is then the same as one that took in everything at once."""

import itertools
import random
from collections import Counter

from dpo.book import Book
from dpo.operations import Pick
from dpo.rules import PickRules


def row(position, op="best_worst", keys="", chosen="", rejected="", group="g", **more) -> Pick:
    fields = {"result": "", "rater": "", **more}
    paths = tuple(f"{key}.png" for key in keys)
    return Pick(
        position, "page", position, op, group, "a cat", tuple(keys), chosen=chosen, rejected=rejected, paths=paths, **fields
    )


def grid(position, keys, group="g", **more) -> Pick:
    return row(position, "best_worst", keys, keys[0], keys[-1], group, **more)


def duel(position, keys, group="g", **more) -> Pick:
    return row(position, "duel", keys, keys[0], keys[1], group, result="left", **more)


def undo(position, about) -> Pick:
    return row(position, "undo", about=about)


def reopen(position, group="g") -> Pick:
    return row(position, "reopen", group=group)


def filled(*rows, rules=PickRules()) -> Book:  # noqa: B008  (frozen)
    book = Book()
    book.take_in(rows, rules)
    return book


def pairs(book) -> list[str]:
    return [pair.chosen + pair.rejected for pair in book.pairs()]


def positions(picks) -> list[int]:
    return [pick.position for pick in picks]


class Counting(Book):
    """Counts how often each group was judged."""

    def __init__(self):
        super().__init__()
        self.judged = Counter()

    def _judge_group(self, group):
        self.judged[group] += 1
        return super()._judge_group(group)


def rank(position, keys, group="g", **more) -> list[Pick]:
    """Duels that put the images in the order of their names."""
    duels = [pair for pair in itertools.combinations(keys, 2)] * 3
    return [duel(position + number, pair, group, **more) for number, pair in enumerate(duels)]


def label(position, key, result, group="g", **more) -> Pick:
    return row(position, "triage", key, group=group, result=result, **more)


def labels(book) -> list[tuple]:
    return [(pick.keys[0], pick.result, pick.rater) for pick in book.labels()]


def test_rankings_come_and_go_with_the_duels_behind_them():
    book = filled(*rank(1, "abc"), *rank(20, "xyz", "h"))
    assert [ranking.images for ranking in book.rankings()] == [tuple("abc"), tuple("xyz")]
    book.take_in([reopen(40)], PickRules())
    assert [ranking.images for ranking in book.rankings()] == [tuple("xyz")]
    book.take_in([grid(41, "xy", "h")], PickRules())
    assert book.rankings() == []


def test_of_two_groups_with_the_same_images_the_longer_ranking_counts():
    """As when a view takes prompts together that another one parts."""
    book = filled(*rank(1, "abc"), *rank(20, "abcd", "h"))
    assert [(ranking.images, ranking.group) for ranking in book.rankings()] == [(tuple("abcd"), "h")]


def test_a_label_counts_until_its_image_is_in_a_pair_even_a_deleted_one():
    book = filled(label(1, "a", "good"), label(2, "b", "good"), label(3, "c", "skip"))
    assert labels(book) == [("a", "good", ""), ("b", "good", "")]
    book.take_in([grid(4, "ad")], PickRules())
    assert labels(book) == [("b", "good", "")]
    book.take_in([row(5, "drop", "ad")], PickRules())
    assert labels(book) == [("b", "good", "")]
    book.take_in([undo(6, 4)], PickRules())
    assert labels(book) == [("a", "good", ""), ("b", "good", "")]


def test_labels_that_make_a_ranked_pair_are_no_likes_and_the_others_of_the_group_are():
    assert labels(filled(*(label(number, key, "good") for number, key in enumerate("abc", 1)), label(4, "d", "bad"))) == [
        ("b", "good", ""), ("c", "good", ""),
    ]  # fmt: skip


def test_of_one_person_the_last_label_counts_and_of_two_people_both():
    said = [label(1, "a", "good", rater="ann"), label(2, "a", "good", rater="bob"), label(3, "a", "bad", rater="ann")]
    assert labels(filled(*said)) == [("a", "good", "bob"), ("a", "bad", "ann")]
    assert labels(filled(*said, label(4, "a", "skip", rater="bob"))) == [("a", "bad", "ann")]


def test_an_image_that_only_waits_for_a_reject_is_in_no_pair():
    assert labels(filled(row(1, "import", "a", "a", "", source="x"), label(2, "a", "good"))) == [("a", "good", "")]


def test_an_undo_takes_one_pick_back():
    assert pairs(filled(grid(1, "ab"), grid(2, "cd", "h"), undo(3, 1))) == ["cd"]


def test_opening_a_group_again_hides_what_was_said_before_and_not_what_is_said_after():
    book = filled(grid(1, "ab"), grid(2, "cd"), grid(3, "ef", "h"), reopen(4))
    assert pairs(book) == ["ef"]
    assert book.picks_of("abcd") == []
    book.take_in([grid(5, "ca")], PickRules())
    assert pairs(book) == ["ef", "ca"]


def test_taking_an_opening_back_brings_back_what_it_hid():
    book = filled(grid(1, "ab"), reopen(2), grid(3, "cd"))
    assert pairs(book) == ["cd"]
    book.take_in([undo(4, 2)], PickRules())
    assert pairs(book) == ["ab", "cd"]


def test_a_pick_taken_back_before_an_opening_stays_back_after_the_opening_is():
    assert pairs(filled(grid(1, "ab"), undo(2, 1), reopen(3), undo(4, 3))) == []


def test_of_two_openings_each_hides_by_itself():
    book = filled(grid(1, "ab"), reopen(2), grid(3, "cd"), reopen(4), undo(5, 4))
    assert pairs(book) == ["cd"]
    book.take_in([undo(6, 2)], PickRules())
    assert pairs(book) == ["ab", "cd"]


def test_drops_and_swaps_before_an_opening_do_not_bind_what_comes_after():
    book = filled(grid(1, "ab"), row(2, "drop", "ab"), reopen(3), grid(4, "ab"))
    assert [pair.state for pair in book.pairs()] == ["used"]


def test_said_clearly_afterwards_counts_until_it_is_taken_back():
    book = filled(duel(1, "ab"), row(2, "clearly", about=1))
    assert book.picks_of("a")[0].is_clear
    surer = book.pairs()[0].confidence
    book.take_in([undo(3, 2)], PickRules())
    assert not book.picks_of("a")[0].is_clear
    assert book.pairs()[0].confidence < surer


def test_the_log_says_which_images_every_row_is_about():
    rows = [grid(1, "abc"), duel(2, "de"), row(3, "clearly", about=2), undo(4, 1), reopen(5), undo(6, 5)]
    said = [set(keys) for keys in filled(*rows).log]
    assert said == [set("abc"), set("de"), set("de"), set("abc"), set("abcde"), set("abcde")]


def test_picks_of_images_come_oldest_first_whatever_their_group():
    book = filled(duel(1, "ab"), grid(2, "bcd", "h"), duel(3, "xy"), row(4, "skip", "cd", result="duel"), row(5, "drop", "ab"))
    assert positions(book.picks_of("b")) == [1, 2, 5]
    assert positions(book.picks_of("dax")) == [1, 2, 3, 4, 5]
    assert positions(book.live()) == [1, 2, 3, 4]


def test_recent_picks_are_those_a_page_made():
    book = filled(grid(1, "ab"), row(2, "import", "cd", "c", "d"), row(3, "drop", "ab"), duel(4, "ef"), undo(5, 4), duel(6, "ef"))
    assert positions(book.recent(None, 9)) == [6, 1]
    assert positions(book.recent(6, 9)) == [1]
    assert positions(book.recent(None, 1)) == [6]
    assert positions(book.recent(1, 9)) == []


def test_where_two_groups_want_an_image_the_earlier_pick_has_it():
    """Two views cut groups otherwise. Who loses one image leaves the other to the next, and so on."""
    for make in (grid, duel):
        book = filled(make(1, "ab", "g"), make(2, "bc", "h"), make(3, "cd", "i"), make(4, "de", "j"))
        assert pairs(book) == ["ab", "cd"]
        book.take_in([undo(5, 1)], PickRules())
        assert pairs(book) == ["bc", "de"]
        assert [pair.position for pair in book.pairs_of("dc")] == [2, 4]


def test_no_order_of_appending_uses_an_image_twice_and_appending_equals_reading_anew():
    random_rows = random.Random(0)
    rows, undoable = [], []
    for position in range(1, 400):
        kind = random_rows.choice(["grid"] * 4 + ["duel"] * 4 + ["undo", "undo", "reopen", "drop", "swap", "import"])
        keys = "".join(random_rows.sample("abcdefghijkl", 2 if kind != "grid" else random_rows.randint(2, 5)))
        group = random_rows.choice("ghi")
        if kind == "undo" and undoable:
            rows.append(undo(position, undoable.pop(random_rows.randrange(len(undoable)))))
            continue
        undoable.append(position)
        if kind == "grid":
            rows.append(grid(position, keys, group, rater=random_rows.choice(["ann", "bob"])))
        elif kind == "duel":
            rows.append(duel(position, keys, group, size=random_rows.choice([0, 4])))
        elif kind == "reopen" and position % 3 == 0:
            rows.append(reopen(position, group))
        elif kind in ("drop", "swap"):
            rows.append(row(position, kind, keys, group=group))
        else:
            rows.append(row(position, "import", keys, keys[0], keys[1], group, source="x"))
    book = Book()
    for number, appended in enumerate(rows):
        book.take_in([appended], PickRules())
        used = [key for pair in book.pairs() for key in pair.keys]
        assert len(used) == len(set(used))
        for pair in book.pairs():
            assert pair.is_import or book.pairs_of(pair.keys) == [pair]
        if number % 20 == 0:
            assert book.pairs() == filled(*rows[: number + 1]).pairs()


def test_only_what_a_row_touches_is_judged_again():
    book = Counting()
    book.take_in([grid(n, (f"a{n}", f"b{n}", f"c{n}"), f"g{n}") for n in range(1, 50)], PickRules())
    book.pairs()
    assert set(book.judged.values()) == {1}
    book.judged.clear()
    book.take_in([duel(50, ("c7", "x"), "g7")], PickRules())
    book.pairs()
    book.take_in([undo(51, 9)], PickRules())
    book.pairs()
    book.pairs_of(["a1"])
    assert book.judged == {"g7": 1, "g9": 1}


def test_a_pick_touches_every_group_that_showed_its_images():
    book = Counting()
    book.take_in([duel(1, "ab", "g"), grid(2, "cd", "h")], PickRules())
    assert pairs(book) == ["ab", "cd"]
    book.judged.clear()
    book.take_in([grid(3, "be", "i")], PickRules())
    assert pairs(book) == ["cd", "be"]  # a grid says more than a ranking, which has lost b
    assert book.judged == {"g": 1, "i": 1}


def test_other_rules_are_applied_to_all_groups():
    rows = [duel(n, keys) for n, keys in enumerate(["ad", "ac", "ab", "bd", "bc", "cd"] * 4, start=1)]
    book = filled(*rows)
    assert pairs(book) == ["ad"]
    book.take_in([], PickRules(pairs_per_group=2))
    assert sorted(pairs(book)) == ["ad", "bc"]


def test_a_ranking_waits_for_images_that_were_not_shown_yet():
    assert pairs(filled(duel(1, "ab"))) == ["ab"]
    assert pairs(filled(duel(1, "ab", size=2))) == ["ab"]
    assert pairs(filled(duel(1, "ab", size=8))) == []


def test_the_book_comes_to_what_somebody_who_knows_the_whole_group_comes_to():
    rows = [duel(n, keys, size=6) for n, keys in enumerate(["ab", "cd", "ac", "ad", "bc"] * 3, start=1)]
    for count in range(1, len(rows)):
        book = filled(*rows[:count])
        assert tuple(book.pairs()) == book.judge("fedcba", "g").pairs, count


def test_an_import_without_a_reject_is_listed_until_its_image_is_in_a_pair():
    book = filled(row(1, "import", "a", "a", ""))
    assert pairs(book) == ["a"]
    book.take_in([grid(2, "ac", "h")], PickRules())
    assert pairs(book) == ["ac"]
    assert pairs(filled(row(1, "import", "a", "a", ""), duel(2, "ac", "h"))) == ["ac"]
    assert pairs(filled(row(1, "import", "a", "a", ""), row(2, "import", "ab", "a", "b", "h"))) == ["ab"]


def test_a_dataset_may_compare_an_image_with_several_others_and_none_of_them_comes_to_a_duel():
    book = filled(row(1, "import", "ab", "a", "b"), row(2, "import", "ca", "c", "a"), duel(3, "ab"), duel(4, "ac"))
    assert pairs(book) == ["ab", "ca"]
    assert book.judge("abcde", "g").pool == ("d", "e")


def test_the_path_of_an_image_is_where_it_was_last_shown():
    assert filled(grid(1, "ab")).path_of("a") == "a.png"
    assert filled().path_of("a") == ""
