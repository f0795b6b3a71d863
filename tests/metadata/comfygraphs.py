"""Small ComfyUI graphs for tests: as run (`graph`, whose nodes a test replaces) and as on the canvas (`drawn`, `workflow`)."""

import json

from dpo.metadata.comfyui import parse
from dpo.metadata.containers import TextField


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def ksampler(**inputs) -> dict:
    usual = dict(model=["model", 0], positive=["cat", 0], negative=["dog", 0], latent_image=["empty", 0])
    settings = dict(seed=42, steps=20, cfg=7.5, sampler_name="euler", scheduler="normal", denoise=1)
    return node("KSampler", **settings | usual | inputs)


def graph(**nodes) -> dict:
    usual = {
        "model": node("CheckpointLoaderSimple", ckpt_name="some.safetensors"),
        "cat": node("CLIPTextEncode", text="a cat", clip=["model", 1]),
        "dog": node("CLIPTextEncode", text="a dog", clip=["model", 1]),
        "empty": node("EmptyLatentImage", width=64, height=64),
        "sampler": ksampler(),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="a long prefix that is no prompt"),
    }
    return {key: value for key, value in (usual | nodes).items() if value}


def read(prompt=None, workflow=None):
    texts = {"prompt": prompt, "workflow": workflow}
    return parse([TextField(name, json.dumps(value), f"PNG {name}") for name, value in texts.items() if value is not None])


def prompt_of(**nodes) -> str:
    return read(graph(**nodes)).prompt


def encoded(text: str) -> dict:
    return node("CLIPTextEncode", text=text, clip=["model", 1])


def drawn(key, kind: str, inputs=(), outputs=(), widgets=(), mode: int = 0, **more) -> dict:
    """A node on the canvas. Each input is (name, type, link) or (name, type, link, name of its widget)."""
    slots = [{"name": name, "type": kind, "link": link} for name, kind, link, *_ in inputs]
    for slot, (_, _, _, *widget) in zip(slots, inputs, strict=True):
        slot |= {"widget": {"name": widget[0]}} if widget else {}
    types = [{"name": kind, "type": kind} for kind in outputs]
    values = widgets if isinstance(widgets, dict) else list(widgets)
    return {"id": key, "type": kind, "inputs": slots, "outputs": types, "widgets_values": values, "mode": mode, **more}


def workflow(*nodes: dict, links=(), **more) -> dict:
    """A canvas. A link is (id, from node, from slot, to node, to slot)."""
    return {"nodes": list(nodes), "links": [[*link, "X"] for link in links], **more}


def canvas(mode: int = 0) -> dict:
    """What the canvas stores for two passes; the second one has `mode` (2 = muted, 4 = bypassed)."""
    sampler = [("model", "MODEL", 1), ("positive", "CONDITIONING", 2), ("negative", "CONDITIONING", 3)]
    second = [("model", "MODEL", 1), ("positive", "CONDITIONING", 3), ("negative", "CONDITIONING", 3)]
    settings = [42, "randomize", 20, 7.5, "euler", "normal", 1]
    nodes = [
        drawn(1, "CheckpointLoaderSimple", outputs=["MODEL"], widgets=["some.safetensors"]),
        drawn(2, "CLIPTextEncode", outputs=["CONDITIONING"], widgets=["a cat /* my\nnote */"]),
        drawn(3, "CLIPTextEncode", outputs=["CONDITIONING"], widgets=["a dog // and so on"]),
        drawn(4, "KSampler", [*sampler, ("latent_image", "LATENT", None)], ["LATENT"], settings),
        drawn(5, "KSampler", [*second, ("latent_image", "LATENT", 4)], ["LATENT"], [7, *settings[1:]], mode),
        drawn(6, "SaveImage", [("images", "IMAGE", 5)], widgets=["prefix"]),
    ]
    return workflow(*nodes, links=[(i, i, 0, 9, 0) for i in range(1, 6)])
