"""OneTrainer's concepts.json: which folders hold the two sides of its pairs. Facts from its pull request 1403 (preference
training, by BitcrushedHeart) as it was between March and August 2026; the code is ours.

Two ways, and both are read:

    explicit   a concept is of one side: its "type" is DPO_CHOSEN, DPO_REJECTED, DPO_CHOSEN_VAL or DPO_REJECTED_VAL, its "path"
               is that side's folder. The chosen ones and the rejected ones are paired in the order of the file, so there must
               be as many of each. Written with "__version" 2, the last one that had these types.
    pattern    a concept is both sides: "path" is their root, "dpo_chosen_pattern" and "dpo_rejected_pattern" are paths in it
               with one {} for the stem, which may hold folders; case does not matter. Its type is STANDARD or VALIDATION.
               Written with "__version" 3, the first one that had patterns; it turns explicit ones into these.

Paths are absolute, for OneTrainer takes a relative one from where it was started. A folder of pairs that was moved since is
found by the end of the path, beside the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from dpo.exchange.dataset import ExchangeError, count, shown
from dpo.scan import IMAGE_ENDINGS

CONCEPTS = "concepts.json"
EXPLICIT = {"train": ("DPO_CHOSEN", "DPO_REJECTED"), "val": ("DPO_CHOSEN_VAL", "DPO_REJECTED_VAL")}
_TYPES = {"train": "STANDARD", "val": "VALIDATION"}
_PATTERNS = ("dpo_chosen_pattern", "dpo_rejected_pattern")


@dataclass(frozen=True)
class ConceptPair:
    """Where the two sides of some pairs lie. Without patterns a stem is all of the path inside the folder."""

    chosen: Path
    rejected: Path
    with_subfolders: bool
    chosen_pattern: str = ""
    rejected_pattern: str = ""

    @property
    def folders(self) -> tuple[Path, Path]:
        return self.chosen, self.rejected

    @property
    def is_pattern(self) -> bool:
        return bool(self.chosen_pattern)

    @property
    def patterns(self) -> tuple[Callable[[PurePath], str | None], ...]:
        """For each side, what finds the stem in a path inside the folder; None where the path does not fit."""
        return tuple(_stem_finder(pattern) for pattern in (self.chosen_pattern, self.rejected_pattern))


class Concept(NamedTuple):
    """A concept to be written: the folder and, where it is not "", the type or the pattern of each side."""

    name: str
    path: Path
    type: str
    chosen_pattern: str = ""
    rejected_pattern: str = ""


def explicit_concepts(folder: Path, splits: list[str]) -> list[Concept]:
    """Two concepts for each split: chosen/SPLIT and rejected/SPLIT."""
    return [
        Concept(f"{side} {split}", folder / side / split, kind)
        for split in splits
        for side, kind in zip(("chosen", "rejected"), EXPLICIT[split], strict=True)
    ]


def pattern_concepts(folder: Path, splits: list[str]) -> list[Concept]:
    """One concept for each split, of patterns chosen/SPLIT/{} as OneTrainer's own tool for pairs writes them."""
    return [
        Concept(f"pairs {split}", folder, _TYPES[split], f"chosen/{split}/{{}}", f"rejected/{split}/{{}}") for split in splits
    ]


def rooted_concepts(folder: Path, splits: list[str]) -> list[Concept]:
    """One concept for each split with a root of its own: SPLIT/chosen/{}."""
    return [Concept(f"pairs {split}", folder / split, _TYPES[split], "chosen/{}", "rejected/{}") for split in splits]


def concepts_json(concepts: list[Concept]) -> str:
    """The text of concepts.json. What is not said takes OneTrainer's defaults; its random crop is off, because it is drawn for
    each image, and the two of a pair must be seen alike."""
    written = []
    for concept in concepts:
        fields = {
            "__version": 3 if concept.chosen_pattern else 2,
            "name": concept.name,
            "path": str(concept.path),
            "enabled": True,
            "include_subdirectories": bool(concept.chosen_pattern),
            "image": {"__version": 0, "enable_crop_jitter": False},
        }
        fields["type"] = concept.type
        if concept.chosen_pattern:
            fields |= dict(zip(_PATTERNS, (concept.chosen_pattern, concept.rejected_pattern), strict=True))
        written.append(fields)
    return json.dumps(written, indent=2)


