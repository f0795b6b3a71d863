"""What ComfyUI ran, out of its text: nodes are decoded as they are asked for, because most of a large graph never is.

ComfyUI writes `{"3": {"inputs": {"seed": 1, ...}, "class_type": "KSampler", "_meta": {...}}, "4": {"inputs": ...`. What stands
between a node's name and its inputs, and around the two halves of a wire, cannot stand inside a text, where quotes are
escaped. Every other shape is left to a parser of JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

BETWEEN = '": {"inputs": '  # a node's name and its inputs
CLASS = re.compile(r'"class_type": "([^"\\]+)"')
WIRE = re.compile(r'\["([^"\\]+)", \d+\]')
LONGEST_NAME = 50  # characters before the first node's inputs
MAX_NODES = 1_000  # larger graphs are parsed whole, which counts their inputs


class Node(NamedTuple):
    """A node: its class, and its inputs by name. An input is a plain value, or [id, slot] of the node it is wired to."""

    kind: str
    inputs: dict


Graph = Mapping[str, Node]


class RunText(Mapping[str, Node]):
    """The nodes of a graph by id. One whose inputs are damaged has none."""

    def __init__(self, text: str, parts: dict[str, str], kinds: list[str]) -> None:
        self.kinds = dict(zip(parts, kinds, strict=True))  # id -> class
        self._text, self._parts = text, parts
        self._nodes: dict[str, Node] = {}

    def __getitem__(self, key: str) -> Node:
        node = self._nodes.get(key)
        if node is None:
            self._nodes[key] = node = Node(self.kinds[key], _inputs(self._parts[key]))
        return node

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def mentioning(self, names: Iterable[str]) -> list[str]:
        """The ids of the nodes in whose text one of the names stands, as an input's name does."""
        quoted = [f'"{name}": ' for name in names]
        return [key for key, part in self._parts.items() if any(name in part for name in quoted)]

    def sources(self) -> set[str]:
        """The ids of all nodes that a wire begins at."""
        return set(WIRE.findall(self._text))


def split_run(text: str) -> RunText | None:
    """None for a text that is not a run in the shape above."""
    head, *parts = text.split(BETWEEN, MAX_NODES + 1)
    if not 0 < len(parts) <= MAX_NODES or not text.endswith("}}"):
        return None
    if len(head) > LONGEST_NAME or not head.startswith('{"') or '"' in head[2:]:
        return None
    names = [head[2:], *[part[part.rfind('"') + 1 :] for part in parts[:-1]]]
    kinds = CLASS.findall(text)
    nodes = dict(zip(names, parts, strict=True))
    return RunText(text, nodes, kinds) if len(nodes) == len(parts) == len(kinds) else None


def _inputs(part: str) -> dict:
    try:
        inputs, _ = json.JSONDecoder().raw_decode(part)
    except (ValueError, RecursionError):
        return {}
    return inputs if isinstance(inputs, dict) else {}
