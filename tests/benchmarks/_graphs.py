"""ComfyUI graphs of chosen length, both ways ComfyUI stores one: the API graph (`prompt`) and the editor's (`workflow`).

A graph is what people run: checkpoint, LoRAs, two texts, two passes of a sampler, and as many image steps behind them as the
length asks for. Both are written as ComfyUI writes them, `json.dumps` with its defaults.
"""

from __future__ import annotations

import json
import random

# Class, image input, widgets with their names: what stands between decoding and saving in large graphs.
IMAGE_STEPS = (
    ("ImageUpscaleWithModel", "image", {"tile": 512, "overlap": 32}),
    ("ImageScaleBy", "image", {"upscale_method": "lanczos", "scale_by": 0.5}),
    ("ImageSharpen", "image", {"sharpen_radius": 1, "sigma": 0.5, "alpha": 0.4}),
    ("ImageColorMatch", "image", {"method": "mkl", "strength": 0.8, "multithread": True}),
    ("ImageFilmGrain", "image", {"density": 0.15, "intensity": 0.2, "highlights": 1.0, "supersample_factor": 2}),
    ("ImageAdjustLevels", "images", {"black_level": 3.0, "mid_level": 127.5, "white_level": 250.0, "gamma": 1.0}),
)
BASIC_LENGTH, STEP_LENGTH = 12_500, 1_020  # characters of both texts: of the graph without image steps, and of each step


def comfyui_texts(
    prompt: str, negative: str, size: tuple[int, int], seed: int, length: int, rng: random.Random
) -> tuple[str, str]:
    """(API graph, editor graph) as JSON texts, of about `length` characters together; never less than the basic graph's.

    Half of them keep the prompt in a text node of its own, behind a link.
    """
    nodes = _basic_nodes(prompt, negative, size, seed, linked=rng.random() < 0.5, rng=rng)
    image = ("8", 0)
    for number in range(max(0, (length - BASIC_LENGTH) // STEP_LENGTH)):
        kind, name, widgets = IMAGE_STEPS[number % len(IMAGE_STEPS)]
        nodes[str(100 + number)] = (kind, {name: [*image], **widgets})
        image = (str(100 + number), 0)
    nodes["9"] = ("SaveImage", {"filename_prefix": "ComfyUI", "images": [*image]})
    api = {
        node: {"inputs": inputs, "class_type": kind, "_meta": {"title": _title(kind)}} for node, (kind, inputs) in nodes.items()
    }
    return json.dumps(api), json.dumps(_editor_graph(nodes, rng))


def _basic_nodes(prompt: str, negative: str, size: tuple[int, int], seed: int, linked: bool, rng: random.Random) -> dict:
    text = ["20", 0] if linked else prompt
    sampler = {
        "seed": seed, "steps": 28, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
        "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
    }  # fmt: skip
    nodes = {
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "juggernautXL_v9.safetensors"}),
        "10": ("LoraLoader", _lora("add-detail-xl.safetensors", "4", rng)),
        "11": ("LoraLoader", _lora("film-look-xl.safetensors", "10", rng)),
        "5": ("EmptyLatentImage", {"width": size[0], "height": size[1], "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": text, "clip": ["11", 1]}),
        "7": ("CLIPTextEncode", {"text": negative, "clip": ["11", 1]}),
        "3": ("KSampler", sampler),
        "12": ("LatentUpscaleBy", {"upscale_method": "nearest-exact", "scale_by": 1.5, "samples": ["3", 0]}),
        "13": ("KSampler", {**sampler, "denoise": 0.45, "latent_image": ["12", 0]}),
        "8": ("VAEDecode", {"samples": ["13", 0], "vae": ["4", 2]}),
    }
    return nodes | ({"20": ("PrimitiveStringMultiline", {"value": prompt})} if linked else {})


def _lora(name: str, source: str, rng: random.Random) -> dict:
    strength = round(rng.uniform(0.2, 1), 2)
    return {
        "lora_name": name, "strength_model": strength, "strength_clip": strength,
        "model": [source, 0], "clip": [source, 1],
    }  # fmt: skip


def _editor_graph(nodes: dict[str, tuple[str, dict]], rng: random.Random) -> dict:
    """The graph as the editor saves it: places and sizes of the boxes, links by number, widgets without names."""
    boxes, links = [], []
    for order, (node, (kind, inputs)) in enumerate(nodes.items()):
        slots = []
        for slot, (name, value) in enumerate(inputs.items()):
            entry = {"localized_name": name, "name": name, "type": _link_type(name)}
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(node), slot, _link_type(name)])
                slots.append({**entry, "link": len(links)})
            else:
                slots.append({**entry, "widget": {"name": name}, "link": None})
        boxes.append(
            {
                "id": int(node),
                "type": kind,
                "pos": [rng.uniform(-900, 4000), rng.uniform(-900, 2000)],
                "size": [315, 98 + 24 * len(inputs)],
                "flags": {},
                "order": order,
                "mode": 0,
                "inputs": slots,
                "outputs": [{"localized_name": "IMAGE", "name": "IMAGE", "type": "IMAGE", "slot_index": 0, "links": []}],
                "properties": {"cnr_id": "comfy-core", "ver": "0.3.40", "Node name for S&R": kind},
                "widgets_values": [value for value in inputs.values() if not isinstance(value, list)],
            }
        )
    return {
        "id": "0b7c63a4-5e0f-4f2b-93b6-6a2f0d3f9a11", "revision": 0, "last_node_id": 999, "last_link_id": len(links),
        "nodes": boxes, "links": links, "groups": [], "config": {},
        "extra": {"ds": {"scale": 0.62, "offset": [812.5, 301.25]}, "frontendVersion": "1.21.7"}, "version": 0.4,
    }  # fmt: skip


def _link_type(name: str) -> str:
    """The type of what an input takes, which its name tells."""
    if name in ("positive", "negative"):
        return "CONDITIONING"
    known = {"samples": "LATENT", "latent_image": "LATENT", "images": "IMAGE", "text": "STRING"}
    return known.get(name, name.upper())


def _title(kind: str) -> str:
    return "".join(f" {letter}" if letter.isupper() else letter for letter in kind).strip()
