"""What is offered, what names layers have, what a file and its card say, and two adapters as one; with no model loaded."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpo.adapter_files import AdapterError
from dpo.architectures import ARCHITECTURES
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.formats import FORMATS, KINDS, ExportError, check_offer, offered, reasons, table, why_not
from dpo.formats.card import card_text
from dpo.formats.header import ARCHITECTURES as MODELSPEC
from dpo.formats.header import header_of
from dpo.formats.merging import merge_adapters
from dpo.formats.naming import places
from dpo.formats.origin import Origin, kept_step
from dpo.pairs import Pair
from dpo.runs import create_run
from tests.test_docs import section
from tests.test_docs import table as rows_of

SDXL = SimpleNamespace(layers_per_block=2, up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
# diffusers' name, and that of SDXL's own code: kohya-ss/sd-scripts, library/sdxl_model_util.py, and ComfyUI, comfy/utils.py,
# unet_to_diffusers, for num_res_blocks 2 and channel_mult (1, 2, 4).
SDXL_NAMES = {
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    "down_blocks.1.attentions.1.proj_in": "input_blocks_5_1_proj_in",
    "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj": "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
    "mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0": "middle_block_1_transformer_blocks_3_attn2_to_out_0",
    "mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
    "up_blocks.0.attentions.2.transformer_blocks.1.attn1.to_v": "output_blocks_2_1_transformer_blocks_1_attn1_to_v",
    "up_blocks.1.attentions.0.proj_out": "output_blocks_3_1_proj_out",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks_4_0_skip_connection",
    "down_blocks.0.resnets.1.time_emb_proj": "input_blocks_2_0_emb_layers_1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "up_blocks.2.resnets.2.conv1": "output_blocks_8_0_in_layers_2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
}  # fmt: skip
LUMINA_NAMES = {  # Alpha-VLLM/Lumina-Image-2.0, models/model.py
    "diffusion_model.layers.3.attention.qkv": [f"layers.3.attn.{part}" for part in ("to_q", "to_k", "to_v")],
    "diffusion_model.noise_refiner.0.attention.out": ["noise_refiner.0.attn.to_out.0"],
    "diffusion_model.context_refiner.1.feed_forward.w2": ["context_refiner.1.feed_forward.linear_2"],
}


# ------------------------------------------------------------------------------------------------ what is offered


def test_every_family_has_a_row_and_every_refusal_a_reason_and_a_way_out():
    assert sum(len(row[0].split(", ")) for row in table()) >= len(ARCHITECTURES)
    for pipeline in ARCHITECTURES:
        assert pipeline in MODELSPEC
        for kind in KINDS:
            assert "diffusers" in offered(pipeline, kind)
            for format in FORMATS:
                reason = why_not(pipeline, kind, format)
                assert (format in offered(pipeline, kind)) == (not reason)
                if reason:
                    with pytest.raises(ExportError, match="Choose diffusers"):
                        check_offer(pipeline, kind, format)
    with pytest.raises(ExportError, match="format='onnx' is not known"):
        check_offer("FluxPipeline", "lora", "onnx")


def test_a_plain_lora_goes_to_comfyui_for_every_family_it_loads():
    assert {pipeline for pipeline in ARCHITECTURES if why_not(pipeline, "lora", "comfyui")} <= {"SanaPipeline"}
    assert offered("StableDiffusionXLPipeline", "lora") == ["diffusers", "comfyui", "kohya"]


# ------------------------------------------------------------------------------------------------ names


def test_sdxl_has_the_names_of_its_own_code():
    found = places("StableDiffusionXLPipeline", SDXL_NAMES, "kohya", SDXL)
    assert found == {f"lora_unet_{name}": [layer] for layer, name in SDXL_NAMES.items()}
    assert places("StableDiffusionXLPipeline", SDXL_NAMES, "comfyui", SDXL) == found
    with pytest.raises(ExportError, match=r"The layer conv_in has no name in this format\. Leave it out of the layer profile"):
        places("StableDiffusionXLPipeline", ["conv_in"], "kohya", SDXL)


def test_lumina_has_the_names_of_its_own_code_with_q_k_and_v_as_one():
    layers = [layer for parts in LUMINA_NAMES.values() for layer in parts[-1:]]  # also where only v is adapted
    assert places("Lumina2Pipeline", layers, "comfyui", None) == LUMINA_NAMES
    with pytest.raises(ExportError, match=r"The layer layers\.0\.norm1\.linear has no name"):
        places("Lumina2Pipeline", ["layers.0.norm1.linear"], "comfyui", None)


@pytest.mark.parametrize(
    ("pipeline", "prefix"),
    [
        ("FluxPipeline", "transformer."), ("ChromaPipeline", "transformer."), ("StableDiffusion3Pipeline", "transformer."),
        ("Flux2KleinPipeline", "transformer."), ("PixArtSigmaPipeline", "transformer."),
        ("QwenImagePipeline", "diffusion_model."),
        ("ZImagePipeline", "diffusion_model."),
    ],
)  # fmt: skip
def test_transformers_have_the_prefix_comfyui_looks_for(pipeline, prefix):
    assert places(pipeline, ["a.0.to_q"], "comfyui", None) == {f"{prefix}a.0.to_q": ["a.0.to_q"]}


# ------------------------------------------------------------------------------------------------ what a file says of itself


@pytest.fixture
def run(tmp_path):
    config = TrainConfig(
        learning_rate=3e-4, beta=250.0, resolution=768, starting_adapter=str(tmp_path / "private" / "first.safetensors")
    )
    run = create_run(tmp_path / "runs", "cats-1", config, [Pair(f"prompt {n}", "c", "r") for n in range(8)])
    run.adapter.write_bytes(b"")
    accuracy = {"rewards/accuracies": 0.75, "rewards/accuracies_low": 0.5, "rewards/accuracies_high": 0.9}
    for event in (
        RunStarted(0, 40, 1200, 60), StepEnd(20, 1.0, {"loss": 0.6}), ValidationEnd(20, accuracy), CheckpointSaved(20, "", True),
        StepEnd(40, 1.0, {"loss": 0.5}), ValidationEnd(40, {"rewards/accuracies": 0.7}), CheckpointSaved(40, ""),
        RunEnded(40, "finished"),
    ):  # fmt: skip
        run.append(event)
    return run


def pipeline_of(name, **scheduler):
    return type(name, (), {"scheduler": SimpleNamespace(config=scheduler)})()


def header(
    run, name="StableDiffusionXLPipeline", format="kohya", kind="lora", denoiser=None, ranks=(16,), alphas=(8.0,), **scheduler
):
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(1, dtype=torch.float16)}
    return tensors, header_of(
        tensors, Origin.of_run(run), pipeline_of(name, **scheduler), kind=kind, format=format, ranks=ranks, alphas=alphas,
        base_hash="abc", denoiser=denoiser or {},
    )  # fmt: skip


def test_the_header_says_what_a1111_modelspec_and_we_look_for(run, tmp_path):
    tensors, said = header(run, prediction_type="v_prediction")
    expected = {
        "ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "8", "ss_v_parameterization": "True",
        "ss_v2": "False", "ss_base_model_version": "sdxl_base_v1-0", "ss_sd_model_name": "demo", "ss_output_name": "cats-1",
        "ss_learning_rate": "0.0003", "ss_steps": "20", "ss_max_train_steps": "500", "ss_resolution": "(768, 768)",
        "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models", "modelspec.title": "cats-1",
        "modelspec.resolution": "768x768", "modelspec.prediction_type": "v", "modelspec.tags": "dpo",
        "dpo.base_model_hash": "abc", "dpo.pairs": "1200", "dpo.held_out": "60", "dpo.step": "20", "dpo.format": "kohya",
    }  # fmt: skip
    assert {key: said[key] for key in expected} == expected
    assert "DPO" in said["ss_training_comment"] and "1,200 pairs" in said["ss_training_comment"]
    assert "beta 250" in said["ss_training_comment"]
    assert json.loads(said["dpo.config"])["beta"] == 250.0 and json.loads(said["dpo.metrics"])["rewards/accuracies"] == 0.75
    assert json.loads(said["dpo.config"])["starting_adapter"] == "first.safetensors"  # not whose machine it was on
    assert "modelspec.license" not in said and "modelspec.author" not in said
    # ModelSpec: the SHA-256 of all that follows the header.
    save_file(tensors, tmp_path / "file.safetensors", said)
    data = (tmp_path / "file.safetensors").read_bytes()
    assert said["modelspec.hash_sha256"] == "0x" + hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


@pytest.mark.parametrize(
    ("name", "denoiser", "scheduler", "architecture"),
    [
        ("StableDiffusionPipeline", {"cross_attention_dim": 768}, {}, "stable-diffusion-v1/lora"),
        ("StableDiffusionPipeline", {"cross_attention_dim": 1024}, {}, "stable-diffusion-v2-512/lora"),
        (
            "StableDiffusionPipeline", {"cross_attention_dim": 1024}, {"prediction_type": "v_prediction"},
            "stable-diffusion-v2-768-v/lora",
        ),
        ("FluxPipeline", {"guidance_embeds": True}, {}, "flux-1-dev/lora"),
        ("FluxPipeline", {"guidance_embeds": False}, {}, "flux-1-schnell/lora"),
    ],
)  # fmt: skip
def test_the_architecture_is_the_one_modelspec_names(run, name, denoiser, scheduler, architecture):
    _, said = header(run, name, "diffusers", denoiser=denoiser, **scheduler)
    assert said["modelspec.architecture"] == architecture and said["modelspec.implementation"] == "diffusers"
    assert said.get("ss_v2") == {"1": "False", "2": "True"}.get(architecture.removeprefix("stable-diffusion-v")[:1])


def test_ranks_that_differ_are_dynamic_and_lycoris_names_its_algorithm(run):
    _, said = header(run, kind="loha", ranks=(4, 8), alphas=(4.0, 4.0))
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("Dynamic", "4")
    assert (said["ss_network_module"], json.loads(said["ss_network_args"])) == ("lycoris.kohya", {"algo": "loha"})


def test_the_step_of_an_export_is_the_one_the_run_kept():
    best = [CheckpointSaved(20, "", True), CheckpointSaved(40, "")]
    assert kept_step([*best, RunEnded(40, "finished")], TrainConfig()) == 20
    assert kept_step([*best, RunEnded(40, "finished")], TrainConfig(keep_best=False)) == 40
    assert kept_step([*best, RunEnded(55, "damaged")], TrainConfig(keep_best=False)) == 20
    assert kept_step([CheckpointSaved(40, ""), RunEnded(55, "damaged")], TrainConfig()) == 0  # not known


def test_the_card_has_the_runs_numbers_and_leaves_the_licence_to_its_author(run):
    origin = Origin.of_run(run)
    text = card_text(
        origin, "cats-1.safetensors", kind="lora", format="comfyui", precision="fp16", rank="rank 16, alpha 8", proof="It is."
    )
    head = text.split("---")[1]
    assert "dpo" in head and "library_name: diffusers" in head and "license" not in head and "base_model" not in head
    for row in (
        "| base model | demo |", "| adapter | LoRA, rank 16, alpha 8 |", "| pairs | 1,200 to train on, 60 kept out |",
        "| steps | 20 |", "| agrees with the picks kept out | 75% (95% interval 50% to 90%) |", "| beta | 250 |",
    ):  # fmt: skip
        assert row in text, row
    assert "It is." in text
    bare = card_text(
        Origin("x", "owner/name"), "x.safetensors", kind="dora", format="diffusers", precision="fp32", rank="rank 4", proof=""
    )
    assert 'base_model: "owner/name"' in bare and "steps" not in bare and "pairs" not in bare and "agrees" not in bare


# ------------------------------------------------------------------------------------------------ two as one


def lora(path, rank, layers, seed, alpha=None, names=("lora_down.weight", "lora_up.weight"), header=None):
    """A file, and what it adds to each layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors, added = {}, {}
    for layer in layers:
        down, up = torch.randn(rank, 6, generator=generator), torch.randn(4, rank, generator=generator)
        tensors |= {f"{layer}.{names[0]}": down, f"{layer}.{names[1]}": up}
        if alpha is not None:
            tensors[f"{layer}.alpha"] = torch.tensor(alpha)
        added[layer] = (alpha / rank if alpha is not None else 1.0) * up @ down
    save_file(tensors, path, header)
    return path, added


