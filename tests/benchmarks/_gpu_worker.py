"""One run of the `gpu` benchmark, in a process of its own: `python -m tests.benchmarks._gpu_worker SPEC`.

SPEC is JSON: {"preset", "way": "ours" or "plain", "cap_gb": of the allocator or 0, "steps", "folder", "tiny": for a machine
without a GPU}. Prints one line of JSON: seconds a pair (the median step's, the first two left out), peak gigabytes, or what ran
out.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import diffusers
import torch
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)  # fmt: skip

from dpo.adapters import Adapter, attach_adapter
from dpo.cache import TrainingData, encode_items
from dpo.config import TrainConfig
from dpo.config_files import load_preset
from dpo.demo import world
from dpo.draws import Draws
from dpo.events import Note, StepEnd
from dpo.families import Family, load_family
from dpo.loading import Base, place
from dpo.losses import logratios, per_image_error
from dpo.models import DEMO_MODEL, default_device, resolve_precision
from dpo.optimisation import prepare_denoiser
from dpo.pairs import Pair
from dpo.parallel import join_processes
from dpo.portions import is_out_of_memory
from dpo.runs import create_run
from dpo.trainer import TrainingError, item_index, train
from tests.benchmarks.footprint import FAMILIES

WARM_UP = 2  # steps left out
FLOW = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec["cap_gb"]:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, spec["cap_gb"] * 1e9 / total))
    try:
        print(json.dumps(_measure(spec)))
    except (RuntimeError, TrainingError) as error:
        if not (isinstance(error, TrainingError) or is_out_of_memory(error)):
            raise
        print(json.dumps({"failed": str(error).splitlines()[0]}))


def _measure(spec: dict) -> dict:
    config = load_preset(
        spec["preset"], validate_every=0, save_every=10**6, max_steps=spec["steps"] + WARM_UP, warmup_steps=0, on_damage="warn"
    )
    if spec["tiny"]:
        config = replace(config, resolution=16, quantization="none", precision="float32")
    folder, device = Path(spec["folder"]), default_device()
    pipeline = _tiny(config) if spec["tiny"] else _full_size(config)
    family = load_family(pipeline, device)
    pairs = _make_pairs(config, folder / "images")
    data, nothing = (_encode(items, family, config, folder / "cache") for items in (pairs, []))
    place(family.denoiser, resolve_precision(config.precision, device), device, Base(**config.base))
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    prepare_denoiser(config, family)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if spec["way"] == "plain":
        with family.encoders():
            seconds = [_plain_step(config, family, adapter, pairs, data, step) for step in range(config.max_steps)]
    else:
        family.release_encoders()
        run = create_run(folder / "runs", "run", config, pairs)
        events = list(train(config, data, nothing, family, adapter, run, processes=join_processes()))
        notes = [event.message for event in events if isinstance(event, Note) and event.tone == "warning"]
        if notes:
            print(*notes, sep="\n", file=sys.stderr)
        seconds = [event.seconds for event in events if isinstance(event, StepEnd)]
    return {
        "seconds_per_pair": round(median(seconds[WARM_UP:]) / config.step_size, 4),
        "peak_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2) if torch.cuda.is_available() else None,
    }


def _plain_step(config: TrainConfig, family: Family, adapter: Adapter, pairs: list[Pair], data: TrainingData, step: int) -> float:
    """As the public research script: a pair after the other is encoded, and goes through the denoiser for policy and reference.
    Only the adapter's gradient is computed: its optimizer's step is too short to matter."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(step * config.step_size, (step + 1) * config.step_size, config.batch_size):
        numbers = list(range(number, number + config.batch_size))
        indices = [item_index(len(data), config.seed, one) for one in numbers]
        for batch in data.batches(indices, numbers, [one // len(data) for one in numbers]):
            pixels = torch.zeros(len(batch.latents), 3, config.resolution, config.resolution, device=batch.latents.device)
            for image in pixels.split(1):
                family.encode_images(image)
            for index in indices:
                family.encode_prompts([pairs[index].prompt])
            noised = Draws(config, family).draw(batch)
            policy = per_image_error(family.predict(noised.noisy, noised.timesteps, noised.conditioning), noised.target)
            with torch.no_grad(), adapter.as_reference():
                reference = per_image_error(family.predict(noised.noisy, noised.timesteps, noised.conditioning), noised.target)
            ratios = logratios(policy, reference)
            margins = config.beta * (ratios[batch.comparisons.chosen] - ratios[batch.comparisons.rejected])
            (-torch.nn.functional.logsigmoid(margins).mean()).backward()
    for parameter in adapter.parameters():
        parameter.grad = None
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _encode(items: list[Pair], family: Family, config: TrainConfig, cache: Path) -> TrainingData:
    *_, data = encode_items(items, family, config.resolution, cache)
    return data


def _make_pairs(config: TrainConfig, folder: Path) -> list[Pair]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, pairs = random.Random(0), []
    for number in range(4):
        paths = [folder / f"{number}-{name}.png" for name in ("chosen", "rejected")]
        for path in paths:
            Image.fromarray(world.draw(world.random_scene(rng))).resize((config.resolution, config.resolution)).save(path)
        pairs.append(Pair(f"a {world.OBJECTS[number % len(world.OBJECTS)]}", *map(str, paths)))
    return pairs


# ------------------------------------------------------------------------------------------------ models of random weights


def _tiny(config: TrainConfig):
    from tests.families import families

    wanted = "FLUX.1 dev" if "FLUX" in config.model else "SDXL"
    return next(tiny for tiny in families() if tiny.title.startswith(wanted)).build()


def _full_size(config: TrainConfig):
    """SDXL or FLUX.1 with all its parts, in half precision, in the computer's memory."""
    torch.set_default_dtype(torch.bfloat16)
    flux = "FLUX" in config.model
    with torch.device("meta"):
        denoiser = FAMILIES["FLUX.1 dev" if flux else "SDXL"][0]()
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16 if flux else 4, sample_size=1024,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.3611 if flux else 0.13025, shift_factor=0.1159 if flux else None,
        )  # fmt: skip
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
        if flux:
            second = T5EncoderModel(
                T5Config(d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu")
            )
        else:
            second = CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
                )
            )
    torch.set_default_dtype(torch.float32)
    for module in (denoiser, vae, clip, second):
        _fill(module)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_MODEL / "tokenizer", model_max_length=77)
    if flux:
        letters = [(chr(number), -2.0) for number in range(33, 127)]
        words = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0), *letters], extra_ids=0)
        return diffusers.FluxPipeline(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW), vae=vae, text_encoder=clip, tokenizer=tokenizer,
            text_encoder_2=second, tokenizer_2=words, transformer=denoiser,
        )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae, text_encoder=clip, text_encoder_2=second, tokenizer=tokenizer, tokenizer_2=tokenizer, unet=denoiser,
        scheduler=scheduler,
    )  # fmt: skip


def _fill(module: torch.nn.Module) -> None:
    """Small random weights, quickly: the same million numbers again and again."""
    numbers = (0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))).bfloat16()
    module.to_empty(device="cpu").eval().requires_grad_(False)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            tensor.data = torch.arange(tensor.numel()).reshape(tensor.shape).to(tensor.dtype)  # position ids
            continue
        flat = tensor.data.view(-1)
        for part in flat.split(len(numbers)):
            part.copy_(numbers[: len(part)])
        if name.endswith("weight") and tensor.ndim == 1:
            flat.add_(1)  # of norms


if __name__ == "__main__":
    main()
