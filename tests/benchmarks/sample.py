"""Seconds per image of the demo model, warm, in batches as the app samples them: at most 0.25 s on two cores.

20 steps with guidance, so 40 passes of the denoiser an image.
"""

from __future__ import annotations

import os
import time

ROUNDS = 3
LIMIT_SECONDS = 0.25


def measure() -> dict:
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler, SampleSettings

    sampler, settings = Sampler(load_pipeline("demo"), "demo"), SampleSettings()
    rows = [("a red cat in the snow", seed) for seed in range(sampler.batch_size(settings))]
    sampler.sample(rows, settings)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        sampler.sample(rows, settings)
        seconds.append((time.perf_counter() - started) / len(rows))
    return {
        "benchmark": "sample", "batch": len(rows), "sampling_steps": settings.sampling_steps,
        "seconds_per_image": round(min(seconds), 3),
        "slowest": round(max(seconds), 3), "limit_s": LIMIT_SECONDS, "within_limit": min(seconds) <= LIMIT_SECONDS,
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
