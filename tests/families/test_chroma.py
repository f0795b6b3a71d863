"""What is particular to Chroma: it reads one token of padding and masks the rest, and it is told no guidance."""

import torch

from dpo.families import load_family
from dpo.families.packing import pack, unpack
from tests.families.checks import clean_latents, conditioning, sampled, watched_calls
from tests.families.chroma import TINIES, build

PROMPT = "a red cat"  # 10 tokens: a letter each, a space before each word, and T5's last one
(TINY,) = TINIES


def test_of_a_prompt_its_tokens_and_one_of_padding_are_kept():
    """Encoded among all its padding, which T5 masks."""
    pipeline = build()
    family = load_family(pipeline)
    padded, _, read, *_ = pipeline.encode_prompt([PROMPT], do_classifier_free_guidance=False)
    tokens = len(pipeline.tokenizer(PROMPT).input_ids)
    assert padded.shape[1] == 512 and read.sum() == tokens + 1
    assert torch.equal(family.encode_prompts([PROMPT])["prompt_embeds"], padded[:, : tokens + 1])


def test_a_prompt_that_fills_all_512_tokens_has_no_padding():
    assert load_family(build()).encode_prompts(["a" * 600])["prompt_embeds"].shape[1] == 512


def test_the_answer_is_that_of_a_transformer_that_masks_the_padding():
    """All 512 tokens, and a true mask over text and image: what cannot be read neither reads nor is read. The image is not
    square: 2 by 3 patches."""
    pipeline = build()
    family = load_family(pipeline)
    latents = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    padded, places, read, *_ = pipeline.encode_prompt([PROMPT], do_classifier_free_guidance=False)
    masked, added = (
        unpack(
            pipeline.transformer(
                hidden_states=pack(latents), encoder_hidden_states=padded, timestep=torch.tensor([0.5]), txt_ids=places,
                img_ids=pipeline._prepare_latent_image_ids(1, 2, 3, "cpu", torch.float32),
                attention_mask=torch.cat([mask, torch.ones(1, 6, dtype=mask.dtype)], 1),
            ).sample, 4, 6,
        ) for mask in (read.bool(), read)
    )  # fmt: skip
    answer = family.predict(latents, torch.tensor([500.0]), conditioning(family, TINY, 1, PROMPT))
    torch.testing.assert_close(answer, masked, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(added, masked, rtol=1e-2, atol=1e-3)  # as the pipeline would have it: floats are added


def test_gradient_checkpointing_changes_no_answer():
    """diffusers gives no mask to single blocks then: with padding, policy and reference would be two models from the start."""
    family = load_family(build())
    latents = clean_latents(family, TINY).requires_grad_()
    asked = (latents, torch.tensor([500.0]), conditioning(family, TINY, 1))
    plain = family.predict(*asked)
    family.denoiser.enable_gradient_checkpointing()
    family.denoiser.train()
    assert torch.equal(family.predict(*asked), plain)


def test_a_negative_prompt_of_another_length_guides_the_image():
    pipeline = build()
    family = load_family(pipeline)
    calls = watched_calls(family)
    images = [
        sampled(pipeline, **family.prompt_arguments(PROMPT, negative), **family.sampling_options(4.0), num_inference_steps=1)
        for negative in ("", "a blurry picture")
    ]
    lengths = [kwargs["encoder_hidden_states"].shape[1] for _, kwargs, _ in calls]
    assert lengths[0] == lengths[2] != lengths[3] != lengths[1]
    assert not torch.allclose(*images)
