"""The canvas of ComfyUI (`workflow`) as a graph like the one that is run.

A canvas has what a run has not: nodes that are off (muted) or passed over (bypassed), reroutes, primitives, get/set pairs,
notes, and subgraphs, which stand on it as one node whose type is the name of a definition. They are dissolved here, as
ComfyUI does before it runs: what remains are nodes that compute. Ids inside a subgraph are "37:8", as in a run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from dpo.metadata.comfygraph import MAX_INPUTS, Node, straighten
from dpo.metadata.comfywidgets import name_widgets

MUTED, BYPASSED = 2, 4
INPUT, OUTPUT = "-10", "-20"  # ids that stand for a subgraph's own inputs and outputs
NOTES = re.compile(r"(markdown)? ?note|label \(|fast groups|bookmark", re.IGNORECASE)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
LONGEST = 8_000  # characters of a text with comments; unclosed ones would take long
VERBATIM = {"regex_pattern", "find", "replace", "delimiter", "separator"}
MAX_SCOPES = 200  # uses of subgraphs
MAX_NODES = 5_000  # in all of them
MAX_DEPTH = 12  # of subgraphs in subgraphs
MAX_HOPS = 300  # over one wire's reroutes, subgraph borders and bypassed nodes
ALL_HOPS = 30_000


@dataclass(eq=False)
class Scope:
    """A canvas: the whole one, or one use of a subgraph (then `outer` and `host` tell where it is used)."""

    prefix: str
    nodes: dict[str, dict]
    links: dict[str, tuple[str, int]]
    outer: Scope | None = None
    host: dict = field(default_factory=dict)
    input_names: list[str] = field(default_factory=list)
    results: dict[int, str] = field(default_factory=dict)  # output slot -> link
    given: dict = field(default_factory=dict)  # values set on the host: by input name, or by (inner id, widget name)
    inner: dict[str, Scope] = field(default_factory=dict)
    setters: dict[str, dict] = field(default_factory=dict)


def load_canvas(workflow: dict) -> dict[str, Node]:
    """{} where there is nothing to read or far too much."""
    definitions = {}
    for definition in _dicts(_dict(workflow.get("definitions")).get("subgraphs")):
        if isinstance(name := definition.get("id"), str):
            definitions[name] = definition
    for name, group in _dict(_dict(workflow.get("extra")).get("groupNodes")).items():
        definitions |= dict.fromkeys((f"workflow>{name}", f"workflow/{name}"), _definition_of_group(_dict(group)))
    scopes = _open_scopes(workflow, definitions)
    graph, size, hops = {}, 0, [0]
    for scope in scopes:
        broadcast = _broadcast(scope)
        for key, node in scope.nodes.items():
            if key in scope.inner or node.get("mode") in (MUTED, BYPASSED) or _is_virtual(node):
                continue
            inputs = _inputs(scope, key, node, hops)
            for name, source in broadcast.items():
                if name in inputs.keys() | {slot.get("name") for slot in _dicts(node.get("inputs"))}:
                    inputs[name] = inputs.get(name) or _source(scope, source, hops)
            size += len(inputs)
            graph[scope.prefix + key] = Node(node["type"], {name: value for name, value in inputs.items() if value is not None})
    return straighten(graph) if size <= MAX_INPUTS else {}


def _open_scopes(workflow: dict, definitions: dict[str, dict]) -> list[Scope]:
    """The canvas and every use of a subgraph in it. Stops where a crafted file would go on for ever."""
    scopes, count = [_scope(workflow)], 0
    for scope in scopes:  # grows
        if scope.prefix.count(":") >= MAX_DEPTH:
            continue
        for key, node in scope.nodes.items():
            definition = definitions.get(node["type"])
            if definition is None or node.get("mode") == MUTED:
                continue
            if len(scopes) > MAX_SCOPES or count > MAX_NODES:
                return scopes
            inner = _scope(definition, f"{scope.prefix}{key}:", scope, node)
            count += len(inner.nodes)
            scope.inner[key] = inner
            scopes.append(inner)
    return scopes


def _scope(canvas: dict, prefix: str = "", outer: Scope | None = None, host: dict | None = None) -> Scope:
    nodes = {str(node.get("id")): node for node in _dicts(canvas.get("nodes")) if isinstance(node.get("type"), str)}
    scope = Scope(prefix, nodes, {}, outer, host or {})
    for link in canvas["links"] if isinstance(canvas.get("links"), list) else []:
        if isinstance(link, dict):
            link = [link.get(name) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
        if isinstance(link, list) and len(link) >= 5 and _is_place(link[2]):
            scope.links[str(link[0])] = (str(link[1]), link[2])
            if str(link[3]) == OUTPUT and _is_place(link[4]):
                scope.results[link[4]] = str(link[0])
    for node in nodes.values():
        if node["type"] == "SetNode" and (name := _first_value(node)):
            scope.setters[str(name)] = node
    if outer:
        if canvas.get("is_group"):
            _hand_out(scope, host)
        named_by = host if canvas.get("is_group") else canvas
        scope.input_names = [str(slot.get("name")) for slot in _dicts(named_by.get("inputs"))]
        scope.given = _given(scope, host, canvas)
    return scope


def _given(scope: Scope, host: dict, definition: dict) -> dict:
    """The values on the outside of a subgraph. Older canvases list the inner widgets they belong to, newer ones have them in the
    order of the subgraph's inputs, those that are widgets inside."""
    values = host.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list) or not values:
        return {}
    proxies = _dict(host.get("properties")).get("proxyWidgets")
    if isinstance(proxies, list) and len(proxies) == len(values):
        pairs = [
            (tuple(map(str, proxy[:2])) if isinstance(proxy, list) else (), value)
            for proxy, value in zip(proxies, values, strict=True)
        ]
        return {(pair[1] if pair[0] == "-1" else pair): value for pair, value in pairs if len(pair) == 2}
    widgets = set()
    for node in scope.nodes.values():
        for slot in _dicts(node.get("inputs")):
            origin = scope.links.get(str(slot.get("link")))
            if origin and origin[0] == INPUT and slot.get("widget"):
                widgets.add(origin[1])
    names = [name for slot, name in enumerate(scope.input_names) if slot in widgets]
    return dict(zip(names, values, strict=False)) if len(values) >= len(names) else {}


