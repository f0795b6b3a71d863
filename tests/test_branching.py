"""Candidates that share their course up to a step: on real pipelines, the demo and tiny ones of both kinds of schedule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler

from dpo.branching import Branch, BranchError, branching_scheduler, place_of
from dpo.families import load_family
from dpo.models import load_pipeline
from dpo.sampling import SampleSettings, paint
from tests.families import families
from tests.families.checks import PROMPT, SETTINGS, answering, clean_latents

TINIES = {tiny.name: tiny for tiny in families()}
KINDS = ["sd_1.x", "sdxl_v_zero_snr", "sd_3.5", "flux.1_dev", "z-image", "sana", "pixart-sigma"]
STEPS = 5


def prepared(name):
    tiny = TINIES[name]
    family = load_family(tiny.build())
    family.pipeline.scheduler = branching_scheduler(family.pipeline.scheduler)
    return tiny, family, replace(SETTINGS, sampling_steps=STEPS, width=tiny.side, height=tiny.side)


def seen_by_denoiser(family, rows, settings, branch):
    """What the denoiser was given of the latents at every step, one tensor each; and the images."""
    seen = []

    def look(module, args, kwargs):
        latents = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
        seen.append((torch.stack(latents) if isinstance(latents, list) else latents).clone())

    hook = family.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    try:
        encoded = family.prompt_arguments(PROMPT, "")
        return seen, paint(family, [(encoded, seed) for seed in rows], settings, branch=branch)
    finally:
        hook.remove()


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_the_same_to_the_bit_up_to_the_branch_and_differ_after_it(name):
    _, family, settings = prepared(name)
    seen, _ = seen_by_denoiser(family, [1, 2], settings, Branch(0.6, 9))
    assert [bool((step[0] == step[1]).all()) for step in seen] == [True, True, True, False, False]
    assert "step" not in vars(family.pipeline.scheduler)


def test_the_course_is_the_seeds_and_what_follows_the_rows_own():
    _, family, settings = prepared("sd_3.5")
    first, images = seen_by_denoiser(family, [1, 2], settings, Branch(0.6, 9))
    again, same = seen_by_denoiser(family, [2], settings, Branch(0.6, 9))
    other, _ = seen_by_denoiser(family, [2], settings, Branch(0.6, 10))
    torch.testing.assert_close(again[4][0], first[4][1])
    assert np.abs(np.asarray(same[0], float) - np.asarray(images[1], float)).max() <= 1
    assert not torch.allclose(other[0][0], first[0][0])


@pytest.mark.parametrize("name", ["sd_1.x", "sd_2.x_v", "sd_3.5"])
def test_after_the_branch_the_clean_latents_are_the_same_and_noised_anew(name):
    """A denoiser that knows the clean latents has them for x0 at every step; so what it sees after the branch is what
    training's own `add_noise` makes of them, a row's own noise and that timestep."""
    tiny, family, settings = prepared(name)
    clean = clean_latents(family, tiny)
    told = []
    with answering(family.denoiser, tiny.oracle(family.pipeline, clean)):
        seen, _ = seen_by_denoiser(family, [1, 2], settings, Branch(0.4, 9, told.append))
    timestep = family.pipeline.scheduler.timesteps[2].repeat(2)
    noise = [torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    expected, _ = family.add_noise(clean.repeat(2, 1, 1, 1), torch.stack(noise), timestep)
    torch.testing.assert_close(seen[2], expected, rtol=1e-4, atol=1e-4)
    below, at = family.timesteps(torch.tensor([told[0] - 2e-4, told[0] + 2e-4], dtype=torch.float64)).tolist()
    assert below <= timestep[0] <= at


def test_the_place_is_the_way_back_of_timesteps():
    """DDPM: timestep 449 of 1000 is the last below u = 0.45. A flow with shift 3 (as SD 3.5): sigma = 3u / (1 + 2u) is 0.6 at
    u = 1/3."""
    assert place_of(load_family(TINIES["sd_1.x"].build()), 449) == 0.45
    assert place_of(load_family(TINIES["sd_3.5"].build()), 600.0) == pytest.approx(1 / 3, abs=2e-4)


def test_a_branch_keeps_the_composition_that_independent_seeds_do_not_share():
    """On the demo, in 8 x 8 averages: a group from one course is closer to its own mean than independent seeds to theirs."""
    family = load_family(load_pipeline("demo"))
    family.pipeline.scheduler = branching_scheduler(family.pipeline.scheduler)
    encoded = family.prompt_arguments("a red ball on grass", "")
    settings, rows = SampleSettings(sampling_steps=10), [(encoded, seed) for seed in range(4)]

    def spread(branch):
        images = np.stack([np.asarray(image, float) for image in paint(family, rows, settings, branch=branch)])
        coarse = images.reshape(4, 8, 8, 8, 8, 3).mean((2, 4))
        return coarse.std(0).mean(), images.std(0).mean()

    (near, fine), (far, _) = spread(Branch(0.6, 5)), spread(None)
    assert near < far / 4
    assert fine > 0


def test_one_step_and_a_schedule_of_another_kind_are_refused():
    with pytest.raises(BranchError, match="sampling_steps=1 is too few to branch"):
        Branch(0.5, 1).shared_steps(1)
    assert [Branch(share, 1).shared_steps(10) for share in (0.01, 0.5, 0.99)] == [1, 5, 9]
    with pytest.raises(BranchError, match="EDMEulerScheduler has no schedule"):
        branching_scheduler(EDMEulerScheduler())
