"""ComfyUI graphs of chosen length, both ways ComfyUI stores one: the API graph (`prompt`) and the editor's (`workflow`).

A graph is what people run. Its core: a checkpoint, LoRAs, two texts, one to three passes of a sampler, a few image steps, a
saved picture. Large ones are not longer chains but have more beside the core: ControlNets, detailers with dozens of widgets,
previews, text utilities, branches for another day, and notes, which stand on the canvas only, as muted branches do. Both texts
are written as ComfyUI writes them, `json.dumps` with its defaults. The canvas is 2.5 to 5 times as long as the API graph: half
of the editors are so new that they list each widget among a node's inputs, too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

# Class, image input, widgets with their names: what stands between decoding and saving.
IMAGE_STEPS = (
    ("ImageUpscaleWithModel", "image", {"upscale_model_name": "4x-UltraSharp.pth"}),
    ("ImageScaleBy", "image", {"upscale_method": "lanczos", "scale_by": 0.5}),
    ("ImageSharpen", "image", {"sharpen_radius": 1, "sigma": 0.5, "alpha": 0.4}),
    ("ImageColorMatch", "image", {"method": "mkl", "strength": 0.8, "multithread": True}),
    ("ImageFilmGrain", "image", {"density": 0.15, "intensity": 0.2, "highlights": 1.0, "supersample_factor": 2}),
    ("ImageAdjustLevels", "images", {"black_level": 3.0, "mid_level": 127.5, "white_level": 250.0, "gamma": 1.0}),
)
MOST_IMAGE_STEPS, MOST_CONTROLS, MOST_DETAILERS = 6, 4, 4  # in a row
LONGEST_BLOCK = 15_000  # characters of both texts
DETAILER = {
    "guide_size": 512.0, "guide_size_for": True, "max_size": 1024.0, "seed": 7, "steps": 20, "cfg": 7.0, "sampler_name": "euler",
    "scheduler": "normal", "denoise": 0.4, "feather": 5, "noise_mask": True, "force_inpaint": True, "bbox_threshold": 0.5,
    "bbox_dilation": 10, "bbox_crop_factor": 3.0, "sam_detection_hint": "center-1", "sam_dilation": 0, "sam_threshold": 0.93,
    "sam_bbox_expansion": 0, "sam_mask_hint_threshold": 0.7, "sam_mask_hint_use_negative": "False", "drop_size": 10,
    "wildcard": "", "cycle": 1, "inpaint_model": False, "noise_mask_feather": 20, "tiled_encode": False, "tiled_decode": False,
}  # fmt: skip
NOTE = "Set the strength to 0.6 for portraits. The upscaler needs 4x-UltraSharp in models/upscale_models. "
MODEL_TYPES = {"samples": "LATENT", "latent_image": "LATENT", "images": "IMAGE", "text": "STRING", "filename_prefix": "STRING"}


def comfyui_texts(
    prompt: str, negative: str, size: tuple[int, int], seed: int, length: int, rng: random.Random
) -> tuple[str, str]:
    """(API graph, editor graph) as JSON texts, of about `length` characters together; never less than a core's.

    Half of them keep the prompt in a text node of its own, behind a link.
    """
    draft = Draft(prompt, negative, size, seed, rng)
    draft.add_core()
    blocks: list[Callable[[], None]] = [
        draft.add_control, draft.add_detailer, draft.add_preview, draft.add_preview, draft.add_texts, draft.add_texts,
        draft.add_branch, draft.add_muted_branch, draft.add_note,
    ]  # fmt: skip
    texts = draft.texts()
    while (missing := length - sum(map(len, texts))) > 1_500:  # half of a block
        for _ in range(1 + missing // LONGEST_BLOCK):
            rng.choice(blocks)()
        texts = draft.texts()
    return texts


class Draft:
    """A graph that grows: the blocks so far, and the places where the next are put in."""

    def __init__(self, prompt: str, negative: str, size: tuple[int, int], seed: int, rng: random.Random) -> None:
        self.is_new = rng.random() < 0.5  # the editor
        self.prompt, self.negative, self.size, self.seed, self.rng = prompt, negative, size, seed, rng
        self.nodes: dict[str, tuple[str, dict]] = {}
        self.muted: set[str] = set()  # on the canvas only
        self.notes: list[str] = []
        self.controls = self.detailers = 0

    def add(self, kind: str, **inputs: object) -> str:
        key = str(len(self.nodes) + 3)
        self.nodes[key] = (kind, inputs)
        return key

    def add_core(self) -> None:
        rng = self.rng
        self.checkpoint = self.add("CheckpointLoaderSimple", ckpt_name="juggernautXL_v9.safetensors")
        model, clip = [self.checkpoint, 0], [self.checkpoint, 1]
        for name in rng.sample(("add-detail-xl", "film-look-xl", "sharp-eyes"), rng.randrange(3)):
            strength = round(rng.uniform(0.2, 1), 2)
            lora = self.add(
                "LoraLoader", lora_name=f"{name}.safetensors", strength_model=strength, strength_clip=strength,
                model=model, clip=clip,
            )  # fmt: skip
            model, clip = [lora, 0], [lora, 1]
        self.model, self.clip = model, clip
        text: object = self.prompt
        if (kind := rng.choice(("", "", "Text Multiline", "PrimitiveStringMultiline"))) != "":
            text = [self.add(kind, **{"text" if kind == "Text Multiline" else "value": self.prompt}), 0]
        self.positive = [self.add("CLIPTextEncode", text=text, clip=clip), 0]
        self.negative_wire = [self.add("CLIPTextEncode", text=self.negative, clip=clip), 0]
        latent = [self.add("EmptyLatentImage", width=self.size[0], height=self.size[1], batch_size=1), 0]
        self.samplers = []
        for number in range(rng.choice((1, 1, 1, 2, 2, 3))):
            if number:
                latent = [self.add("LatentUpscaleBy", samples=latent, upscale_method="nearest-exact", scale_by=1.5), 0]
            self.samplers.append(self._sampler(latent, self.positive, self.negative_wire, 0.45 if number else 1.0))
            latent = [self.samplers[-1], 0]
        self.image = [self.add("VAEDecode", samples=latent, vae=[self.checkpoint, 2]), 0]
        self.first_image = self.image
        for kind, name, widgets in rng.sample(IMAGE_STEPS, rng.randrange(MOST_IMAGE_STEPS + 1)):
            self.image = [self.add(kind, **{name: self.image}, **widgets), 0]
        self.saved = self.add("SaveImage", filename_prefix="ComfyUI", images=self.image)

    def add_control(self) -> None:
        """Between the texts and the first pass."""
        if self.controls >= MOST_CONTROLS:
            return self.add_preview()
        self.controls += 1
        picture = self.add("LoadImage", image=f"pose_{self.controls}.png", upload="image")
        hint = self.add("AIO_Preprocessor", preprocessor="DWPreprocessor", resolution=1024, image=[picture, 0])
        loader = self.add("ControlNetLoader", control_net_name="xinsir-union-sdxl-promax.safetensors")
        control = self.add(
            "ControlNetApplyAdvanced", strength=0.8, start_percent=0.0, end_percent=0.7, positive=self.positive,
            negative=self.negative_wire, control_net=[loader, 0], image=[hint, 0], vae=[self.checkpoint, 2],
        )  # fmt: skip
        self.positive, self.negative_wire = [control, 0], [control, 1]
        self.nodes[self.samplers[0]][1].update(positive=self.positive, negative=self.negative_wire)

    def add_detailer(self) -> None:
        """Between the image steps and the saved picture."""
        if self.detailers >= MOST_DETAILERS:
            return self.add_preview()
        self.detailers += 1
        finder = self.add("UltralyticsDetectorProvider", model_name="bbox/face_yolov8m.pt")
        segments = self.add("SAMLoader", model_name="sam_vit_b_01ec64.pth", device_mode="AUTO")
        detailer = self.add(
            "FaceDetailer", **DETAILER, image=self.image, model=self.model, clip=self.clip, vae=[self.checkpoint, 2],
            positive=self.positive, negative=self.negative_wire, bbox_detector=[finder, 0], sam_model_opt=[segments, 0],
        )  # fmt: skip
        self.image = [detailer, 0]
        self.nodes[self.saved][1]["images"] = self.image

    def add_preview(self) -> None:
        self.add("PreviewImage", images=self.rng.choice((self.first_image, self.image)))

    def add_texts(self) -> None:
        """A file's name put together of parts, and shown."""
        date = self.add("PrimitiveString", value="%date:yyyy-MM-dd%")
        name = self.add("StringConcatenate", string_a=[date, 0], string_b="juggernautXL", delimiter="/")
        short = self.add("StringReplace", string=[name, 0], find=" ", replace="_")
        self.add("ShowText|pysssss", text=[short, 0], text_0="%date:yyyy-MM-dd%/juggernautXL")

    def add_branch(self) -> None:
        """Another model's way to a picture that nothing saves."""
        model = self.add("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="fp8_e4m3fn")
        clip = self.add("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux")
        text = self.add("CLIPTextEncode", text="a portrait of the same person, soft light", clip=[clip, 0])
        none = self.add("CLIPTextEncode", text="", clip=[clip, 0])
        guided = self.add("FluxGuidance", guidance=3.5, conditioning=[text, 0])
        latent = self.add("EmptySD3LatentImage", width=1024, height=1024, batch_size=1)
        sampler = self._sampler([latent, 0], [guided, 0], [none, 0], 1.0, model=[model, 0])
        vae = self.add("VAELoader", vae_name="ae.safetensors")
        self.add("VAEDecode", samples=[sampler, 0], vae=[vae, 0])

    def add_muted_branch(self) -> None:
        before = set(self.nodes)
        self.add_branch()
        self.muted |= self.nodes.keys() - before

    def add_note(self) -> None:
        self.notes.append(NOTE * self.rng.randrange(1, 7))

    def _sampler(self, latent: list, positive: list, negative: list, denoise: float, model: list | None = None) -> str:
        return self.add(
            "KSampler", seed=self.seed, steps=28, cfg=6.5, sampler_name="dpmpp_2m", scheduler="karras", denoise=denoise,
            model=model or self.model, positive=positive, negative=negative, latent_image=latent,
        )  # fmt: skip

    def texts(self) -> tuple[str, str]:
        api = {
            key: {"inputs": inputs, "class_type": kind, "_meta": {"title": _title(kind)}}
            for key, (kind, inputs) in self.nodes.items()
            if key not in self.muted
        }
        return json.dumps(api), json.dumps(self._canvas())

    def _canvas(self) -> dict:
        """The graph as the editor saves it: places and sizes of the boxes, links by number, widgets without names."""
        boxes, links = [], []
        for order, (key, (kind, inputs)) in enumerate(self.nodes.items()):
            slots = []
            for slot, (name, value) in enumerate(inputs.items()):
                entry = {"localized_name": name} if self.is_new else {}
                entry |= {"name": name, "type": _link_type(name)}
                if isinstance(value, list):
                    links.append([len(links) + 1, int(value[0]), value[1], int(key), slot, _link_type(name)])
                    slots.append({**entry, "link": len(links)})
                elif self.is_new:
                    slots.append({**entry, "widget": {"name": name}, "link": None})
            widgets = [value for value in inputs.values() if not isinstance(value, list)]
            boxes.append(_box(int(key), kind, order, 2 if key in self.muted else 0, slots, widgets))
        for number, note in enumerate(self.notes):
            boxes.append(_box(1000 + number, "Note", number, 0, [], [note]))
        return {
            "id": "0b7c63a4-5e0f-4f2b-93b6-6a2f0d3f9a11", "revision": 0, "last_node_id": 999, "last_link_id": len(links),
            "nodes": boxes, "links": links, "groups": [], "config": {},
            "extra": {"ds": {"scale": 0.62, "offset": [812.5, 301.25]}, "frontendVersion": "1.21.7"}, "version": 0.4,
        }  # fmt: skip


def _box(number: int, kind: str, order: int, mode: int, slots: list[dict], widgets: list) -> dict:
    return {
        "id": number, "type": kind, "pos": [-212.5 + 350 * (order // 4), 93.25 + 312 * (order % 4)],
        "size": [315, 98 + 24 * len(slots)], "flags": {}, "order": order, "mode": mode, "inputs": slots,
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "slot_index": 0, "links": []}],
        "properties": {"Node name for S&R": kind}, "widgets_values": widgets,
    }  # fmt: skip


def _link_type(name: str) -> str:
    """The type of what an input takes, which its name tells."""
    return "CONDITIONING" if name in ("positive", "negative") else MODEL_TYPES.get(name, name.upper())


def _title(kind: str) -> str:
    return "".join(f" {letter}" if letter.isupper() else letter for letter in kind).strip()
