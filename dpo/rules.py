"""What a project lets its picks become: how many pairs of a group, which duels are asked, whether two people see the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from dpo import StudioError
from dpo.ranking import PAIRINGS

MOST_PAIRS_PER_GROUP = 8


class RulesError(StudioError):
    """A rule with a value that it cannot have."""


@dataclass(frozen=True)
class PickRules:
    """The rules of a project. Raises RulesError for a value out of range.

    `agreement`: every tenth group is shown to a second person. `live_folder` receives the pairs as they are picked, "" for
    none.
    """

    pairs_per_group: int = 1
    pairing: str = "top_two"  # one of PAIRINGS
    agreement: bool = False
    live_folder: str = ""

    def __post_init__(self) -> None:
        count = self.pairs_per_group
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_PAIRS_PER_GROUP:
            raise RulesError(f"pairs_per_group={count!r} must be a whole number from 1 to {MOST_PAIRS_PER_GROUP}.")
        if self.pairing not in PAIRINGS:
            raise RulesError(f"pairing={self.pairing!r} is not known. Choose one of {', '.join(PAIRINGS)}.")
        if not isinstance(self.agreement, bool):
            raise RulesError(f"agreement={self.agreement!r} must be true or false.")
        if not isinstance(self.live_folder, str):
            raise RulesError(f"live_folder={self.live_folder!r} must be the path of a folder, or empty.")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PickRules:
        """Rules that this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})
