"""What must hold for every family. Each check takes a Tiny and a folder, raises AssertionError, and returns a word for the table.

Oracle: signs, directions, scales. Step 0: policy and reference are one. Cached equals live: what is kept on disk is what would be
computed. Round trip: an adapter file gives the same image. Resume: stopped and gone on is as if never stopped. Memory: what a
sequential step keeps, over what an ordinary LoRA step on one image keeps.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpo.adapter_loading import load_adapter, set_strength
from dpo.adapters import POLICY, attach_adapter, is_of
from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.draws import Draws
from dpo.events import Note, StepEnd
from dpo.families import load_family
from dpo.losses import per_image_error
from dpo.pairs import Pair
from dpo.parallel import Processes
from dpo.runs import create_run
from dpo.sampling import SampleSettings, paint
from dpo.scoring import Reference, backward, errors
from dpo.trainer import train
from tests.families import Tiny
from tests.kept import peak_of_saved_bytes

PLACES = [0.0, 0.2, 0.5, 0.8, 0.999]  # in the schedule
PROMPT = "a red cat"
SETTINGS = SampleSettings(sampling_steps=2, guidance_scale=1.0)


def check_oracle(tiny: Tiny, folder: Path) -> str:
    """A denoiser that knows the clean image has no error at any timestep, and the pipeline's own sampler, driven by it, lands on
    the clean latents."""
    pipeline = tiny.build()
    family = load_family(pipeline)
    clean = clean_latents(family, tiny)
    timesteps = family.timesteps(torch.tensor(PLACES))
    rows = clean.repeat(len(PLACES), 1, 1, 1)
    noisy, target = family.add_noise(rows, torch.randn(rows.shape, generator=torch.Generator().manual_seed(2)), timesteps)
    with answering(family.denoiser, tiny.oracle(pipeline, clean)), torch.no_grad():
        error = per_image_error(family.predict(noisy, timesteps, conditioning(family, tiny, len(PLACES))), target)
        assert error.max() < 1e-6, error
        landed = pipeline(
            **prompt_arguments(family), **family.sampling_options(1.0), **tiny.options, height=tiny.side, width=tiny.side,
            num_inference_steps=8, output_type="latent", generator=torch.Generator().manual_seed(3),
        ).images  # fmt: skip
    landed = tiny.latents(landed, pipeline)
    torch.testing.assert_close(landed, clean, rtol=tiny.tolerance, atol=tiny.tolerance)
    return "ok"


def check_step_0(tiny: Tiny, folder: Path) -> str:
    """A fresh adapter changes nothing: policy and reference have the same errors to the bit, so the margin is exactly 0."""
    family = load_family(tiny.build())
    adapter = attach_adapter(family, settings(tiny), starting=None, reference=None, moving=False)
    data = encode(make_pairs(tiny, folder), family, tiny, folder)
    batches = data.batches([0, 1], [0, 1], [0, 0])
    assert sum(len(batch.numbers) for batch in batches) == 2
    for batch in batches:
        noised = Draws(settings(tiny), family).draw(batch)
        with torch.no_grad():
            policy = errors(family, noised)
        assert torch.equal(policy, Reference(family, adapter, "base").errors(noised, batch, None, at_once=True))
        assert policy.isfinite().all() and (policy > 0).all()
    return "ok"


def check_cached_equals_live(tiny: Tiny, folder: Path) -> str:
    """Latents and prompt embeddings from the disk score as those that were just computed, to the bit."""
    pairs = make_pairs(tiny, folder)
    scores = []
    for cache in ("cache", "cache", "other"):
        family = load_family(tiny.build())
        data = encode(pairs, family, tiny, folder, cache)
        if len(scores) == 1:
            family.release_encoders()
        scores.append([
            errors(family, Draws(settings(tiny), family).draw(batch)).detach() for batch in data.batches([0, 1], [0, 1], [0, 0])
        ])  # fmt: skip
    for other in scores[1:]:
        assert all(map(torch.equal, scores[0], other))
    return "ok"


def check_round_trip(tiny: Tiny, folder: Path) -> str:
    """An adapter file with alpha other than its rank, on a fresh pipeline, gives the image its own pipeline gave, to the bit."""
    family = load_family(tiny.build())
    adapter = attach_adapter(
        family, replace(settings(tiny), lora_alpha=6.0), starting=None, reference=None, moving=False
    )  # fmt: skip
    move(family)
    file = folder / "adapter" / "pytorch_lora_weights.safetensors"
    adapter.save(file)
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    size = replace(SETTINGS, width=tiny.side, height=tiny.side)
    expected = paint(family, rows, size)

    fresh = load_family(tiny.build())
    base = paint(fresh, rows, size)
    load_adapter(fresh, file, POLICY)
    assert difference(paint(fresh, rows, size), expected) == 0
    assert difference(base, expected) > 0
    set_strength(fresh.denoiser, POLICY, 0.0)
    assert difference(paint(fresh, rows, size), base) == 0
    return "ok"


def check_resume(tiny: Tiny, folder: Path) -> str:
    """Stopped after two of four steps and gone on, a run ends bitwise equal to one left alone."""
    pairs = make_pairs(tiny, folder)
    ends = []
    for name, stop in (("whole", 0), ("parts", 2)):
        family = load_family(tiny.build())
        run = create_run(folder / "runs", name, settings(tiny), pairs)
        for _ in range(2 if stop else 1):
            family = load_family(tiny.build())
            adapter = attach_adapter(family, settings(tiny), starting=None, reference=None, moving=False)
            data = encode(pairs, family, tiny, folder), encode([], family, tiny, folder)
            run.clear_stop()
            losses = []
            for event in train(settings(tiny), *data, family, adapter, run, processes=Processes()):
                if isinstance(event, StepEnd):
                    losses.append(event.metrics["loss"])
                    if event.step == stop:
                        run.request_stop()
            stop = 0
        assert len(losses) == (4 if name == "whole" else 2) and all(map(math.isfinite, losses))
        ends.append(torch.cat([parameter.detach().flatten() for parameter in adapter.parameters()]))
    assert torch.equal(*ends)
    assert ends[0].abs().sum() > 0
    return "ok"


def check_memory(tiny: Tiny, folder: Path) -> str:
    """A sequential step on a pair keeps for its backward passes what an ordinary LoRA step on one image keeps, and 5% at most."""
    family = load_family(tiny.build())
    config = replace(settings(tiny), execution="sequential")
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    batch = encode(make_pairs(tiny, folder), family, tiny, folder).batches([0], [0], [0])[0]
    noised, comparisons = Draws(config, family).draw(batch), batch.comparisons

    def loss(policy_error, reference_error, rejected_scale):
        logratio = reference_error - policy_error
        return -torch.nn.functional.logsigmoid(logratio[comparisons.chosen] - logratio[comparisons.rejected]).mean()

    reference = Reference(family, adapter, "base")
    ours = peak_of_saved_bytes(family, lambda: backward(family, reference, noised, batch, None, config, loss))
    plain = peak_of_saved_bytes(family, lambda: errors(family, noised.rows(0, 1)).mean().backward())
    assert 1e3 < plain <= ours <= 1.05 * plain, (ours, plain)
    return f"{ours / plain:.2f}"


CHECKS = {
    "oracle": check_oracle,
    "step 0": check_step_0,
    "cached equals live": check_cached_equals_live,
    "export round trip": check_round_trip,
    "resume": check_resume,
    "memory over one image": check_memory,
}


# ------------------------------------------------------------------------------------------------ parts


def settings(tiny: Tiny) -> TrainConfig:
    return TrainConfig(
        beta=20.0, learning_rate=1e-2, max_steps=4, batch_size=1, accumulation=1, lora_rank=2, warmup_steps=0, save_every=100,
        resolution=tiny.side, validate_every=0, validation_share=0.0, max_chosen_drift=1e6,
    )  # fmt: skip


def make_pairs(tiny: Tiny, folder: Path) -> list[Pair]:
    """Four pairs of different prompts, of real PNG files."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(4):
        paths = []
        for name, level in (("chosen", 200), ("rejected", 60)):
            y, x = np.mgrid[: tiny.side, : tiny.side]
            image = np.stack([np.full_like(x, level), (x * 9 + number * 13) % 256, (y * 7) % 256], -1).astype(np.uint8)
            paths.append(str(folder / "images" / f"{number}-{name}.png"))
            Image.fromarray(image).save(paths[-1])
        pairs.append(Pair(f"prompt {number}", *paths))
    return pairs


