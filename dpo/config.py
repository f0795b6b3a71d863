"""The one definition of every training parameter: name, type, default, limits, help text.

The form in the Train tab, the JSON in a run folder, the presets, the command line and the README's table are all made
from `TrainConfig` or checked against it.
"""

from __future__ import annotations

import json
import math
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path

from dpo import StudioError

PRESETS = Path(__file__).resolve().parent.parent / "presets"


class ConfigError(StudioError, ValueError):
    """A value the user can fix. The message says which field, what it got, and what would be accepted."""


def _param(default, label, help, *, min=None, max=None, choices=None, main=False):
    metadata = {"label": label, "help": help, "min": min, "max": max, "choices": choices, "main": main}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes. `main` fields are the ones a form shows unfolded."""

    model: str = _param(
        "demo", "Model", "demo, a diffusers folder, or a hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5."
    )
    starting_adapter: str = _param(
        "",
        "Starting adapter",
        "A LoRA to go on from. A frozen copy of it becomes the reference. Empty: start from the base model.",
    )
    max_steps: int = _param(500, "Steps", "Optimizer steps.", min=1, main=True)
    learning_rate: float = _param(
        1e-4,
        "Learning rate",
        "Peak learning rate of the adapter. Too high breaks the images; see the fourth plot.",
        min=0.0,
        main=True,
    )
    beta: float = _param(
        1000.0,
        "Strength (beta)",
        "Pull towards the base model: higher stays closer. No hidden factor: 5000 in scripts that halve it is 2500 here.",
        min=1e-6,
        main=True,
    )
    lora_rank: int = _param(16, "Rank", "Rank of the adapter: its capacity and its file size.", min=1, max=1024, main=True)
    resolution: int = _param(
        512, "Resolution", "Side in pixels of a square with the area to train at.", min=8, max=4096, main=True
    )
    lora_alpha: float = _param(0.0, "Alpha", "Scale of the adapter is alpha / rank. 0 = same as the rank.", min=0.0)
    batch_size: int = _param(1, "Batch size", "Pairs per forward pass.", min=1)
    accumulation: int = _param(4, "Accumulation", "Forward passes per optimizer step.", min=1)
    warmup_steps: int = _param(10, "Warm-up", "Steps over which the learning rate rises to its peak.", min=0)
    weight_decay: float = _param(0.01, "Weight decay", "AdamW weight decay.", min=0.0, max=1.0)
    max_grad_norm: float = _param(1.0, "Gradient clip", "Clip the gradient norm to this. 0 = do not clip.", min=0.0)
    label_smoothing: float = _param(
        0.0, "Label smoothing", "Share of picks assumed to be mistakes (conservative DPO).", min=0.0, max=0.49
    )
    sft_weight: float = _param(
        0.0, "Supervised mix", "Weight of the ordinary denoising loss on the chosen image, added to the preference loss.", min=0.0
    )
    execution: str = _param(
        "full_concurrent",
        "Execution",
        "Same result, different memory: full_concurrent is fastest, sequential holds one image at a time.",
        choices=("full_concurrent", "policy_concurrent", "sequential"),
    )
    precision: str = _param(
        "auto",
        "Precision",
        "auto: bfloat16 on a GPU that has it, float32 elsewhere.",
        choices=("auto", "float32", "bfloat16"),
    )
    validation_share: float = _param(
        0.1, "Validation share", "Share of prompts kept out of training to measure on.", min=0.0, max=0.5
    )
    validate_every: int = _param(20, "Validate every", "Steps between validations. 0 = never.", min=0)
    save_every: int = _param(100, "Save every", "Steps between checkpoints.", min=1)
    max_chosen_drift: float = _param(
        0.05,
        "Damage limit",
        "Stop when the error on chosen images is this far above the reference's: past 0.03 they suffer, past 0.1 they break.",
        min=0.0,
    )
    seed: int = _param(0, "Seed", "Decides data order, noise, timesteps, split and the adapter's start.", min=0)

    def __post_init__(self):
        for parameter in fields(self):
            _check(parameter, getattr(self, parameter.name))

    @property
    def scale_alpha(self) -> float:
        """The LoRA alpha to use: `lora_alpha`, or the rank where that is 0."""
        return self.lora_alpha or float(self.lora_rank)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, **overrides) -> TrainConfig:
        """Read a config or preset; `overrides` win. Raises ConfigError for unknown names and bad values."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as settings: {error}. Choose another preset or mend the file.") from error
        return cls.from_values({**values, **overrides}, source=str(path))

    @classmethod
    def from_values(cls, values: dict, source: str = "The settings") -> TrainConfig:
        unknown = sorted(values.keys() - {parameter.name for parameter in fields(cls)})
        if unknown:
            raise ConfigError(f"{source}: {', '.join(unknown)} is not a setting of this version. Remove or rename it.")
        return cls(**values)


def preset_names() -> list[str]:
    """Names of the training presets, `demo` first."""
    return sorted((path.stem for path in PRESETS.glob("*.json")), key=lambda name: (name != "demo", name))


def load_preset(name: str, **overrides) -> TrainConfig:
    if name not in preset_names():
        raise ConfigError(f"preset={name!r} is not known. Choose one of: {', '.join(preset_names())}.")
    return TrainConfig.load(PRESETS / f"{name}.json", **overrides)


def _check(parameter: Field, value) -> None:
    name, limits = parameter.name, parameter.metadata
    wanted = {"str": str, "int": int, "float": (int, float)}[parameter.type]
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = {"str": "text", "int": "a whole number", "float": "a number"}[parameter.type]
        raise ConfigError(f"{name}={value!r} is not {kind}. Set it to {kind}, such as {parameter.default!r}.")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{name}={value!r} is not known. Choose one of: {', '.join(limits['choices'])}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value} is not a finite number. Set it to one, such as {parameter.default}.")
    if limits["min"] is not None and value < limits["min"]:
        raise ConfigError(f"{name}={value} is too small. Set it to {limits['min']} or more.")
    if limits["max"] is not None and value > limits["max"]:
        raise ConfigError(f"{name}={value} is too large. Set it to {limits['max']} or less.")
