"""What is particular to FLUX.1: tokens of patches and where they stand, the guidance it is told, the length of its prompts."""

from dataclasses import replace

import pytest
import torch

from dpo.adapters import attach_adapter
from dpo.families import load_family
from dpo.families.packing import pack, positions, unpack
from tests.families.checks import conditioning, sampled, settings, watched_calls
from tests.families.flux import TINIES, build

WIDE = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))  # latents: 2 by 3 patches


def test_a_token_is_a_patch_channel_by_channel():
    """Two channels of 2x4: 0 to 7 and 8 to 15, row by row."""
    latents = torch.arange(16.0).reshape(1, 2, 2, 4)
    tokens = torch.tensor([[[0.0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]])
    assert torch.equal(pack(latents), tokens)
    assert torch.equal(unpack(tokens, 2, 4), latents)


def test_positions_run_along_the_last_axis_first():
    assert positions(1, 2, 3, device="cpu").tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]


@pytest.mark.parametrize("tiny", TINIES, ids=lambda tiny: tiny.name)
def test_an_image_that_is_not_square_is_told_as_the_pipeline_tells_it(tiny):
    pipeline = tiny.build()
    family = load_family(pipeline)
    calls = watched_calls(family)
    with torch.no_grad():
        answer = family.predict(WIDE, torch.tensor([500.0]), conditioning(family, tiny, 1))
    told = calls[0][1]
    tokens, places = pipeline.prepare_latents(1, 4, 8, 12, torch.float32, "cpu", None, latents=WIDE)
    assert torch.equal(told["img_ids"], places)
    assert torch.equal(told["hidden_states"], pipeline._pack_latents(tokens, 1, 4, 4, 6))
    assert torch.equal(answer, pipeline._unpack_latents(calls[0][2].sample, 8, 12, pipeline.vae_scale_factor))


def test_sides_are_multiples_of_what_one_token_sees_and_times_are_drawn_as_its_trainers_do():
    """A VAE of a half and patches of 2: 4 pixels. 128 latents are 256 pixels. A shift by the image's size is none in training."""
    family = load_family(build(guidance=True))
    assert (family.pixel_multiple, family.image_side, family.timestep_sampling) == (4, 256, "uniform")
    assert family.timesteps(torch.tensor([0.25])).tolist() == [250.0]


def test_dev_is_told_a_guidance_of_1_and_schnell_is_told_none():
    told = []
    for tiny in TINIES:
        family = load_family(tiny.build())
        calls = watched_calls(family)
        with torch.no_grad():
            family.predict(WIDE.repeat(2, 1, 1, 1), torch.tensor([500.0, 1.0]), conditioning(family, tiny, 2))
        told.append(calls[0][1]["guidance"])
    assert told[0].tolist() == [1.0, 1.0] and told[0].dtype == torch.float32
    assert told[1] is None


def test_prompts_are_padded_to_512_tokens_for_dev_and_to_256_for_schnell():
    lengths = [load_family(tiny.build()).encode_prompts(["a red cat"])["prompt_embeds"].shape[1] for tiny in TINIES]
    assert lengths == [512, 256]


@pytest.mark.parametrize("tiny, length", [*zip(TINIES, (512, 256), strict=True)], ids=lambda value: getattr(value, "name", value))
def test_embeddings_give_the_image_that_the_words_give(tiny, length):
    pipeline = tiny.build()
    by_words, by_embeddings = (
        sampled(pipeline, **asked)
        for asked in (
            {"prompt": ["a red cat"], "max_sequence_length": length},
            load_family(pipeline).prompt_arguments("a red cat", "blur"),
        )
    )
    assert torch.equal(by_words, by_embeddings)


def test_the_outputs_of_single_blocks_can_be_trained_and_the_last_layer_is_left_alone():
    family = load_family(build(guidance=True))
    config = replace(settings(TINIES[0]), lora_modules="attention+mlp")
    trained = attach_adapter(family, config, starting=None, reference=None, moving=False).trainable_names()
    for layer in ("transformer_blocks.0.ff_context.net.2", "single_transformer_blocks.1.proj_mlp",
                  "single_transformer_blocks.1.proj_out", "single_transformer_blocks.0.attn.to_v"):  # fmt: skip
        assert any(name.startswith(f"{layer}.") for name in trained), layer
    assert not any(name.startswith("proj_out.") for name in trained)
