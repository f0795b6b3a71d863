"""What one setting may hold: its type, its limits, and what the text of those that hold a list says.

`ConfigError` lives here, so that dpo/config.py, dpo/combinations.py and dpo/config_files.py can all raise it.
"""

from __future__ import annotations

import math
from dataclasses import Field

from dpo import StudioError
from dpo.menu import LOSSES, NOT_OFFERED

KINDS = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}


class ConfigError(StudioError, ValueError):
    """A value the user can fix. The message says which field, what it got, and what would be accepted."""


def check_value(parameter: Field, value) -> None:
    """Raises ConfigError if `value` cannot be that parameter, whatever the others are."""
    name, limits = parameter.name, parameter.metadata
    wanted, kind = KINDS[parameter.type]
    if not isinstance(value, wanted) or (isinstance(value, bool) and parameter.type != "bool"):
        raise ConfigError(f"{name}={value!r} is not {kind}. Set it to {kind}, such as {parameter.default!r}.")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{name}={value!r} is not known. Choose one of: {', '.join(limits['choices'])}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value} is not a finite number. Set it to one, such as {parameter.default}.")
    if limits["min"] is not None and value < limits["min"]:
        raise ConfigError(f"{name}={value} is too small. Set it to {limits['min']} or more.")
    if limits["max"] is not None and value > limits["max"]:
        raise ConfigError(f"{name}={value} is too large. Set it to {limits['max']} or less.")


def parse_losses(text: str) -> dict[str, float]:
    """Weight by name of "sigmoid", or of several as in "sigmoid 0.8, bco_pair 0.2". Raises ConfigError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(" ")
        if name in NOT_OFFERED:
            raise ConfigError(f"loss={text!r}: {name} is not offered: {NOT_OFFERED[name]}")
        if name not in LOSSES:
            raise ConfigError(f"loss={text!r}: {name!r} is not known. Choose some of: {', '.join(LOSSES)}.")
        if name in found:
            raise ConfigError(f"loss={text!r} names {name} twice. Name it once, with one weight.")
        try:
            found[name] = float(weight) if weight.strip() else 1.0
        except ValueError as error:
            raise ConfigError(
                f"loss={text!r}: {weight.strip()!r} is not a weight of {name}. Write {name} 0.8, and commas between losses."
            ) from error
        if not 0 < found[name] < math.inf:
            raise ConfigError(f"loss={text!r} gives {name} the weight {found[name]:g}. Give it a number above 0.")
    return found


def parse_places(name: str, text: str) -> tuple[float, ...]:
    """The numbers of "0.8, 0.55, 0.3", each in [0, 1). Raises ConfigError."""
    try:
        places = tuple(float(word) for word in parse_words(text))
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is not a list of numbers. Write them as in 0.8, 0.55, 0.3.") from error
    for place in places:
        if not 0 <= place < 1:
            raise ConfigError(f"{name}={text!r}: {place:g} is no place in the schedule. Each is from 0 to less than 1.")
    return places


def parse_words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
