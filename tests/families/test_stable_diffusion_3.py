"""What is particular to Stable Diffusion 3: a static shift, a text encoder that may be missing, blocks with two attentions."""

import pytest
import torch

from dpo.adapters import attach_adapter
from dpo.families import load_family
from tests.families.checks import sampled, settings
from tests.families.stable_diffusion_3 import TINIES, build


def test_time_is_shifted_as_the_scheduler_says():
    """sigma = 3 u / (1 + 2 u): 0.5 -> 1.5 / 2 and 0.25 -> 0.75 / 1.5, a thousand timesteps each."""
    assert load_family(build()).timesteps(torch.tensor([0.5, 0.25])).tolist() == [750.0, 500.0]


def test_sides_are_multiples_of_what_one_token_sees_and_times_are_drawn_as_its_trainers_do():
    """A VAE of a half and patches of 2: 4 pixels. 8 latents are 16 pixels."""
    family = load_family(build())
    assert (family.pixel_multiple, family.image_side, family.timestep_sampling) == (4, 16, "logit_normal")


def test_without_t5_its_256_tokens_are_zeros_after_those_of_the_clips():
    embeds = load_family(build(with_t5=False)).encode_prompts(["a red cat"])["prompt_embeds"]
    complete = load_family(build()).encode_prompts(["a red cat"])["prompt_embeds"]
    clips = 16
    assert embeds.shape == complete.shape == (1, clips + 256, 32)
    assert torch.equal(embeds[:, :clips], complete[:, :clips])
    assert not embeds[:, clips:].any() and complete[:, clips:].any()


@pytest.mark.parametrize("tiny", TINIES, ids=lambda tiny: tiny.name)
def test_embeddings_give_the_image_that_the_words_give(tiny):
    pipeline = tiny.build()
    by_words, by_embeddings = (
        sampled(pipeline, **asked, guidance_scale=4.0)
        for asked in (
            {"prompt": ["a red cat"], "negative_prompt": ["blur"]},
            load_family(pipeline).prompt_arguments("a red cat", "blur"),
        )
    )
    assert torch.equal(by_words, by_embeddings)


def test_the_second_attention_of_a_block_is_trained_too():
    adapter = attach_adapter(load_family(build()), settings(TINIES[0]), starting=None, reference=None, moving=False)
    trained = adapter.trainable_names()
    for attention in ("attn", "attn2"):
        for layer in ("to_q", "to_k", "to_v", "to_out.0"):
            assert any(name.startswith(f"transformer_blocks.0.{attention}.{layer}.") for name in trained), (attention, layer)
    assert any(name.startswith("transformer_blocks.0.attn.add_q_proj.") for name in trained)
