"""Operations: what a page sends of what a person said, as dicts, and whether one says anything we understand.

All have `client` and `number`, which name an operation for good (sent twice, it counts once), `op`, and perhaps `rater`, the
name of who said it. `group` is a group's key, `images` are the keys of the images as they were shown.

    best_worst  group, images (2 or more), result: [best key, worst key]
    duel        group, images: [left, right], result: "left" | "right" | "tie" | "both_bad" | "skip",
                clearly: true where it was said with emphasis, second: true where it is a second opinion about a pair
    triage      group, images: [key], result: "good" | "bad" | "skip"
    skip        group, images, result: mode             nothing more from this group
    clearly     of: [client, number]                    that duel was said with emphasis
    undo        undoes: [client, number]                any of these but an undo is taken back
    drop        group, images: [chosen, rejected]       this pair is not used; one that needs a reject has one image
    swap        group, images: [chosen, rejected]       this pair is turned round
    reopen      group                                   all that was said of this group before counts no more
    propose     group, images: [chosen, rejected], result: "proposed" | "used", scorer: its name, confidence: in (0.5, 1]
                                                        what a scorer takes for a pair (dpo/proposals.py); nobody said it
    confirm     group, images: [chosen, rejected]       a person agrees with that; a swap of it is a person's word too

The first four may have `size`: how many images the group has, shown or not. Without it, or with 0, those that were shown are
taken for all there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dpo.groups import MODES
from dpo.metadata.records import Course

PICK_OPS = ("best_worst", "duel", "triage", "skip")
OWN_OPS = (*PICK_OPS, "clearly", "undo")  # what somebody says who may pick, and no more
DUEL_RESULTS = ("left", "right", "tie", "both_bad", "skip")
TRIAGE_RESULTS = ("good", "bad", "skip")
PROPOSE_RESULTS = ("proposed", "used")  # until a person confirms it, or as it is
MOST_OF_A_NAME = 60  # characters
_NAMES = {"client", "number", "op"}
_SHOWN = _NAMES | {"group", "images"}
_FIELDS = {
    "best_worst": _SHOWN | {"result"},
    "duel": _SHOWN | {"result"},
    "triage": _SHOWN | {"result"},
    "skip": _SHOWN | {"result"},
    "clearly": _NAMES | {"of"},
    "undo": _NAMES | {"undoes"},
    "drop": _SHOWN,
    "swap": _SHOWN,
    "reopen": _NAMES | {"group"},
    "propose": _SHOWN | {"result", "scorer", "confidence"},
    "confirm": _SHOWN,
}
_OPTIONAL = {"best_worst": {"size"}, "duel": {"size", "clearly", "second"}, "triage": {"size"}, "skip": {"size"}}
_SHOWN_AT_LEAST = {"best_worst": 2, "duel": 2, "triage": 1, "skip": 1, "drop": 1, "swap": 2, "propose": 2, "confirm": 2}
_SHOWN_AT_MOST = {"duel": 2, "triage": 1, "drop": 2, "swap": 2, "propose": 2, "confirm": 2}


class Refused(ValueError):
    """An operation that says nothing we understand. The message says why."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One stored operation. `position` grows with every row; `keys` are the images as they were shown, `paths` their files."""

    position: int
    client: str
    number: int
    op: str
    group: str
    prompt: str
    keys: tuple[str, ...]
    result: str
    chosen: str  # key, or "" where the pick prefers none
    rejected: str
    rater: str = ""
    made: float = 0.0  # seconds since 1970
    is_clear: bool = False
    is_second: bool = False
    source: str = ""  # of an import: the name of what it was imported from; of a proposal: the scorer's
    confidence: float = 1.0  # of an import or a proposal
    size: int = 0  # images in the group when it was made; 0 where nobody said
    about: int = 0  # position of the pick that an undo or a clearly is about
    paths: tuple[str, ...] = ()
    courses: tuple[Course | None, ...] = ()  # that the images share with others, where one of them does


