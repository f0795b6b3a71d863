"""ComfyUI: the prompt is not stored, but the graph that made the image is; `comfygraph` loads it, this file interprets it.

The way is backwards: from the nodes that save the image to the first sampler that drew it, and from that sampler's
`positive` input to the texts it was conditioned on. Nodes are known by their inputs, not by their names, because there are
thousands of kinds: whatever takes conditioning and steps is a sampler, whatever has a `text` is a text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

from dpo.metadata.comfygraph import Graph, Node, load_graphs, source_of
from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, to_float, to_int

# Names of inputs. A bundle carries both sides (positive and negative) in one wire, a conditioning carries one.
SIDES = {
    "positive": ("positive", "cond1", "positive_prompt", "text_positive", "prompt_positive"),
    "negative": ("negative", "neg_conditioning", "negative_prompt", "text_negative", "prompt_negative"),
}
BUNDLE = re.compile(r".*pipe$|.*ctx|guider$|text_embeds$|context$")
CONDITIONING = re.compile(r"cond")
TEXT = re.compile(
    r"(text|prompt|user_prompt|prompt_text|string|str|wildcard_text|value|clip_[lgh]|t5xxl|llama|bert|mt5xl)(_?[\da-z])?$",
    re.IGNORECASE,
)
NEGATIVE = re.compile(r".*neg")
SAMPLING = {"steps", "sampler_name", "sigmas", "latent_image"}
NOT_PICTURE = re.compile(r"positive|negative|cond|guider|model|clip|vae|noise|sigmas|sampler$|text|prompt|control_net")
MAX_SAMPLERS = 16  # asked for their texts, and outputs for their samplers: a crafted graph shall not take long
MAX_NODES = 150  # on the way to one text; more is no prompt, and would exhaust Python's stack


def parse(fields: Sequence[TextField]) -> Generation | None:
    """The surest reading of the graphs in the fields; if none tells a prompt, a generation without; None without a graph."""
    graphs = list(load_graphs(fields))
    for read in (_read_samplers, _read_outputs, _read_longest_text):
        for graph, where in graphs:
            if generation := read(graph, where):
                return generation
    return Generation(prompt="", generator="comfyui", where=graphs[0][1]) if graphs else None


def _read_samplers(graph: Graph, where: str) -> Generation | None:
    """The texts of the sampler that first drew what was saved; where it was told nothing, those of any other sampler."""
    outputs = _outputs(graph)[:MAX_SAMPLERS]
    drawn = [_first_pass(graph, sampler) for output in outputs for sampler in _samplers_above(graph, output)]
    candidates = list(dict.fromkeys(drawn + [key for key, node in graph.items() if _is_sampler(node)]))[:MAX_SAMPLERS]
    told = [(key, texts) for key in candidates if (texts := _node_texts(graph, key, "positive"))]
    if not told:
        return None
    sampler, texts = told[0]
    negative = _node_texts(graph, sampler, "negative")
    is_ambiguous = any(key in drawn and other != texts for key, other in told)
    return Generation(
        prompt=_join(texts),
        negative_prompt="" if negative == texts else _join(negative),  # equal: one conditioning (BasicGuider) has no sides
        seed=to_int(_setting(graph, sampler, "seed", "noise_seed")),
        steps=to_int(_setting(graph, sampler, "steps")),
        sampler=str(_setting(graph, sampler, "sampler_name") or ""),
        guidance=to_float(_setting(graph, sampler, "cfg", "guidance")),
        model=str(_setting(graph, sampler, "ckpt_name", "unet_name") or ""),
        generator="comfyui",
        where=where,
        warnings=("Several prompts made images in this graph; the first one's was taken.",) if is_ambiguous else (),
    )


def _read_outputs(graph: Graph, where: str) -> Generation | None:
    """Without a sampler (API nodes, suites of nodes that draw by themselves): the text nearest to an output."""
    if _has_sampler(graph):
        return None  # its texts are not in the graph (written by a language model, say): another text is not the prompt
    wired = [key for key in _outputs(graph) if any(map(source_of, graph[key].inputs.values()))]
    for key in _upstream(graph, wired, skip=NEGATIVE):
        if _has_text(graph[key]) and (prompt := _join(_node_texts(graph, key, "positive"))):
            return Generation(prompt=prompt, generator="comfyui", where=where)
    return None


def _read_longest_text(graph: Graph, where: str) -> Generation | None:
    if _has_sampler(graph):
        return None
    inputs = [item for node in graph.values() for item in node.inputs.items() if TEXT.match(item[0])]
    if prompt := max((value.strip() for _, value in inputs if isinstance(value, str)), key=len, default=""):
        warning = "The graph does not tell which text is the prompt; the longest was taken."
        return Generation(prompt=prompt, generator="comfyui", where=where, warnings=(warning,))
    return None


def _has_text(node: Node) -> bool:
    return any(TEXT.match(name) or name in SIDES["positive"] for name in node.inputs)


# --- which sampler


def _has_sampler(graph: Graph) -> bool:
    return any(_is_sampler(node) for node in graph.values())


def _is_sampler(node: Node) -> bool:
    """By input signature: conditioning comes in by wire, and there is something to sample with."""
    takes_conditioning = any(
        source_of(value) and (name in SIDES["positive"] or CONDITIONING.match(name) or BUNDLE.match(name))
        for name, value in node.inputs.items()
    )
    return takes_conditioning and bool(SAMPLING & node.inputs.keys()) and not node.kind.startswith("Context")


def _outputs(graph: Graph) -> list[str]:
    """Nodes whose results no other node uses, the savers first."""
    used = {source[0] for node in graph.values() for value in node.inputs.values() if (source := source_of(value))}
    return sorted((key for key in graph if key not in used), key=lambda key: "save" not in graph[key].kind.lower())


def _samplers_above(graph: Graph, start: str) -> list[str]:
    """The nearest samplers that the picture of a node was drawn by."""
    return [key for key in _upstream(graph, [start], skip=NOT_PICTURE) if key != start and _is_sampler(graph[key])]


def _first_pass(graph: Graph, sampler: str) -> str:
    """The sampler that began this picture: refiners, upscalers and detailers repaint it with prompts of their own.

    Where several pictures were pasted together, the sampler that merged them: its prompt is the whole scene's.
    """
    passes = [sampler]
    while len(earlier := _samplers_above(graph, passes[-1])) == 1 and earlier[0] not in passes and len(passes) < MAX_SAMPLERS:
        passes += earlier
    return passes[-1]


def _upstream(graph: Graph, start: list[str], skip: re.Pattern | None = None) -> Iterator[str]:
    """Nodes that feed the start, the nearest first. Does not go beyond a sampler, nor over inputs whose names match `skip`."""
    queue, seen = deque(start), set(start)
    while queue:
        key = queue.popleft()
        yield key
        if _is_sampler(graph[key]) and key not in start:
            continue
        for name, value in graph[key].inputs.items():
            source = source_of(value)
            if source and source[0] in graph and source[0] not in seen and not (skip and skip.match(name)):
                seen.add(source[0])
                queue.append(source[0])


# --- which texts. A list of them: empty = nothing was said, [""] = an empty text was


def _node_texts(graph: Graph, key: str, side: str, seen: set | None = None) -> list[str]:
    """The texts that a node's `side` ("positive" or "negative") stands for."""
    inputs = graph[key].inputs
    seen = {key} if seen is None else seen

    def follow(names) -> list[str]:
        return [text for name in names for text in _input_texts(graph, name, inputs[name], side, seen)]

    if "ZeroOut" in graph[key].kind:
        return []
    if names := [name for name in SIDES[side] if name in inputs]:
        return follow(names)
    if names := [name for name, value in inputs.items() if source_of(value) and CONDITIONING.match(name)]:
        return follow(names)  # a node that changes conditioning; a text of its own is a label or a mask's name
    if names := [name for name, value in inputs.items() if source_of(value) and BUNDLE.match(name)]:
        return follow(names)
    if re.search(r"concat|join", graph[key].kind, re.IGNORECASE):
        delimiter = inputs.get("delimiter", inputs.get("separator", ""))
        names = sorted(inputs.keys() - {"delimiter", "separator", "clean_whitespace", "linebreak_addition"})
        parts = [part for part in follow(names) if part]
        return [str(delimiter).replace("\\n", "\n").join(parts)] if parts else []
    if resolved := _text_at_run_time(graph[key]):
        return [resolved]
    if names := [name for name in inputs if TEXT.match(name)]:
        # An encoder with several texts (SDXL, Flux, SD3): mostly equal; else the longest is the sentence, not the tags.
        return sorted(follow(names), key=lambda text: len(text.strip()))[-1:]
    if isinstance(chosen := inputs.get("select"), int) and f"input{chosen}" in inputs:
        return follow([f"input{chosen}"])
    for name, value in inputs.items():
        if (
            source_of(value)
            and not re.match(r"image|pixels|latent|samples|model|clip|vae|mask", name)
            and (texts := follow([name]))
        ):
            return texts
    return []


