"""Checkpoint files of which only the header is true: a few of a family's tensors, under the names that loaders look for, in the
shapes that follow from the model's published settings. Written by hand; the weights are a hole in the file."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

from dpo.checkpoint_header import GGUF_TYPES

D = "model.diffusion_model."
BITS = {"F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8}

_UNET = {
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "time_embed.0.weight": (1280, 320),
    "out.2.weight": (4, 320, 3, 3),
}
_SD1_UNET = _UNET | {
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
}
_SD2_UNET = _UNET | {
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
}
_SDXL_UNET = _UNET | {
    "label_emb.0.0.weight": (1280, 2816),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
}
_REFINER_UNET = _UNET | {
    "label_emb.0.0.weight": (1536, 2560),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280),
}
_CLIP_L = {
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
_OPEN_CLIP = {
    "cond_stage_model.model.token_embedding.weight": (49408, 1024),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
_SDXL_TEXT = {
    "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
    "conditioner.embedders.1.model.positional_embedding": (77, 1280),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
_REFINER_TEXT = {
    "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}


def _prefixed(tensors: dict) -> dict:
    return {f"{D}{name}": shape for name, shape in tensors.items()}


_FLUX = {
    "img_in.weight": (3072, 64),
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    "single_blocks.0.linear1.weight": (21504, 3072),
}
_GUIDANCE = {"guidance_in.in_layer.weight": (3072, 256), "guidance_in.in_layer.bias": (3072,)}
_SD3 = {
    "joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,),
    "joint_blocks.0.x_block.mlp.fc1.weight": (6144, 1536),
}
_Z_IMAGE = {
    "layers.0.adaLN_modulation.0.weight": (15360, 256),
    "layers.0.attention.qkv.weight": (11520, 3840),
    "cap_embedder.0.weight": (2560,),
    "x_embedder.weight": (3840, 64),
}

# name -> tensors. The second table is of those that are refused.
FILES: dict[str, dict[str, tuple[int, ...]]] = {
    "sd1": _prefixed(_SD1_UNET) | _CLIP_L,
    "sd1_unet": _prefixed(_SD1_UNET),
    "sd2": _prefixed(_SD2_UNET) | _OPEN_CLIP,
    "sdxl": _prefixed(_SDXL_UNET) | _SDXL_TEXT,
    "sdxl_unet": _prefixed(_SDXL_UNET),
    "sd3": _prefixed(_SD3 | {"pos_embed": (1, 36864, 1536)}),
    "sd35_medium": _prefixed(_SD3 | {"pos_embed": (1, 147456, 1536), "joint_blocks.0.x_block.attn2.qkv.weight": (4608, 1536)}),
    "sd35_large": {
        "joint_blocks.0.context_block.adaLN_modulation.1.bias": (14592,),
        "joint_blocks.37.x_block.mlp.fc1.weight": (9728, 2432),
        "pos_embed": (1, 36864, 2432),
    },
    "flux_dev": _FLUX | _GUIDANCE,
    "flux_dev_comfy": _prefixed(_FLUX | _GUIDANCE) | {"vae.decoder.conv_in.weight": (512, 16, 3, 3)},
    "flux_schnell": _FLUX,
    "chroma": _FLUX | {"distilled_guidance_layer.in_proj.bias": (5120,)},
    "flux2_dev": {
        "single_stream_modulation.lin.weight": (18432, 6144),
        "img_in.weight": (6144, 128),
        "guidance_in.in_layer.weight": (6144, 256),
    },
    "flux2_klein_4b": {"single_stream_modulation.lin.weight": (9216, 3072), "img_in.weight": (3072, 128)},
    "flux2_klein_9b": {"single_stream_modulation.lin.weight": (12288, 4096), "img_in.weight": (4096, 128)},
    "z_image": _Z_IMAGE,
    "z_image_comfy": _prefixed(_Z_IMAGE),
    "qwen_image": {
        "img_in.weight": (3072, 64),
        "txt_norm.weight": (3584,),
        "transformer_blocks.0.attn.to_q.weight": (3072, 3072),
        "transformer_blocks.0.attn.add_q_proj.weight": (3072, 3072),
    },
    "sana": {
        "blocks.0.cross_attn.q_linear.weight": (2240, 2240),
        "blocks.0.cross_attn.q_linear.bias": (2240,),
        "blocks.0.cross_attn.kv_linear.weight": (4480, 2240),
        "blocks.0.cross_attn.kv_linear.bias": (4480,),
        "attention_y_norm.weight": (2240,),
        "y_embedder.y_proj.fc1.weight": (2240, 2304),
        "blocks.0.mlp.inverted_conv.conv.weight": (11200, 2240, 1, 1),
    },
    "lumina2": {
        "cap_embedder.0.weight": (2304,),
        "layers.0.adaLN_modulation.1.weight": (9216, 1024),
        "layers.0.attention.qkv.weight": (3840, 2304),
        "x_embedder.weight": (2304, 64),
    },
}
REFUSED: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "refiner": (_prefixed(_REFINER_UNET) | _REFINER_TEXT, "is the refiner of Stable Diffusion XL"),
    "inpainting": (_prefixed(_SD1_UNET | {"input_blocks.0.0.weight": (320, 9, 3, 3)}) | _CLIP_L, "is an inpainting model"),
    "sdxl_inpainting": (
        _prefixed(_SDXL_UNET | {"input_blocks.0.0.weight": (320, 9, 3, 3)}) | _SDXL_TEXT, "is an inpainting model",
    ),
    "pix2pix": (_prefixed(_SD1_UNET | {"input_blocks.0.0.weight": (320, 8, 3, 3)}) | _CLIP_L, "edits images"),
    "flux_fill": (_FLUX | _GUIDANCE | {"img_in.weight": (3072, 384)}, "is a FLUX.1 that also takes a picture"),
    "playground": (_prefixed(_SDXL_UNET) | _SDXL_TEXT | {"edm_mean": (1, 4, 1, 1)}, "holds Playground 2.5"),
    "controlnet": ({"control_model.time_embed.0.weight": (1280, 320)}, "holds a ControlNet"),
    "wan": ({"head.modulation": (1, 2, 1536), "patch_embedding.weight": (1536, 16, 1, 2, 2)}, "holds Wan"),
    "vae": ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}, "holds a VAE alone"),
    "pixart": (
        {"blocks.0.cross_attn.q_linear.weight": (1152, 1152), "y_embedder.y_proj.fc1.weight": (1152, 4096)},
        "holds PixArt as its authors store it, which diffusers does not read. Choose a diffusers folder",
    ),
    "part": (
        {"transformer_blocks.0.attn.to_q.weight": (3072, 3072), "x_embedder.weight": (3072, 64)},
        "is one part of a diffusers folder. Choose the folder it belongs to",
    ),
    "lora": ({"lora_unet_down_blocks_0.lora_down.weight": (16, 320)}, "is a LoRA, an adapter and no model. Choose the model it"),
    "lora_peft": ({"transformer.layers.0.to_q.lora_A.weight": (16, 320)}, "is a LoRA, an adapter and no model"),
    "lokr": ({"lycoris_layers_0.lokr_w1": (16, 32)}, "is a LoRA, an adapter and no model"),
    "scaled_fp8": (_FLUX | {"scaled_fp8": (2,)}, "is stored with scales beside its weights"),
    "bnb": (_FLUX | {"img_in.weight.absmax": (48,)}, "was quantised by another program"),
    "unknown": ({"a.weight": (2, 2), "b.weight": (2, 2)}, "holds no model known here: 2 tensors, the first of them a.weight"),
    "empty": ({}, "holds no model known here: 0 tensors, the first of them nothing"),
}  # fmt: skip


def write_safetensors(
    path: Path, tensors: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None, dtype: str = "F16"
) -> Path:
    entries, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, shape in tensors.items():
        size = prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return write_raw(path, json.dumps(entries).encode(), end)


def write_raw(path: Path, header: bytes, size: int, length: int | None = None) -> Path:
    """length: what the file says of its header's length, if it lies."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header) if length is None else length) + header)
        file.truncate(8 + len(header) + size)
    return path


def write_gguf(path: Path, tensors: dict[str, tuple[int, tuple[int, ...]]], settings: bytes = b"", num_settings: int = 0) -> Path:
    """tensors: name -> (number of its type, shape as torch counts). The weights are a hole of a GiB."""
    parts, place = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), num_settings), settings], 0
    for name, (kind, shape) in tensors.items():
        parts += [struct.pack("<Q", len(name)), name.encode(), struct.pack("<I", len(shape))]
        parts += [struct.pack("<Q", side) for side in reversed(shape)] + [struct.pack("<IQ", kind, place)]
        _, values, length = GGUF_TYPES[kind]
        place += -(-prod(shape) // values * length // 32) * 32
    with path.open("wb") as file:
        file.write(b"".join(parts))
        file.truncate(1 << 30)
    return path
