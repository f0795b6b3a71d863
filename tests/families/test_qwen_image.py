"""What is particular to Qwen-Image: patches, and what is left of a prompt's tokens."""

import pytest
import torch

from dpo.families import load_family
from dpo.sampling import SampleSettings, paint
from tests.families.checks import PROMPT, conditioning, watched_calls
from tests.families.qwen_image import TINIES, build


def test_patches_of_an_image_that_is_no_square_come_row_by_row():
    """Latents of 8 rows and 12 columns are 4 rows of 6 patches, so that token 6 is the first patch of the second row."""
    family = load_family(build())
    latents = torch.randn(1, 4, 8, 12)
    calls = watched_calls(family)
    answer = family.predict(latents, torch.tensor([500.0]), conditioning(family, TINIES[0], 1))
    ((_, told, output),) = calls
    assert told["img_shapes"] == [[(1, 4, 6)]]
    assert told["hidden_states"].shape == (1, 24, 16)
    torch.testing.assert_close(told["hidden_states"][0, 6], latents[0, :, 2:4, 0:2].flatten())
    torch.testing.assert_close(answer[0, :, 2:4, 0:2].flatten(), output.sample[0, 6])


def test_a_prompt_is_read_in_its_template_less_the_first_34_tokens_and_cut_to_512():
    family = load_family(build())
    pipeline = family.pipeline
    tokens = pipeline.tokenizer(pipeline.prompt_template_encode.format(PROMPT), return_tensors="pt").input_ids
    states = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(family.encode_prompts([PROMPT])["prompt_embeds"], states[:, 34:])
    assert family.encode_prompts(["x" * 600])["prompt_embeds"].shape[1] == 512


def test_prompts_of_different_lengths_are_not_padded_to_one():
    family = load_family(build())
    embeds = family.encode_prompts(["two", "six"])["prompt_embeds"]
    torch.testing.assert_close(embeds[1:], family.encode_prompts(["six"])["prompt_embeds"])
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        family.encode_prompts(["two", "three"])


@pytest.mark.parametrize("scale, prompts", [(1.0, ["a"]), (4.0, ["a", "blurred"])])
def test_guidance_is_away_from_the_negative_prompt(scale, prompts):
    family = load_family(build())
    calls = watched_calls(family)
    paint(family, [(family.prompt_arguments("a", "blurred"), 1)], SampleSettings(1, scale, 16, 16))
    assert len(calls) == len(prompts)
    for (_, told, _), prompt in zip(calls, prompts, strict=True):
        torch.testing.assert_close(told["encoder_hidden_states"], family.encode_prompts([prompt])["prompt_embeds"])


def test_a_latent_is_the_mean_of_what_the_vae_says_by_the_statistics_of_its_channel():
    """(x + 0.7571) / 2.8184 in the first channel, (x - 0.1075) / 2.6558 in the last."""
    family = load_family(build())
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    said = family.pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mean
    latents = family.encode_images(pixels)
    torch.testing.assert_close(latents[:, 0], (said[:, 0, 0] + 0.7571) / 2.8184)
    torch.testing.assert_close(latents[:, 3], (said[:, 3, 0] - 0.1075) / 2.6558)
    assert family.pixel_multiple == 4  # a latent is 2 pixels wide here, a patch 2 latents
