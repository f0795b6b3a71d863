"""A ComfyUI graph as one simple shape, loaded from what was run (node id -> class_type and inputs), and its wires."""

from __future__ import annotations

import re
from typing import NamedTuple

from dpo.metadata.comfynames import REROUTE, SWITCH, traits_of

MAX_INPUTS = 20_000  # of all nodes; a graph of 500 nodes has about 5,000
MAX_HOPS = 100  # from a wire over reroutes and switches to what feeds it
VALUES = ("value", "seed", "noise_seed", "int", "float", "number", "Number", "Value")  # of nodes that hold one value
SELECTORS = ("select", "Input", "input", "index", "switch", "boolean", "boolean_value", "condition", "cond", "choice", "value")
BRANCHES = {True: ("on_true", "tt_value", "true_value", "if_true"), False: ("on_false", "ff_value", "false_value", "if_false")}


class Node(NamedTuple):
    """A node: its class, and its inputs by name. An input is a plain value, or [id, slot] of the node it is wired to."""

    kind: str
    inputs: dict


Graph = dict[str, Node]


def source_of(value: object) -> tuple[str, int] | None:
    """(node id, output slot) if an input is a wire, else None."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
        if isinstance(value[0], str):
            return value[0], value[1]
        if isinstance(value[0], int):
            return str(value[0]), value[1]
    return None


def plain(graph: Graph, value: object, *names: str) -> object:
    """The number, bool or text of an input: itself, or what the node wired to it holds under one of the names, or as a value node
    (PrimitiveInt, Seed, easy int) does."""
    for _ in range(MAX_HOPS):
        source = source_of(value)
        if source is None:
            return value
        if source[0] not in graph:
            return None
        inputs = graph[source[0]].inputs
        value = inputs.get(next((name for name in (*names, *VALUES) if name in inputs), ""))
    return None


def load_run(data: dict) -> dict[str, Node]:
    """{} where there is no graph or far too much of one."""
    graph = {
        key: Node(kind, inputs)
        for key, node in data.items()
        if isinstance(node, dict)
        and isinstance(kind := node.get("class_type"), str)
        and isinstance(inputs := node.get("inputs"), dict)
    }
    return straighten(graph) if sum([len(node.inputs) for node in graph.values()]) <= MAX_INPUTS else {}


def kinds_with(graph: Graph, traits: int) -> set[str]:
    """The classes in the graph that have one of the traits."""
    return {kind for kind in {node.kind for node in graph.values()} if traits_of(kind) & traits}


def straighten(graph: dict[str, Node]) -> dict[str, Node]:
    """The graph without its reroutes and decided switches: every wire begins at the node that makes what it carries."""
    passing = kinds_with(graph, REROUTE | SWITCH)
    if not passing:  # as in most
        return graph
    through = {}
    for key, node in graph.items():
        if node.kind in passing and (name := _passed_on(graph, node)):
            through[key] = node.inputs[name]
    if not through:
        return graph
    for node in graph.values():
        for name, value in node.inputs.items():
            if (source := source_of(value)) and source[0] in through:
                node.inputs[name] = _beginning(through, source[0])
    return graph


def _beginning(through: dict[str, object], key: str) -> object:
    """What a chain of reroutes begins with; the chain is shortened, so that the next to ask has one step to go."""
    passed, value = [], None
    while key in through:
        passed.append(key)
        value, through[key] = through[key], None  # None: on a cycle nothing comes out
        source = source_of(value)
        if source is None:
            break
        key = source[0]
    through |= dict.fromkeys(passed, value)
    return value


def _passed_on(graph: Graph, node: Node) -> str:
    """The name of the input that a reroute or a switch gives out; "" if that was decided when the graph was run."""
    inputs = node.inputs
    wires = [name for name, value in inputs.items() if source_of(value)]
    if traits_of(node.kind) & REROUTE:
        return wires[0] if len(wires) == 1 else ""
    if re.match(r"(Any|Context) (Big )?Switch|Context Switch|ImpactIfNone", node.kind):  # the first that is not empty
        return min((name for name in wires if re.search(r"\d$", name)), default="")
    for selector in SELECTORS:
        if selector in inputs:
            chosen = plain(graph, inputs[selector])
            if isinstance(chosen, str) and chosen.isdigit():
                chosen = int(chosen)
            if isinstance(chosen, bool):
                return next((name for name in BRANCHES[chosen] if name in inputs), "")
            if isinstance(chosen, int):
                return next((name for name in inputs if (end := re.search(r"\d+$", name)) and int(end[0]) == chosen), "")
    return ""
