"""Programs that write one plain JSON object, or a PNG text per setting."""

import json

import pytest

from dpo.metadata import Lora
from dpo.metadata.containers import TextField
from dpo.metadata.plainjson import parse

EASY = {
    "prompt": "a cat", "negative_prompt": "blurry", "seed": 42, "num_inference_steps": 20, "guidance_scale": 7.5,
    "sampler_name": "euler", "use_stable_diffusion_model": "some_v1", "width": 512, "height": 768,
    "use_lora_model": ["fur", "hat"], "lora_alpha": [0.5],
}  # fmt: skip
EASY_LABELS = {
    "Prompt": "a cat", "Negative Prompt": "blurry", "Seed": 42, "Steps": 20, "Guidance Scale": 7.5, "Sampler": "euler",
    "Stable Diffusion model": "some_v1", "Width": 512, "Height": 768,
}  # fmt: skip
TENSORART = {
    "prompt": "a cat", "negativePrompt": "blurry", "seed": "42", "steps": 20, "cfgScale": 7.5, "samplerName": "euler",
    "width": 512, "height": 768, "baseModel": {"label": "some_v1", "modelFileName": "x.safetensors"},
    "models": [{"type": "CHECKPOINT", "label": "some_v1"}, {"type": "LORA", "label": "fur", "weight": 0.5}],
}  # fmt: skip
STABILITY_MATRIX = {
    "PositivePrompt": "a cat", "NegativePrompt": "blurry", "Seed": 42, "Steps": 20, "CfgScale": 7.5, "Sampler": "euler",
    "ModelName": "some_v1", "Width": 512, "Height": 768,
}  # fmt: skip
SPACE = {
    "prompt": "a cat", "negative_prompt": "blurry", "resolution": "512 x 768", "guidance_scale": 7.5, "seed": 42,
    "num_inference_steps": 20, "sampler": "euler", "Model": "some_v1",
}  # fmt: skip
IMAGINAIRY = {
    "software": "imaginAIry", "model": "some_v1", "prompts": [[1, "a cat"]], "negative_prompt": [[1, "blurry"]], "seed": 42,
    "prompt_strength": 7.5, "steps": 20, "sampler_type": "euler", "width": 512, "height": 768,
}  # fmt: skip


def read(name: str, data: object, end: str = ""):
    return parse([TextField(name, json.dumps(data) + end, f"PNG {name}")])


@pytest.mark.parametrize(
    ("name", "data", "generator", "loras"),
    [
        ("UserComment", EASY, "easydiffusion", (Lora("fur", 0.5), Lora("hat"))),
        ("UserComment", EASY_LABELS, "easydiffusion", ()),
        ("generation_data", TENSORART, "tensorart", (Lora("fur", 0.5),)),
        ("parameters-json", STABILITY_MATRIX, "stabilitymatrix", ()),
        ("parameters", SPACE, "hfspace", ()),
        ("UserComment", {"prompt": IMAGINAIRY}, "imaginairy", ()),
    ],
)
def test_every_setting_is_read(name, data, generator, loras):
    found = read(name, data, "\0")
    assert (found.prompt, found.negative_prompt, found.seed, found.steps) == ("a cat", "blurry", 42, 20)
    assert (found.guidance, found.sampler, found.model) == (7.5, "euler", "some_v1")
    assert (found.written_size, found.loras, found.generator) == ((512, 768), loras, generator)


@pytest.mark.parametrize("data", [EASY, EASY_LABELS])
def test_easy_diffusion_writes_a_png_text_per_setting(data):
    found = parse([TextField(name, str(value), f"PNG {name}") for name, value in data.items()])
    assert (found.prompt, found.seed, found.written_size, found.generator) == ("a cat", 42, (512, 768), "easydiffusion")
    assert found.where.lower() == "png prompt"


def test_prompts_with_weights_are_joined_with_them():
    found = read("UserComment", {"prompt": IMAGINAIRY | {"prompts": [[1, "a cat"], [0.5, "a dog"], 3]}})
    assert found.prompt == "a cat:1 a dog:0.5"


def test_imaginairys_later_spelling_is_read():
    data = {"prompt": [{"text": "a cat", "weight": 1.0}], "seed": 42, "software": "imaginAIry"}
    assert read("UserComment", {"prompt": data}).prompt == "a cat"


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": "a cat"},
        {"PositivePrompt": ["a cat"]},
        [1],
        {"prompts": 1},
        {"prompt": {"prompts": 1}},
        {"prompt": "samplerName"},
    ],
)
def test_what_is_not_written_so_gives_no_prompt(data):
    found = read("UserComment", data)
    assert found is None or found.prompt == ""
