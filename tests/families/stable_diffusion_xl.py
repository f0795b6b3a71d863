"""Stable Diffusion XL, tiny: noise as in SDXL itself, and velocity with no signal left at the end, as in NoobAI."""

from __future__ import annotations

from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

from tests.families import Tiny, freeze
from tests.families.parts import build_vae, clip, same_weights
from tests.families.stable_diffusion import oracle

POOLED = 20  # width of the pooled embedding, unlike any other


def build_pipeline(prediction_type: str = "epsilon", **vae_settings) -> StableDiffusionXLPipeline:
    is_velocity = prediction_type == "v_prediction"
    scheduler = EulerDiscreteScheduler(
        prediction_type=prediction_type, rescale_betas_zero_snr=is_velocity, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", timestep_spacing="trailing" if is_velocity else "leading", steps_offset=1,
    )  # fmt: skip
    with same_weights():
        tokenizer, text_encoder = clip(16)
        tokenizer_2, text_encoder_2 = clip(24, projection=POOLED, hidden_act="gelu")
        vae = build_vae(scaling_factor=0.13025, **vae_settings)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16 + 24, attention_head_dim=[2, 4], transformer_layers_per_block=[1, 2],
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED + 6 * 8,
        )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=scheduler, text_encoder=text_encoder, text_encoder_2=text_encoder_2, tokenizer=tokenizer,
        tokenizer_2=tokenizer_2, add_watermarker=False,
    )  # fmt: skip
    return freeze(pipeline)


STATISTICS = {"latents_mean": (0.5, -1.0, 2.0, 0.0), "latents_std": (1.0, 2.0, 4.0, 0.5)}

TINIES = [
    Tiny("SDXL", build_pipeline, 16, oracle),
    Tiny("SDXL v zero SNR", lambda: build_pipeline("v_prediction", **STATISTICS), 16, oracle),
]
