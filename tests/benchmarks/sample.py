"""Sampling with the demo model: images per second over a plain diffusers loop, at least 0.97; and seconds per image.

Warm, in batches as the app samples them, 20 steps with guidance, so 40 passes of the denoiser an image. Both loops paint the same
prompts from the same seeds, in turns; compared are the fastest of each, as whatever else a machine does only adds time.
"""

from __future__ import annotations

import os
import time

ROUNDS = 8
LIMIT_SECONDS, LEAST_RATIO = 0.25, 0.97  # an image, on two cores; ours over plain


def measure() -> dict:
    import numpy as np
    import torch

    from dpo.models import load_pipeline
    from dpo.sampling import Sampler, SampleSettings

    pipeline, settings = load_pipeline("demo"), SampleSettings()
    sampler = Sampler(pipeline, "demo")
    rows = [("a red cat in the snow", seed) for seed in range(sampler.batch_size(settings))]

    def ours():
        return sampler.sample(rows, settings, on_step=lambda step: None)

    def plain():
        return pipeline(
            [prompt for prompt, _ in rows],
            negative_prompt=[""] * len(rows),
            num_inference_steps=settings.sampling_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for _, seed in rows],
        ).images

    images = [[np.asarray(image).astype(int) for image in loop()] for loop in (ours, plain)]  # warm
    apart = max(np.abs(one - other).max() for one, other in zip(*images, strict=True))
    seconds: dict = {ours: [], plain: []}
    for number in range(ROUNDS):
        for loop in (ours, plain) if number % 2 else (plain, ours):
            started = time.perf_counter()
            loop()
            seconds[loop].append((time.perf_counter() - started) / len(rows))
    fastest = {loop: min(taken) for loop, taken in seconds.items()}
    ratio = fastest[plain] / fastest[ours]
    return {
        "benchmark": "sample", "batch": len(rows), "sampling_steps": settings.sampling_steps,
        "throughput_ratio": round(ratio, 3), "least_ratio": LEAST_RATIO, "fast_enough": ratio >= LEAST_RATIO,
        "images_per_second": round(1 / fastest[ours], 2), "images_per_second_plain": round(1 / fastest[plain], 2),
        "grey_levels_apart": int(apart),
        "seconds_per_image": round(fastest[ours], 3), "slowest": round(max(seconds[ours]), 3),
        "limit_s": LIMIT_SECONDS, "within_limit": fastest[ours] <= LIMIT_SECONDS,
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
