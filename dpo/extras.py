"""Packages that only some settings ask for, and that requirements.txt leaves out. Imports none of them."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from dpo.values import ConfigError

if TYPE_CHECKING:
    from dpo.config import TrainConfig

# (setting, value) -> (the module that is looked for, the package to install, what to set instead)
EXTRAS = {
    ("optimizer", "adamw_8bit"): ("bitsandbytes", "bitsandbytes", "adamw"),
    ("optimizer", "prodigy"): ("prodigyopt", "prodigyopt", "adamw"),
    ("quantization", "nf4"): ("bitsandbytes", "bitsandbytes", "none"),
    ("quantization", "int8"): ("bitsandbytes", "bitsandbytes", "none"),
    ("quantization", "int8_torchao"): ("torchao", "torchao", "none"),
    ("quantization", "fp8_torchao"): ("torchao", "torchao", "none"),
    ("attention", "flash"): ("flash_attn", "flash-attn", "auto"),
    ("attention", "xformers"): ("xformers", "xformers", "auto"),
    ("tracker", "wandb"): ("wandb", "wandb", "none"),
    ("tracker", "trackio"): ("trackio", "trackio", "none"),
}


def missing_packages(config: TrainConfig) -> list[str]:
    """A sentence for every setting that needs a package which is not installed. Quick, and before a model loads."""
    asked = [(*setting, *extra) for setting, extra in EXTRAS.items() if getattr(config, setting[0]) == setting[1]]
    installed = {found.name for found in pkgutil.iter_modules()} if asked else set()  # looks at names, and runs no code
    return [
        f"{setting}={value!r} needs a package: pip install {package}. Or set {setting} to {instead!r}."
        for setting, value, module, package, instead in asked
        if module not in installed
    ]


def check_optional(config: TrainConfig) -> None:
    """Raises ConfigError if a setting needs a package that is not installed."""
    missing = missing_packages(config)
    if missing:
        raise ConfigError(missing[0])
