"""Families whose prompts a language model reads, each in its own way: what reaches the denoiser is what the pipeline would have
sent it, had it been asked in words."""

from dataclasses import replace

import pytest
import torch

from dpo.families import load_family
from tests.families import lumina2, qwen_image, sana, test_all, z_image
from tests.families.checks import watched_calls

TINIES = [pytest.param(module.TINIES[0], id=module.TINIES[0].name) for module in (z_image, qwen_image, sana, lumina2)]
PROMPT, NEGATIVE = "A red cat", "a blurred Photo"


@pytest.mark.parametrize("tiny", TINIES)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_words_reach_the_denoiser_as_the_pipeline_alone_would_send_them(tiny, scale):
    family = load_family(tiny.build())
    options = family.sampling_options(scale)
    calls = watched_calls(family)
    for told in (
        options | family.prompt_arguments(PROMPT, NEGATIVE),
        options | {"prompt": PROMPT, "negative_prompt": NEGATIVE},
    ):
        family.pipeline(
            **told, width=tiny.side, height=tiny.side, num_inference_steps=1, output_type="latent",
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
    assert len(calls) in (2, 4)  # with guidance some ask twice, others with twice the rows
    half = len(calls) // 2
    for asked, alone in zip(calls[:half], calls[half:], strict=True):
        test_all.assert_same_call(family.denoiser, asked, alone)


@pytest.mark.parametrize("tiny", TINIES)
def test_training_reads_a_prompt_as_sampling_does(tiny):
    family = load_family(tiny.build())
    asked = family.prompt_arguments(PROMPT, NEGATIVE)
    for name, tensor in family.encode_prompts([PROMPT]).items():
        torch.testing.assert_close(tensor[0], asked[name][0])


@pytest.mark.parametrize("tiny", TINIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_predict_rounds_as_the_pipeline_does(tiny, dtype):
    half = replace(tiny, build=lambda: tiny.build().to(dtype))
    test_all.test_predict_tells_the_denoiser_what_the_pipeline_tells_it_at_that_timestep(half)


@pytest.mark.parametrize("module", [sana, lumina2], ids=["sana", "lumina_2"])
def test_padding_is_told_from_words_by_a_mask_of_the_pipelines_length(module):
    """300 tokens for Sana, 256 for Lumina, of which a longer prompt has more."""
    family = load_family(module.build())
    length = {sana: 300, lumina2: 256}[module]
    counts = []
    for prompt in ("a", "a red cat"):
        told = family.encode_prompts([prompt])
        mask = told["prompt_attention_mask"]
        assert told["prompt_embeds"].shape[:2] == mask.shape == (1, length)
        assert mask[0].tolist() == sorted(mask[0].tolist(), reverse=True)  # words first
        counts.append(int(mask.sum()))
    assert 0 < counts[0] < counts[1] < length