def _inputs(scope: Scope, key: str, node: dict, hops: list[int]) -> dict:
    inputs = name_widgets(node)
    inputs |= {pair[1]: value for pair, value in scope.given.items() if isinstance(pair, tuple) and pair[0] == key}
    for name, value in inputs.items():
        if isinstance(value, str) and len(value) < LONGEST and ("/*" in value or "//" in value) and name not in VERBATIM:
            inputs[name] = COMMENT.sub("", value)
    for slot in _dicts(node.get("inputs")):
        if slot.get("link") is not None and (value := _source(scope, str(slot["link"]), hops)) is not None:
            inputs[str(slot.get("name"))] = value
    return inputs


def _source(scope: Scope, link: str, hops: list[int]) -> object:
    """What a link carries: [id, slot] of the node that makes it, a plain value, or None."""
    for _ in range(MAX_HOPS):
        hops[0] += 1
        origin = scope.links.get(link)
        if origin is None or hops[0] > ALL_HOPS:
            return None
        key, slot = origin
        if key == INPUT:
            if scope.outer is None or slot >= len(scope.input_names):
                return None
            name = scope.input_names[slot]
            outside = next((item.get("link") for item in _dicts(scope.host.get("inputs")) if item.get("name") == name), None)
            if outside is None:
                return scope.given.get(name)
            scope, link = scope.outer, str(outside)
            continue
        node = scope.nodes.get(key)
        if node is None:
            return None
        following: object
        if node.get("mode") == BYPASSED:
            following = _passed_on(node, slot)
        elif key in scope.inner:
            scope = scope.inner[key]
            following = scope.results.get(slot)
        elif node["type"] == "PrimitiveNode":
            return _first_value(node)
        elif node["type"] == "GetNode":
            following = _only_link(scope.setters.get(str(_first_value(node)), {}))
        elif "eroute" in node["type"] or node["type"] == "SetNode":
            following = _only_link(node)
        else:
            return [scope.prefix + key, slot]
        if following is None:
            return None
        link = str(following)
    return None