def added_by(path, names=("lora_down.weight", "lora_up.weight")):
    tensors = load_file(path)
    layers = [name.removesuffix(f".{names[0]}") for name in tensors if name.endswith(names[0])]
    scales = {
        layer: tensors[f"{layer}.alpha"].item() / len(tensors[f"{layer}.{names[0]}"]) if f"{layer}.alpha" in tensors else 1.0
        for layer in layers
    }
    return {layer: scales[layer] * tensors[f"{layer}.{names[1]}"] @ tensors[f"{layer}.{names[0]}"] for layer in layers}


def test_two_adapters_merged_add_what_both_add_at_their_weights_also_with_other_alphas_and_layers(tmp_path):
    first, one = lora(tmp_path / "a.safetensors", 2, ["lora_unet_x", "lora_unet_y"], 1, alpha=6.0)
    second, other = lora(tmp_path / "b.safetensors", 3, ["lora_unet_y", "lora_unet_z"], 2, alpha=1.0)
    ranks = merge_adapters(first, second, (0.7, -0.3), tmp_path / "c.safetensors")
    assert ranks == {"lora_unet_x": 2, "lora_unet_y": 5, "lora_unet_z": 3}
    merged = added_by(tmp_path / "c.safetensors")
    expected = {"lora_unet_x": 0.7 * one["lora_unet_x"], "lora_unet_y": 0.7 * one["lora_unet_y"] - 0.3 * other["lora_unet_y"],
                "lora_unet_z": -0.3 * other["lora_unet_z"]}  # fmt: skip
    torch.testing.assert_close(merged, expected)
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        told = json.loads(file.metadata()["dpo.merged_from"])
    assert [(one["name"], one["weight"]) for one in told] == [("a", 0.7), ("b", -0.3)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"unet.x.lora_magnitude_vector": 4}, r"b\.safetensors cannot be merged exactly: the length that a DoRA gives"),
        ({"lora_unet_x.hada_w1_a": 4}, r"the sum of two elementwise products is no such product"),
        ({"lora_unet_x.lokr_w1": 4}, r"the sum of two Kronecker products is no such product"),
        ({"unet.x.oft_R.weight": 4}, r"rotations are multiplied"),
        (
            {"unet.x.lora_A.weight": 4, "unet.x.lora_B.weight": 4},
            r"a\.safetensors and b\.safetensors name their layers differently",
        ),
    ],
)
def test_what_has_no_exact_sum_is_refused_with_the_reason(names, words, tmp_path):
    first, _ = lora(tmp_path / "a.safetensors", 2, ["lora_unet_x"], 1)
    save_file({name: torch.zeros(size, size) for name, size in names.items()}, tmp_path / "b.safetensors")
    with pytest.raises(ExportError, match=words):
        merge_adapters(first, tmp_path / "b.safetensors", (1.0, 1.0), tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


def test_adapters_of_other_models_and_files_that_are_none_are_refused(tmp_path):
    first, _ = lora(tmp_path / "a.safetensors", 2, ["lora_unet_x"], 1)
    save_file(
        {"lora_unet_x.lora_down.weight": torch.zeros(2, 7), "lora_unet_x.lora_up.weight": torch.zeros(4, 2)},
        tmp_path / "b.safetensors",
    )
    with pytest.raises(ExportError, match="lora_unet_x has another size in b"):
        merge_adapters(first, tmp_path / "b.safetensors", (1.0, 1.0), tmp_path / "c.safetensors")
    with pytest.raises(AdapterError, match="not a .safetensors file"):
        merge_adapters(first, tmp_path / "nowhere.safetensors", (1.0, 1.0), tmp_path / "c.safetensors")
    with pytest.raises(ExportError, match="Let it end in .safetensors"):
        merge_adapters(first, first, (1.0, 1.0), tmp_path / "c.bin")


# ------------------------------------------------------------------------------------------------ the README


def test_the_readme_has_the_tables():
    """`python -m tests.test_formats` prints them."""
    ours, others = section("Export").split("Not offered, and why:")
    assert (rows_of(ours), rows_of(others)) == (table(), reasons())


if __name__ == "__main__":
    for row in [*table(), *reasons()]:
        print(f"| {' | '.join(row)} |")
