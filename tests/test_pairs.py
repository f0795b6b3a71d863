import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo.pairs import ItemError, Like, Pair, Ranking, held_out_prompts, items_from_json, items_to_json, split_pairs

WORDS = ("cat", "Straße", "dog", "a hat", "狐の面", "ÉTÉ", "<b>", "lora:x")
prompts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(", ".join)
shares = st.floats(0.01, 0.5)


def pairs_of(found) -> list[Pair]:
    return [Pair(prompt, f"{number}-chosen", f"{number}-rejected") for number, prompt in enumerate(found)]


def parts_of(prompt: str) -> list[str]:
    return prompt.split(", ")


@st.composite
def spellings(draw):
    """A prompt, and the same words with other spaces, commas, LoRA tags and case."""
    prompt = draw(prompts)
    tag = draw(st.sampled_from(["", "<lora:detail:0.8>", " <LoRA:x:1>, ", "<hypernet:a:1>,"]))
    comma, space = draw(st.sampled_from([",", " , ", ",, ", ",\n"])), draw(st.sampled_from([" ", "  ", "\t"]))
    change = draw(st.sampled_from([str.upper, str.lower, str.casefold, str]))
    return prompt, tag + " " + comma.join(space.join(map(change, part.split())) for part in parts_of(prompt)) + draw(
        st.sampled_from(["", ",", " , ", "\n", tag])
    )


@given(spellings(), st.lists(prompts, max_size=30), shares)
def test_no_prompt_is_on_both_sides_however_it_is_spelled(spelled, others, share):
    training, validation = split_pairs(pairs_of([*others, *spelled]), share)
    sides = [{pair.prompt for pair in side} for side in (training, validation)]
    assert not sides[0] & sides[1]
    assert set(spelled) <= sides[0] or set(spelled) <= sides[1]


@given(st.lists(prompts, max_size=40), shares)
def test_the_split_keeps_every_pair_once_and_in_order(found, share):
    pairs = pairs_of(found)
    training, validation = split_pairs(pairs, share)
    assert sorted(training + validation, key=pairs.index) == pairs
    assert training == sorted(training, key=pairs.index) and validation == sorted(validation, key=pairs.index)


@given(st.lists(prompts, max_size=40), shares, st.randoms())
def test_neither_order_nor_repetition_moves_a_prompt(found, share, rng):
    other = found * 2
    rng.shuffle(other)
    assert held_out_prompts(found, share) == held_out_prompts(other, share)


@given(st.sets(st.integers(), min_size=40, max_size=80), st.data())
@settings(max_examples=30)
def test_a_prompt_keeps_its_side_when_others_come_or_go(numbers, data):
    everything = [f"prompt {number}" for number in numbers]
    fewer = data.draw(st.sets(st.sampled_from(everything), min_size=2))
    before, after = held_out_prompts(fewer, 0.3), held_out_prompts(everything, 0.3)
    # One prompt may have filled a side that was empty; all others stay.
    is_filled = len(before) == 1 or len(fewer - before) == 1
    assert len(before ^ (after & fewer)) <= is_filled


@given(st.lists(prompts, max_size=40), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_a_larger_share_only_adds(found, one, other):
    smaller, larger = sorted((one, other))
    assert held_out_prompts(found, smaller) <= held_out_prompts(found, larger)


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=12), st.floats(1e-9, 0.5))
def test_of_two_prompts_or_more_neither_side_is_empty(numbers, share):
    found = [f"prompt {number}" for number in numbers]
    assert 1 <= len(held_out_prompts(found, share)) < len(found)


def test_a_prompt_alone_is_trained_on_and_a_share_of_zero_holds_out_nothing():
    lines = pairs_of(["a cat", " A  cat,", "<lora:x:1> a cat"])
    assert split_pairs(lines, 0.5) == (lines, [])
    lines = pairs_of(["a cat", "a dog", "a hat"])
    assert split_pairs(lines, 0.0) == (lines, [])
    assert split_pairs([], 0.1) == ([], [])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_of_many_prompts_is_the_share_asked_for(share):
    rng = random.Random(0)
    found = {f"{rng.random()} of a kind" for _ in range(4000)}
    assert len(held_out_prompts(found, share)) / len(found) == pytest.approx(share, abs=0.025)  # three deviations


def test_the_split_stays_the_same_from_version_to_version():
    """Runs keep no list of what they held out: if this changes, old runs are judged on what they were trained on."""
    found = held_out_prompts([f"prompt {number}" for number in range(20)], 0.25)
    assert sorted(int(prompt.split()[1]) for prompt in found) == [0, 2, 3, 5, 6, 7, 19]


# ------------------------------------------------------------------------------------------------ items

ITEMS = [
    Pair("a cat", "a.png", "b.png", 0.9, "duel", "Ann", "2"),
    Ranking("a dog", ("c.png", "d.png", "e.png"), 0.8, "duel", "Bob", "1"),
    Like("a hat", "f.png", False, 1.0, "triage", "Cat"),
]


def test_items_come_back_from_json_as_they_were():
    assert items_from_json(json.loads(json.dumps(items_to_json(ITEMS)))) == ITEMS


def test_pairs_of_earlier_versions_say_no_kind():
    old = {"prompt": "a cat", "chosen": "a.png", "rejected": "b.png", "confidence": 0.9, "source": "duel"}
    assert items_from_json([old]) == [Pair("a cat", "a.png", "b.png", 0.9, "duel")]


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "film", "prompt": "a cat"},
        {"kind": "like", "prompt": "a cat", "image": "a.png", "liked": True, "stars": 5},
        {"prompt": "a cat", "chosen": "a.png"},
    ],
)
def test_a_record_that_is_no_item_is_refused_with_its_fields_and_without_its_prompt(record):
    with pytest.raises(ItemError, match="is no pair, ranking or like that this version knows") as refused:
        items_from_json([record])
    assert all(name in str(refused.value) for name in record) and "a cat" not in str(refused.value)


def test_images_are_in_the_order_of_the_rows_of_a_batch():
    assert [item.images for item in ITEMS] == [("a.png", "b.png"), ("c.png", "d.png", "e.png"), ("f.png",)]


def test_rankings_and_likes_are_held_out_by_prompt_as_pairs_are():
    prompts = [f"prompt {number}" for number in range(20)]
    kinds = [
        [Pair(prompt, "a", "b") for prompt in prompts],
        [Ranking(prompt, ("a", "b", "c")) for prompt in prompts],
        [Like(prompt, "a", True) for prompt in prompts],
    ]
    sides = [[[item.prompt for item in side] for side in split_pairs(items, 0.25)] for items in kinds]
    assert sides[0] == sides[1] == sides[2] and all(sides[0])
