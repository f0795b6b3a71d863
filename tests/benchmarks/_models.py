"""What the training benchmark trains: the demo, and a UNet of the shape of Stable Diffusion 1.5 with 94 million random weights.

Beside the random UNet its encoders are cheap: encoding an image costs about half of a forward pass of the denoiser on it, where
SD 1.5's VAE alone costs one and a half (1.1 against 0.75 TFLOP at 512x512). So a recipe that encodes in every step is let off.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dpo.config import TrainConfig
from dpo.config_files import load_preset
from dpo.demo import world
from dpo.families import Family, load_family
from dpo.models import DEMO_MODEL, default_device, load_pipeline, resolve_precision
from dpo.pairs import Pair
from tests.benchmarks.train import DEMO


def make_config(model: str) -> TrainConfig:
    """Batch, rank and learning rate of one model's runs; nothing but steps in them."""
    plain = {"validate_every": 0, "save_every": 10**6, "max_steps": 10**6, "warmup_steps": 0, "on_damage": "warn"}
    if model == DEMO:
        return load_preset("demo", **plain)
    return TrainConfig(
        model=model, resolution=256, batch_size=2, accumulation=1, lora_rank=16, learning_rate=1e-4, beta=1000.0, **plain
    )


def build_family(model: str) -> Family:
    device = default_device()
    if model == DEMO:
        return load_family(load_pipeline(DEMO, "auto"))
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_MODEL / "tokenizer", model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, block_out_channels=(128, 256, 512, 512), layers_per_block=1, cross_attention_dim=512, attention_head_dim=8
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), latent_channels=4, layers_per_block=2, norm_num_groups=16, sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    for module in (unet, vae, text_encoder):
        module.to(device, resolve_precision("auto", device)).eval().requires_grad_(False)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    return load_family(
        StableDiffusionPipeline(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )
    )  # fmt: skip


def make_pairs(config: TrainConfig, folder: Path) -> list[Pair]:
    """Two steps' worth of pairs of painted scenes, as PNG files: the denoiser does not care what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    pairs = []
    for number in range(2 * config.batch_size):
        paths = []
        for name in ("chosen", "rejected"):
            paths.append(folder / f"{number:02d}-{name}.png")
            size = (config.resolution, config.resolution)
            Image.fromarray(world.draw(world.random_scene(rng))).resize(size).save(paths[-1])
        pairs.append(Pair(f"a {world.OBJECTS[number % len(world.OBJECTS)]} number {number}", str(paths[0]), str(paths[1])))
    return pairs
