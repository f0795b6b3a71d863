"""The layer profile: rank, alpha and learning rate by part of the model.

    up_blocks: rank 32, rate 2; mid_block: rank 0; attn2: alpha 8

Rules stand between semicolons. The text before the colon is looked for in the names of the layers (it may be a regular
expression); for every layer the first rule that fits decides. rank 0 leaves a layer without an adapter. rate multiplies the
learning rate. What a rule does not say is as everywhere, and alpha keeps its proportion to the rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dpo.values import ConfigError

WORDS = {"rank": (0, 1024), "alpha": (0.0, 4096.0), "rate": (0.0, 100.0)}


@dataclass(frozen=True)
class Rule:
    """pattern: a regular expression that is searched for in the names of layers. None: as everywhere."""

    pattern: str
    rank: int | None = None
    alpha: float | None = None
    rate: float | None = None


def parse_profile(text: str) -> tuple[Rule, ...]:
    """Raises ConfigError, naming the rule that cannot be read."""
    rules: list[Rule] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        pattern, colon, said = part.rpartition(":")
        pattern = pattern.strip()
        if not colon or not pattern:
            raise ConfigError(
                f"layer_profile: {part!r} is no rule. Write them as in: up_blocks: rank 32, rate 2; mid_block: rank 0"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"layer_profile: {pattern!r} is no regular expression: {error}. Write a part of layers' names."
            ) from error
        rules.append(Rule(pattern, **dict(_read(part, word) for word in said.split(","))))
    return tuple(rules)


def exactly(rules: tuple[Rule, ...], index: int) -> str:
    """A regular expression for the names that rule number `index` decides, whatever order it is asked in.

    It begins with ^: peft lets any part of a name go before a pattern, and what an earlier rule means could hide there.
    """
    earlier = "|".join(f"(?:{rule.pattern})" for rule in rules[:index])
    return "^" + (f"(?!.*(?:{earlier}))" if earlier else "") + f".*(?:{rules[index].pattern}).*"


def rule_of(rules: tuple[Rule, ...], name: str) -> Rule | None:
    """The rule that decides over the layer of that name."""
    return next((rule for rule in rules if re.search(rule.pattern, name)), None)


def _read(part: str, word: str) -> tuple[str, float]:
    name, _, number = word.strip().partition(" ")
    if name not in WORDS:
        raise ConfigError(f"layer_profile: {part!r} says {name!r}. Say some of: {', '.join(WORDS)}, each with a number.")
    low, high = WORDS[name]
    try:
        value = type(low)(number)
    except ValueError as error:
        raise ConfigError(f"layer_profile: {part!r}: {number!r} is no number for {name}. Write {name} 8.") from error
    if not low <= value <= high:
        raise ConfigError(f"layer_profile: {part!r}: {name} {value:g} is not from {low:g} to {high:g}.")
    return name, value