def is_concepts(values: object) -> bool:
    """Whether parsed JSON is a list of concepts."""
    return isinstance(values, list) and any(
        isinstance(value, dict) and "path" in value and "prompt" not in value for value in values
    )


def read_concepts(path: Path) -> tuple[list[ConceptPair], str]:
    """The pairs of folders that a concepts.json names, training first, and the kind it is of. Raises ExchangeError for one
    that names none, or that cannot be meant."""
    values = read_json(path)
    if not is_concepts(values):
        raise ExchangeError(f"{path}: this is no list of OneTrainer's concepts. Choose the concepts.json beside the images.")
    enabled = [value for value in values if isinstance(value, dict) and value.get("enabled", True) is not False]
    by_pattern = [value for value in enabled if any(value.get(name) for name in _PATTERNS)]
    pairs = [_pattern_pair(value, path) for value in by_pattern]
    for chosen_type, rejected_type in EXPLICIT.values():
        chosen, rejected = ([value for value in enabled if value.get("type") == kind] for kind in (chosen_type, rejected_type))
        if len(chosen) != len(rejected):
            raise ExchangeError(
                f"{path}: {count(len(chosen), 'concept')} of type {chosen_type} and {len(rejected):,} of type {rejected_type}. "
                "They are paired in their order, so there must be as many of each. Add or switch off the odd ones."
            )
        pairs += [
            ConceptPair(_find_folder(one, path), _find_folder(other, path), one.get("include_subdirectories") is True)
            for one, other in zip(chosen, rejected, strict=True)
        ]
    if not pairs:
        raise ExchangeError(
            f"{path}: none of its concepts is one of pairs (looked for the types "
            f"{', '.join(name for names in EXPLICIT.values() for name in names)} and for {' and '.join(_PATTERNS)})."
        )
    return pairs, "onetrainer_pattern" if by_pattern else "onetrainer_concepts"


def read_json(path: Path) -> object:
    """Parsed JSON. Raises ExchangeError for a file that cannot be read or is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror}. Check the path and who may read it.") from error
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{path} is no valid JSON ({shown(error)}). Mend it, or export it again.") from error


def _pattern_pair(value: dict, path: Path) -> ConceptPair:
    patterns = [str(value.get(name) or "").replace("\\", "/") for name in _PATTERNS]
    for name, pattern in zip(_PATTERNS, patterns, strict=True):
        if pattern.count("{}") != 1 or "{" in pattern.replace("{}", "") or pattern.startswith("/") or ".." in pattern.split("/"):
            raise ExchangeError(
                f"{path}: {name}={shown(pattern)!r} is not a path inside the concept's folder with one {{}} for the stem, "
                "such as chosen/{}."
            )
    folder = _find_folder(value, path)
    return ConceptPair(folder, folder, value.get("include_subdirectories", False) is True, *patterns)


def _find_folder(value: dict, path: Path) -> Path:
    """The folder of a concept, or the one beside concepts.json that its path ends with."""
    written = str(value.get("path") or "").replace("\\", "/")
    places = [path.parent / written] if written else []
    parts = PurePosixPath(written).parts
    tails = ["/".join(parts[start:]) for start in range(1, len(parts))] if ".." not in parts else []
    # The root of the patterns may be renamed along with all that is in it: then it is where the file lies.
    for place in [*places, *(path.parent / tail for tail in tails), *([path.parent] if value.get(_PATTERNS[0]) else [])]:
        if place.is_dir():
            return place.resolve()
    raise ExchangeError(f"{path}: the folder {shown(written)!r} of a concept is not there, nor beside this file. Mend its path.")


def _stem_finder(pattern: str) -> Callable[[PurePath], str | None]:
    if not pattern:
        return lambda path: path.with_suffix("").as_posix()
    with_ending = pattern.lower().endswith(IMAGE_ENDINGS)
    before, after = (re.escape(part) for part in pattern.split("{}"))
    expression = re.compile(f"{before}(.+){after}", re.IGNORECASE | re.DOTALL)

    def find(path: PurePath) -> str | None:
        match = expression.fullmatch((path if with_ending else path.with_suffix("")).as_posix())
        return match[1].lower() if match else None

    return find
