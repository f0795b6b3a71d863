"""What is particular to SDXL: sizes told for every image, two CLIPs, velocity with no signal left at the end, a VAE that outgrows
float16, and models of its class that are no DDPM."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, UNet2DConditionModel
from PIL import Image

from dpo.families import FamilyError, load_family
from dpo.pairs import Pair
from dpo.sampling import SampleSettings, paint
from tests.families.checks import conditioning, difference, encode, watched_calls
from tests.families.stable_diffusion_xl import POOLED, TINIES, build_pipeline

PLAIN, VELOCITY = TINIES


# ------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("original", "size", "expected"),
    [
        # (height, width, top, left, target height, target width). As it is:
        ((832, 1216), (832, 1216), [1216, 832, 0, 0, 1216, 832]),
        # 1920 x 1080 to 1344 x 768: x 768/1080 makes it 1365.33 wide, 21.33 too much, half of which goes on the left.
        ((1920, 1080), (1344, 768), [1080, 1920, 0, 11, 768, 1344]),
        # 1000 x 1500 to 832 x 1216: x 0.832 makes it 1248 high, 16 go above and 16 below.
        ((1000, 1500), (832, 1216), [1500, 1000, 16, 0, 1216, 832]),
        # 512 x 384 to 1024 x 1024: enlarged by 1024/384 it is 1365.33 wide, 341.33 too much.
        ((512, 384), (1024, 1024), [384, 512, 0, 171, 1024, 1024]),
    ],
)
def test_the_denoiser_is_told_what_was_done_to_an_image(original, size, expected):
    told = load_family(build_pipeline()).size_conditioning(original, size)
    assert {name: tensor.tolist() for name, tensor in told.items()} == {"time_ids": [expected]}


def test_a_batch_has_the_sizes_of_each_of_its_images_chosen_and_rejected_apart(tmp_path):
    """Each pair in the bucket of its chosen image. For 16 x 16, what is 48 wide and 24 high becomes 32 x 16 and loses 8 left;
    for 24 x 12, what is 16 x 16 becomes 24 x 24 and loses 6 above."""
    paths = []
    for name, size in (("chosen", (16, 16)), ("rejected", (48, 24))):
        paths.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(paths[-1])
    family = load_family(build_pipeline())
    data = encode([Pair("a cat", *paths), Pair("a dog", *reversed(paths))], family, PLAIN, tmp_path)
    batches = data.batches([0, 1], [0, 1], [0, 0])
    told = torch.cat([batch.conditioning["time_ids"] for batch in batches]).tolist()
    assert told == [
        [16, 16, 0, 0, 16, 16], [24, 48, 0, 8, 16, 16],
        [24, 48, 0, 0, 12, 24], [16, 16, 6, 0, 12, 24],
    ]  # fmt: skip


def test_a_pair_whose_files_differ_only_in_size_has_draws_of_its_own(tmp_path):
    """What the denoiser is told is part of the key under which remembered errors are kept."""
    family = load_family(build_pipeline())
    batches = []
    for side in (16, 32):
        paths = [str(tmp_path / f"{name}-{side}.png") for name in ("chosen", "rejected")]
        for path, level in zip(paths, (200, 60), strict=True):
            Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)
        batches += encode([Pair("a cat", *paths)], family, PLAIN, tmp_path).batches([0], [0], [0])
    assert torch.equal(batches[0].latents, batches[1].latents)  # of one colour, whatever the size
    assert batches[0].keys != batches[1].keys


def test_the_sizes_reach_the_denoiser_unrounded_in_bfloat16():
    """bfloat16 has 8 bits: 1365 would be 1368."""
    pipeline = build_pipeline()
    pipeline.unet.to(torch.bfloat16)
    family = load_family(pipeline)
    told = conditioning(family, PLAIN, 1) | family.size_conditioning((1365, 1024), (1024, 1024))
    calls = watched_calls(family)
    with torch.no_grad():
        answer = family.predict(torch.randn(1, 4, 8, 8), torch.tensor([500]), told)
    assert answer.dtype == torch.bfloat16 and answer.isfinite().all()
    assert calls[0][1]["added_cond_kwargs"]["time_ids"].tolist() == [[1024, 1365, 0, 170, 1024, 1024]]


def test_the_answer_depends_on_the_size_an_image_had():
    family = load_family(build_pipeline())
    told = conditioning(family, PLAIN, 2)
    told["time_ids"][1, :2] = torch.tensor([256.0, 512.0])
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    with torch.no_grad():
        first, second = family.predict(noisy, torch.tensor([500, 500]), told)
    assert not torch.allclose(first, second, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------ prompts


def test_a_prompt_is_the_tokens_of_two_clips_side_by_side_and_the_pooled_embedding_of_the_second():
    """The last but one of their layers, as SDXL was trained."""
    pipeline = build_pipeline()
    told = load_family(pipeline).encode_prompts(["a red cat"])
    ids = pipeline.tokenizer(["a red cat"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        first, second = (encoder(ids, output_hidden_states=True) for encoder in (pipeline.text_encoder, pipeline.text_encoder_2))
    torch.testing.assert_close(told["prompt_embeds"], torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1))
    torch.testing.assert_close(told["pooled_prompt_embeds"], second.text_embeds)
    assert told["pooled_prompt_embeds"].shape == (1, POOLED)


@pytest.mark.parametrize("zeros", [True, False])
def test_no_negative_prompt_is_what_the_model_was_trained_with_in_the_place_of_none(zeros):
    pipeline = build_pipeline()
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    family = load_family(pipeline)
    empty, negative = family.encode_prompts([""]), family.prompt_arguments("a red cat", "")
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        expected = torch.zeros_like(empty[name]) if zeros else empty[name]
        torch.testing.assert_close(negative[f"negative_{name}"], expected)


@pytest.mark.parametrize("negative", ["", "blur"])
def test_an_encoded_prompt_paints_what_the_pipeline_paints_from_its_words(negative):
    family = load_family(build_pipeline())
    (image,) = paint(family, [(family.prompt_arguments("a red cat", negative), 1)], SampleSettings(2, 5.0, 16, 16))
    expected = family.pipeline(
        "a red cat", negative_prompt=negative or None, guidance_scale=5.0, width=16, height=16, num_inference_steps=2,
        generator=[torch.Generator().manual_seed(1)],
    ).images  # fmt: skip
    assert difference([image], expected) == 0


# ------------------------------------------------------------------------------------------------ schedule


def test_velocity_with_no_signal_left_asks_for_the_latents_from_pure_noise():
    """At the last timestep a = 0: noisy = noise, and v = sqrt(a) noise - sqrt(1 - a) latents = -latents. Noise in its place is
    what a model that predicts noise would be asked for, which there says nothing."""
    family = load_family(VELOCITY.build())
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    timesteps = family.timesteps(torch.tensor([0.9999]))
    assert timesteps.tolist() == [999]
    noisy, target = family.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noisy, noise)
    torch.testing.assert_close(target, -latents)


def test_noise_of_a_schedule_that_is_not_rescaled_has_some_signal_left():
    """sqrt of the last a of 0.00085..0.012: 0.0683 of the latents."""
    family = load_family(PLAIN.build())
    noisy, target = family.add_noise(torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([999]))
    assert noisy[0, 0, 0, 0].item() == pytest.approx(0.0683, abs=1e-4)
    assert not target.any()


def test_a_model_of_this_class_that_is_no_ddpm_is_refused():
    """Playground 2.5: its pipeline is SDXL's, its schedule that of Karras et al. 2022."""
    pipeline = build_pipeline()
    pipeline.scheduler = EDMEulerScheduler()
    with pytest.raises(FamilyError, match=r"not DDPM's \(beta_start=None, prediction_type=epsilon\).*predicts noise or velocity"):
        load_family(pipeline)


