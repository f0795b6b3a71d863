import pytest
import torch

from dpo.models import (
    DEMO_MODEL,
    ModelError,
    default_device,
    describe_model,
    load_parts,
    load_pipeline,
    place_denoiser,
    resolve_model,
    resolve_precision,
)


def test_names_mean_the_demo_a_folder_or_a_hub_id(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert resolve_model("demo") == DEMO_MODEL
    assert resolve_model(f" {tmp_path} ") == tmp_path
    assert resolve_model("owner/some-model.v1") == "owner/some-model.v1"
    (tmp_path / "model.safetensors").touch()
    assert resolve_model(f"{tmp_path}/model.safetensors") == tmp_path / "model.safetensors"
    assert describe_model(str(tmp_path)) == f"{tmp_path}: Stable Diffusion 1.x and 2.x, epsilon."
    assert "v-prediction" in describe_model("demo")


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "is neither a folder nor a hub id"),
        ("/no/such/folder", "is neither a folder nor a hub id"),
        ("../up", "is neither a folder nor a hub id"),
        ("http://example.org/x", "is neither a folder nor a hub id"),
    ],
)
def test_what_is_neither_is_said_before_anything_loads(name, message):
    with pytest.raises(ModelError, match=message):
        resolve_model(name)


def test_a_folder_without_a_model_says_what_was_looked_for(tmp_path):
    with pytest.raises(ModelError, match="is not a diffusers model: it has no model_index.json"):
        resolve_model(str(tmp_path))


def test_a_damaged_model_is_a_sentence(tmp_path):
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    with pytest.raises(ModelError, match="cannot be loaded: "):
        load_pipeline(str(tmp_path))


def test_a_hub_id_without_a_connection_is_a_sentence():
    with pytest.raises(
        ModelError, match=r"no-such-owner/no-such-model cannot be loaded: .* Check the name, the files, and the connection"
    ):
        load_pipeline("no-such-owner/no-such-model")


def test_auto_precision_is_float32_where_there_is_no_gpu():
    assert resolve_precision("auto", "cpu") == torch.float32
    assert resolve_precision("bfloat16", "cpu") == torch.bfloat16
    assert resolve_precision("float16", "cpu") == torch.float16


def test_training_brings_the_denoiser_alone_to_the_device_and_sampling_all_of_it():
    """The meta device stands for a GPU: moving there is real, and costs nothing."""
    parts = ("unet", "vae", "text_encoder")
    pipeline = load_parts("demo", "float16", "meta")
    assert [getattr(pipeline, name).device.type for name in parts] == ["cpu"] * 3
    assert {getattr(pipeline, name).dtype for name in parts} == {torch.float16}
    assert not any(parameter.requires_grad for name in parts for parameter in getattr(pipeline, name).parameters())
    place_denoiser(pipeline, "demo", "float16", "meta")
    assert [getattr(pipeline, name).device.type for name in parts] == ["meta", "cpu", "cpu"]
    pipeline = load_pipeline("demo", device="meta")
    assert [getattr(pipeline, name).device.type for name in parts] == ["meta"] * 3


def test_a_model_too_large_for_the_device_is_a_sentence(monkeypatch):
    def no_room(module, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("diffusers.UNet2DConditionModel.to", no_room)
    pipeline = load_parts("demo", "float32", "meta")
    with pytest.raises(ModelError, match="demo does not fit the memory of meta. Close what else uses it, or choose a smaller"):
        place_denoiser(pipeline, "demo", "float32", "meta")


def test_accelerate_launch_with_cpu_means_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert default_device() == "cpu"
