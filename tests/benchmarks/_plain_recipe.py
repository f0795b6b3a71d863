"""The training step of the public research script, to measure ours against (diffusers, `train_diffusion_dpo.py`).

Written anew after its recipe: images and prompts are encoded in every step, [chosen; rejected] go through the denoiser as one
batch, the reference is the same denoiser with its adapter disabled by peft, and nothing is remembered. Three things differ, so
that its losses can be compared with ours: the posterior's mode in the place of a sample of it, noise and timesteps that are
handed in, and the attention kernel, which is the one our family chose (on a CPU the script's own is many times slower).
Images are decoded from their files once, outside the clock.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss

from dpo.config import TrainConfig

VAE_BATCH = 8  # images, as in the script


class PlainRecipe:
    """`step` is one optimizer step. pipeline: its UNet already has its LoRA, the only parameters that require gradients."""

    def __init__(self, config: TrainConfig, pipeline, add_noise):
        self.config, self.pipeline, self.unet, self.add_noise = config, pipeline, pipeline.unet, add_noise
        self.parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay,
            betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon,
        )  # fmt: skip

    def step(self, pixels: Tensor, prompts: list[str], noise: Tensor, timesteps: Tensor) -> float:
        """pixels: (2B, 3, H, W), chosen first. noise: (B, C, h, w) and timesteps: (B,), shared by a pair. Returns the loss."""
        latents = self.encode_images(pixels)
        noise, timesteps = noise.to(latents).repeat(2, 1, 1, 1), timesteps.to(latents.device).repeat(2)
        noisy, target = self.add_noise(latents, noise, timesteps)
        embeds = self.encode_prompts(prompts).repeat(2, 1, 1)

        errors = self.errors(noisy, target, timesteps, embeds)
        chosen_error, rejected_error = errors.chunk(2)

        self.unet.disable_adapters()
        with torch.no_grad():
            reference_chosen, reference_rejected = self.errors(noisy, target, timesteps, embeds).chunk(2)
        self.unet.enable_adapters()

        logits = (reference_chosen - reference_rejected) - (chosen_error - rejected_error)
        loss = -logsigmoid(self.config.beta * logits).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae
        latents = []
        for part in pixels.to(vae.device, vae.dtype).split(VAE_BATCH):
            encoded = vae.encode(part)
            latents.append(encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents)
        return torch.cat(latents) * vae.config.scaling_factor

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        tokens = self.pipeline.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.pipeline.text_encoder(tokens.input_ids.to(self.unet.device))[0]

    def errors(self, noisy: Tensor, target: Tensor, timesteps: Tensor, embeds: Tensor) -> Tensor:
        """(2B,) mean squared error of the UNet as it stands."""
        prediction = self.unet(noisy, timesteps, embeds).sample
        return mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)
