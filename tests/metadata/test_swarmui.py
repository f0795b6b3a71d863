"""SwarmUI and Civitai: JSON that says it all."""

import json

import pytest

from dpo.metadata import Lora, civitai, swarmui
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


@pytest.mark.parametrize("place", ["sui_extra_data", "sui_image_params"])
def test_what_was_typed_is_an_alternative_to_what_was_drawn(place):
    data = {"sui_image_params": dict(PARAMS), "sui_extra_data": {}}
    data[place]["original_prompt"] = "a <random:cat|dog>"
    found = swarmui.parse([TextField("parameters", json.dumps(data), "PNG parameters")])
    assert (found.prompt, found.alternatives) == ("a cat", ("a <random:cat|dog>",))


@pytest.mark.parametrize(
    ("names", "strengths"), [(["fur", "hat"], ["0.5", "1"]), ("fur,hat", "0.5,1"), (["fur", "hat"], [0.5, 1])]
)
def test_swarmuis_loras_and_size_are_read(names, strengths):
    params = PARAMS | {"loras": names, "loraweights": strengths, "height": 32}
    found = swarmui.parse([TextField("parameters", json.dumps({"sui_image_params": params}), "PNG parameters")])
    assert (found.loras, found.written_size) == ((Lora("fur", 0.5), Lora("hat", 1.0)), (64, 32))


def test_seed_of_64_bits_keeps_every_digit():
    text = json.dumps({"sui_image_params": PARAMS | {"seed": 2**64 - 1}})
    assert swarmui.parse([TextField("parameters", text, "PNG parameters")]).seed == 2**64 - 1


def test_png_texts_in_one_object_by_a_converter_are_read():
    text = json.dumps({"prompt": {}, "parameters": json.dumps({"sui_image_params": PARAMS})})
    assert swarmui.parse([TextField("UserComment", text, "EXIF UserComment")]).prompt == "a cat"


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


def test_civitais_models_are_named_by_air_names_and_have_the_strength_of_their_version():
    airs = ["urn:air:sdxl:checkpoint:civitai:8@25", "urn:air:sdxl:lora:civitai:9@26", "urn:air:other:upscaler:civitai:1@2", "x"]
    extra = EXTRA | {"resources": [{"modelVersionId": 26, "strength": 0.5}], "width": 64, "height": 32}
    data = {"extra": {"airs": airs}, "extraMetadata": extra}
    found = civitai.parse([TextField("UserComment", json.dumps(data), "EXIF UserComment")])
    assert (found.model, found.loras, found.written_size) == ("civitai:8@25", (Lora("civitai:9@26", 0.5),), (64, 32))
