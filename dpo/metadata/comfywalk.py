"""Walking up a ComfyUI graph: `Walk` knows which node feeds which, which nodes sample, and how much was looked at.

Whatever takes conditioning by wire and has something to sample with is a sampler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from dpo.metadata.comfygraph import Graph, Node, kinds_with, source_of
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

# Names of inputs. A bundle carries both sides (positive and negative) in one wire, a conditioning carries one.
SAMPLING = {"steps", "sampler_name", "sigmas", "latent_image", "sampler_state"}
SEEDS = {"seed", "noise_seed"}
SETTINGS = SAMPLING | SEEDS
CONDITIONED = POSITIVE | CONDITIONING | BUNDLE
MAX_VISITS = 4_000  # of nodes, for all questions about one graph; a graph of 500 nodes needs about 2,000
MAX_PASSES = 16  # samplers one after another, outputs and samplers that are asked


# An input that comes from an output of another node: its name, that node, the output's number, the role that the name has.
Wire = tuple[str, str, int, int]


class Walk:
    """One reading of a graph. `visits` counts nodes; when there were too many, walks end where they are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.visits = 0
        self.wires = _Wires(graph)
        self.samplers = [
            key for key, node in graph.items() if not SETTINGS.isdisjoint(node.inputs) and _is_sampler(node, self.wires[key])
        ]
        self._sampling = set(self.samplers)
        self._first_passes: dict[str, str] = {}

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
        sampling = self._sampling.difference(start)
        wires = self.wires
        while queue and self.visit():
            key = queue.popleft()
            yield key
            if key in sampling:
                continue
            for _, source, _, role in wires[key]:
                if source not in seen and not role & skip:
                    seen.add(source)
                    queue.append(source)

    def outputs(self) -> list[str]:
        """Nodes whose results no other node uses, those that save pictures first."""
        values = [value for node in self.graph.values() for value in node.inputs.values() if isinstance(value, list)]
        used = {source[0] for value in values if (source := source_of(value))}
        return sorted((key for key in self.graph if key not in used), key=lambda key: output_rank(self.graph[key].kind))

    def nodes_with(self, trait: int) -> list[str]:
        """The nodes whose class has the trait."""
        having = kinds_with(self.graph, trait)
        return [key for key, node in self.graph.items() if node.kind in having] if having else []

    def samplers_above(self, start: str) -> list[str]:
        """The nearest samplers that the picture of a node was drawn by, not counting itself."""
        queue, seen, found = [start], {start}, []
        for key in queue:  # it grows meanwhile
            if not self.visit():
                break
            for _, source, _, role in self.wires[key]:
                if source not in seen and not role & NO_PICTURE:
                    seen.add(source)
                    (found if source in self._sampling else queue).append(source)
        return found

    def first_pass(self, sampler: str) -> str:
        """The sampler that began this picture: refiners, upscalers and detailers repaint it with prompts of their own.

        Where several pictures were pasted together, the sampler that merged them: its prompt is the whole scene's.
        """
        if sampler in self._first_passes:
            return self._first_passes[sampler]
        passes = [sampler]
        while len(earlier := self.samplers_above(passes[-1])) == 1 and earlier[0] not in passes and len(passes) < MAX_PASSES:
            passes += earlier
        self._first_passes[sampler] = passes[-1]
        return passes[-1]


class _Wires(dict):
    """The wires of each node, found when they are first asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __missing__(self, key: str) -> list[Wire]:
        graph = self._graph
        self[key] = wires = [
            (name, *source, role_of(name))
            for name, value in graph[key].inputs.items()
            if isinstance(value, list) and (source := source_of(value)) and source[0] in graph
        ]
        return wires


def output_rank(kind: str) -> int:
    """Of a node's class: 0 = it saves pictures, 1 = it shows them, 2 = neither."""
    traits = traits_of(kind)
    return 0 if traits & SAVES else 1 if traits & SHOWS else 2


def side_of_slot(walk: Walk, key: str, slot: int, side: int) -> int:
    """Nodes that pass both sides through (ControlNetApplyAdvanced) give the positive before the negative, and the model, if they
    pass that too (InstantID), before both: their wires may be crossed. All others keep the side that is asked for."""
    node = walk.graph[key]
    roles = 0
    for name, _, _, role in walk.wires[key]:
        roles |= 0 if "prompt" in name or "text" in name else role
    if roles & POSITIVE and roles & NEGATIVE and not traits_of(node.kind) & PIPE:
        first = 1 if "model" in node.inputs else 0
        if slot - first in (0, 1):
            return (POSITIVE, NEGATIVE)[slot - first]
    return side


def _is_sampler(node: Node, wires: list[Wire]) -> bool:
    """By input signature: there is something to sample with, and conditioning comes in by wire."""
    traits = traits_of(node.kind)
    if traits & NO_SAMPLER or (SAMPLING.isdisjoint(node.inputs) and not traits & SAMPLER):
        return False
    return any([role & CONDITIONED for _, _, _, role in wires])
