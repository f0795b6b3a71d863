"""InvokeAI, in PNG texts: version 3 and later `invokeai_metadata` and `invokeai_graph`; before, `sd-metadata` and `Dream`.

`Dream` is a command line, the prompt quoted or not: `"a cat" -s 50 -S 42 -W 512 -H 512 -C 7.5 -A k_lms`, in version 1
`-s50 -S42`; one that starts with "!" tells of a change to an image and has no prompt. Prompts stay as they were typed, blends
("cat:0.5 dog:0.5") and negatives in brackets ("a cat [blurry]") included. A JPEG made of such a PNG has the texts as comments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, Lora, parse_json, to_float, to_int, to_size, to_text

TEXTS = ("invokeai_metadata", "invokeai", "sd-metadata", "Dream", "invokeai_graph", "invokeai_workflow")
QUOTED = re.compile(r'"((?:\\.|[^\\])*?)"(?=\s+--?[A-Za-z]|\s*$)', re.DOTALL)
STEPS = re.compile(r"\s-s ?\d")  # the switch that no command goes without
SWITCH = re.compile(r"\s-([sSWHCA]) ?([\w.]+)")
TEXT_KEYS = ("prompt", "value", "string", "text")
MAX_NODES = 1000  # visited on the way to a prompt


def parse(fields: Sequence[TextField]) -> Generation | None:
    found = {}
    for field in fields:
        for name in TEXTS:
            if field.name == name:
                found.setdefault(name, (field.text, field.where))
            elif field.name == "comment" and field.text.startswith(name + ":"):
                found.setdefault(name, (field.text[len(name) + 1 :].strip(), field.where))
    if not found:
        return None
    places = {name: where for name, (_, where) in found.items()}

    def data_of(name: str) -> dict:  # parsed when asked for: a graph is long, and the last resort
        data = parse_json(found[name][0]) if name in found else None
        return data if isinstance(data, dict) else {}

    for name in ("invokeai_metadata", "invokeai"):
        if (data := data_of(name)) and (generation := _read_metadata(data, places[name])).prompt:
            return generation
    dream = found["Dream"][0].strip() if "Dream" in found else ""
    if (data := data_of("sd-metadata")) and (generation := _read_sd_metadata(data, dream, places["sd-metadata"])).prompt:
        return generation
    if dream:
        return _read_dream(dream, places["Dream"])
    graph = data_of("invokeai_graph")
    return Generation(
        prompt=_prompt_of_graph(graph), generator="invokeai", where=next(iter(places.values())), certainty="derived"
    )


def _read_metadata(data: dict, where: str) -> Generation:
    prompt = to_text(data.get("positive_prompt")) or to_text(data.get("positive_conditioning"))
    style = to_text(data.get("positive_style_prompt"))  # SDXL: what its second encoder was told
    model = data.get("model")
    loras = data.get("loras")
    loras = [lora for lora in loras if isinstance(lora, dict)] if isinstance(loras, list) else []
    return Generation(
        prompt=prompt or style,
        negative_prompt=to_text(data.get("negative_prompt")) or to_text(data.get("negative_conditioning")),
        alternatives=(style,) if prompt and style not in ("", prompt) else (),
        seed=to_int(data.get("seed")),
        steps=to_int(data.get("steps")),
        sampler=to_text(data.get("scheduler")),
        guidance=to_float(data.get("cfg_scale", data.get("guidance"))),
        model=_model_name(model),
        loras=tuple(
            Lora(name, to_float(lora.get("weight")))
            for lora in loras
            if (name := _model_name(lora.get("model") or lora.get("lora")))
        ),
        written_size=to_size((data.get("width"), data.get("height"))),
        generator="invokeai",
        where=where,
    )


def _model_name(model: object) -> str:
    if isinstance(model, dict):
        return to_text(model.get("name")) or to_text(model.get("model_name"))
    return to_text(model)


def _read_sd_metadata(data: dict, dream: str, where: str) -> Generation:
    images = data.get("images")
    image = data.get("image") or (images[0] if isinstance(images, list) and images else None)
    image = image if isinstance(image, dict) else {}
    prompts = image.get("prompt")
    if isinstance(prompts, list):
        parts = [part for part in prompts if isinstance(part, dict) and to_text(part.get("prompt"))]
        prompt = to_text(parts[0]["prompt"]) if parts else ""
        if len(parts) > 1:  # a blend: its weights add up to 1 here; the command line has them as they were typed
            prompt = _prompt_of_dream(dream) or " ".join(f"{to_text(part['prompt'])}:{part.get('weight')}" for part in parts)
    else:
        prompt = to_text(prompts)
    return Generation(
        prompt=prompt,
        seed=to_int(image.get("seed")),
        steps=to_int(image.get("steps")),
        sampler=to_text(image.get("sampler")),
        guidance=to_float(image.get("cfg_scale")),
        model=to_text(data.get("model_weights")) or to_text(data.get("model_id")) or to_text(data.get("model")),
        written_size=to_size((image.get("width"), image.get("height"))),
        generator="invokeai",
        where=where,
    )


def _read_dream(dream: str, where: str) -> Generation:
    prompt = _prompt_of_dream(dream)
    switches = dict(SWITCH.findall(dream, len(prompt)))
    return Generation(
        prompt=prompt,
        seed=to_int(switches.get("S")),
        steps=to_int(switches.get("s")),
        sampler=switches.get("A", ""),
        guidance=to_float(switches.get("C")),
        written_size=to_size((switches.get("W"), switches.get("H"))),
        generator="invokeai",
        where=where,
    )


def _prompt_of_dream(dream: str) -> str:
    if dream.startswith("!"):
        return ""
    if match := QUOTED.match(dream):
        return match[1].replace('\\"', '"').strip()
    return STEPS.split(dream, maxsplit=1)[0].strip()


def _prompt_of_graph(graph: dict) -> str:
    """The text that reaches an input `positive_conditioning`: upstream, the first node that has one."""
    nodes, edges = graph.get("nodes"), graph.get("edges")
    if not isinstance(nodes, dict) or not isinstance(edges, list):
        return ""
    wires = [(_end(edge, "source"), _end(edge, "destination")) for edge in edges]
    pending = [source for source, (_, name) in wires if name in ("positive_conditioning", "positive_text_conditioning")]
    seen = set()
    while pending and len(seen) < MAX_NODES:
        key, _ = pending.pop(0)
        if key in seen or not isinstance(node := nodes.get(key), dict):
            continue
        seen.add(key)
        for name in TEXT_KEYS:
            if prompt := to_text(node.get(name)):
                return prompt
        pending += [source for source, (target, name) in wires if target == key and name in (*TEXT_KEYS, "item", "collection")]
    return ""


def _end(edge: object, side: str) -> tuple[str, str]:
    end = edge.get(side) if isinstance(edge, dict) else None
    return (str(end.get("node_id")), str(end.get("field"))) if isinstance(end, dict) else ("", "")
