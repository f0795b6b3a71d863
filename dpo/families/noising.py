"""How families add noise. DDPM: noisy = sqrt(a_t) latents + sqrt(1 - a_t) noise (Ho et al. 2020, Eq. 4)."""

from __future__ import annotations

from diffusers import DDPMScheduler
from torch import Tensor


class DDPM:
    """The discrete schedule of a pipeline's own scheduler, whatever sampler it came with.

    The target follows the schedule's prediction type: the noise ("epsilon"), the velocity sqrt(a) noise - sqrt(1-a) latents
    ("v_prediction"; Salimans & Ho 2022, Appendix D) or the clean latents ("sample").
    """

    def __init__(self, scheduler_config: dict):
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
