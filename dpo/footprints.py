"""Will it fit? The memory a run needs, against the device's, and what to change where it does not.

An estimate, and said so: weights, adapter and what a forward pass keeps are counted, what libraries and a fragmented memory take
on top is allowed for. Nothing here loads torch.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from functools import lru_cache

import psutil

from dpo.config import ConfigError, TrainConfig

GB = 1e9
BYTES_A_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
BYTES_PACKED = {"nf4": 0.56, "int8": 1.05, "int8_torchao": 1.05, "fp8_torchao": 1.05}  # with their scales
ADAPTER_BYTES = 16  # weight, gradient and two moments of AdamW, in float32
ADAPTER_BYTES_8_BIT = 10
ALLOWANCE_GB = 1.2  # what CUDA, its libraries and the gaps between tensors take
VAE_GB_A_MEGAPIXEL = 2.2  # allowed for while one image is encoded
MLP_SHARE = 2.4  # an adapter on attention and feed-forward layers, over one on attention: counted, 1.4 (FLUX.1) to 2.4 (Z-Image)

REMEDIES: tuple[dict, ...] = (  # from what costs least
    {"execution": "sequential"}, {"gradient_checkpointing": True}, {"quantization": "nf4"}, {"resolution": 768},
    {"resolution": 512},
)  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """Of a denoiser at its own size, one image, bfloat16: `python -m tests.benchmarks footprint` counts them anew.

    weights_b: billions of its weights. encoders_b: billions of the text encoders'. lora_m: millions of a LoRA's of rank 16.
    held_gb, held_gc_gb: what a forward pass keeps for the backward one, and with gradient checkpointing. side: of the image.
    """

    weights_b: float
    encoders_b: float
    lora_m: float
    held_gb: float
    held_gc_gb: float
    side: int = 1024


# By the name of the diffusers pipeline: of its usual size, where there are several.
FOOTPRINTS = {
    "StableDiffusionPipeline": Footprint(0.86, 0.12, 3.2, 0.85, 0.32, 512),
    "StableDiffusionXLPipeline": Footprint(2.57, 0.82, 23.2, 6.01, 2.14),
    "StableDiffusion3Pipeline": Footprint(8.06, 5.6, 23.6, 14.8, 1.21),
    "FluxPipeline": Footprint(11.9, 4.9, 26.1, 23.8, 2.07),
    "ChromaPipeline": Footprint(8.9, 4.8, 26.1, 23.8, 2.07),
    "Flux2KleinPipeline": Footprint(3.88, 4.0, 13.8, 14.9, 1.3),
    "Flux2Pipeline": Footprint(32.2, 24.0, 59.8, 66.7, 4.36),
    "ZImagePipeline": Footprint(6.15, 4.0, 16.7, 33.2, 4.03),
    "QwenImagePipeline": Footprint(20.4, 8.3, 47.2, 28.1, 2.03),
    "SanaPipeline": Footprint(1.6, 2.6, 11.5, 3.66, 0.27),
    "Lumina2Pipeline": Footprint(2.61, 2.6, 7.4, 21.3, 2.78),
    "PixArtSigmaPipeline": Footprint(0.61, 4.8, 8.3, 4.29, 0.42),
}


@dataclass(frozen=True)
class Device:
    """memory_gb: all it has. It may be shared with other programs."""

    name: str
    memory_gb: float
    is_gpu: bool


@dataclass(frozen=True)
class Need:
    """Gigabytes: of a training step, and of encoding images and prompts before it."""

    training_gb: float
    encoding_gb: float

    @property
    def peak_gb(self) -> float:
        return max(self.training_gb, self.encoding_gb)


def estimate(config: TrainConfig, footprint: Footprint, *, on_gpu: bool = True) -> Need:
    """What a run with these settings needs on its device. auto precision is bfloat16 on a GPU, float32 elsewhere."""
    precision = config.precision if config.precision != "auto" else "bfloat16" if on_gpu else "float32"
    width = BYTES_A_WEIGHT[precision]
    stored = BYTES_PACKED.get(config.quantization, width)
    weights = footprint.weights_b * stored * (1 - config.offload)
    share = config.lora_rank / 16 * (MLP_SHARE if config.lora_modules == "attention+mlp" else 1)
    moments = ADAPTER_BYTES_8_BIT if config.optimizer == "adamw_8bit" else ADAPTER_BYTES
    adapter = footprint.lora_m / 1e3 * share * moments
    rows = 1 if config.execution == "sequential" else 2 * config.batch_size
    held = footprint.held_gc_gb if config.gradient_checkpointing else footprint.held_gb
    if config.lora_modules == "last_half" and not config.gradient_checkpointing:
        held /= 2  # no gradient passes through the first half
    held *= rows * width / 2 * (config.resolution / footprint.side) ** 2
    pixels = (config.resolution / 1000) ** 2
    encoding = footprint.encoders_b * width + VAE_GB_A_MEGAPIXEL * pixels * width / 2 + ALLOWANCE_GB
    return Need(weights + adapter + held + ALLOWANCE_GB, encoding)


def remedies(config: TrainConfig, footprint: Footprint, memory_gb: float, *, on_gpu: bool = True) -> tuple[list[str], bool]:
    """(what to set, in words, cheapest first, until it fits; whether it then does)."""
    said: dict[str, str] = {}  # by setting: a lower resolution takes the place of a low one
    for change in REMEDIES:
        need = estimate(config, footprint, on_gpu=on_gpu).peak_gb
        if need <= memory_gb:
            break
        changed = _set(config, **change)
        if changed is not None and estimate(changed, footprint, on_gpu=on_gpu).peak_gb < need - 0.05:
            config = changed
            said |= {name: f"{name}={value}" for name, value in change.items()}
    return list(said.values()), estimate(config, footprint, on_gpu=on_gpu).peak_gb <= memory_gb


def fit_line(config: TrainConfig, pipeline: str, device: Device) -> tuple[str, bool]:
    """(a sentence on whether a run fits the device and else what to change, whether it does). "" for a model without numbers."""
    footprint = FOOTPRINTS.get(pipeline)
    if footprint is None or config.model == "demo":
        return "", True
    need = estimate(config, footprint, on_gpu=device.is_gpu)
    line = f"Needs about {need.peak_gb:.0f} GB"
    if need.encoding_gb > need.training_gb:
        line += " while images and prompts are prepared"
    if need.peak_gb <= device.memory_gb:
        return f"{line}; {device.name} has {device.memory_gb:.0f} GB: it should fit.", True
    said, fits = remedies(config, footprint, device.memory_gb, on_gpu=device.is_gpu)
    line += f", and {device.name} has {device.memory_gb:.0f} GB. "
    if not said:
        return f"{line}It will not fit: choose a smaller model.", False
    would = "It should fit with" if fits else "It will not fit even with"
    return f"{line}{would} {', '.join(said)}.", False


def work(config: TrainConfig) -> float:
    """Of one step, in forward passes of one image of 1024 x 1024 pixels. A backward pass costs what a forward pass does."""
    passes = 2 + config.gradient_checkpointing + (config.execution == "sequential") + (config.reference_mode != "none")
    images = {"pairs": 2, "likes": 1, "rankings": 3}[config.data]  # of rankings at least
    return config.step_size * images * passes * (config.resolution / 1024) ** 2


@lru_cache(maxsize=1)
def find_device() -> Device:
    """The GPU that NVIDIA's own tool names first; else this machine's memory. Asked once: it takes a moment."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=5, check=True,
        ).stdout.splitlines()[0]  # fmt: skip
        name, memory = told.rsplit(",", 1)
        return Device(name.strip(), float(memory) * 2**20 / GB, True)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return Device("this machine", psutil.virtual_memory().total / GB, False)


def _set(config: TrainConfig, **values) -> TrainConfig | None:
    """None if that does not go with another setting."""
    try:
        return replace(config, **values)
    except ConfigError:
        return None
