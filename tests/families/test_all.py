"""Every check on every family: the table of `python -m tests.families`, as tests."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from dpo.families import load_family
from tests.families import families
from tests.families.checks import (
    CHECKS,
    PROMPT,
    answering,
    clean_latents,
    conditioning,
    encode,
    make_pairs,
    prompt_arguments,
    watched_calls,
)  # fmt: skip

FAMILIES = [pytest.param(tiny, id=tiny.name) for tiny in families()]
ROWS = 3


@pytest.mark.parametrize("tiny", FAMILIES)
@pytest.mark.parametrize("check", CHECKS.values(), ids=[name.replace(" ", "_") for name in CHECKS])
def test_what_must_hold_for_every_family_holds(tiny, check, tmp_path):
    check(tiny, tmp_path)


@pytest.mark.parametrize("tiny", FAMILIES)
def test_predict_tells_the_denoiser_what_the_pipeline_tells_it_at_that_timestep(tiny):
    """All that it is given, tensor by tensor, under the same names, and so the same answer."""
    pipeline = tiny.build()
    family = load_family(pipeline)
    calls = watched_calls(family)
    steps = []
    add = pipeline.scheduler.step

    def step(output, timestep, sample, *args, **kwargs):
        # Euler's samples are noisy / sqrt(a), and the denoiser is given less.
        scale = getattr(pipeline.scheduler, "scale_model_input", lambda sample, timestep: sample)
        steps.append((timestep, scale(sample, timestep)))
        return add(output, timestep, sample, *args, **kwargs)

    pipeline.scheduler.step = step
    with torch.no_grad():
        pipeline(
            **prompt_arguments(family), **family.sampling_options(1.0), **tiny.options, height=tiny.side, width=tiny.side,
            num_inference_steps=3, output_type="latent", generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
        count = len(calls)
        assert count == len(steps) == 3
        for (timestep, sample), expected in zip(steps, calls[:count], strict=True):
            noisy = tiny.latents(sample, pipeline)
            family.predict(noisy, torch.as_tensor(timestep).reshape(1), conditioning(family, tiny, 1))
            assert_same_call(family.denoiser, calls.pop(), expected)


@pytest.mark.parametrize("tiny", FAMILIES)
def test_what_the_vae_said_of_an_image_is_what_the_pipeline_gives_it_back(tiny):
    """Whatever is done to it in between: what its encoder says here is noise, so a scale, a shift or an order that is not undone
    shows. The pipeline's own sampler, driven by the oracle, brings it to the decoder."""
    pipeline = tiny.build()
    family = load_family(pipeline)
    vae, given, taken = pipeline.vae, [], []

    def encode(pixels, **kwargs):
        real = type(vae).encode(vae, pixels, **kwargs)
        shape = (real.latent_dist.mode() if hasattr(real, "latent_dist") else real[0]).shape
        given.append(torch.randn(shape, generator=torch.Generator().manual_seed(4)))
        mode = SimpleNamespace(mode=lambda: given[0])
        return SimpleNamespace(latent_dist=mode) if hasattr(real, "latent_dist") else (given[0],)

    def decode(latents, *args, **kwargs):
        taken.append(latents)
        return type(vae).decode(vae, latents, *args, **kwargs)

    vae.encode, vae.decode = encode, decode
    clean = family.encode_images(torch.zeros(1, 3, tiny.side, tiny.side))
    with answering(family.denoiser, tiny.oracle(pipeline, clean)), torch.no_grad():
        pipeline(
            **prompt_arguments(family), **family.sampling_options(1.0), **tiny.options, height=tiny.side, width=tiny.side,
            num_inference_steps=8, generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
    assert taken[0].shape == given[0].shape
    assert (taken[0] - given[0]).square().mean().sqrt() < 0.01 + 2 * tiny.tolerance  # the landing's, divided by the scale


@pytest.mark.parametrize("tiny", FAMILIES)
def test_every_conditioning_tensor_has_a_row_for_every_image_and_predict_answers_in_the_shape_of_latents(tiny, tmp_path):
    family = load_family(tiny.build())
    told = conditioning(family, tiny, ROWS)
    assert all(len(tensor) == ROWS for tensor in told.values())
    latents = clean_latents(family, tiny).repeat(ROWS, 1, 1, 1)
    timesteps = family.timesteps(torch.tensor([0.1, 0.5, 0.9]))
    assert timesteps.shape == (ROWS,) and (timesteps.diff() > 0).all()
    noisy, target = family.add_noise(latents, torch.randn(latents.shape), timesteps)
    with torch.no_grad():
        together = family.predict(noisy, timesteps, told)
        alone = [
            family.predict(noisy[[row]], timesteps[[row]], {name: tensor[[row]] for name, tensor in told.items()})
            for row in range(ROWS)
        ]
    assert together.shape == target.shape == latents.shape
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    data = encode(make_pairs(tiny, tmp_path), family, tiny, tmp_path)
    for batch in data.batches([0, 1], [0, 1], [0, 0]):
        assert {name: tensor.shape[1:] for name, tensor in batch.conditioning.items()}.keys() == told.keys()
        assert all(len(tensor) == len(batch.latents) for tensor in batch.conditioning.values())


@pytest.mark.parametrize("tiny", FAMILIES)
def test_the_answer_depends_on_prompt_timestep_and_image(tiny):
    """Else nothing above says much."""
    family = load_family(tiny.build())
    latents = clean_latents(family, tiny)
    with torch.no_grad():
        answers = [
            family.predict(noisy, family.timesteps(torch.tensor([u])), conditioning(family, tiny, 1, prompt))
            for noisy, u, prompt in (
                (latents, 0.5, PROMPT),
                (latents, 0.9, PROMPT),
                (2 * latents, 0.5, PROMPT),
                (latents, 0.5, "x"),
            )
        ]
    assert not any(torch.allclose(answers[0], other, rtol=1e-4, atol=1e-6) for other in answers[1:])


def assert_same_call(module, got, expected) -> None:
    takes = inspect.signature(type(module).forward)
    first, second = (
        {
            name: value
            for name, value in takes.bind(module, *args, **kwargs).arguments.items()
            if name not in ("self", "return_dict") and not _masks_nothing(value)
        }
        for args, kwargs, _ in (got, expected)
    )
    for name in first.keys() | second.keys():
        assert_same(first.get(name), second.get(name), name)
    assert_same(_tensor(got[2]), _tensor(expected[2]), "output")


def _masks_nothing(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool and bool(value.all())


def assert_same(first, second, name: str) -> None:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        first, second = torch.broadcast_tensors(first.float(), second.float())  # one timestep for all rows, or one a row
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6, msg=lambda text: f"{name}: {text}")
    elif isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            assert_same(first.get(key), second.get(key), f"{name}.{key}")
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        assert len(first) == len(second), name
        for one, other in zip(first, second, strict=True):
            assert_same(one, other, name)
    else:
        assert (first if first else None) == (second if second else None), name


def _tensor(output):
    return output[0] if isinstance(output, tuple) else output.sample
