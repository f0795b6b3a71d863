import pytest
import torch

from dpo.models import DEMO_MODEL, ModelError, describe_model, load_pipeline, resolve_model, resolve_precision


def test_names_mean_the_demo_a_folder_or_a_hub_id(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert resolve_model("demo") == DEMO_MODEL
    assert resolve_model(f" {tmp_path} ") == tmp_path
    assert resolve_model("owner/some-model.v1") == "owner/some-model.v1"
    assert describe_model(str(tmp_path)) == f"{tmp_path}: Stable Diffusion 1.x, epsilon."
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


def test_a_folder_without_a_model_and_a_single_file_say_what_was_found(tmp_path):
    with pytest.raises(ModelError, match="is not a diffusers model: it has no model_index.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is a single file, and this version loads diffusers folders"):
        resolve_model(str(tmp_path / "model.safetensors"))


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
