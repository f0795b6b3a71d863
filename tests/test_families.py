"""Evidence on signs and directions: an oracle that knows the clean latents has error zero, and the pipeline's own sampler,
driven by that oracle, lands on them."""

from types import SimpleNamespace

import pytest
import torch

from dpo.families import FamilyError, load_family
from dpo.losses import per_image_error
from tests.tiny import build_pipeline

PREDICTIONS = ["epsilon", "v_prediction"]


class Oracle(torch.nn.Module):
    """Predicts exactly what a perfect denoiser would, for known clean latents; formulas written out, not taken from dpo."""

    def __init__(self, unet, scheduler, clean):
        super().__init__()
        self.config, self.clean, self.alphas = unet.config, clean, scheduler.alphas_cumprod
        self.kind = scheduler.config.prediction_type
        self.dtype, self.device = unet.dtype, unet.device

    def forward(self, noisy, timestep, encoder_hidden_states=None, **kwargs):
        alpha = self.alphas[timestep].reshape(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        target = noise if self.kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean
        return type("Output", (), {"sample": target})() if kwargs.get("return_dict", True) else (target,)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_oracle_has_no_error(prediction):
    pipeline = build_pipeline(prediction, torch.float64)
    family = load_family(pipeline)
    clean, noise = torch.randn(5, 4, 8, 8, dtype=torch.float64), torch.randn(5, 4, 8, 8, dtype=torch.float64)
    family.denoiser = Oracle(pipeline.unet, family_schedule(family), clean)
    timesteps = family.timesteps(torch.tensor([0.0, 0.2, 0.5, 0.8, 0.999]))
    noisy, target = family.add_noise(clean, noise, timesteps)
    error = per_image_error(family.predict(noisy, timesteps, {"prompt_embeds": torch.zeros(5, 16, 16)}), target)
    assert error.max() < 1e-6


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_pipelines_own_sampler_driven_by_the_oracle_lands_on_the_clean_latents(prediction):
    pipeline = build_pipeline(prediction)
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    pipeline.unet = Oracle(pipeline.unet, pipeline.scheduler, clean)
    latents = pipeline("a cat", num_inference_steps=8, guidance_scale=1.0, output_type="latent").images
    torch.testing.assert_close(latents, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_grows_with_u_from_clean_to_none_of_it_left(prediction):
    family = load_family(build_pipeline(prediction))
    timesteps = family.timesteps(torch.tensor([0.0, 0.5, 1 - 2**-24]))
    assert timesteps.tolist() == [0, 500, 999]
    latents, noise = torch.ones(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
    kept = family.add_noise(latents, noise, timesteps)[0][:, 0, 0, 0]
    assert kept[0] > 0.99 > kept[1] > kept[2]
    assert kept[2] == pytest.approx(0.0 if prediction == "v_prediction" else kept[2].item(), abs=1e-6)


def test_predict_is_what_the_pipeline_feeds_its_denoiser():
    pipeline = build_pipeline()
    family = load_family(pipeline)
    seen = []
    pipeline.unet.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((args, kwargs, output)), with_kwargs=True
    )
    pipeline("a red cat", num_inference_steps=2, guidance_scale=1.0, output_type="latent")
    (noisy, timestep), _kwargs, output = seen[0]
    prediction = family.predict(noisy, timestep.reshape(1), family.encode_prompts(["a red cat"]))
    torch.testing.assert_close(prediction, output[0])


def test_encoding_an_image_gives_the_same_latents_every_time():
    family = load_family(build_pipeline())
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(family.encode_images(pixels), family.encode_images(pixels))


class Part(torch.nn.Module):
    """An encoder, as far as it can be somewhere."""

    device = "the GPU"

    def to(self, device):
        self.device = device


def test_parked_encoders_are_off_the_device_but_while_they_are_asked_for():
    family = load_family(build_pipeline())
    family.device, family.denoiser, vae, text_encoder = "the GPU", Part(), Part(), Part()
    family.pipeline = SimpleNamespace(
        components={"vae": vae, "text_encoder": text_encoder, "unet": family.denoiser, "scheduler": 1}
    )
    for before in ("the GPU", "cpu"):
        with pytest.raises(ZeroDivisionError), family.encoders():
            assert [vae.device, text_encoder.device] == ["the GPU"] * 2
            raise ZeroDivisionError
        assert [vae.device, text_encoder.device] == [before] * 2
        family.park_encoders()
        assert [vae.device, text_encoder.device] == ["cpu"] * 2
    with family.encoders(only_vae=True):
        assert [vae.device, text_encoder.device] == ["the GPU", "cpu"]
    assert [vae.device, text_encoder.device, family.denoiser.device] == ["cpu", "cpu", "the GPU"]


def test_released_encoders_are_gone_for_good_and_the_denoiser_works_on():
    family = load_family(build_pipeline())
    conditioning = family.encode_prompts(["a cat"])
    family.release_encoders()
    assert family.pipeline.vae is None and family.pipeline.text_encoder is None
    assert family.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), conditioning).isfinite().all()


def test_a_family_says_by_which_law_its_timesteps_were_drawn():
    assert load_family(build_pipeline()).timestep_sampling == "uniform"


def test_an_unknown_architecture_says_what_it_is_and_what_is_supported():
    with pytest.raises(FamilyError, match=r"This model is a dict, which cannot be trained yet. Supported: Stable Diffusion 1.x"):
        load_family({})


def family_schedule(family):
    """The family's schedule, for the oracle's formulas."""
    return family.add_noise.__self__.scheduler
