"""How families add noise. DDPM: noisy = sqrt(a_t) latents + sqrt(1 - a_t) noise (Ho et al. 2020, Eq. 4). Rectified flow:
noisy = (1 - sigma) latents + sigma noise (Liu et al. 2023; Esser et al. 2024, Eq. 13)."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from dpo.families import FamilyError


class DDPM:
    """The discrete schedule of a pipeline's own scheduler, whatever sampler it came with.

    The target follows the schedule's prediction type: the noise ("epsilon"), the velocity sqrt(a) noise - sqrt(1-a) latents
    ("v_prediction"; Salimans & Ho 2022, Appendix D) or the clean latents ("sample").
    Raises FamilyError for a schedule of another kind, such as that of Playground 2.5, which its pipeline's class does not show.
    """

    def __init__(self, scheduler_config: dict):
        prediction = scheduler_config.get("prediction_type", "epsilon")
        if "beta_start" not in scheduler_config or prediction not in ("epsilon", "v_prediction", "sample"):
            raise FamilyError(
                f"This model's schedule is not DDPM's (beta_start={scheduler_config.get('beta_start')}, "
                f"prediction_type={prediction}), and cannot be trained yet. Choose a model that predicts noise or velocity."
            )
        self.scheduler = DDPMScheduler.from_config(scheduler_config)

    def timesteps(self, u: Tensor) -> Tensor:
        return (u * self.scheduler.config.num_train_timesteps).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        match self.scheduler.config.prediction_type:
            case "epsilon":
                return noisy, noise
            case "v_prediction":
                return noisy, self.scheduler.get_velocity(latents, noise, timesteps)
            case _:
                return noisy, latents


class RectifiedFlow:
    """The straight path from latents to noise; the target is its velocity, noise - latents.

    A timestep is sigma times the number of training timesteps (1000), as the schedulers count. sigma = s u / (1 + (s - 1) u) with
    the scheduler's static shift s (Esser et al. 2024, Eq. 23), and never below one timestep. Where the scheduler shifts by the
    image's size (FLUX, Qwen-Image) sigma = u: so were their LoRA trainers, and the settings have a law of their own for u.
    """

    def __init__(self, scheduler_config: dict):
        self._count = scheduler_config.get("num_train_timesteps", 1000)
        is_dynamic = scheduler_config.get("use_dynamic_shifting", False)
        self._shift = 1.0 if is_dynamic else float(scheduler_config.get("shift") or scheduler_config.get("flow_shift") or 1.0)

    def timesteps(self, u: Tensor) -> Tensor:
        sigma = self._shift * u / (1 + (self._shift - 1) * u)
        return sigma.clamp(min=1 / self._count) * self._count

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        sigma = (timesteps / self._count).to(latents.dtype).reshape(-1, *[1] * (latents.ndim - 1))
        return torch.lerp(latents, noise, sigma), noise - latents
