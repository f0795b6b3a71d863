"""What is particular to FLUX.2: a VAE with statistics, blocks of one layer, prompts in a chat, and dev without its processor."""

import json
from dataclasses import replace

import pytest
import torch

from dpo.adapters import attach_adapter
from dpo.draws import Draws
from dpo.families import FamilyError, load_family
from dpo.models import load_pipeline
from dpo.scoring import errors
from tests.families.checks import conditioning, encode, make_pairs, sampled, settings, watched_calls
from tests.families.flux_2 import TINIES, build_dev, build_klein

DEV, KLEIN = TINIES
WIDE = torch.randn(1, 16, 2, 3, generator=torch.Generator().manual_seed(0))
each = pytest.mark.parametrize("tiny", TINIES, ids=lambda tiny: tiny.name)


@each
def test_sides_are_multiples_of_what_one_token_sees_and_times_are_drawn_as_its_trainers_do(tiny):
    """A VAE of a half and patches of 2: 4 pixels. 128 latents are 256 pixels. A shift by the image's size is none in training."""
    family = load_family(tiny.build())
    assert (family.pixel_multiple, family.image_side, family.timestep_sampling) == (4, 256, "uniform")
    assert family.timesteps(torch.tensor([0.25])).tolist() == [250.0]


@each
def test_images_are_encoded_as_the_pipeline_encodes_those_it_is_shown(tiny):
    pipeline = tiny.build()
    pixels = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = pipeline._encode_vae_image(pixels, None)
    assert expected.shape == (1, 16, 4, 6)
    torch.testing.assert_close(load_family(pipeline).encode_images(pixels), expected)


@each
def test_an_image_that_is_not_square_is_told_as_the_pipeline_tells_it(tiny):
    pipeline = tiny.build()
    family = load_family(pipeline)
    calls = watched_calls(family)
    with torch.no_grad():
        answer = family.predict(WIDE, torch.tensor([500.0]), conditioning(family, tiny, 1))
    told = calls[0][1]
    tokens, places = pipeline.prepare_latents(1, 4, 8, 12, torch.float32, "cpu", None, latents=WIDE)
    assert torch.equal(told["hidden_states"], tokens)
    assert torch.equal(told["img_ids"], places[0])
    assert told["txt_ids"][[0, 1, -1]].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 511]]
    assert torch.equal(answer, pipeline._unpack_latents_with_ids(calls[0][2].sample, places))


def test_dev_is_told_a_guidance_of_1_and_klein_is_told_none():
    told = []
    for tiny in TINIES:
        family = load_family(tiny.build())
        calls = watched_calls(family)
        with torch.no_grad():
            family.predict(WIDE.repeat(2, 1, 1, 1), torch.tensor([500.0, 1.0]), conditioning(family, tiny, 2))
        told.append(calls[0][1]["guidance"])
    assert told[0].tolist() == [1.0, 1.0] and told[0].dtype == torch.float32
    assert told[1] is None


@each
def test_embeddings_give_the_image_that_the_words_give(tiny):
    """klein's pipeline guides away from no words."""
    pipeline = tiny.build()
    by_words, by_embeddings = (
        sampled(pipeline, **asked, guidance_scale=4.0)
        for asked in ({"prompt": ["a red cat"]}, load_family(pipeline).prompt_arguments("a red cat", ""))
    )
    assert torch.equal(by_words, by_embeddings)


def test_a_negative_prompt_guides_klein_unless_it_is_distilled():
    images = []
    for distilled, negative in ((False, ""), (False, "blur"), (True, ""), (True, "blur")):
        family = load_family(build_klein(distilled=distilled))
        asked = family.prompt_arguments("a red cat", negative) | family.sampling_options(4.0)
        images.append(sampled(family.pipeline, **asked))
    assert not torch.allclose(images[0], images[1])
    assert torch.equal(images[2], images[3])


@pytest.mark.parametrize("where", ["attention", "last_half"])
def test_the_two_layers_of_a_single_block_are_trained(where):
    """Of three blocks the last two are the last half: the single ones."""
    config = replace(settings(KLEIN), lora_modules=where)
    adapter = attach_adapter(load_family(build_klein()), config, starting=None, reference=None, moving=False)
    trained = {name.split(".lora_")[0] for name in adapter.trainable_names()}
    assert trained >= {f"single_transformer_blocks.{n}.attn.{layer}" for n in (0, 1) for layer in ("to_qkv_mlp_proj", "to_out")}
    assert ("transformer_blocks.0.attn.to_add_out" in trained) == (where == "attention")


@pytest.fixture
def with_and_without(tmp_path, monkeypatch):
    """dev out of one folder, with its processor; and where that cannot be built."""
    folder = tmp_path / "dev"
    build_dev().save_pretrained(folder)
    complete = load_family(load_pipeline(str(folder), device="cpu"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"tokenizer": ["transformers", "PixtralProcessor"]}))
    monkeypatch.setattr("dpo.loading.is_torchvision_available", lambda: False)
    return complete, load_family(load_pipeline(str(folder), device="cpu"))


def test_dev_without_its_processor_says_what_to_install(with_and_without):
    _, family = with_and_without
    for asked in (family.encode_prompts, lambda prompts: family.prompt_arguments(prompts[0], "")):
        with pytest.raises(FamilyError, match="torchvision"):
            asked(["a red cat"])
    assert family.cut_tokens("a red cat" * 999) == 0  # nobody can count them


def test_dev_without_its_processor_trains_on_prompts_that_were_encoded_where_it_is(tmp_path, with_and_without):
    pairs = make_pairs(DEV, tmp_path)
    scores = []
    for family in with_and_without:
        data = encode(pairs, family, DEV, tmp_path)
        noised = Draws(settings(DEV), family).draw(data.batches([0], [0], [0])[0])
        scores.append(errors(family, noised).detach())
    assert torch.equal(*scores)
    with pytest.raises(FamilyError, match="cache"):
        encode(pairs, family, DEV, tmp_path, "another")
