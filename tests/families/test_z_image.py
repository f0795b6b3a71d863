"""What is particular to Z-Image: lists, a scale of guidance of its own, captions of their natural length."""

import pytest
import torch

from dpo.families import load_family
from dpo.sampling import SampleSettings, paint
from tests.families.checks import PROMPT, difference, watched_calls
from tests.families.z_image import build

TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
AROUND = 1 + len("user\n") + 1 + len("\n") + 1 + len("assistant\n")  # tokens: a mark is one, and so is every other letter


def test_a_caption_is_the_prompt_in_the_chat_template_at_its_own_length_and_512_tokens_at_most():
    family = load_family(build())
    prompts = [PROMPT]
    embeds = family.encode_prompts(prompts)["prompt_embeds"]
    assert embeds.shape[:2] == (1, len(PROMPT) + AROUND)
    assert prompts == [PROMPT]  # the pipeline would have written the template into it
    tokens = family.pipeline.tokenizer(TEMPLATE.format(PROMPT), return_tensors="pt").input_ids
    states = family.pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(embeds, states[-2])
    assert family.encode_prompts(["x" * 600])["prompt_embeds"].shape[1] == 512


def test_a_negative_prompt_is_encoded_as_a_prompt_is():
    family = load_family(build())
    told = family.prompt_arguments(PROMPT, "blurred")
    torch.testing.assert_close(told["negative_prompt_embeds"], list(family.encode_prompts(["blurred"])["prompt_embeds"]))


def test_time_is_shifted_as_the_scheduler_says_and_images_are_cut_to_whole_patches():
    """sigma = 3 u / (1 + 2 u): half way through the schedule 1.5 / 2. A latent is 2 pixels wide here, a patch 2 latents."""
    family = load_family(build())
    assert family.timesteps(torch.tensor([0.5])) == 750
    assert family.pixel_multiple == 4


@pytest.mark.parametrize("scale, told, rows", [(1.0, 0.0, 1), (0.0, 0.0, 1), (4.0, 3.0, 2)])
def test_guidance_of_1_is_the_prompt_alone_as_in_every_other_family(scale, told, rows):
    """The pipeline adds scale (prompt - negative) to the prompt's answer; others add scale (prompt - negative) to the
    negative's, which is 1 more. Without guidance the denoiser sees a row an image, with it two."""
    family = load_family(build())
    assert family.sampling_options(scale) == {"guidance_scale": told}
    calls = watched_calls(family)
    paint(family, [(family.prompt_arguments(PROMPT, ""), 1)], SampleSettings(1, scale, 16, 16))
    assert [len(args[0]) for args, _, _ in calls] == [rows]


def test_prompts_of_different_lengths_are_painted_in_one_call_as_they_are_alone():
    family = load_family(build())
    rows = [(family.prompt_arguments(prompt, "blurred"), seed) for prompt, seed in ((PROMPT, 1), ("x" * 80, 2))]
    size = SampleSettings(2, 3.0, 16, 16)
    calls = watched_calls(family)
    together = paint(family, rows, size)
    assert [len(args[0]) for args, _, _ in calls] == [4, 4]
    assert difference(together, [*paint(family, rows[:1], size), *paint(family, rows[1:], size)]) <= 1
