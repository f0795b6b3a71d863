"""What a file is, told from its header as each family's authors write it, and as diffusers would tell from the weights."""

import pytest
import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type

from dpo.checkpoint_header import Header, HeaderError, TensorInfo, read_header
from dpo.checkpoint_kinds import identify
from tests.headers import FILES, REFUSED, write_gguf, write_safetensors

TITLES = {
    "sd1": "Stable Diffusion 1.x", "sd1_unet": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL", "sdxl_unet": "Stable Diffusion XL", "sd3": "Stable Diffusion 3",
    "sd35_medium": "Stable Diffusion 3.5 medium", "sd35_large": "Stable Diffusion 3.5 large", "flux_dev": "FLUX.1 dev",
    "flux_dev_comfy": "FLUX.1 dev", "flux_schnell": "FLUX.1 schnell", "chroma": "Chroma", "flux2_dev": "FLUX.2 dev",
    "flux2_klein_4b": "FLUX.2 klein 4B", "flux2_klein_9b": "FLUX.2 klein 9B", "z_image": "Z-Image", "z_image_comfy": "Z-Image",
    "qwen_image": "Qwen-Image", "sana": "Sana", "lumina2": "Lumina 2",
}  # fmt: skip
WHOLE = {"sd1", "sd2", "sdxl"}
# What diffusers calls them. It knows a UNet alone for nothing, all FLUX.2 for dev, and Qwen-Image not at all.
THEIRS = {
    "sd1": "v1", "sd2": "v2", "sdxl": "xl_base", "sd3": "sd3", "sd35_medium": "sd35_medium", "sd35_large": "sd35_large",
    "flux_dev": "flux-dev", "flux_dev_comfy": "flux-dev", "flux_schnell": "flux-schnell", "chroma": "chroma",
    "flux2_dev": "flux-2-dev", "z_image": "z-image-turbo", "z_image_comfy": "z-image-turbo", "sana": "sana", "lumina2": "lumina2",
}  # fmt: skip
THEIR_REFUSED = {
    "refiner": "xl_refiner", "inpainting": "inpainting", "sdxl_inpainting": "xl_inpaint", "pix2pix": "instruct-pix2pix",
    "flux_fill": "flux-fill", "playground": "playground-v2-5", "controlnet": "controlnet",
}  # fmt: skip


def header(tensors: dict, metadata: dict | None = None, kind: str = "F16") -> Header:
    return Header({name: TensorInfo(kind, shape) for name, shape in tensors.items()}, metadata or {})


@pytest.mark.parametrize("name", FILES)
def test_every_family_is_known_by_its_tensors(tmp_path, name):
    found = identify(read_header(write_safetensors(tmp_path / "model.safetensors", FILES[name])), "model")
    assert (found.kind.title, found.is_whole, found.precision) == (TITLES[name], name in WHOLE, "float16")
    assert found.components.count("/") == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_named(tmp_path, name):
    tensors, said = REFUSED[name]
    with pytest.raises(HeaderError, match=r"^model\.safetensors ") as caught:
        identify(read_header(write_safetensors(tmp_path / "model.safetensors", tensors)), "model.safetensors")
    assert said in str(caught.value)


def test_what_is_not_known_says_what_was_found_and_what_is_supported():
    with pytest.raises(HeaderError, match=r"2 tensors, the first of them a.weight, b.weight. Supported: Stable Diffusion 1.x"):
        identify(header({"a.weight": (2,), "b.weight": (2,)}), "model")


@pytest.mark.parametrize("name", THEIRS | THEIR_REFUSED)
def test_diffusers_tells_the_same_from_the_same_names_and_shapes(name):
    tensors = FILES[name] if name in FILES else REFUSED[name][0]
    weights = {key: torch.empty(shape, device="meta") for key, shape in tensors.items()}
    theirs = infer_diffusers_model_type(weights)
    assert theirs == (THEIRS | THEIR_REFUSED)[name]
    if name in FILES:
        usual = DIFFUSERS_DEFAULT_PIPELINE_PATHS[theirs]["pretrained_model_name_or_path"]
        assert identify(header(tensors), name).components == usual


@pytest.mark.parametrize(
    "name, marks, metadata, expected",
    [
        ("sdxl", (), {}, ("epsilon", False)),
        ("sdxl", ("v_pred",), {}, ("v_prediction", False)),
        ("sdxl", ("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ("sdxl_unet", ("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ("sdxl", (), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ("sdxl", (), {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
        ("sdxl", (), {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, ("v_prediction", True)),
        ("sdxl", ("v_pred",), {"modelspec.prediction_type": "epsilon"}, ("v_prediction", False)),
        ("sd1", (), {}, ("epsilon", False)),
        ("sd2", (), {"modelspec.architecture": "stable-diffusion-v2-768-v"}, ("v_prediction", False)),
        ("sd2", (), {"modelspec.architecture": "stable-diffusion-v2-512"}, ("epsilon", False)),
        ("sd2", (), {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
        ("sd2", (), {}, ("v_prediction", False)),
        ("flux_dev", ("v_pred",), {}, ("", False)),
    ],
)
def test_what_it_predicts_is_told_by_marks_and_metadata(name, marks, metadata, expected):
    found = identify(header(FILES[name] | dict.fromkeys(marks, (0,)), metadata), name)
    assert (found.prediction_type, found.zero_snr) == expected


def test_only_a_file_that_leaves_it_open_has_a_doubt():
    doubt = identify(header(FILES["sd2"]), "model").doubt
    assert doubt.startswith("The file does not say what it predicts: models of 768 pixels predict v, and those of 512 (2-base)")
    assert identify(header(FILES["sd2"], {"modelspec.architecture": "stable-diffusion-v2-768-v"}), "model").doubt == ""
    assert identify(header(FILES["sd1"]), "model").doubt == ""


def test_precision_and_number_are_those_of_the_denoiser_alone():
    tensors = {f"model.diffusion_model.{name}": TensorInfo("BF16", shape) for name, shape in FILES["flux_schnell"].items()}
    tensors["vae.decoder.conv_in.weight"] = TensorInfo("F32", (1 << 20, 1 << 20))
    tensors["model.diffusion_model.final_layer.linear.bias"] = TensorInfo("F32", (64,))
    found = identify(Header(tensors), "model")
    assert found.precision == "bfloat16"
    assert found.weights == 3072 * 64 + 128 + 9216 * 3072 + 21504 * 3072 + 64


def test_a_gguf_file_is_known_by_the_same_names(tmp_path):
    path = write_gguf(
        tmp_path / "model.gguf", {name: (8 if len(shape) == 2 else 0, shape) for name, shape in FILES["flux_dev"].items()}
    )
    found = identify(read_header(path), "model")
    assert (found.kind.title, found.precision, found.is_whole) == ("FLUX.1 dev", "Q8_0", False)
