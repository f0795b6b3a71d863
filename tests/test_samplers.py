"""Samplers by name: with a denoiser that knows the clean image each of them lands on it, so that what the model predicts, its
noise schedule and its shift are as the model's own sampler has them."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image
from diffusers.pipelines.auto_pipeline import AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
from PIL import Image

from dpo.architectures import ARCHITECTURES
from dpo.families import load_family
from dpo.families.noising import DDPM as DDPM_NOISING
from dpo.sample_settings import SampleSettings, Start
from dpo.samplers import (
    DDPM_PIPELINES,
    IMAGE_TO_IMAGE,
    SamplerError,
    check_sampling,
    sampler_names,
    samplers_of,
)
from dpo.sampling import Sampler, paint
from dpo.schedulers import make_scheduler
from tests.families import families
from tests.families.checks import PROMPT, answering, clean_latents, difference, prompt_arguments, watched_calls
from tests.test_adapters import build_learned
from tests.tiny import SIDE, build_pipeline

TINIES = {tiny.name: tiny for tiny in families()}
# One of each way in which pipelines give schedulers sigmas and shifts.
LANDING = ["sd_1.x", "sdxl_v_zero_snr", "sd_3.5", "flux.1_dev", "flux.1_schnell", "flux.2_klein", "z-image", "qwen-image", "sana"]
SETTINGS = SampleSettings(sampling_steps=6, guidance_scale=1.0, width=SIDE, height=SIDE)
PICTURE = Image.radial_gradient("L").convert("RGB")


@pytest.mark.parametrize("name", LANDING)
def test_every_sampler_of_a_family_lands_on_the_clean_image(name):
    """Solvers of several steps round their timesteps to whole numbers, of 1000: so far they may be off on a straight path."""
    tiny = TINIES[name]
    pipeline = tiny.build()
    family, own = load_family(pipeline), pipeline.scheduler
    clean, arguments = clean_latents(family, tiny), prompt_arguments(family)
    for sampler in samplers_of(type(pipeline).__name__, own.config):
        pipeline.scheduler = own
        pipeline.scheduler = make_scheduler(pipeline, sampler)
        with answering(family.denoiser, tiny.oracle(pipeline, clean)), torch.no_grad():
            landed = pipeline(
                **arguments, **family.sampling_options(1.0), **tiny.options, height=tiny.side, width=tiny.side,
                num_inference_steps=5, output_type="latent", generator=torch.Generator().manual_seed(3),
            ).images  # fmt: skip
        assert (tiny.latents(landed, pipeline) - clean).abs().max() < 1e-2, sampler


@pytest.mark.parametrize(("name", "factor"), [("flux.1_dev", 2.25), ("sd_3.5", 3.0)])
def test_the_schedule_is_shifted_as_the_model_has_it_by_the_images_size_or_always(name, factor):
    """sigma = s u / (1 + (s - 1) u) at places u of equal distance, with s = exp(mu) where the size decides."""
    pipeline = TINIES[name].build()
    heun, solver = (make_scheduler(pipeline, sampler) for sampler in ("Heun", "DPM++ 2M"))
    lowest = float(heun.sigma_min)
    for scheduler in (heun, solver):
        scheduler.set_timesteps(sigmas=np.ones(8), mu=np.log(2.25))
    for sigmas, u in (
        (heun.sigmas[[1, 3, 5]], np.linspace(1, lowest, 8)[1:4]),
        (solver.sigmas[:8], np.linspace(0.999, 0, 9)[:8]),
    ):
        np.testing.assert_allclose(np.asarray(sigmas), factor * u / (1 + (factor - 1) * u), rtol=1e-5)


def test_deterministic_samplers_agree_as_steps_grow_and_differ_with_few():
    family = load_family(build_pipeline())
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]

    many = paint(family, rows, replace(SETTINGS, sampling_steps=60))
    for sampler in ("Euler", "Heun", "DPM++ 2M", "DPM++ 2M Karras", "DDIM", "UniPC"):
        near, far = (
            difference(paint(family, rows, replace(SETTINGS, sampling_steps=steps, sampler=sampler)), many) for steps in (30, 2)
        )
        assert near < min(8, far), (sampler, near, far)


def test_a_sampler_with_noise_of_its_own_takes_it_from_the_seed_of_each_row():
    family = load_family(build_pipeline())
    encoded = family.prompt_arguments(PROMPT, "")
    for sampler in ("Euler a", "DPM++ 2M SDE"):
        asked = replace(SETTINGS, sampler=sampler)
        together = paint(family, [(encoded, 1), (encoded, 2)], asked)
        assert difference(together[1:], paint(family, [(encoded, 2)], asked)) <= 1
        assert difference(together[:1], together[1:]) > 3
        assert difference(together, paint(family, [(encoded, 1), (encoded, 2)], replace(SETTINGS, sampler="DPM++ 2M"))) > 3


def test_a_sampler_is_of_one_image_and_leaves_the_pipelines_own_as_it_was():
    family = load_family(build_pipeline())
    rows, own = [(family.prompt_arguments(PROMPT, ""), 1)], family.pipeline.scheduler
    calls, told = watched_calls(family), []
    before = paint(family, rows, SETTINGS)
    assert len(calls) == 6
    paint(family, rows, replace(SETTINGS, sampler="Heun"), on_step=told.append)
    assert len(calls) == 6 + 11  # two calls a step, but for the last
    assert told == sorted(told) and told[-1] == 6
    assert family.pipeline.scheduler is own
    assert difference(paint(family, rows, SETTINGS), before) == 0


def test_a_model_is_offered_the_samplers_that_fit_it(tmp_path):
    pipeline = build_pipeline()
    pipeline.save_pretrained(tmp_path / "epsilon")
    assert sampler_names(str(tmp_path / "epsilon")) == [
        "Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DDIM", "UniPC",
    ]  # fmt: skip
    assert "Heun" not in sampler_names("demo")  # its schedule ends in pure noise
    assert sampler_names("black-forest-labs/FLUX.1-dev") == ["Euler", "Heun", "DPM++ 2M", "UniPC"]
    with pytest.raises(SamplerError, match="sampler='DDIM' does not fit this model. Choose one of Euler, Heun, DPM"):
        check_sampling("black-forest-labs/FLUX.1-dev", "DDIM", from_picture=False)
    with pytest.raises(SamplerError, match="Sana cannot start from a picture.*: Stable Diffusion 1.x and 2.x, "):
        check_sampling("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", "", from_picture=True)
    with pytest.raises(SamplerError, match="Heun cannot start from a picture with this model"):
        check_sampling("black-forest-labs/FLUX.1-dev", "Heun", from_picture=True)
    check_sampling("owner/whatever", "DDIM", from_picture=True)  # its name does not tell
    family = load_family(pipeline)
    with pytest.raises(SamplerError, match="sampler='Euler b'"):
        paint(family, [(family.prompt_arguments(PROMPT, ""), 1)], replace(SETTINGS, sampler="Euler b"))


def test_what_is_said_of_pipelines_is_so():
    """Which add noise as DDPM does, and which diffusers starts from a picture, with a strength."""
    for tiny in TINIES.values():
        pipeline = tiny.build()
        is_ddpm = getattr(load_family(pipeline).add_noise, "__self__", None).__class__ is DDPM_NOISING
        assert is_ddpm == (type(pipeline).__name__ in DDPM_PIPELINES), tiny.name
    known = {kind.__name__: kind for kind in AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.values()}
    for name in ARCHITECTURES:
        kind = known.get(name.replace("Pipeline", "Img2ImgPipeline"))
        able = kind is not None and "strength" in inspect.signature(kind.__call__).parameters
        assert able == (name in IMAGE_TO_IMAGE), name


# ------------------------------------------------------------------------------------------------ from a picture


@pytest.mark.parametrize("name", ["sd_1.x", "sdxl", "sd_3.5", "flux.1_dev", "qwen-image", "z-image"])
def test_images_start_from_a_picture_in_every_family_that_can(name):
    """The nearer to it the smaller the strength; each row by its own seed; with another sampler too."""
    tiny = TINIES[name]
    family = load_family(tiny.build())
    encoded, told = family.prompt_arguments(PROMPT, ""), []
    settings = replace(SETTINGS, width=tiny.side, height=tiny.side, sampling_steps=10)
    start = Start(PICTURE, 0.5)
    both = paint(family, [(encoded, 1), (encoded, 2)], settings, start=start, on_step=told.append)
    assert [image.size for image in both] == [(tiny.side, tiny.side)] * 2
    assert told == sorted(told) and told[-1] == 10
    assert difference(both[1:], paint(family, [(encoded, 2)], settings, start=start)) <= 1
    assert difference(both[:1], both[1:]) > 0
    black = Image.new("RGB", PICTURE.size)
    assert difference(both[:1], paint(family, [(encoded, 1)], settings, start=Start(black, 0.5))) > 0
    gently = {
        sampler: paint(family, [(encoded, 1)], replace(settings, sampling_steps=30, sampler=sampler), start=Start(PICTURE, 0.1))
        for sampler in ("", "Euler", "DPM++ 2M", "UniPC")
    }  # three steps each
    for sampler, images in gently.items():
        assert difference(images, gently[""]) < 32 or name == "z-image", sampler  # whose tiny network is too rough to compare


def test_the_stronger_the_less_of_the_picture_is_left_and_adapter_and_base_start_from_the_same():
    _, adapter = build_learned(rank=2, alpha=6.0)
    family = adapter._family
    encoded = family.prompt_arguments(PROMPT, "")
    black = Image.new("RGB", PICTURE.size)

    def left(strength):
        one, other = (
            paint(family, [(encoded, 1)], replace(SETTINGS, sampling_steps=10), start=Start(picture, strength))
            for picture in (PICTURE, black)
        )
        return np.abs(np.asarray(one[0]).astype(int) - np.asarray(other[0])).mean()

    assert left(0.1) > left(0.5) > left(1.0)


def test_a_start_at_strength_0_is_that_of_the_base_to_the_bit_and_the_image_says_how_far_it_went(tmp_path):
    build_learned(rank=2, alpha=6.0)[1].save(tmp_path / "mine.safetensors")
    sampler, start = Sampler(build_pipeline(), "tiny", tmp_path / "mine.safetensors"), Start(PICTURE, 0.5)
    rows = [("a cat", 1), ("a dog", 2)]
    base, zero, full = (sampler.sample(rows, SETTINGS, strength=each, start=start) for each in (None, 0.0, 1.0))
    assert difference(base, zero) == 0 and difference(base, full) > 3


def test_a_picture_of_another_shape_is_cropped_to_the_size():
    family = load_family(build_pipeline())
    wide = Image.new("RGB", (96, 32), "white")
    wide.paste((90, 20, 20), (24, 0, 72, 32))  # resampling looks over the edge
    square, squeezed = Image.new("RGB", (32, 32), (90, 20, 20)), wide.resize((32, 32))
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    cropped, plain, other = (paint(family, rows, SETTINGS, start=Start(each, 0.2)) for each in (wide, square, squeezed))
    assert difference(cropped, plain) == 0 < difference(cropped, other)


def test_a_family_that_cannot_start_from_a_picture_says_so():
    tiny = TINIES["sana"]
    family = load_family(tiny.build())
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    with pytest.raises(SamplerError, match="Sana cannot start from a picture"):
        paint(family, rows, replace(SETTINGS, width=tiny.side, height=tiny.side), start=Start(PICTURE, 0.5))
    with pytest.raises(ValueError):  # nor does diffusers
        AutoPipelineForImage2Image.from_pipe(family.pipeline)
