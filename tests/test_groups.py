import itertools

import pytest

from dpo.groups import (
    View,
    cluster_shapes,
    group_key,
    key_ending,
    normalise_prompt,
    prompt_forms,
    prompt_of_key,
    without_loras,
)  # fmt: skip


@pytest.mark.parametrize(
    "text, normal",
    [
        ("a cat,\r\n on a  mat , ", "a cat, on a mat"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0cat\n", "a cat"),
        (" , ,", ""),
        (None, ""),
        ("half \ud83d", "half ?"),
    ],
)
def test_prompts_that_differ_in_spacing_alone_are_one(text, normal):
    assert normalise_prompt(text) == normal


@pytest.mark.parametrize(
    "text, bare",
    [
        ("a cat <lora:fluffy:0.8>", "a cat"),
        ("a cat, <lora:fluffy:0.8>, on a mat", "a cat, on a mat"),
        ("<lyco:a:1><LORA:b:1> a cat", "a cat"),
        ("<lora:a:1>", ""),
        ("a <cat> with x<y and y>z", "a <cat> with x<y and y>z"),
        ("a, b ,c", "a, b ,c"),
    ],
)
def test_lora_tags_are_taken_out_with_the_commas_around_them_and_nothing_else(text, bare):
    assert without_loras(text) == bare


def test_forms_are_equal_exactly_where_prompts_are_the_same_in_that_respect():
    plain, upper, tagged, both = map(prompt_forms, ("a cat", "A Cat", "a cat <lora:x:1>", "A cat, <lora:y:2>"))
    assert len({form.exact for form in (plain, upper, tagged, both)}) == 4
    assert plain.caseless == upper.caseless != tagged.caseless
    assert plain.bare == tagged.bare != upper.bare
    assert plain.both == upper.both == tagged.both == both.both
    assert prompt_forms(" , ") is None


@pytest.mark.parametrize("one, other", [((832, 1216), (1080, 1576)), ((732, 1316), (728, 1312)), ((512, 512), (1024, 1016))])
def test_ratios_that_upscalers_rounded_are_one_shape(one, other):
    assert cluster_shapes([one, other]) == {one: one, other: one}


@pytest.mark.parametrize("one, other", [((512, 512), (512, 768)), ((832, 1216), (1216, 832)), ((1024, 1024), (1024, 1000))])
def test_another_shape_is_another_cluster(one, other):
    assert cluster_shapes([one, other]) == {one: one, other: other}


def test_no_cluster_spans_more_than_the_tolerance_and_every_shape_is_in_one():
    for order in itertools.permutations([(1000 + 10 * n, 1000) for n in range(6)]):
        found = cluster_shapes(order)
        assert found.keys() == set(order)
        for first in set(found.values()):
            widths = [shape[0] for shape, its_first in found.items() if its_first == first]
            assert max(widths) / min(widths) <= 1.015


def test_shapes_that_come_later_move_none_of_those_before_them():
    shapes = [(1000, 1000), (1014, 1000), (990, 1000), (986, 1000), (1020, 1000), (1006, 1000), (2000, 2000)]
    for count in range(1, len(shapes)):
        before, after = cluster_shapes(shapes[:count]), cluster_shapes(shapes)
        assert {shape: after[shape] for shape in before} == before


def test_the_same_ratio_in_other_pixels_gives_the_same_key():
    view = View("/x")
    assert key_ending(view, 832, 1216) == key_ending(view, 416, 608) != key_ending(view, 1216, 832)


def test_keys_differ_by_options_and_by_what_groups_share():
    views = [View("/x"), View("/x", ignore_case=True), View("/x", ignore_loras=True), View("/x", same_model=True)]
    assert len({key_ending(view, 1, 1) for view in views}) == 4
    assert key_ending(views[3], 1, 1, "sdxl") != key_ending(views[3], 1, 1, "flux")


def test_a_key_says_its_prompt_and_is_what_picks_take_for_one():
    for number in (0, 1, -1, 2**63 - 1, -(2**63)):
        key = group_key(number, key_ending(View("/x", same_seed=True), 1_000_000, 999_999, "1"))
        assert prompt_of_key(key) == number and len(key) <= 64
    for text in ("", "../../x", "0" * 24, "g" * 30, "0" * 65):
        assert prompt_of_key(text) is None
