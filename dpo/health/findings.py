"""What all checks share: what a finding is, the pairs that training would use as arrays, and how numbers are said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpo.pairs import same_words

if TYPE_CHECKING:
    from dpo.catalogue import ImageFacts
    from dpo.picks import PickedPair

WRONG, MEND, KNOW, FINE = 3, 2, 1, 0  # severities


@dataclass(frozen=True)
class Finding:
    """One thing to know about the pairs. `severity`: 3 is wrong now, 2 worth mending, 1 good to know, 0 good news. `pairs`:
    positions in the pairs that were checked, of those it is about; none where it is about all."""

    code: str
    severity: int
    sentence: str
    remedy: str = ""
    pairs: tuple[int, ...] = ()


class UsedPairs:
    """The pairs that training would use, and what is known of their images, as arrays in the same order.

    `places`: positions in all pairs. `facts`: of the chosen and the rejected image, None where nothing is known. `words` and
    `prompts`: of each pair, and how many pairs have them. `picture_of`: key -> a number, the same for the same picture;
    `pictures` (N, 2): of the chosen and the rejected image. `sizes` (N, 2, 2): width and height of both in pixels, 0 where not
    known. `bits` (N,): how many of their hashes differ, -1 where not known.
    """

    def __init__(self, pairs: Sequence[PickedPair], facts: Mapping[str, ImageFacts]) -> None:
        self.places = [place for place, picked in enumerate(pairs) if picked.state == "used" and not picked.missing]
        self.pairs = [pairs[place] for place in self.places]
        self.facts = [(facts.get(picked.chosen), facts.get(picked.rejected)) for picked in self.pairs]
        words = {prompt: same_words(prompt) for prompt in {picked.pair.prompt for picked in self.pairs}}
        self.words = [words[picked.pair.prompt] for picked in self.pairs]
        self.prompts = Counter(self.words)
        numbers: dict[str, int] = {}
        self.picture_of = {
            key: numbers.setdefault((image and image.digest) or key, len(numbers))
            for picked, images in zip(self.pairs, self.facts, strict=True)
            for key, image in zip((picked.chosen, picked.rejected), images, strict=True)
        }
        pictures = [(self.picture_of[picked.chosen], self.picture_of[picked.rejected]) for picked in self.pairs]
        self.pictures = np.array(pictures, np.int64).reshape(-1, 2)
        shapes = [[(image.width, image.height) if image else (0, 0) for image in images] for images in self.facts]
        self.sizes = np.array(shapes, np.int64).reshape(-1, 2, 2)
        hashes = [[image.dhash if image and image.dhash is not None else 0 for image in images] for images in self.facts]
        hashed = [all(image and image.dhash is not None for image in images) for images in self.facts]
        hashes = np.array(hashes, np.uint64).reshape(-1, 2)
        self.bits = np.where(hashed, np.bitwise_count(hashes[:, 0] ^ hashes[:, 1]).astype(int), -1)

    def where(self, mask: np.ndarray) -> tuple[int, ...]:
        """Positions in all pairs of those where `mask` (N,) holds."""
        return tuple(self.places[index] for index in np.flatnonzero(mask))

    def some(self, number: int) -> str:
        """So many of these pairs."""
        return f"{number:,} of {count(len(self.places), 'pair')} ({number / len(self.places):.0%})"


def percent(share: float) -> str:
    """With a digit more where rounding would leave nothing of it."""
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