def encode(items, family, tiny: Tiny, folder: Path, cache: str = "cache"):
    return next(
        found for found in encode_items(items, family, tiny.side, folder / cache) if not isinstance(found, Note)
    )  # fmt: skip


def clean_latents(family, tiny: Tiny) -> torch.Tensor:
    """(1, C, h, w) such as images have."""
    shape = family.encode_images(torch.zeros(1, 3, tiny.side, tiny.side)).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def conditioning(family, tiny: Tiny, rows: int, prompt: str = PROMPT) -> dict[str, torch.Tensor]:
    """Of `rows` rows of one prompt and one size, as a batch has it."""
    told = family.encode_prompts([prompt]) | family.size_conditioning((tiny.side, tiny.side), (tiny.side, tiny.side))
    return {name: torch.cat([tensor] * rows) for name, tensor in told.items()}


def prompt_arguments(family, prompt: str = PROMPT) -> dict:
    return family.prompt_arguments(prompt, "")


@contextmanager
def answering(module, forward):
    """Within it the module's calls are answered by `forward`."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def move(family, std: float = 0.3) -> None:
    """As if the policy had learned something."""
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if is_of(POLICY, name):
                parameter += std * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))


def difference(first: list[Image.Image], second: list[Image.Image]) -> int:
    """The largest difference of two grey levels."""
    return max(
        int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()) for one, other in zip(first, second, strict=True)
    )


def watched_calls(family) -> list[tuple[tuple, dict, object]]:
    """(args, kwargs, output) of every call of the denoiser from now on."""
    calls: list[tuple[tuple, dict, object]] = []
    family.denoiser.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    return calls


def sampled(pipeline, **asked) -> torch.Tensor:
    """The latents of a 16x16 image as the pipeline returns them, from the same noise every time."""
    asked = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)} | asked
    return pipeline(**asked, height=16, width=16, output_type="latent").images
