"""`python -m dpo model`: what a model is, before it is loaded; and the settings of a base model as flags of other commands."""

from __future__ import annotations

import argparse
from dataclasses import fields

from dpo.config import BASE, TrainConfig
from dpo.models import describe_model


def model(args) -> None:
    """Say what a model is, by its files' headers alone: family, what it predicts, precision, and where the rest comes from."""
    print(describe_model(args.model, args.prediction_type, args.components))


def add_model_command(commands: argparse._SubParsersAction) -> None:
    """Add `model` to the commands of `python -m dpo`."""
    command = commands.add_parser("model", help=model.__doc__)
    command.add_argument("model", metavar="MODEL", help="demo, a diffusers folder, a .safetensors or .gguf file, or a hub id")
    _add(command, "prediction_type", "components")
    command.set_defaults(command=model)


def add_base_flags(command: argparse.ArgumentParser) -> None:
    """Flags for all settings of TrainConfig that say which model it is and how it is loaded."""
    _add(command, *BASE)


def base_of(args) -> dict[str, object]:
    """What was given by those flags, as `dpo.models.load_pipeline` takes it. Raises ConfigError for what cannot be."""
    return TrainConfig(model=args.model, **{name: getattr(args, name) for name in BASE}).base


def _add(command: argparse.ArgumentParser, *names: str) -> None:
    for field in fields(TrainConfig):
        if field.name in names:
            options = {"default": field.default, "help": field.metadata["help"].replace("%", "%%")}
            if field.type == "bool":
                options["action"] = "store_true"
            else:
                options |= {"type": {"str": str, "float": float}[field.type], "metavar": field.type.upper()}
            command.add_argument(f"--{field.name.replace('_', '-')}", **options)
