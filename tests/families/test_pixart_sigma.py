"""What is particular to PixArt-Sigma: the variance beside the noise, a mask, adapters that diffusers does not know."""

from dataclasses import replace

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from dpo.adapters import attach_adapter
from dpo.families import load_family
from dpo.sampling import SampleSettings, paint
from tests.families.checks import conditioning, difference, move, settings
from tests.families.pixart_sigma import TINIES, build_pipeline

(TINY,) = TINIES


def test_the_prediction_is_the_first_half_of_the_channels():
    """The second half is the variance the model has learned."""
    family = load_family(build_pipeline())
    with torch.no_grad():
        told = conditioning(family, TINY, 1)
        before = family.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), told)
        # Of the 8 values a place of a patch has, the last four are the variance.
        family.denoiser.proj_out.bias.view(4, 8)[:, 4:] += 1.0
        assert torch.equal(family.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), told), before)
        family.denoiser.proj_out.bias.view(4, 8)[:, :4] += 1.0
        torch.testing.assert_close(family.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), told), before + 1)


def test_what_stands_behind_the_end_of_a_prompt_does_not_matter():
    """ "a red cat" and the end are 10 of 300 tokens."""
    family = load_family(build_pipeline())
    told = conditioning(family, TINY, 1)
    assert told["prompt_embeds"].shape == (1, 300, 16)
    assert told["prompt_attention_mask"].tolist() == [[1] * 11 + [0] * 289]
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = []
    for behind in (0.0, 5.0):
        told["prompt_embeds"][:, 11:] = behind
        with torch.no_grad():
            answers.append(family.predict(noisy, torch.tensor([500]), told))
    assert torch.equal(*answers)


@pytest.mark.parametrize("negative", ["", "blur"])
def test_an_encoded_prompt_paints_what_the_pipeline_paints_from_its_words_at_the_size_that_is_asked_for(negative):
    family = load_family(build_pipeline())
    (image,) = paint(family, [(family.prompt_arguments("A red cat", negative), 1)], SampleSettings(2, 5.0, 24, 16))
    assert image.size == (24, 16)
    expected = family.pipeline(
        "A red cat", negative_prompt=negative, guidance_scale=5.0, width=24, height=16, num_inference_steps=2,
        clean_caption=False, use_resolution_binning=False, generator=[torch.Generator().manual_seed(1)],
    ).images  # fmt: skip
    assert difference([image], expected) == 0


def test_an_adapter_to_start_from_is_policy_and_reference_at_once_though_diffusers_reads_none(tmp_path):
    family = load_family(build_pipeline())
    assert not hasattr(family.pipeline, "load_lora_weights") and not hasattr(family.denoiser, "add_adapter")
    trained = attach_adapter(family, replace(settings(TINY), lora_alpha=6.0), starting=None, reference=None, moving=False)
    move(family)
    file = tmp_path / "adapter.safetensors"
    trained.save(file)

    fresh = load_family(build_pipeline())
    adapter = attach_adapter(fresh, settings(TINY), starting=file, reference=file, moving=False)
    told, noisy = conditioning(fresh, TINY, 1), torch.ones(1, 4, 8, 8)
    with torch.no_grad():
        expected = family.predict(noisy, torch.tensor([500]), told)
        assert torch.equal(fresh.predict(noisy, torch.tensor([500]), told), expected)
        with adapter.as_reference():
            assert torch.equal(fresh.predict(noisy, torch.tensor([500]), told), expected)
    assert len(adapter.trainable_names()) == 2 * 2 * 4 * 2  # blocks, attentions, matrices, factors


def test_the_full_model_has_the_sizes_and_the_attentions_that_are_known_of_it():
    """As published: 0.6 billion parameters; 28 blocks with two attentions of 4 matrices each."""
    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(use_additional_conditions=False, caption_channels=4096)
    pipeline = build_pipeline()
    pipeline.register_modules(transformer=transformer)
    pipeline.vae_scale_factor = 8
    family = load_family(pipeline)
    assert (family.image_side, family.pixel_multiple) == (1024, 16)
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 610_856_096
    targets = tuple(f".{name}" for name in family.lora_targets)
    assert sum(name.endswith(targets) for name, _ in transformer.named_modules()) == 28 * 2 * 4
