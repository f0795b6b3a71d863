"""Adapters that other programs made, as starting adapters: in the forms people find them, with their rank and strength kept.

Each file is written here by hand in that form, from known factors; what it does to every layer is compared with what they say.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from dpo.adapters import POLICY, attach_adapter
from dpo.families import load_family
from dpo.formats.factors import factors
from tests.families import families
from tests.families.checks import settings

TINIES = {type(tiny.build()).__name__: tiny for tiny in reversed(families())}
RANK, ALPHA = 2, 6.0
FLUX, FUSED = "transformer_blocks.0", ("to_q", "to_k", "to_v")


def factor(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def kohya_sd(path, width):
    """sd-scripts: up and down of each layer, and its alpha."""
    name, layer = (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    )
    down, up = factor(RANK, width, 1), factor(width, RANK, 2)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}, path)
    return {layer: ALPHA / RANK * up @ down}


def kohya_sd_uneven(path, width):
    """As LoRA extraction makes them: every layer has a rank and an alpha of its own."""
    block = "mid_block.attentions.0.transformer_blocks.0.attn1"
    tensors, expected = {}, {}
    for index, (part, rank, alpha) in enumerate((("to_q", 2, 6.0), ("to_k", 3, 1.0), ("to_out.0", 1, 1.0))):
        name = f"lora_unet_{block}.{part}".replace(".", "_")
        down, up = factor(rank, width, index), factor(width, rank, 9 + index)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
        expected[f"{block}.{part}"] = alpha / rank * up @ down
    save_file(tensors, path)
    return expected


def kohya_flux(path, width):
    """sd-scripts, networks/lora_flux.py: q, k and v as one layer, here of one shared rank."""
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    down, up = factor(RANK, width, 1), factor(3 * width, RANK, 2)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}, path)
    return {f"{FLUX}.attn.{part}": ALPHA / RANK * rows @ down for part, rows in zip(FUSED, up.chunk(3), strict=True)}


def kohya_flux_split(path, width):
    """The same with a rank for each of the three ("split_qkv"): along the diagonal, and alpha three times as large."""
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    downs, ups = [factor(RANK, width, seed) for seed in (1, 2, 3)], [factor(width, RANK, seed) for seed in (4, 5, 6)]
    tensors = {f"{name}.lora_down.weight": torch.cat(downs), f"{name}.lora_up.weight": torch.block_diag(*ups)}
    save_file(tensors | {f"{name}.alpha": torch.tensor(3 * ALPHA)}, path)
    return {f"{FLUX}.attn.{part}": ALPHA / RANK * up @ down for part, up, down in zip(FUSED, ups, downs, strict=True)}


def xlabs_flux(path, width):
    """XLabs-AI/x-flux: processors of attention; no alpha."""
    name = "double_blocks.0.processor.qkv_lora1"
    down, up = factor(RANK, width, 1), factor(3 * width, RANK, 2)
    save_file({f"{name}.down.weight": down, f"{name}.up.weight": up}, path)
    return {f"{FLUX}.attn.{part}": rows @ down for part, rows in zip(FUSED, up.chunk(3), strict=True)}


def comfyui_flux(path, width):
    """diffusers' names with an alpha beside them, as ComfyUI reads and several trainers write them."""
    name = f"{FLUX}.attn.to_q"
    down, up = factor(RANK, width, 1), factor(width, RANK, 2)
    tensors = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_file(tensors | {f"transformer.{name}.alpha": torch.tensor(ALPHA)}, path)
    return {name: ALPHA / RANK * up @ down}


def comfyui_z_image(path, width):
    """ai-toolkit: ComfyUI's prefix."""
    name = "layers.0.attention.to_q"
    down, up = factor(RANK, width, 1), factor(width, RANK, 2)
    save_file({f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}, path)
    return {name: up @ down}


def diffusers_qwen(path, width):
    name = "transformer_blocks.0.attn.to_q"
    down, up = factor(RANK, width, 1), factor(width, RANK, 2)
    save_file({f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}, path)
    return {name: up @ down}


def lycoris_sd(path, width):
    """LyCORIS: a LoHa."""
    name, layer = (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    )
    parts = {f"hada_w{number}_{side}": factor(*((width, RANK) if side == "a" else (RANK, width)), number + 5 * (side == "a"))
             for number in (1, 2) for side in "ab"}  # fmt: skip
    save_file({f"{name}.{key}": tensor for key, tensor in parts.items()} | {f"{name}.alpha": torch.tensor(ALPHA)}, path)
    first, second = (parts[f"hada_w{number}_a"] @ parts[f"hada_w{number}_b"] for number in (1, 2))
    return {layer: ALPHA / RANK * first * second}


def peft_pixart(path, width):
    """diffusers' own training script for a model it has no loader for."""
    name = "transformer_blocks.0.attn1.to_q"
    down, up = factor(RANK, width, 1), factor(width, RANK, 2)
    save_file({f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}, path)
    return {name: up @ down}


FORMS = [
    ("StableDiffusionPipeline", kohya_sd), ("StableDiffusionXLPipeline", kohya_sd), ("StableDiffusionPipeline", kohya_sd_uneven),
    ("StableDiffusionPipeline", lycoris_sd), ("FluxPipeline", kohya_flux), ("FluxPipeline", kohya_flux_split),
    ("FluxPipeline", xlabs_flux), ("FluxPipeline", comfyui_flux), ("ZImagePipeline", comfyui_z_image),
    ("QwenImagePipeline", diffusers_qwen), ("PixArtSigmaPipeline", peft_pixart),
]  # fmt: skip


@pytest.mark.parametrize(("pipeline", "write"), FORMS, ids=[f"{write.__name__}-{pipeline}" for pipeline, write in FORMS])
def test_an_adapter_made_elsewhere_starts_a_run_with_its_rank_and_strength(pipeline, write, tmp_path):
    tiny = TINIES[pipeline]
    family = load_family(tiny.build())
    layer = next(name for name in write(tmp_path / "probe.safetensors", 4))
    expected = write(tmp_path / "made elsewhere.safetensors", family.denoiser.get_submodule(layer).in_features)
    attach_adapter(family, settings(tiny), starting=tmp_path / "made elsewhere.safetensors", reference=None, moving=False)
    found = factors(family.denoiser, POLICY)
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        torch.testing.assert_close(family.denoiser.get_submodule(name).get_delta_weight(POLICY), change, rtol=1e-5, atol=1e-5)
        assert found[name].rank == (torch.linalg.matrix_rank(change) if write is not lycoris_sd else RANK)
