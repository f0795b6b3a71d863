import pytest

from dpo.groups import IndexedImage, group_images, normalise_prompt, split_into_screens
from dpo.metadata import ImageRecord


def image(name: str, prompt: str | None = "a cat", width: int = 512, height: int = 512, key: str | None = None) -> IndexedImage:
    path = f"/images/{name}.png"
    return IndexedImage(key or name * 8, path, ImageRecord(path=path, prompt=prompt, width=width, height=height))


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


def test_case_and_inner_commas_make_another_prompt():
    groups = group_images([image("a", "a cat"), image("b", "A cat"), image("c", "a, cat")])
    assert len(groups) == 3


@pytest.mark.parametrize("one, other", [((832, 1216), (1080, 1576)), ((732, 1316), (728, 1312)), ((512, 512), (1024, 1016))])
def test_ratios_that_upscalers_rounded_stay_in_one_group(one, other):
    assert len(group_images([image("a", width=one[0], height=one[1]), image("b", width=other[0], height=other[1])])) == 1


@pytest.mark.parametrize("one, other", [((512, 512), (512, 768)), ((832, 1216), (1216, 832)), ((1024, 1024), (1024, 1000))])
def test_another_shape_is_another_group(one, other):
    assert len(group_images([image("a", width=one[0], height=one[1]), image("b", width=other[0], height=other[1])])) == 2


def test_no_group_spans_more_than_the_tolerance():
    chain = [image(f"{n:02}", width=1000 + 10 * n, height=1000) for n in range(10)]
    for group in group_images(chain):
        widths = [member.record.width for member in group.images]
        assert max(widths) / min(widths) <= 1.015


def test_copies_of_one_file_count_once():
    (group,) = group_images([image("a", key="1" * 16), image("b", key="1" * 16), image("c", key="2" * 16)])
    assert [member.path for member in group.images] == ["/images/a.png", "/images/c.png"]


def test_images_without_prompt_or_pixels_are_in_no_group():
    assert group_images([image("a", None), image("b", " ,"), image("c", width=0, height=0)]) == []


def test_a_group_keeps_its_key_whatever_order_its_images_come_in():
    images = [image(name) for name in "abc"]
    assert group_images(images) == group_images(images[::-1])


@pytest.mark.parametrize("count, sizes", [(1, []), (2, [2]), (9, [9]), (10, [5, 5]), (20, [7, 6, 7])])
def test_grids_are_even_and_hold_at_most_nine(count, sizes):
    (group,) = group_images([image(f"{n:02}") for n in range(count)])
    screens = split_into_screens(group, "best_worst")
    assert [len(screen.images) for screen in screens] == sizes
    assert {member.key for screen in screens for member in screen.images} == ({m.key for m in group.images} if sizes else set())


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_every_image_meets_another_in_a_duel(count):
    (group,) = group_images([image(f"{n:02}") for n in range(count)])
    screens = split_into_screens(group, "duel")
    assert all(len({member.key for member in screen.images}) == 2 for screen in screens)
    assert {member.key for screen in screens for member in screen.images} == {member.key for member in group.images}
    assert len(screens) == (count + 1) // 2
