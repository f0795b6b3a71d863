"""Walking up a ComfyUI graph: `Walk` knows which node feeds which, which nodes sample, and how much was looked at.

Whatever takes conditioning by wire and has something to sample with is a sampler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from dpo.metadata.comfygraph import source_of
from dpo.metadata.comfynames import (
    BUNDLE,
    CONDITIONING,
    NEGATIVE,
    NO_PICTURE,
    NO_SAMPLER,
    PIPE,
    POSITIVE,
    SAMPLER,
    SAVES,
    SHOWS,
    role_of,
    traits_of,
)
from dpo.metadata.comfyrun import Graph, Node, RunText

# Names of inputs. A bundle carries both sides (positive and negative) in one wire, a conditioning carries one.
SAMPLING = {"steps", "sampler_name", "sigmas", "latent_image", "sampler_state"}
SEEDS = {"seed", "noise_seed"}
MAX_VISITS = 4_000  # of nodes, for all questions about one graph; a graph of 500 nodes needs about 2,000
MAX_PASSES = 16  # samplers one after another, outputs and samplers that are asked


class Wire(NamedTuple):
    """An input that comes from output `slot` of node `source`; `role` is what its name says."""

    name: str
    source: str
    slot: int
    role: int


class Walk:
    """One reading of a graph. `visits` counts nodes; when there were too many, walks end where they are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.visits = 0
        self.wires = _Wires(graph)
        keys = graph.mentioning(SAMPLING | SEEDS) if isinstance(graph, RunText) else graph
        self.samplers = [key for key in keys if _is_sampler(graph[key], self.wires, key)]
        self._sampling = set(self.samplers)

    def visit(self) -> bool:
        """Count one more node; False when that is one too many."""
        if self.visits >= MAX_VISITS:
            return False
        self.visits += 1
        return True

    def is_sampler(self, key: str) -> bool:
        return key in self._sampling

    def upstream(self, start: list[str], skip: int) -> Iterator[str]:
        """Nodes that feed the start, the nearest first; not over inputs of the roles in `skip`, nor beyond a sampler."""
        queue, seen = deque(start), set(start)
        while queue and self.visit():
            key = queue.popleft()
            yield key
            if key in self._sampling and key not in start:
                continue
            for _, source, _, role in self.wires[key]:
                if source not in seen and not role & skip:
                    seen.add(source)
                    queue.append(source)

    def outputs(self) -> list[str]:
        """Nodes whose results no other node uses, those that save pictures first."""
        if isinstance(self.graph, RunText):
            used, kinds = self.graph.sources(), self.graph.kinds
        else:
            used = {wire.source for key in self.graph for wire in self.wires[key]}
            kinds = {key: node.kind for key, node in self.graph.items()}
        return sorted((key for key in kinds if key not in used), key=lambda key: output_rank(kinds[key]))

    def nodes_with(self, trait: int) -> list[str]:
        """The nodes whose class has the trait."""
        kinds = self.graph.kinds if isinstance(self.graph, RunText) else {key: node.kind for key, node in self.graph.items()}
        having = {kind for kind in set(kinds.values()) if traits_of(kind) & trait}
        return [key for key, kind in kinds.items() if kind in having] if having else []

    def samplers_above(self, start: str) -> list[str]:
        """The nearest samplers that the picture of a node was drawn by, not counting itself."""
        return [key for key in self.upstream([start], NO_PICTURE) if key != start and key in self._sampling]

    def first_pass(self, sampler: str) -> str:
        """The sampler that began this picture: refiners, upscalers and detailers repaint it with prompts of their own.

        Where several pictures were pasted together, the sampler that merged them: its prompt is the whole scene's.
        """
        passes = [sampler]
        while len(earlier := self.samplers_above(passes[-1])) == 1 and earlier[0] not in passes and len(passes) < MAX_PASSES:
            passes += earlier
        return passes[-1]


class _Wires(dict):
    """The wires of each node, found when they are first asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __missing__(self, key: str) -> list[Wire]:
        self[key] = wires = _wires(self._graph, self._graph[key])
        return wires


def output_rank(kind: str) -> int:
    """Of a node's class: 0 = it saves pictures, 1 = it shows them, 2 = neither."""
    traits = traits_of(kind)
    return 0 if traits & SAVES else 1 if traits & SHOWS else 2


def side_of_slot(walk: Walk, key: str, slot: int, side: int) -> int:
    """Nodes that pass both sides through (ControlNetApplyAdvanced) give the positive before the negative, and the model, if they
    pass that too (InstantID), before both: their wires may be crossed. All others keep the side that is asked for."""
    node = walk.graph[key]
    first = 1 if "model" in node.inputs else 0
    if slot - first in (0, 1) and not traits_of(node.kind) & PIPE:
        roles = 0
        for name, _, _, role in walk.wires[key]:
            roles |= 0 if "prompt" in name or "text" in name else role
        if roles & POSITIVE and roles & NEGATIVE:
            return (POSITIVE, NEGATIVE)[slot - first]
    return side


def _wires(graph: Graph, node: Node) -> list[Wire]:
    return [
        Wire(name, *source, role_of(name))
        for name, value in node.inputs.items()
        if isinstance(value, list) and (source := source_of(value)) and source[0] in graph
    ]


def _is_sampler(node: Node, wires: dict[str, list[Wire]], key: str) -> bool:
    """By input signature: there is something to sample with, and conditioning comes in by wire."""
    traits = traits_of(node.kind)
    has_settings = not SAMPLING.isdisjoint(node.inputs) or (traits & SAMPLER and not SEEDS.isdisjoint(node.inputs))
    if not has_settings or traits & NO_SAMPLER:
        return False
    return any(wire.role & (POSITIVE | CONDITIONING | BUNDLE) for wire in wires[key])
