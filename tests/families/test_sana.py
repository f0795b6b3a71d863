"""What is particular to Sana: two schedulers, and sides in multiples of 32."""

import torch

from dpo.families import load_family
from tests.families.checks import watched_calls
from tests.families.sana import SIDE, build, build_as_published


def test_time_is_shifted_as_the_published_scheduler_shifts_it():
    """It takes 4 steps evenly from 0.999 to 0 and shifts them: sigma = 3 u / (1 + 2 u)."""
    family = load_family(build_as_published())
    scheduler = family.pipeline.scheduler
    scheduler.set_timesteps(4)
    torch.testing.assert_close(family.timesteps(torch.linspace(0.999, 0, 5)[:4]) / 1000, scheduler.sigmas[:4])
    assert family.timesteps(torch.tensor([0.5])) == 750


def test_time_is_shifted_as_eulers_scheduler_shifts_it():
    """It has a sigma for each of 1000 training timesteps, from 1 to 0.001 before the shift."""
    family = load_family(build())
    timesteps = family.timesteps(torch.linspace(1, 0.001, 1000))
    torch.testing.assert_close(timesteps, family.pipeline.scheduler.timesteps.clamp(min=1))


def test_an_image_keeps_its_size_instead_of_the_nearest_of_a_list():
    """128 x 64 pixels are 4 x 2 latents."""
    family = load_family(build())
    assert family.pixel_multiple == 32 and family.image_side == SIDE
    calls = watched_calls(family)
    image = family.pipeline(
        **family.prompt_arguments("red", ""), **family.sampling_options(1.0), width=2 * SIDE, height=SIDE, num_inference_steps=1
    ).images[0]  # fmt: skip
    assert image.size == (2 * SIDE, SIDE)
    assert calls[0][0][0].shape == (1, 4, 2, 4)
