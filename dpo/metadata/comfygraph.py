"""Loading ComfyUI's graphs, in all their places, as one simple shape.

ComfyUI stores a graph twice: as `prompt`, what was run (node id -> class_type and inputs), and as `workflow`, what was on the
canvas (nodes, links and unnamed widget values). Savers put them into PNG chunks, into EXIF tags as "prompt:{...}", or
both into one JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dpo.metadata.containers import TextField
from dpo.metadata.records import parse_json


class Node(NamedTuple):
    """A node: its class, and its inputs by name. An input is a plain value, or [id, slot] of the node it is wired to."""

    kind: str
    inputs: dict


Graph = dict[str, Node]

# The widgets of a canvas node have an order but no names. These are read; "" = not of interest.
WIDGETS = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name"),
    "KSamplerAdvanced": ("", "noise_seed", "", "steps", "cfg", "sampler_name"),
    "SamplerCustom": ("", "noise_seed", "", "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("", "steps"),
    "RandomNoise": ("noise_seed",),
    "CFGGuider": ("cfg",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
}
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
MUTED, BYPASSED = 2, 4
MAX_INPUTS = 20_000  # of all nodes; a graph of 500 nodes has about 5,000


def load_graphs(fields: Sequence[TextField]) -> Iterator[tuple[Graph, str]]:
    """Every graph in the fields and where it was, those that were run before those on the canvas."""
    found = []
    for field in fields:
        name, text = field.name.lower(), field.text
        if match := re.match(r"\s*(prompt|workflow)\s*:\s*(?=\{)", text, re.IGNORECASE):
            name, text = match[1].lower(), text[match.end() :]
        data = parse_json(text.rstrip("\0"))
        if not isinstance(data, dict):
            continue
        for part in ("prompt", "workflow"):
            value = data.get(part)
            value = parse_json(value) if isinstance(value, str) else value
            if isinstance(value, dict) and not isinstance(value.get("class_type"), str):
                found.append((part, value, field.where))
        found.append((name, data, field.where))
    for _, data, where in sorted(found, key=lambda item: item[0] == "workflow"):
        graph = _load(data)
        if graph and sum(len(node.inputs) for node in graph.values()) <= MAX_INPUTS:
            yield graph, where


def source_of(value: object) -> tuple[str, int] | None:
    """(node id, output slot) if an input is a wire, else None."""
    match value:
        case [str() | int() as key, int() as slot]:
            return str(key), slot
    return None


def _load(data: dict) -> Graph:
    if isinstance(data.get("nodes"), list):
        return _load_canvas(data)
    return {
        str(key): Node(node["class_type"], node["inputs"])
        for key, node in data.items()
        if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    }


def _load_canvas(workflow: dict) -> Graph:
    links = {
        str(link[0]): [link[1], link[2]] for link in _list(workflow.get("links")) if isinstance(link, list) and len(link) > 4
    }
    graph = {}
    for node in workflow["nodes"]:
        if not isinstance(node, dict) or not isinstance(node.get("type"), str) or node.get("mode") == MUTED:
            continue
        slots = [slot for slot in _list(node.get("inputs")) if isinstance(slot, dict)]
        if node.get("mode") == BYPASSED:  # what comes in goes out again where the types are the same
            types = [slot.get("type") for slot in _list(node.get("outputs")) if isinstance(slot, dict)]
            inputs, slots = {}, [slot for slot in slots if slot.get("type") in types]
        else:
            inputs = _widgets(node)
        inputs |= {str(slot.get("name")): links[link] for slot in slots if (link := str(slot.get("link"))) in links}
        graph[str(node.get("id"))] = Node(node["type"], inputs)
    return graph


def _widgets(node: dict) -> dict:
    """The widget values of a canvas node, by name where names are known. Comments go, as when the graph is run."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return values
    if not isinstance(values, list):
        return {}
    if names := WIDGETS.get(node["type"]):
        return {name: value for name, value in zip(names, values, strict=False) if name}
    if re.search(r"encode|text|prompt|string|primitive", node["type"], re.IGNORECASE):
        return {f"text_{i}": COMMENT.sub("", value) for i, value in enumerate(values) if isinstance(value, str)}
    return {}


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
