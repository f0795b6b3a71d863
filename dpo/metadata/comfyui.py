"""ComfyUI: the prompt is not stored, but the graph that made the image is; this file decides what the graph says.

The way is backwards: from the nodes that save the image to the first sampler that drew it, and from that sampler's `positive`
input to the texts it was conditioned on.

    comfyfields.py    fields -> graphs
    comfygraph.py     what was run as a graph (reroutes and switches dissolved)
    comfycanvas.py    the canvas as such a graph (subgraphs, bypassed nodes)   comfywidgets.py   names of its widgets
    comfynames.py     what the names of inputs and nodes say
    comfywalk.py      which node feeds which, which one samples
    comfytext.py      which words a node stands for                            comfystring.py    what text nodes do
    comfysettings.py  seed, steps, model, LoRAs
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo.metadata.comfyfields import load_graphs
from dpo.metadata.comfygraph import Graph
from dpo.metadata.comfynames import NEGATIVE, POSITIVE, TEXT, role_of
from dpo.metadata.comfysettings import settings_of
from dpo.metadata.comfytext import REWRITTEN, Reader, Words, merged
from dpo.metadata.comfywalk import MAX_PASSES, Walk, output_rank
from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation

COMPETING = "Several prompts made images in this graph; the first one's was taken."
LONGEST = "The graph does not tell which text is the prompt; the longest was taken."
ELSEWHERE = "The sampler that drew this image has no text of its own; another one's was taken."
PLACEHOLDERS = {"", "unknown", "none"}


def parse(fields: Sequence[TextField]) -> Generation | None:
    """The surest reading of the graphs in the fields; if none tells a prompt, a generation without; None without a graph."""
    best, surest = None, -1.0
    for graph, where in load_graphs(fields):
        rank, generation = read_graph(Walk(graph), where)
        if rank > surest:
            best, surest = generation, rank
        if surest in (2, 3):
            break
    return best


def read_graph(walk: Walk, where: str) -> tuple[float, Generation]:
    """(rank, reading): 3 = a sampler's texts, 2 = a node's that draws by itself, 1 = the longest text, 0 = no prompt. Half a rank
    less where those were not the words that drew: the canvas may have been told them later."""
    reader = Reader(walk)
    for rank, read in ((3, _read_samplers), (2, _read_outputs), (1, _read_longest_text)):
        if generation := read(walk, reader, where):
            return rank - (0.5 if REWRITTEN in generation.warnings else 0), generation
    return 0, Generation(prompt="", generator="comfyui", where=where)


def _read_samplers(walk: Walk, reader: Reader, where: str) -> Generation | None:
    """The texts of the sampler that first drew what was saved; where it was told nothing, those of any other sampler."""
    if not walk.samplers:
        return None
    drawn = _drawn(walk)
    told = {key: merged(found) for key in drawn if (found := reader.words(key, POSITIVE))}
    if not any(words.text for words in told.values()):
        others = [key for key in walk.samplers if key not in drawn][: 2 * MAX_PASSES - len(drawn)]
        told |= {key: merged(found) for key in others if (found := reader.words(key, POSITIVE))}
    if not told:
        return None
    sampler = next((key for key in told if told[key].text), next(iter(told)))
    words = told[sampler]
    negative = merged(reader.words(sampler, NEGATIVE)).text
    rivals = [told[key].text for key in drawn if key in told and told[key].text not in (words.text, "")]
    warnings = [COMPETING] if rivals else []
    if drawn and sampler not in drawn and any(told[key].text not in (words.text, "") for key in told):
        warnings.append(ELSEWHERE)
        rivals += [told[key].text for key in told if told[key].text not in (words.text, "")]
    return Generation(
        prompt=words.text,
        negative_prompt="" if negative == words.text else negative,  # equal: one conditioning (BasicGuider) has no sides
        where=where,
        **settings_of(walk, sampler, (words.text,)),
        **_sureness(words, rivals, warnings),
    )


def _drawn(walk: Walk) -> list[str]:
    """The samplers that began the pictures that were saved, or shown: at most 2 * MAX_PASSES."""
    if len(walk.samplers) == 1:
        return walk.samplers  # nothing to choose from
    drawing = []
    for output in walk.outputs()[:MAX_PASSES]:
        drawing += [output] if walk.is_sampler(output) else walk.samplers_above(output)
    return list(dict.fromkeys(map(walk.first_pass, drawing[: 2 * MAX_PASSES])))


def _read_outputs(walk: Walk, reader: Reader, where: str) -> Generation | None:
    """Without a sampler (API nodes, suites of nodes that draw by themselves): the text nearest to an output."""
    if walk.samplers:
        return None  # its texts are not in the graph (written by a language model, say): another text is not the prompt
    wired = [key for key in walk.outputs() if walk.wires[key]]
    wired = [key for key in wired if output_rank(walk.graph[key].kind) < 2] or wired
    found: dict[str, Words] = {}
    first = ""
    for key in walk.upstream(wired, NEGATIVE):
        if any(role_of(name) & (TEXT | POSITIVE) for name in walk.graph[key].inputs):
            words = merged(reader.words(key, POSITIVE))
            if words.text not in PLACEHOLDERS:
                first = first or key
                found.setdefault(words.text, words)
    if not found:
        return None
    words, *rivals = found.values()
    negative = merged(reader.words(first, NEGATIVE)).text if _has_negative(walk.graph, first) else ""
    return Generation(
        prompt=words.text,
        negative_prompt=negative,
        where=where,
        **settings_of(walk, first, (words.text,)),
        **_sureness(words, [rival.text for rival in rivals if rival.text not in words.text], []),
    )


def _read_longest_text(walk: Walk, reader: Reader, where: str) -> Generation | None:
    if walk.samplers:
        return None
    inputs = [item for node in walk.graph.values() for item in node.inputs.items() if role_of(item[0]) & TEXT]
    prompt = max((value.strip() for _, value in inputs if isinstance(value, str)), key=len, default="")
    if prompt not in PLACEHOLDERS:
        return Generation(prompt=prompt, where=where, **_sureness(Words(prompt), [], [LONGEST]))
    return None


def _has_negative(graph: Graph, key: str) -> bool:
    return any(role_of(name) & NEGATIVE for name in graph[key].inputs)


def _sureness(words: Words, rivals: list[str], warnings: list[str]) -> dict:
    warnings = warnings + [words.doubt] * bool(words.doubt)
    return {
        "generator": "comfyui",
        "alternatives": tuple(dict.fromkeys([*words.others, *rivals])),
        "certainty": "guess" if warnings or rivals else "derived",
        "warnings": tuple(warnings),
    }
