"""A model's own scheduler replaced by that of a sampler's name, with the model's settings: what it predicts, betas, shift."""

from __future__ import annotations

import inspect
import math

import diffusers
import numpy as np
from diffusers import DPMSolverMultistepScheduler, FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler
from diffusers.configuration_utils import register_to_config

from dpo.samplers import DDPM_PIPELINES, choose_sampler

# What a model's own scheduler may have set, and the names that people know do not mean, unless they say so.
PLAIN = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}


class _ScalesNoise:
    """What pipelines ask of a flow's scheduler when they start from a picture."""

    def scale_noise(self, sample, timestep, noise):
        return self.add_noise(sample, noise, timestep)


class FlowDPMSolver(_ScalesNoise, DPMSolverMultistepScheduler):
    """That of diffusers, for pipelines that give every scheduler sigmas and a shift: it has sigmas of its own."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        self.register_to_config(flow_shift=_shift_of(self.config, "flow_shift", mu))
        super().set_timesteps(num_inference_steps if sigmas is None else len(sigmas), device)


class FlowHeun(FlowMatchHeunDiscreteScheduler):
    """Likewise, and it can shift by the image's size."""

    @register_to_config
    def __init__(self, num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False, time_shift_type="exponential"):
        super().__init__(num_train_timesteps, shift)

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        self.register_to_config(shift=_shift_of(self.config, "shift", mu))
        super().set_timesteps(num_inference_steps if sigmas is None else len(sigmas), device)


class FlowUniPC(_ScalesNoise, UniPCMultistepScheduler):
    """That of diffusers, for pipelines that give it sigmas as a list."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        super().set_timesteps(num_inference_steps, device, None if sigmas is None else np.array(sigmas), mu)


FLOW_CLASSES = {
    "DPMSolverMultistepScheduler": FlowDPMSolver, "FlowMatchHeunDiscreteScheduler": FlowHeun,
    "UniPCMultistepScheduler": FlowUniPC,
}  # fmt: skip


def make_scheduler(pipeline, sampler: str):
    """The scheduler of a sampler's name for that pipeline. Raises SamplerError for one that does not fit it."""
    own, name = pipeline.scheduler.config, type(pipeline).__name__
    kind, options = choose_sampler(name, own, sampler)
    found = getattr(diffusers, kind)
    settings = {"clip_sample": False, **own, **PLAIN, **options}
    if name not in DDPM_PIPELINES:
        found = FLOW_CLASSES.get(kind, found)
        shift = own.get("shift") or own.get("flow_shift") or 1.0
        settings |= {"shift": shift, "flow_shift": shift, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
    takes = inspect.signature(found.__init__).parameters
    return found(**{key: value for key, value in settings.items() if key in takes})


def _shift_of(config, key: str, mu: float | None) -> float:
    """The shift as a factor s, sigma -> s sigma / (1 + (s - 1) sigma): by the image's size where the config says so.

    exp(mu) / (exp(mu) + 1 / sigma - 1) is that with s = exp(mu); a linear shift is that with s = mu.
    """
    if mu is None or not config.use_dynamic_shifting:
        return config[key]
    return math.exp(mu) if config.time_shift_type == "exponential" else mu
