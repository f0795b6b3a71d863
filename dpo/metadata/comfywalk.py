"""Walking up a ComfyUI graph: `Walk` knows which node feeds which, which nodes sample, and how much was looked at.

Nodes are known by their inputs, not by their names, because there are thousands of kinds: whatever takes conditioning and steps
is a sampler.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from dpo.metadata.comfygraph import Graph, Node, source_of

# Names of inputs. A bundle carries both sides (positive and negative) in one wire, a conditioning carries one.
_BEGIN = "(base_|text_|prompt_|main_|optional_)?"
_END = r"(_prompt|_text|_cond|_conditioning|_prompt_text)?(_?([a-l\d]|[AB]|NEW|base))?$"
SIDES = {
    "positive": re.compile(rf"{_BEGIN}positive{_END}|cond1$|pos(_prompt|_cond)?(_?[glr])?$|prompt_pos$"),
    "negative": re.compile(rf"{_BEGIN}negative{_END}|neg(_conditioning|_prompt|_cond)?(_?[glr])?$|uncond$|prompt_neg$|n_prompt$"),
}
BUNDLE = re.compile(r".*pipe(line)?(_opt)?$|.*ctx|guider$|.*_embeds$|hyvid_embeds|context$|sdxl_tuple$|.*sampler_\w*opt$")
CONDITIONING = re.compile(r"(?!condition$|cond$)(?!.*(neg|uncond)).*cond")
PICTURE_ONLY = re.compile(  # inputs that do not lead to the picture that a node works on
    r"positive|negative|(.*_)?cond|guider|model|clip|vae|noise|sigmas|sampler$|(?!text_embeds)text|prompt|control_?net|mask|reference"
    r"|style|ipadapter|insightface|upscale_model|.*lora"
)
SAMPLING = {"steps", "sampler_name", "sigmas", "latent_image", "sampler_state"}
NO_SAMPLER = re.compile(r"context|.*save|.*preset|.*config", re.IGNORECASE)
MAX_VISITS = 4_000  # of nodes, for all questions about one graph; a graph of 500 nodes needs about 2,000
MAX_PASSES = 16  # samplers one after another, outputs and samplers that are asked


class Wire(NamedTuple):
    name: str
    source: str
    slot: int


class Walk:
    """One reading of a graph. `visits` counts nodes; when there were too many, walks end where they are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.visits = 0
        self.wires = {key: _wires(graph, node) for key, node in graph.items()}
        self.used = {wire.source for wires in self.wires.values() for wire in wires}
        self.samplers = [key for key, node in graph.items() if _is_sampler(node, self.wires[key])]
        self._sampling = set(self.samplers)

    def visit(self) -> bool:
        """Count one more node; False when that is one too many."""
        if self.visits >= MAX_VISITS:
            return False
        self.visits += 1
        return True

    def is_sampler(self, key: str) -> bool:
        return key in self._sampling

    def upstream(self, start: list[str], skip: re.Pattern | None = None, is_beyond: bool = False) -> Iterator[str]:
        """Nodes that feed the start, the nearest first; not over inputs whose names match `skip`, nor beyond a sampler
        unless `is_beyond`."""
        queue, seen = deque(start), set(start)
        while queue and self.visit():
            key = queue.popleft()
            yield key
            if key in self._sampling and key not in start and not is_beyond:
                continue
            for name, source, _ in self.wires[key]:
                if source not in seen and not (skip and skip.match(name)):
                    seen.add(source)
                    queue.append(source)

    def outputs(self) -> list[str]:
        """Nodes whose results no other node uses, those that save pictures first."""
        ends = [key for key in self.graph if key not in self.used]
        return sorted(ends, key=lambda key: output_rank(self.graph[key]))

    def samplers_above(self, start: str) -> list[str]:
        """The nearest samplers that the picture of a node was drawn by, not counting itself."""
        return [key for key in self.upstream([start], PICTURE_ONLY) if key != start and key in self._sampling]

    def first_pass(self, sampler: str) -> str:
        """The sampler that began this picture: refiners, upscalers and detailers repaint it with prompts of their own.

        Where several pictures were pasted together, the sampler that merged them: its prompt is the whole scene's.
        """
        passes = [sampler]
        while len(earlier := self.samplers_above(passes[-1])) == 1 and earlier[0] not in passes and len(passes) < MAX_PASSES:
            passes += earlier
        return passes[-1]


def output_rank(node: Node) -> int:
    """0 = it saves pictures, 1 = it shows them, 2 = neither."""
    kind = node.kind.lower()
    if "save" in kind:
        return 2 if re.search(r"text|latent|audio", kind) else 0
    return 1 if re.search(r"preview|videocombine|image|video|webp|output", kind) and "any" not in kind else 2


def side_of_slot(node: Node, slot: int, side: str) -> str:
    """Nodes that take both sides (ControlNetApplyAdvanced) give the positive before the negative, and the model, if they
    pass one through (Efficient Loader), before both. Pipes and other slots keep the side that is asked for."""
    if is_two_sided(node):
        first = 1 if {"model", "ckpt_name"} & node.inputs.keys() else 0
        if slot - first in (0, 1) and not re.match(r"easy |ttN |.*[pP]ipe|Context", node.kind):
            return ("positive", "negative")[slot - first]
    return side


def is_two_sided(node: Node) -> bool:
    """It takes a positive and a negative; the positive may be called just `prompt`."""
    has_positive = any(map(SIDES["positive"].match, node.inputs)) or not {"prompt", "text"}.isdisjoint(node.inputs)
    return has_positive and any(map(SIDES["negative"].match, node.inputs))


def _wires(graph: Graph, node: Node) -> list[Wire]:
    wires = []
    for name, value in node.inputs.items():
        if isinstance(value, list) and (source := source_of(value)) and source[0] in graph:
            wires.append(Wire(name, *source))
    return wires


def _is_sampler(node: Node, wires: list[Wire]) -> bool:
    """By input signature: conditioning comes in by wire, and there is something to sample with."""
    if NO_SAMPLER.match(node.kind) or (SAMPLING.isdisjoint(node.inputs) and not _is_called_sampler(node)):
        return False
    return any(SIDES["positive"].match(name) or CONDITIONING.match(name) or BUNDLE.match(name) for name, _, _ in wires)


def _is_called_sampler(node: Node) -> bool:
    return "sampler" in node.kind.lower() and not {"seed", "noise_seed"}.isdisjoint(node.inputs)
