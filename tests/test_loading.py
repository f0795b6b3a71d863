"""Base models loaded from what people have: files as ComfyUI and A1111 use them, on the real classes at tiny size, offline."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, ZImagePipeline, ZImageTransformer2DModel

from dpo.adapters import POLICY, attach_adapter
from dpo.config import BASE, TrainConfig
from dpo.events import SamplesSaved, StepEnd
from dpo.families import load_family
from dpo.families.noising import DDPM
from dpo.fingerprints import weights_digest
from dpo.loading import Base
from dpo.models import ModelError, describe_model, load_pipeline
from dpo.runs import create_run
from dpo.sampling import SampleSettings, paint
from dpo.training import execute
from tests import original_format
from tests.families import freeze, qwen_image, stable_diffusion_xl, z_image
from tests.families.checks import move
from tests.headers import FILES, write_gguf, write_safetensors
from tests.tiny import build_pipeline, make_pairs

BUILDERS = {
    "sd": (build_pipeline, original_format.stable_diffusion),
    "sdxl": (stable_diffusion_xl.build_pipeline, original_format.stable_diffusion_xl),
    "z_image": (z_image.build, lambda pipeline: original_format.z_image(pipeline.transformer)),
    "qwen_image": (qwen_image.build, lambda pipeline: pipeline.transformer.state_dict()),
}


def folder_and_file(tmp_path: Path, kind: str, **metadata: str) -> tuple[object, str, str]:
    """(the pipeline, its folder, the same as a file in its authors' format)"""
    build, convert = BUILDERS[kind]
    pipeline = build()
    pipeline.save_pretrained(tmp_path / kind)
    file = original_format.write(tmp_path / f"{kind}.safetensors", convert(pipeline), metadata)
    return pipeline, str(tmp_path / kind), str(file)


def picture(pipeline) -> np.ndarray:
    family = load_family(pipeline)
    size = SampleSettings(sampling_steps=2, guidance_scale=2.0, width=16, height=16, negative_prompt="a")
    return np.asarray(paint(family, [(family.prompt_arguments("a red cat", "a"), 3)], size)[0])


def without_weights(folder: str, *parts: str) -> None:
    """As a folder of settings alone, which is all a whole checkpoint needs."""
    for part in parts:
        for file in (Path(folder) / part).glob("*.safetensors"):
            file.unlink()


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("kind, own", [("sd", ("unet", "vae", "text_encoder")),
                                       ("sdxl", ("unet", "vae", "text_encoder", "text_encoder_2")),
                                       ("z_image", ("transformer",))])  # fmt: skip
def test_a_checkpoint_file_gives_the_image_of_the_pipeline_it_was_made_from(tmp_path, kind, own):
    """Of what is in the file, the folder has only settings."""
    pipeline, folder, file = folder_and_file(tmp_path, kind)
    expected = picture(pipeline)
    without_weights(folder, *own)
    loaded = load_pipeline(file, components=folder)
    assert type(loaded) is type(pipeline)
    assert np.array_equal(picture(loaded), expected)
    assert expected.std() > 1
    modules = [part for part in loaded.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(parameter.requires_grad for part in modules for parameter in part.parameters())
    assert not any(part.training for part in modules)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
@pytest.mark.parametrize("kind", ["sd", "z_image", "qwen_image"])
def test_a_file_of_the_denoiser_alone_takes_the_rest_from_the_components(tmp_path, kind, prefix):
    """Qwen-Image's own names are those of diffusers; ComfyUI writes the prefix before them too."""
    pipeline, folder, _ = folder_and_file(tmp_path, kind)
    weights = original_format.unet(pipeline.unet) if kind == "sd" else BUILDERS[kind][1](pipeline)
    without_weights(folder, "unet", "transformer")
    weights = {prefix + name.removeprefix("model.diffusion_model."): tensor for name, tensor in weights.items()}
    file = original_format.write(tmp_path / "denoiser.safetensors", weights)
    assert "text encoders, VAE and settings from" in describe_model(str(file), components=folder)
    assert np.array_equal(picture(load_pipeline(str(file), components=folder)), picture(pipeline))


def test_a_file_trains_in_the_precision_that_is_asked_for(tmp_path):
    _, folder, file = folder_and_file(tmp_path, "z_image")
    pipeline = load_pipeline(file, "bfloat16", components=folder)
    assert pipeline.transformer.dtype == torch.bfloat16


@pytest.mark.parametrize("lost", ["input_blocks.1.0.in_layers.0.weight", "time_embed.0.bias"])
def test_a_file_that_lacks_weights_says_so(tmp_path, lost):
    pipeline, folder, _ = folder_and_file(tmp_path, "sd")
    weights = original_format.stable_diffusion(pipeline)
    del weights[f"model.diffusion_model.{lost}"]
    file = original_format.write(tmp_path / "less.safetensors", weights)
    with pytest.raises(ModelError, match=r"less.safetensors cannot be loaded: the file lacks weights of the model"):
        load_pipeline(str(file), components=folder)


def test_a_file_that_is_not_as_the_components_say_is_a_sentence(tmp_path):
    pipeline, folder, _ = folder_and_file(tmp_path, "z_image")
    weights = original_format.z_image(pipeline.transformer)
    weights["x_embedder.weight"] = torch.zeros(16, 99)
    file = original_format.write(tmp_path / "odd.safetensors", weights)
    with pytest.raises(ModelError, match=r"odd.safetensors cannot be loaded: .*shape"):
        load_pipeline(str(file), components=folder)
    _, other, _ = folder_and_file(tmp_path, "sd")
    with pytest.raises(ModelError, match=r"the file holds Z-Image, and components='.*sd' are of a StableDiffusionPipeline"):
        load_pipeline(str(file), components=other)


def test_components_are_a_folder_or_a_hub_id_and_no_file(tmp_path):
    _, _, file = folder_and_file(tmp_path, "sd")
    with pytest.raises(ModelError, match=r"components='.*' is a file. Choose a diffusers folder or a hub id of Stable D"):
        load_pipeline(file, components=file)
    with pytest.raises(ModelError, match=r"is neither a folder nor a hub id"):
        describe_model(file, components="/no/such/place")


# ------------------------------------------------------------------------------------------------ in words


def test_a_file_is_described_without_loading_it(tmp_path):
    file = write_safetensors(tmp_path / "noob.safetensors", FILES["sdxl"] | {"v_pred": (0,), "ztsnr": (0,)})
    assert describe_model(str(file)) == (
        f"{file}: Stable Diffusion XL, v-prediction with zero-terminal SNR, float16, 5,347,840 weights; its settings from "
        "stabilityai/stable-diffusion-xl-base-1.0."
    )
    assert "Stable Diffusion XL, epsilon, float16" in describe_model(str(file), "epsilon")
    assert "v-prediction with zero" in describe_model(str(file), "v_prediction")
    file = write_safetensors(tmp_path / "sd2.safetensors", FILES["sd2"])
    assert describe_model(str(file)).endswith("If yours is such a one, set prediction_type to epsilon.")
    assert "does not say" not in describe_model(str(file), "v_prediction")
    assert "v-prediction with zero-terminal SNR" in describe_model(str(file), "v_prediction_zero_snr")
    file = write_safetensors(tmp_path / "z.safetensors", FILES["z_image_comfy"], dtype="BF16")
    assert describe_model(str(file), components="owner/name").endswith("text encoders, VAE and settings from owner/name.")
    with pytest.raises(ModelError, match=r"prediction_type='epsilon' is for SD 1.x, 2.x and SDXL, and this is Z-Image. Set"):
        describe_model(str(file), "epsilon")


def test_a_folder_is_described_with_what_its_scheduler_says(tmp_path):
    stable_diffusion_xl.build_pipeline("v_prediction").save_pretrained(tmp_path)
    assert describe_model(str(tmp_path)) == f"{tmp_path}: Stable Diffusion XL, v-prediction with zero-terminal SNR."
    assert describe_model(str(tmp_path), "epsilon").endswith(": Stable Diffusion XL, epsilon.")


# ------------------------------------------------------------------------------------------------ what it predicts


def test_a_file_with_marks_of_v_prediction_trains_and_samples_as_such(tmp_path):
    """NoobAI's: the components' scheduler says epsilon, as SDXL's does."""
    pipeline, folder, _ = folder_and_file(tmp_path, "sdxl")
    weights = original_format.stable_diffusion_xl(pipeline) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    file = str(original_format.write(tmp_path / "noob.safetensors", weights))
    schedule = load_pipeline(file, components=folder).scheduler.config
    told = schedule.prediction_type, schedule.rescale_betas_zero_snr, schedule.timestep_spacing
    assert told == ("v_prediction", True, "trailing")
    assert DDPM(schedule).scheduler.alphas_cumprod[-1] == 0
    plain = load_pipeline(file, components=folder, prediction_type="epsilon").scheduler.config
    assert (plain.prediction_type, plain.rescale_betas_zero_snr) == ("epsilon", False)


def test_what_a_folder_predicts_can_be_overridden(tmp_path):
    _, folder, _ = folder_and_file(tmp_path, "sdxl")
    assert load_pipeline(folder).scheduler.config.prediction_type == "epsilon"
    for wanted, zero_snr, spacing in (("v_prediction", False, "leading"), ("v_prediction_zero_snr", True, "trailing")):
        schedule = load_pipeline(folder, prediction_type=wanted).scheduler.config
        assert schedule.prediction_type == "v_prediction"
        assert (schedule.rescale_betas_zero_snr, schedule.timestep_spacing) == (zero_snr, spacing)


def test_a_scheduler_that_knows_no_zero_snr_gives_way_to_one_that_does(tmp_path):
    """PNDM is what SD 1.5 comes with."""
    pipeline = build_pipeline()
    pipeline.scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    pipeline.save_pretrained(tmp_path)
    scheduler = load_pipeline(str(tmp_path), prediction_type="v_prediction_zero_snr").scheduler
    assert type(scheduler).__name__ == "DDIMScheduler" and not scheduler.config.clip_sample
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.config.beta_start == 0.00085
    assert type(load_pipeline(str(tmp_path), prediction_type="v_prediction").scheduler) is PNDMScheduler


def test_a_model_without_a_choice_has_none(tmp_path):
    _, folder, _ = folder_and_file(tmp_path, "z_image")
    with pytest.raises(ModelError, match=r"prediction_type='v_prediction' is for SD 1.x, 2.x and SDXL"):
        load_pipeline(folder, prediction_type="v_prediction")


# ------------------------------------------------------------------------------------------------ merging


def saved_adapter(folder: str, path: Path) -> None:
    """Of an adapter that has learned something."""
    family = load_family(load_pipeline(folder))
    config = TrainConfig(lora_rank=2, lora_alpha=6.0)
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    move(family)
    adapter.save(path)


@pytest.mark.parametrize("kind", ["sd", "z_image"])
def test_a_merged_adapter_is_part_of_the_model_and_nothing_else_of_it_is_left(tmp_path, kind):
    _, folder, _ = folder_and_file(tmp_path, kind)
    file = tmp_path / "adapter.safetensors"
    saved_adapter(folder, file)
    base = load_pipeline(folder)
    before = dict(load_family(base).denoiser.named_parameters())
    merged = load_family(load_pipeline(folder, base_adapter=str(file))).denoiser
    half = load_family(load_pipeline(folder, base_adapter=str(file), base_adapter_strength=0.5)).denoiser
    assert not hasattr(merged, "peft_config")
    assert [name for name, _ in merged.named_parameters()] == list(before)
    changed = {name for name, parameter in merged.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and all(".to_" in name for name in changed)
    for name in changed:
        halves = dict(half.named_parameters())[name] - before[name]
        torch.testing.assert_close(2 * halves, dict(merged.named_parameters())[name] - before[name], rtol=1e-4, atol=1e-6)
    assert weights_digest(merged) != weights_digest(load_family(base).denoiser)  # errors are remembered as of another model


@pytest.mark.parametrize("kind", ["sd", "z_image"])
def test_a_merged_adapter_paints_what_it_paints_attached(tmp_path, kind):
    _, folder, _ = folder_and_file(tmp_path, kind)
    file = tmp_path / "adapter.safetensors"
    saved_adapter(folder, file)
    merged = picture(load_pipeline(folder, base_adapter=str(file)))
    pipeline = load_pipeline(folder)
    family = load_family(pipeline)
    attach_adapter(family, TrainConfig(), starting=file, reference=None, moving=False)
    attached = picture(pipeline)
    assert np.abs(attached.astype(int) - merged).max() <= 1
    assert np.abs(picture(load_pipeline(folder)).astype(int) - merged).max() > 1


def test_a_merged_model_takes_a_fresh_adapter_of_its_own(tmp_path):
    _, folder, _ = folder_and_file(tmp_path, "sd")
    file = tmp_path / "adapter.safetensors"
    saved_adapter(folder, file)
    family = load_family(load_pipeline(folder, base_adapter=str(file)))
    adapter = attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False)
    assert list(family.denoiser.peft_config) == [POLICY]
    assert all(f".{POLICY}." in name for name in adapter.trainable_names())


# ------------------------------------------------------------------------------------------------ GGUF


def gguf_file(path: Path, lost: str = "") -> tuple[ZImagePipeline, Path]:
    """(a Z-Image wide enough for blocks of 32 values, its transformer as Q8_0): all that has rows of 32, also what is no layer's
    weight; norms and biases in float32."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    pipeline = z_image.build()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.transformer = ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, axes_dims=[8, 4, 4],
            axes_lens=[1024, 32, 32], cap_feat_dim=pipeline.transformer.config.cap_feat_dim,
        )  # fmt: skip
    freeze(pipeline)
    writer = gguf.GGUFWriter(path, "z_image")
    for name, tensor in original_format.z_image(pipeline.transformer).items():
        if name == lost:
            continue
        kind = gguf.GGMLQuantizationType.F32
        if tensor.dim() == 2 and tensor.shape[-1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return pipeline, path


def test_a_gguf_file_loads_and_stays_packed(tmp_path):
    """Eight bits a weight: the denoiser answers nearly as it did."""
    whole, file = gguf_file(tmp_path / "model.gguf")
    whole.save_pretrained(tmp_path / "folder")
    pipeline = load_pipeline(str(file), components=str(tmp_path / "folder"))
    assert "Z-Image, Q8_0, " in describe_model(str(file))
    packed = [module for module in pipeline.transformer.modules() if type(module).__name__ == "GGUFLinear"]
    assert len(packed) > 10 and {module.weight.dtype for module in packed} == {torch.uint8}
    assert pipeline.transformer.dtype == torch.float32
    difference = np.abs(picture(pipeline).astype(int) - picture(whole))
    assert 0 < difference.max() < 12


def test_a_gguf_file_in_bfloat16_computes_in_it(tmp_path):
    whole, file = gguf_file(tmp_path / "model.gguf")
    whole.save_pretrained(tmp_path / "folder")
    pipeline = load_pipeline(str(file), "bfloat16", components=str(tmp_path / "folder"))
    assert pipeline.transformer.dtype == torch.bfloat16
    assert picture(pipeline).std() > 1


def test_a_gguf_file_trains_and_its_errors_are_remembered_as_its_own(tmp_path):
    whole, file = gguf_file(tmp_path / "model.gguf")
    whole.save_pretrained(tmp_path / "folder")
    config = TrainConfig(
        model=str(file), components=str(tmp_path / "folder"), precision="bfloat16", max_steps=2, resolution=16, lora_rank=2,
        reference_draws=2, sample_every=2, max_chosen_drift=1e6,
    )  # fmt: skip
    run = create_run(tmp_path / "runs", "cats", config, make_pairs(tmp_path / "images"))
    events = list(execute(run, tmp_path / "cache"))
    assert events[-1].reason == "finished", events[-1].message
    assert [event for event in events if isinstance(event, SamplesSaved)]
    first = next(event for event in events if isinstance(event, StepEnd))
    assert first.metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    packed = load_pipeline(str(file), components=str(tmp_path / "folder")).transformer
    assert weights_digest(packed) != weights_digest(whole.transformer)


def test_a_gguf_file_that_lacks_weights_says_so(tmp_path):
    whole, file = gguf_file(tmp_path / "model.gguf", lost="layers.0.attention.qkv.weight")
    whole.save_pretrained(tmp_path / "folder")
    with pytest.raises(ModelError, match=r"model.gguf cannot be loaded: the file lacks weights of the model"):
        load_pipeline(str(file), components=str(tmp_path / "folder"))


def test_what_is_packed_already_is_neither_merged_nor_packed_again(tmp_path):
    whole, file = gguf_file(tmp_path / "model.gguf")
    whole.save_pretrained(tmp_path / "folder")
    for more in ({"offload": 0.5}, {"base_adapter": "a.safetensors"}, {"quantization": "nf4"}):
        with pytest.raises(ModelError, match=r"is quantised already, so base_adapter, quantization and offload cannot be had"):
            load_pipeline(str(file), components=str(tmp_path / "folder"), **more)


def test_a_unet_as_gguf_is_refused(tmp_path):
    tensors = {name: (1, shape) for name, shape in FILES["sd1_unet"].items()}
    file = write_gguf(tmp_path / "model.gguf", tensors)
    with pytest.raises(ModelError, match=r"is Stable Diffusion 1.x as GGUF, and diffusers reads that for transformers alone"):
        describe_model(str(file))


# ------------------------------------------------------------------------------------------------ settings


def test_the_settings_of_the_model_are_those_that_loading_takes():
    assert TrainConfig().base == asdict(Base())
    assert list(asdict(Base())) == list(BASE)


def test_large_images_are_encoded_tile_by_tile_where_asked(tmp_path):
    _, folder, _ = folder_and_file(tmp_path, "sd")
    assert not load_pipeline(folder).vae.use_tiling
    assert load_pipeline(folder, vae_tiling=True).vae.use_tiling
