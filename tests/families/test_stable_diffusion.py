"""What is particular to Stable Diffusion 2.x: velocity at 768 pixels or noise at 512, and some signal at the schedule's end."""

import pytest
import torch
from diffusers import PNDMScheduler, UNet2DConditionModel

from dpo.families import load_family
from dpo.sampling import SampleSettings, paint
from tests.families.checks import difference
from tests.families.stable_diffusion import build_second

BASE = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
)


@pytest.mark.parametrize(("scheduler", "of_latents", "of_noise"), [(None, -0.9977, 0.0683), (BASE, 0.0, 1.0)])
def test_the_target_is_velocity_or_for_the_base_model_noise(scheduler, of_latents, of_noise):
    """At the last timestep sqrt(a) = 0.0683: velocity is 0.0683 noise - 0.9977 latents."""
    family = load_family(build_second(scheduler))
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noisy, target = family.add_noise(latents, noise, torch.tensor([999]))
    torch.testing.assert_close(noisy, 0.0683 * latents + 0.9977 * noise, rtol=0, atol=5e-4)
    torch.testing.assert_close(target, of_latents * latents + of_noise * noise, rtol=0, atol=5e-4)


@pytest.mark.parametrize("negative", ["", "blur"])
def test_an_encoded_prompt_paints_what_the_pipeline_paints_from_its_words(negative):
    family = load_family(build_second())
    (image,) = paint(family, [(family.prompt_arguments("a red cat", negative), 1)], SampleSettings(2, 5.0, 16, 16))
    expected = family.pipeline(
        "a red cat", negative_prompt=negative, guidance_scale=5.0, width=16, height=16, num_inference_steps=2,
        generator=[torch.Generator().manual_seed(1)],
    ).images  # fmt: skip
    assert difference([image], expected) == 0


@pytest.mark.parametrize(("sample_size", "side"), [(96, 768), (64, 512)])
def test_the_full_model_has_the_sizes_and_the_attentions_that_are_known_of_it(sample_size, side):
    """As published: 866 million parameters; 16 blocks with two attentions of 4 matrices each, another number of heads at every
    depth. 768 pixels for 2.1, 512 for its base."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=sample_size, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True,
            upcast_attention=True,
        )  # fmt: skip
    pipeline = build_second()
    pipeline.register_modules(unet=unet)
    pipeline.vae_scale_factor = 8
    family = load_family(pipeline)
    assert (family.image_side, family.pixel_multiple) == (side, 64)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 865_910_724
    targets = tuple(f".{name}" for name in family.lora_targets)
    assert sum(name.endswith(targets) for name, _ in unet.named_modules()) == 16 * 2 * 4
    assert {module.in_features for name, module in unet.named_modules() if name.endswith(".proj_in")} == {320, 640, 1280}
