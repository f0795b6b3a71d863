"""What training learns from: pairs, rankings and likes, in one word items, and the prompts that are kept out of it to measure on.

Which prompts are kept out is a matter of their words alone: no seed, no order, no other prompt decides it. So every run, the
review and every export split the same items the same way, and more picks never move a prompt to the other side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields

from dpo import StudioError
from dpo.groups import normalise_prompt, without_loras

_COMMAS = re.compile(r"[\s,]*,[\s,]*")


class ItemError(StudioError, ValueError):
    """A record that is no item of training."""


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt, one of them preferred.

    `chosen` and `rejected` are file paths. `confidence` in (0.5, 1] is how sure the pick was. `source` says where the pair
    came from: "best_worst", "duel", "triage", "import: NAME", "AI: NAME", "confirmed: NAME" (a scorer's, see
    dpo/proposals.py) or "demo". `rater` is the one person who made it and `round` the
    round of candidates it is from, "" where that is not known or more than one. `max_timestep`: the place in the schedule, 1 for
    pure noise, from which on the images share their course (dpo/branching.py): noisier they teach nothing and are not trained.
    """

    prompt: str
    chosen: str
    rejected: str
    confidence: float = 1.0
    source: str = "best_worst"
    rater: str = ""
    round: str = ""
    max_timestep: float = 1.0

    @property
    def images(self) -> tuple[str, ...]:
        """As the rows of a batch."""
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Ranking:
    """Three or more images of one prompt in order: `images` are file paths, the best first. `confidence` in (0.5, 1] is the mean
    over any two of them that the earlier one is better. The rest as `Pair`."""

    prompt: str
    images: tuple[str, ...]
    confidence: float = 1.0
    source: str = "duel"
    rater: str = ""
    round: str = ""
    max_timestep: float = 1.0


@dataclass(frozen=True)
class Like:
    """One image of a prompt that a person called good, or bad (not `liked`). `image` is a file path. The rest as `Pair`."""

    prompt: str
    image: str
    liked: bool
    confidence: float = 1.0
    source: str = "triage"
    rater: str = ""
    round: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """As the rows of a batch."""
        return (self.image,)


Item = Pair | Ranking | Like
_KINDS = {"pair": Pair, "ranking": Ranking, "like": Like}


def items_to_json(items: Iterable[Item]) -> list[dict]:
    """Plain values that `items_from_json` takes back."""
    names = {kind: name for name, kind in _KINDS.items()}
    return [{"kind": names[type(item)], **asdict(item)} for item in items]


def items_from_json(values: Iterable[dict]) -> list[Item]:
    """The items of `items_to_json`. A record without a kind is a pair: earlier versions knew nothing else.

    Raises ItemError for what this version does not know.
    """
    return [_to_item(record) for record in values]


def _to_item(record: dict) -> Item:
    values = dict(record)
    kind = _KINDS.get(values.pop("kind", "pair"))
    known = {field.name: field.default is MISSING for field in fields(kind)} if kind else {}
    if not {name for name, is_needed in known.items() if is_needed} <= values.keys() <= known.keys():
        named = ", ".join(map(str, record))  # and not what it says, for that is somebody's prompt
        raise ItemError(f"{{{named}}} is no pair, ranking or like that this version knows. Use the version that wrote it.")
    return kind(**{name: tuple(value) if name == "images" else value for name, value in values.items()})


def split_pairs(items: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    """(training, validation): about `share` of the prompts, with all their items, are kept out of training.

    See `held_out_prompts`. Both sides keep the order of `items`.
    """
    held_out = held_out_prompts((item.prompt for item in items), share)
    return [item for item in items if item.prompt not in held_out], [item for item in items if item.prompt in held_out]


def held_out_prompts(prompts: Iterable[str], share: float) -> set[str]:
    """Those of `prompts` whose words fall below `share` on a scale of 0 to 1; prompts of the same words fall together.

    A share of 0 holds out nothing, and a prompt alone is trained on. Of two or more, one at least is held out and one is not:
    where all fall on one side, the one nearest to the other goes there. Only then does a prompt's side depend on the others.
    """
    places = {prompt: _place(prompt) for prompt in set(prompts)}
    found = sorted(set(places.values()))
    if share <= 0 or len(found) < 2:
        return set()
    limit = share
    if found[0] >= share:
        limit = found[1]
    elif found[-1] < share:
        limit = found[-1]
    return {prompt for prompt, place in places.items() if place < limit}


def same_words(prompt: str) -> str:
    """The same text for prompts that differ only in case, spaces, LoRA tags or how commas are set."""
    return normalise_prompt(_COMMAS.sub(", ", without_loras(normalise_prompt(prompt)))).casefold()


def _place(prompt: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    return int.from_bytes(hashlib.blake2b(same_words(prompt).encode(), digest_size=6).digest()) / 2**48