def _input_texts(graph: Graph, name: str, value: object, side: str, seen: set) -> list[str]:
    if isinstance(value, str):
        return [value]
    source = source_of(value)
    if source is None or source in seen or source[0] not in graph or len(seen) > MAX_NODES:
        return []
    seen.add(source)
    key, slot = source
    return _node_texts(graph, key, side if BUNDLE.match(name) else _side_of_slot(graph[key], slot, side), seen)


def _side_of_slot(node: Node, slot: int, side: str) -> str:
    """Nodes that take both sides (ControlNetApplyAdvanced) give the positive before the negative, and the model, if they
    pass one through (Efficient Loader), before both. Other slots belong to pipes, which keep the side."""
    if all(any(name in node.inputs for name in names) for names in SIDES.values()):
        first = 1 if {"model", "ckpt_name"} & node.inputs.keys() else 0
        if slot - first in (0, 1):
            return ("positive", "negative")[slot - first]
    return side


def _text_at_run_time(node: Node) -> str:
    """What a wildcard, string function or display node held when the image was made, if stored: better than its template."""
    names = ["populated_text", "result", *(["text_0", "text2"] if node.kind.startswith("ShowText") else [])]
    return next((text for name in names if isinstance(text := node.inputs.get(name), str) and text.strip()), "")


def _join(texts: list[str]) -> str:
    """Combined conditionings, as one text."""
    return "\n".join(dict.fromkeys(text.strip() for text in texts if text.strip()))


# --- settings


def _setting(graph: Graph, sampler: str, *names: str) -> object:
    """The value of the first of these inputs on the way up from a sampler, its own before those of nodes behind it."""
    for key in _upstream(graph, [sampler]):
        for name in names:
            value = graph[key].inputs.get(name)
            if (source := source_of(value)) and source[0] in graph:
                value = graph[source[0]].inputs.get("value")
            if isinstance(value, str | int | float):
                return value
    return None
