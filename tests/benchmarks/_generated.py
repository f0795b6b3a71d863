"""Folders of generated images for benchmarks: the containers, texts and sizes that programs write, with known prompts.

Pixels are made once per format and size and written under every file's own texts, so that two thousand files of a megabyte
take seconds. The mix is that of a census of 293 real files from public repositories: of a hundred, 43 by ComfyUI, 18 by A1111
and its forks, 9 by SD.Next, 8 by InvokeAI, 5 by SwarmUI, 3 each by NovelAI and Civitai, 6 by Fooocus and others, 5 with no
metadata; 7 are WebP, 20 JPEG. Graphs have the lengths of real ones (`_graphs.py`). No text is copied from a real image; the
formats are.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.benchmarks._graphs import comfyui_texts
from tests.metadata.files import SIGNATURE, chunk, exif, exif_segment, user_comment

SIZES = ((1024, 1024), (832, 1216), (1216, 832), (768, 1152))
IDAT = 1 << 16  # bytes of pixels in a PNG chunk, as Pillow cuts them: a reader of late texts has to step over each
SUBJECTS = ("lighthouse", "tabby cat", "old fisherman", "glass greenhouse", "mountain village", "red bicycle", "狐の面", "café")
WORDS = (
    "masterpiece, best quality, highly detailed, sharp focus, volumetric light, golden hour, soft shadows, film grain, "
    "35mm photograph, shallow depth of field, oil painting, thick brush strokes, muted palette, morning mist, wet asphalt, "
    "neon reflections, overgrown ruins, cherry blossoms, snow-covered pines, rolling hills, dramatic clouds, rim light, "
    "intricate embroidery, weathered wood, brass details, (blue eyes:1.2), [soft glow:0.6], looking at viewer, from above, "
    "wide angle, close-up, centred composition, symmetrical, 8k uhd, Unreal Engine, concept art, watercolour, ink wash, "
    "art nouveau border, pastel colours, high contrast, low key, backlit, long exposure, starry sky, aurora, rain, fog"
).split(", ")
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, jpeg artifacts, signature, watermark, blurry"
)


class Written(NamedTuple):
    """One file. `prompt` is what a reader must return, or None where there is none."""

    path: Path
    kind: str
    prompt: str | None


class Pixels(NamedTuple):
    """What surrounds the texts of a file, ready to write, for one picture size."""

    size: tuple[int, int]
    png: bytes  # IDAT chunks
    jpeg: bytes  # all after the start marker
    webp: bytes  # one chunk


class Draft(NamedTuple):
    """What one file is to say."""

    prompt: str
    seed: int
    pixels: Pixels
    graph: int  # characters of its graphs, if it has any
    rng: random.Random


def write_folder(folder: Path, files: int, prompts: int, full_size: bool = True) -> list[Written]:
    """Write `files` images of `prompts` different prompts, in folders of a thousand. The same arguments give the same files.

    With `full_size` files have 0.1 to 1.5 MB of pixels and API graphs of 1.5 to 60 KB; without, an eighth of the size in one
    colour and the smallest graph, 1 to 10 KB in all. Images of one prompt have one size.
    """
    rng = random.Random(files)
    texts = list(_prompts(prompts, rng))
    pixels = [make_pixels(size, full_size) for size in SIZES]
    names, shares = [kind.__name__ for kind in KINDS], list(KINDS.values())
    by_name = {kind.__name__: kind for kind in KINDS}
    written = []
    for number in range(files):
        (name,) = rng.choices(names, shares)
        which = rng.randrange(prompts)
        graph = _graph_length(rng) if full_size else 0
        draft = Draft(texts[which], rng.randrange(1 << 32), pixels[which % len(pixels)], graph, rng)
        ending, parts = by_name[name](draft)
        path = folder / f"{number // 1000:03}" / f"{number:06}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(parts))
        written.append(Written(path, name, None if name.startswith("no_metadata") else draft.prompt))
    return written


def make_pixels(size: tuple[int, int], full_size: bool) -> Pixels:
    """Noise of few bits, which packs about as badly as a picture; or one colour, at an eighth of `size`."""
    width, height = size if full_size else (size[0] // 8, size[1] // 8)
    noise = np.random.default_rng(width).integers(96, 104 if full_size else 97, (height, width, 3), np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), noise.reshape(height, -1)], axis=1)
    packed = zlib.compress(rows.tobytes(), 1)
    idat = b"".join(chunk(b"IDAT", packed[start : start + IDAT]) for start in range(0, len(packed), IDAT))
    photo = Image.fromarray((noise - 96) * 30).resize((width // 2, height // 2)).resize((width, height))
    return Pixels((width, height), idat, _encode(photo, "JPEG", quality=92)[2:], _encode(photo, "WEBP", quality=92)[12:])


# --- one function per kind of file: what is said -> (ending, bytes to write). Their shares in a folder stand in KINDS below


def a1111_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(draft, parameters=_infotext(draft, "Version: v1.10.1"))


def forge_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(
        draft, parameters=_infotext(draft, "Diffusion in Low Bits: Automatic, Version: f2.0.1v1.10.1-previous-659-gc055f2d4")
    )


def sdnext_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(draft, parameters=_infotext(draft, "App: SD.Next, Version: 56a8aea, Operations: txt2img"))


def sdnext_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    return _jpeg(draft, user_comment(_infotext(draft, "App: SD.Next, Version: 56a8aea, Operations: txt2img")))


def civitai_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    resources = [{"type": "checkpoint", "modelVersionId": 1759168, "modelName": "Juggernaut XL", "modelVersionName": "Ragnarok"}]
    last = f"Created Date: 2026-01-03T11:22:33.4455667Z, Civitai resources: {json.dumps(resources)}, Civitai metadata: {{}}"
    return _jpeg(draft, user_comment(_infotext(draft, last), "utf-16-be", "<"))


def a1111_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    return _jpeg(draft, user_comment(_infotext(draft, "Version: v1.10.1")))


def forge_webp(draft: Draft) -> tuple[str, list[bytes]]:
    return _webp(draft, user_comment(_infotext(draft, "Version: f2.0.1v1.10.1-previous-659-gc055f2d4")))


def comfyui_png(draft: Draft) -> tuple[str, list[bytes]]:
    prompt, workflow = _graphs(draft)
    return _png(draft, prompt=prompt, workflow=workflow)


def comfyui_webp(draft: Draft) -> tuple[str, list[bytes]]:
    prompt, workflow = _graphs(draft)
    return _webp(draft, exif({0x0110: f"prompt:{prompt}".encode() + b"\0", 0x010F: f"workflow:{workflow}".encode() + b"\0"}))


def swarmui_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(draft, parameters=_swarmui(draft))


def swarmui_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    return _jpeg(draft, user_comment(_swarmui(draft), "utf-16-le", "<"))


def swarmui_webp(draft: Draft) -> tuple[str, list[bytes]]:
    return _webp(draft, user_comment(_swarmui(draft), "utf-16-le", "<"))


def novelai_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(
        draft, Title="NovelAI generated image", Description=draft.prompt, Software="NovelAI",
        Source="NovelAI Diffusion V4.5 4BDE2A90", Generation_time="6.49", Comment=_novelai(draft),
    )  # fmt: skip


def novelai_webp(draft: Draft) -> tuple[str, list[bytes]]:
    texts = {"Comment": _novelai(draft), "Description": draft.prompt, "Software": "NovelAI"}
    return _webp(draft, user_comment(json.dumps(texts), "ascii"))


def invokeai_png(draft: Draft) -> tuple[str, list[bytes]]:
    width, height = draft.pixels.size
    metadata = {
        "generation_mode": "sdxl_txt2img", "positive_prompt": draft.prompt, "negative_prompt": NEGATIVE, "width": width,
        "height": height, "seed": draft.seed, "rand_device": "cpu", "cfg_scale": 7.5, "cfg_rescale_multiplier": 0.0, "steps": 30,
        "scheduler": "euler", "model": {"key": "0b7c", "hash": "blake3:0b", "name": "juggernautXL", "base": "sdxl"},
        "positive_style_prompt": "", "negative_style_prompt": "", "app_version": "5.6.0",
    }  # fmt: skip
    graph = {"id": "graph", "nodes": {f"node_{n}": {**metadata, "id": f"node_{n}", "use_cache": True} for n in range(8)}}
    return _png(draft, invokeai_metadata=json.dumps(metadata), invokeai_graph=json.dumps(graph))


def fooocus_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(draft, parameters=_fooocus(draft), fooocus_scheme="fooocus")


def fooocus_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    return _jpeg(draft, user_comment(_fooocus(draft), "ascii"))


def no_metadata_png(draft: Draft) -> tuple[str, list[bytes]]:
    return _png(draft)


def no_metadata_jpeg(draft: Draft) -> tuple[str, list[bytes]]:
    return _jpeg(draft, exif({0x010F: b"NIKON CORPORATION\0", 0x0110: b"NIKON D7500\0", 0x0131: b"Ver.1.10\0"}))


# Per cent. Where the census has several containers of a generator, in about its proportions.
KINDS: dict[Callable[[Draft], tuple[str, list[bytes]]], int] = {
    a1111_png: 8, forge_png: 4, a1111_jpeg: 4, forge_webp: 2, sdnext_png: 5, sdnext_jpeg: 4, comfyui_png: 40, comfyui_webp: 3,
    swarmui_png: 1, swarmui_jpeg: 3, swarmui_webp: 1, novelai_png: 2, novelai_webp: 1, invokeai_png: 8, civitai_jpeg: 3,
    fooocus_png: 3, fooocus_jpeg: 3, no_metadata_png: 2, no_metadata_jpeg: 3,
}  # fmt: skip


# --- texts


def _prompts(count: int, rng: random.Random) -> Iterator[str]:
    for number in range(count):
        lora = f", <lora:add-detail-xl:{rng.randrange(2, 10) / 10}>" if rng.random() < 0.2 else ""
        words = ", ".join(rng.choices(WORDS, k=rng.randrange(6, 45)))
        yield f"{rng.choice(SUBJECTS)} no {number}, {words}{lora}"


def _infotext(draft: Draft, last: str) -> str:
    width, height = draft.pixels.size
    return (
        f"{draft.prompt}\nNegative prompt: {NEGATIVE}\nSteps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, "
        f"Seed: {draft.seed}, Size: {width}x{height}, Model hash: 45a21ea00a, Model: juggernautXL_v9, Denoising strength: 0.45, "
        f'Hires upscale: 1.5, Hires upscaler: 4x-UltraSharp, Lora hashes: "add-detail-xl: 9c783c8ce46c, film: 0e3e5c1a", {last}'
    )


def _graphs(draft: Draft) -> tuple[str, str]:
    return comfyui_texts(draft.prompt, NEGATIVE, draft.pixels.size, draft.seed, draft.graph, draft.rng)


def _graph_length(rng: random.Random) -> int:
    """Characters of an API graph and its canvas together: 1,500 to 60,000, as many from 1,500 to 9,500 as above, and about
    four times that."""
    return round(1_500 * 40 ** rng.random() * 5)


def _novelai(draft: Draft) -> str:
    width, height = draft.pixels.size
    comment = {
        "prompt": draft.prompt, "steps": 28, "height": height, "width": width, "scale": 5.0, "uncond_scale": 0.0,
        "cfg_rescale": 0.0, "seed": draft.seed, "n_samples": 1, "noise_schedule": "karras", "sampler": "k_euler_ancestral",
        "sm": False, "sm_dyn": False, "uc": NEGATIVE, "request_type": "PromptGenerateRequest", "signed_hash": "aGFzaA==" * 10,
    }  # fmt: skip
    return json.dumps(comment)


def _fooocus(draft: Draft) -> str:
    texts = {
        "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL_v8Rundiffusion", "base_model_hash": "aeb7e9e689",
        "clip_skip": 2, "full_negative_prompt": [NEGATIVE] * 2, "full_prompt": [draft.prompt, f"{draft.prompt}, epic, cinematic"],
        "guidance_scale": 4, "loras": [], "metadata_scheme": "fooocus", "negative_prompt": NEGATIVE, "performance": "Speed",
        "prompt": draft.prompt, "prompt_expansion": f"{draft.prompt}, epic, cinematic", "refiner_model": "None",
        "refiner_switch": 0.5, "resolution": str(draft.pixels.size), "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
        "seed": str(draft.seed), "sharpness": 2, "steps": 30, "styles": "['Fooocus V2']", "vae": "Default (model)",
        "version": "Fooocus v2.5.5",
    }  # fmt: skip
    return json.dumps(texts)


def _swarmui(draft: Draft) -> str:
    width, height = draft.pixels.size
    params = {
        "prompt": draft.prompt, "negativeprompt": NEGATIVE, "model": "juggernautXL_v9", "seed": draft.seed, "steps": 28,
        "cfgscale": 6.5, "aspectratio": "custom", "width": width, "height": height, "sampler": "dpmpp_2m", "scheduler": "karras",
        "automaticvae": True, "swarm_version": "0.9.7.4",
    }  # fmt: skip
    model = {"name": "juggernautXL_v9.safetensors", "param": "model", "hash": "0x22d8cb95b807b0c242576b676a12b07a"}
    extra = {"date": "2026-01-03", "prep_time": "0.02 sec", "generation_time": "6.53 sec"}
    return json.dumps({"sui_image_params": params, "sui_extra_data": extra, "sui_models": [model]}, indent=2, ensure_ascii=False)


# --- containers


def _png(draft: Draft, **texts: str) -> tuple[str, list[bytes]]:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *draft.pixels.size, 8, 2, 0, 0, 0))
    parts = [_png_text(name.replace("_time", " time"), text) for name, text in texts.items()]
    return "png", [SIGNATURE, header, *parts, draft.pixels.png, chunk(b"IEND", b"")]


def _png_text(name: str, text: str) -> bytes:
    """tEXt for what is Latin-1 and iTXt for the rest, as Pillow chooses for the programs that save with it."""
    try:
        return chunk(b"tEXt", name.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", name.encode() + b"\0\0\0\0\0" + text.encode())


def _jpeg(draft: Draft, tiff: bytes) -> tuple[str, list[bytes]]:
    marker, data = exif_segment(tiff)
    segment = struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
    return "jpg", [b"\xff\xd8", segment, draft.pixels.jpeg]


def _webp(draft: Draft, tiff: bytes) -> tuple[str, list[bytes]]:
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in draft.pixels.size)
    head = b"VP8X" + struct.pack("<II", 10, 0b1000) + canvas
    tail = b"EXIF" + struct.pack("<I", len(tiff)) + tiff + b"\0" * (len(tiff) % 2)
    length = 4 + len(head) + len(draft.pixels.webp) + len(tail)
    return "webp", [b"RIFF", struct.pack("<I", length), b"WEBP", head, draft.pixels.webp, tail]


def _encode(picture: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()
