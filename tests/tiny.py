"""Real diffusers classes at tiny size, built offline: what the tests train and sample with."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dpo.pairs import Pair

SIDE = 16  # pixels; latents are 8x8

torch.set_num_threads(1)  # at this size a second thread costs more than it brings


def build_tokenizer() -> CLIPTokenizer:
    letters = sorted(ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)


def build_pipeline(prediction_type: str = "epsilon", dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """A StableDiffusionPipeline of 40 thousand parameters whose output depends on the prompt. Always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            )
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=4,
            cross_attention_dim=16, attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=SIDE,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    zero_snr = prediction_type == "v_prediction"
    scheduler = DDIMScheduler(
        prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=True, rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing", steps_offset=1, beta_schedule="scaled_linear",
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    for module in (unet, vae, text_encoder):
        module.to(dtype).eval().requires_grad_(False)
    return pipeline


def make_pairs(folder: Path, prompts: int = 4, per_prompt: int = 2) -> list[Pair]:
    """Pairs of real PNG files: the chosen image is a bright gradient, the rejected one a dark one."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(prompts * per_prompt):
        paths = []
        for name, level in (("chosen", 200), ("rejected", 60)):
            image = Image.new("RGB", (SIDE, SIDE))
            image.putdata([(level, (x * 9 + number * 13) % 256, (y * 7) % 256) for y in range(SIDE) for x in range(SIDE)])
            paths.append(folder / f"{number:02d}-{name}.png")
            image.save(paths[-1])
        pairs.append(Pair(f"prompt {number // per_prompt}", str(paths[0]), str(paths[1])))
    return pairs