# ------------------------------------------------------------------------------------------------ the VAE


def test_latents_are_normalised_by_the_statistics_of_a_vae_that_has_them():
    """(x - mean) * scaling / std by channel, for x = 1: (1 - 0.5) s, (1 + 1) s / 2, (1 - 2) s / 4, 1 s / 0.5."""
    pipeline = VELOCITY.build()
    said = SimpleNamespace(mode=lambda: torch.ones(1, 4, 2, 2))
    pipeline.vae.encode = lambda pixels: SimpleNamespace(latent_dist=said)
    scaled = load_family(pipeline).encode_images(torch.zeros(1, 3, 4, 4))[0, :, 0, 0]
    torch.testing.assert_close(scaled, 0.13025 * torch.tensor([0.5, 1.0, -0.25, 2.0]))


def test_a_vae_that_outgrows_float16_encodes_in_float32_and_is_what_it_was_afterwards():
    pipeline, exact = build_pipeline(), load_family(build_pipeline())
    pipeline.vae.to(torch.float16)
    exact.pipeline.vae.to(torch.float16).to(torch.float32)  # the same weights
    seen = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(load_family(pipeline).encode_images(pixels), exact.encode_images(pixels), rtol=0, atol=0)
    assert seen == [torch.float32] and pipeline.vae.dtype == torch.float16


def test_a_vae_made_for_float16_is_left_in_it():
    pipeline = build_pipeline(force_upcast=False)
    pipeline.vae.to(torch.float16)
    assert load_family(pipeline).encode_images(torch.zeros(1, 3, 16, 16)).dtype == torch.float16


# ------------------------------------------------------------------------------------------------ at full size


def test_the_full_model_has_the_sizes_and_the_attentions_that_are_known_of_it():
    """As published: 2.57 billion parameters; 70 blocks with two attentions of 4 matrices each."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128, cross_attention_dim=2048, attention_head_dim=[5, 10, 20], use_linear_projection=True,
            block_out_channels=(320, 640, 1280), layers_per_block=2, transformer_layers_per_block=[1, 2, 10],
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), addition_time_embed_dim=256,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
            projection_class_embeddings_input_dim=1280 + 6 * 256,
        )  # fmt: skip
    pipeline = build_pipeline()
    pipeline.register_modules(unet=unet)
    pipeline.vae_scale_factor = 8
    family = load_family(pipeline)
    assert (family.image_side, family.pixel_multiple) == (1024, 32)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 2_567_463_684
    targets = tuple(f".{name}" for name in family.lora_targets)
    assert sum(name.endswith(targets) for name, _ in unet.named_modules()) == 70 * 2 * 4
