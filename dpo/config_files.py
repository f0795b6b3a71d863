"""Settings on disk: a run's config.json, the presets, files of older versions. Foreign ones: dpo/onetrainer.py.

A file holds values of TrainConfig's fields by their names; what it leaves out is at its default. So no version is
written: what an older file does not know shows which version wrote it. What follows from other settings, the reference mode
above all, is in no file: it is derived anew on every load.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dpo.config import TrainConfig
from dpo.disk import write_text
from dpo.values import ConfigError

PRESETS = Path(__file__).resolve().parent.parent / "presets"
# All fields of the first version: a file that holds them all and not all of today's was written by an older version. Others,
# such as presets, leave out what they do not care about.
FIRST_VERSION = frozenset(
    "model starting_adapter max_steps learning_rate beta lora_rank resolution lora_alpha batch_size accumulation warmup_steps "
    "weight_decay max_grad_norm label_smoothing sft_weight execution precision validation_share validate_every save_every "
    "max_chosen_drift seed".split()
)
ABOUT_PRESETS = ("about", "memory_gb", "why")  # what a preset says of itself, beside its settings
# Where the default of a newer setting is not what older versions did.
CHANGED = {
    "keep_best": "keep_best=True: the adapter of the best validation is exported; it was that of the last step.",
    "on_damage": "on_damage='stop': a damaged run goes back to the best checkpoint; it was the newest one.",
}


def save_config(config: TrainConfig, path: Path) -> None:
    write_text(path, json.dumps(asdict(config), indent=2) + "\n")


def load_config(path: Path, **overrides) -> tuple[TrainConfig, list[str]]:
    """(settings, what has changed since an older version wrote the file); `overrides` win.

    Raises ConfigError for a file that cannot be read, unknown names and bad values.
    """
    values = {name: value for name, value in read_object(path).items() if name not in ABOUT_PRESETS}
    names = [field.name for field in fields(TrainConfig)]
    unknown = sorted(values.keys() - set(names))
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is not a setting of this version. Remove or rename it.")
    notes = []
    newer = [name for name in names if name not in values]
    if newer and values.keys() >= FIRST_VERSION:
        notes.append(f"{path.name} was written by an older version: {len(newer)} newer settings are at their defaults.")
        notes += [CHANGED[name] for name in newer if name in CHANGED]
    return TrainConfig(**{**values, **overrides}), notes


@dataclass(frozen=True)
class Preset:
    """about: what it is for, a sentence. memory_gb: of the card it is made for. why: the reason for each value, by its name."""

    config: TrainConfig
    about: str
    memory_gb: float
    why: dict[str, str]


def preset_names() -> list[str]:
    """Names of the training presets, `demo` first."""
    return sorted((path.stem for path in PRESETS.glob("*.json")), key=lambda name: (name != "demo", name))


def load_preset(name: str, **overrides) -> TrainConfig:
    """Raises ConfigError if there is none of that name."""
    return read_preset(name, **overrides).config


def read_preset(name: str, **overrides) -> Preset:
    """Raises ConfigError if there is none of that name."""
    if name not in preset_names():
        raise ConfigError(f"preset={name!r} is not known. Choose one of: {', '.join(preset_names())}.")
    path = PRESETS / f"{name}.json"
    config, _ = load_config(path, **overrides)
    values = read_object(path)
    return Preset(config, values["about"], values["memory_gb"], values["why"])


def read_object(path: Path) -> dict:
    """The object of a JSON file. Raises ConfigError if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as settings: {error}. Choose another preset or mend the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings but a {type(values).__name__}. Write an object of names and values.")
    return values