def check_shape(operation) -> tuple[str, int, str]:
    """The operation's client, number and op, if it has the fields of that op and the names in it are names. Raises Refused."""
    if not isinstance(operation, dict):
        raise Refused(f"{operation!r} is not an operation")
    op = operation.get("op")
    if not isinstance(op, str) or op not in _FIELDS:
        raise Refused(f"op={op!r} is not known")
    if not _FIELDS[op] <= operation.keys() <= _FIELDS[op] | _OPTIONAL.get(op, set()) | {"rater"}:
        raise Refused(f"a {op} has {', '.join(sorted(_FIELDS[op]))}, not {', '.join(sorted(map(str, operation)))}")
    client, number, rater = operation["client"], operation["number"], operation.get("rater", "")
    if not _is_client(client):
        raise Refused(f"client={client!r} is not a client's name")
    if not _is_number(number):
        raise Refused(f"number={number!r} is not a count")
    if not (isinstance(rater, str) and len(rater) <= MOST_OF_A_NAME and _is_text(rater)):
        raise Refused(f"rater={rater!r} is not a name of at most {MOST_OF_A_NAME} characters")
    if "group" in operation and not _is_key(operation["group"]):
        raise Refused(f"group={operation['group']!r} is not a group's key")
    if "images" in operation:
        _check_images(op, operation["images"])
    for name in ("clearly", "second"):
        if name in operation and not isinstance(operation[name], bool):
            raise Refused(f"{name}={operation[name]!r} is neither true nor false")
    size = operation.get("size", 0)
    if not _is_number(size) or 0 < size < len(operation.get("images", ())):
        raise Refused(f"size={size!r} is not the number of images of a group")
    return client, number, op


def check_name(value) -> tuple[str, int]:
    """The client and number that an undo or a clearly is about. Raises Refused."""
    if not (isinstance(value, list) and len(value) == 2 and _is_client(value[0]) and _is_number(value[1])):
        raise Refused(f"{value!r} does not name a pick")
    return value[0], value[1]


def check_result(operation: Mapping) -> tuple[str, str, str]:
    """The result of a pick as it is stored, the chosen key and the rejected key ("" where nothing is preferred).

    The operation has its shape. Raises Refused.
    """
    op, keys, result = operation["op"], operation["images"], operation["result"]
    if op == "best_worst":
        if not (isinstance(result, list) and len(result) == 2 and result[0] != result[1] and all(key in keys for key in result)):
            raise Refused(f"result={result!r} does not name a best and another worst of the images shown")
        return "", *result
    known = {"duel": DUEL_RESULTS, "triage": TRIAGE_RESULTS, "skip": MODES, "propose": PROPOSE_RESULTS}[op]
    if result not in known:
        raise Refused(f"result={result!r} of a {op} is not one of {', '.join(known)}")
    if op == "skip" and result != "triage" and len(keys) < 2:
        raise Refused(f"a skip in {result} of {len(keys)} images")
    if op == "propose":
        _check_scorer(operation["scorer"], operation["confidence"])
        return result, *keys
    if result in ("left", "right"):
        left, right = keys
        return result, *((left, right) if result == "left" else (right, left))
    return result, "", ""


def _check_scorer(name, confidence) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= MOST_OF_A_NAME and _is_text(name)):
        raise Refused(f"scorer={name!r} is not a name of 1 to {MOST_OF_A_NAME} characters")
    if not (isinstance(confidence, int | float) and 0.5 < confidence <= 1):
        raise Refused(f"confidence={confidence!r} is not above 0.5 and at most 1")


def _check_images(op: str, keys) -> None:
    if not isinstance(keys, list) or not all(map(_is_key, keys)) or len(set(keys)) != len(keys):
        raise Refused("images is not a list of different image keys")
    if not _SHOWN_AT_LEAST[op] <= len(keys) <= _SHOWN_AT_MOST.get(op, len(keys)):
        raise Refused(f"a {op} of {len(keys)} images")


def _is_client(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{4,64}", value) is not None


def _is_number(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_key(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8,64}", value) is not None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