def _passed_on(node: dict, slot: int) -> object:
    """The link that a bypassed node gives out at an output: of the input beside it, or else the first, of the same type."""
    outputs, inputs = _dicts(node.get("outputs")), _dicts(node.get("inputs"))
    if slot >= len(outputs):
        return None
    kind = outputs[slot].get("type")
    beside = inputs[slot : slot + 1]
    return next((item.get("link") for item in beside + inputs if item.get("type") == kind), None)


def _broadcast(scope: Scope) -> dict[str, str]:
    """Input name -> link of what "Prompts Everywhere" gives to every such input that has no wire of its own."""
    for node in scope.nodes.values():
        if node["type"] == "Prompts Everywhere" and node.get("mode") not in (MUTED, BYPASSED):
            links = [slot.get("link") for slot in _dicts(node.get("inputs"))]
            return {side: str(link) for side, link in zip(("positive", "negative"), links, strict=False) if link is not None}
    return {}


def _definition_of_group(group: dict) -> dict:
    """A group node, the subgraph of older canvases, in the shape of a subgraph: what is not wired inside is its outside."""
    nodes = [node | {"id": index} for index, node in enumerate(_dicts(group.get("nodes")))]
    links, inside = [], set()
    for number, link in enumerate(group["links"] if isinstance(group.get("links"), list) else []):
        if isinstance(link, list) and len(link) >= 4 and all(map(_is_place, link[:4])):
            links.append([number, *link[:4]])
            inside |= {("out", link[0], link[1]), ("in", link[2], link[3])}
            _wire(nodes, link[2], link[3], number)
    for end in group["external"] if isinstance(group.get("external"), list) else []:
        if isinstance(end, list) and len(end) >= 2 and all(map(_is_place, end[:2])):
            inside.discard(("out", end[0], end[1]))
    ends = defaultdict(list)
    for node in nodes:
        for side, slots in (("in", node.get("inputs")), ("out", node.get("outputs"))):
            ends[side] += [
                (node["id"], index) for index, _ in enumerate(_dicts(slots)) if (side, node["id"], index) not in inside
            ]
    for index, (key, slot) in enumerate(ends["in"]):
        links.append([number := f"in{index}", INPUT, index, key, slot])
        _wire(nodes, key, slot, number)
    links += [[f"out{index}", key, slot, OUTPUT, index] for index, (key, slot) in enumerate(ends["out"])]
    return {"nodes": nodes, "links": links, "is_group": True}


def _hand_out(scope: Scope, host: dict) -> None:
    """The widgets of a group node are those of its inner nodes one after another, whose own values are of an earlier time."""
    values = host.get("widgets_values")
    counts = [len(node["widgets_values"]) if isinstance(node.get("widgets_values"), list) else 0 for node in scope.nodes.values()]
    if isinstance(values, list) and len(values) == sum(counts):
        for (key, node), count in zip(list(scope.nodes.items()), counts, strict=True):
            scope.nodes[key] = node | {"widgets_values": values[:count]}
            values = values[count:]


def _wire(nodes: list[dict], key: int, slot: int, link: object) -> None:
    slots = _dicts(nodes[key].get("inputs")) if key < len(nodes) else []
    if slot < len(slots):
        slots[slot]["link"] = link


def _is_virtual(node: dict) -> bool:
    kind = node["type"]
    return kind in ("PrimitiveNode", "GetNode", "SetNode") or "eroute" in kind or bool(NOTES.match(kind))


def _only_link(node: dict) -> object:
    return next((slot.get("link") for slot in _dicts(node.get("inputs"))), None)


def _first_value(node: dict) -> object:
    values = node.get("widgets_values")
    return values[0] if isinstance(values, list) and values else None


def _is_place(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
