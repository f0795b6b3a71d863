"""Finding ComfyUI's graphs in the texts of a file.

ComfyUI stores a graph twice: as `prompt`, what was run, and as `workflow`, what was on the canvas. Savers put them into PNG
chunks, into EXIF tags as "prompt:{...}", into XMP, or both into one JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dpo.metadata.comfycanvas import load_canvas
from dpo.metadata.comfygraph import Graph, load_run
from dpo.metadata.containers import TextField
from dpo.metadata.records import parse_json

LABEL = re.compile(r"\s*(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)
ENVELOPES = ("prompt", "workflow", "extra_pnginfo", "extra_data", "output")
MAX_DEPTH = 3  # of graphs in envelopes


def load_graphs(fields: Sequence[TextField]) -> Iterator[tuple[Graph, str]]:
    """Every graph in the fields and where it was: those that were run before those on the canvas.

    Parsing is most of the work, so a field that is named `workflow` is parsed only when nothing before it was enough.
    """
    canvases = []
    for field in sorted(fields, key=lambda field: _is_canvas_name(field)):
        for data in _graphs_in(field):
            if isinstance(data.get("nodes"), list):
                canvases.append((data, field.where))
            elif graph := load_run(data):
                yield graph, field.where
    for data, where in canvases:
        if graph := load_canvas(data):
            yield graph, where


def _is_canvas_name(field: TextField) -> bool:
    return "workflow" in field.name.lower() or field.text[:20].lower().lstrip().startswith("workflow")


def _graphs_in(field: TextField) -> Iterator[dict]:
    match = LABEL.match(field.text)
    data = parse_json(field.text[match.end() if match else 0 :].rstrip("\0"))
    pending = [(data, 0)]
    while pending:
        data, depth = pending.pop()
        if not isinstance(data, dict):
            continue
        if isinstance(data.get("nodes"), list):
            if isinstance(data.get("links"), list) or "last_node_id" in data:  # InvokeAI's have `edges`
                yield data
            continue
        yield data
        if depth < MAX_DEPTH:
            inner = [data[name] for name in reversed(ENVELOPES) if name in data]
            inner = [parse_json(value) if isinstance(value, str) else value for value in inner]
            pending += [(value, depth + 1) for value in inner if not (isinstance(value, dict) and "class_type" in value)]
