"""SwarmUI and Civitai: JSON that says it all."""

import json

import pytest

from dpo.metadata import civitai, swarmui
from dpo.metadata.containers import TextField

PARAMS = {
    "prompt": "a cat",
    "negativeprompt": "blurry",
    "model": "some",
    "seed": 42,
    "steps": "20",
    "cfgscale": 7.5,
    "sampler": "euler",
    "width": 64,
}
EXTRA = {"prompt": "a cat", "negativePrompt": "blurry", "seed": 42, "steps": 20, "cfgScale": 7.5, "sampler": "euler"}


def told(generation):
    found = generation.prompt, generation.negative_prompt, generation.seed, generation.steps
    return *found, generation.guidance, generation.sampler


@pytest.mark.parametrize("name", ["parameters", "UserComment", "Model"])
@pytest.mark.parametrize("data", [{"sui_image_params": PARAMS, "sui_extra_data": {"date": "2026"}}, PARAMS])
def test_swarmui_of_every_era_is_read(name, data):
    found = swarmui.parse([TextField(name, json.dumps(data), "PNG parameters")])
    assert told(found) == ("a cat", "blurry", 42, 20, 7.5, "euler")
    assert (found.model, found.generator) == ("some", "swarmui")


def test_swarmui_guarantees_no_parameter():
    found = swarmui.parse([TextField("parameters", '{"sui_image_params": {"prompt": "a cat"}}', "PNG parameters")])
    assert told(found) == ("a cat", "", None, None, None, "")


@pytest.mark.parametrize("text", ['{"sui_image_params": [1]}', '{"prompt": "a cat"}', '{"sui_image_params": ', "a cat", "[]"])
def test_other_texts_are_not_swarmuis(text):
    assert swarmui.parse([TextField("parameters", text, "PNG parameters")]) is None


@pytest.mark.parametrize("extra", [json.dumps(EXTRA), EXTRA])
def test_civitais_own_words_are_read_beside_its_graph(extra):
    data = {"1": {"class_type": "UpscaleModelLoader", "inputs": {}}, "extraMetadata": extra}
    found = civitai.parse([TextField("UserComment", json.dumps(data), "EXIF UserComment")])
    assert told(found) == ("a cat", "blurry", 42, 20, 7.5, "euler")


@pytest.mark.parametrize("text", ['{"extraMetadata": 1}', '{"extraMetadata": "x"}', '"extraMetadata"', "extraMetadata"])
def test_other_texts_are_not_civitais(text):
    assert civitai.parse([TextField("UserComment", text, "EXIF UserComment")]) is None
