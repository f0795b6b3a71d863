"""Painting with every family: progress is told, a stop is obeyed between two steps, whatever its pipeline calls the way there."""

import threading
from dataclasses import replace

import pytest

from dpo.families import load_family
from dpo.sampling import paint
from tests.families import families, stable_diffusion
from tests.families.checks import PROMPT, SETTINGS, difference, watched_calls

FAMILIES = [pytest.param(tiny, id=tiny.name) for tiny in families()]
STEPS = 4


def setting(tiny):
    return replace(SETTINGS, sampling_steps=STEPS, width=tiny.side, height=tiny.side)


@pytest.mark.parametrize("tiny", FAMILIES)
def test_every_step_is_reported_once_it_is_done(tiny):
    family = load_family(tiny.build())
    calls, told = watched_calls(family), []
    encoded = family.prompt_arguments(PROMPT, "")
    images = paint(
        family, [(encoded, 1), (encoded, 2)], setting(tiny), on_step=lambda step: told.append((step, len(calls)))
    )  # fmt: skip
    assert told == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [image.size for image in images] == [(tiny.side, tiny.side)] * 2
    assert difference(images[:1], images[1:]) > 0


@pytest.mark.parametrize("tiny", FAMILIES)
def test_a_stop_is_obeyed_before_the_next_step_and_leaves_the_pipeline_as_it_was(tiny):
    family = load_family(tiny.build())
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    expected = paint(family, rows, setting(tiny))
    calls, stop, told = watched_calls(family), threading.Event(), []

    def on_step(step):
        told.append(step)
        if step == 2:
            stop.set()

    assert paint(family, rows, setting(tiny), on_step=on_step, stop=stop) == []
    assert (told, len(calls)) == ([1, 2], 3)  # it is seen when the step that was under way is done
    stop.clear()
    assert difference(paint(family, rows, setting(tiny), stop=stop), expected) == 0


def test_prompts_of_different_shapes_are_painted_one_after_the_other_and_returned_in_order():
    tiny = stable_diffusion.TINIES[0]
    family = load_family(tiny.build())
    long = family.prompt_arguments(PROMPT, "")
    short = {name: tensor[:, :8] for name, tensor in long.items()}
    told = []
    images = paint(family, [(long, 1), (short, 2), (long, 3)], setting(tiny), on_step=told.append)
    alone = [paint(family, [row], setting(tiny))[0] for row in ((long, 1), (short, 2), (long, 3))]
    assert difference(images, alone) <= 1  # a batch of two rounds otherwise than one
    assert told == [0, 1, 2, 2, 3, 3, 3, 4]  # the two come first, and each of their steps is 2/3 of one of all
