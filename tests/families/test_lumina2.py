"""What is particular to Lumina 2: time that runs from noise to image."""

import torch

from dpo.families import load_family
from tests.families.checks import conditioning, watched_calls
from tests.families.lumina2 import TINIES, build


def test_the_denoiser_is_told_how_much_of_the_image_there_is_and_answers_image_less_noise():
    """Half way through the schedule sigma is 6 u / (1 + 5 u) = 3 / 3.5, and a seventh of the image is there."""
    family = load_family(build())
    timesteps = family.timesteps(torch.tensor([0.5]))
    latents = torch.randn(1, 4, 4, 4)
    calls = watched_calls(family)
    answer = family.predict(latents, timesteps, conditioning(family, TINIES[0], 1))
    ((_, told, output),) = calls
    torch.testing.assert_close(told["timestep"], torch.tensor([1 / 7]))
    torch.testing.assert_close(answer, -output.sample)


def test_images_are_cut_to_whole_patches():
    """Of 2 latents of 8 pixels; the model was made for sides of 4 latents."""
    family = load_family(build())
    assert (family.pixel_multiple, family.image_side) == (16, 32)
