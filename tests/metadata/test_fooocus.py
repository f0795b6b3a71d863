"""Fooocus in both of its schemes, and its relatives."""

import json

import pytest

from dpo.metadata import Lora
from dpo.metadata.containers import TextField
from dpo.metadata.fooocus import parse

FOOOCUS = {
    "prompt": "a cat", "negative_prompt": "blurry", "full_prompt": ["a cat, ink", "a cat, sharp"], "full_negative_prompt": [],
    "resolution": "(768, 1280)", "seed": "6952411511246973023", "steps": 30, "sampler": "dpmpp_2m", "guidance_scale": 4,
    "base_model": "some_v1", "loras": [["fur", 0.5, "hash"]], "metadata_scheme": "fooocus", "version": "Fooocus v2.4.3",
}  # fmt: skip
A1111 = (
    "a cat, ink, a cat, sharp\nNegative prompt: blurry, watermark\nSteps: 30, Sampler: DPM++ 2M, Seed: 42, Size: 768x1280, "
    'CFG scale: 4, Model: some_v1, Raw prompt: {}, Raw negative prompt: blurry, Lora hashes: "fur: 1, hat: 2", '
    'Lora weights: "fur: 0.5, hat: -1", Version: Fooocus v2.5.5'
)
RUINED = {
    "Prompt": "a cat", "Negative": "blurry", "steps": 30, "cfg": 8.5, "width": 1152, "height": 896, "seed": 42,
    "sampler_name": "dpmpp_2m", "base_model_name": "some_v1", "software": "RuinedFooocus",
}  # fmt: skip


def read(text: str, name: str = "parameters"):
    return parse([TextField(name, text, f"PNG {name}")])


@pytest.mark.parametrize("name", ["parameters", "UserComment", "comment"])
@pytest.mark.parametrize("spell", [str, lambda key: key.replace("_", " ").title()])
def test_prompt_is_what_was_typed_and_what_the_styles_made_of_it_an_alternative(name, spell):
    found = read(json.dumps({spell(key): value for key, value in FOOOCUS.items()}), name)
    assert (found.prompt, found.negative_prompt, found.alternatives) == ("a cat", "blurry", ("a cat, ink, a cat, sharp",))
    assert (found.seed, found.steps, found.guidance) == (6952411511246973023, 30, 4)
    assert (found.sampler, found.model, found.loras) == ("dpmpp_2m", "some_v1", (Lora("fur", 0.5),))
    assert (found.written_size, found.generator) == ((768, 1280), "fooocus")


def test_loras_of_the_log_are_read():
    log = {name: value for name, value in FOOOCUS.items() if name != "loras"} | {"lora_combined_1": "fur.safetensors : 0.5"}
    assert read(json.dumps(log)).loras == (Lora("fur.safetensors", 0.5),)


def test_a1111_scheme_has_the_typed_prompt_among_its_settings():
    found = read(A1111.format('"a cat, red"'))
    assert (found.prompt, found.negative_prompt, found.alternatives) == ("a cat, red", "blurry", ("a cat, ink, a cat, sharp",))
    assert (found.seed, found.written_size, found.model) == (42, (768, 1280), "some_v1")
    assert found.loras == (Lora("fur", 0.5), Lora("hat", -1.0))
    assert read(A1111.format("")).prompt == "a cat, ink, a cat, sharp"


@pytest.mark.parametrize("loras", [[["hash", "0.1 - offset.safetensors"]], "Loras:<offset.safetensors:0.1>"])
def test_ruined_fooocus_is_read(loras):
    found = read(json.dumps(RUINED | {"loras": loras}))
    assert (found.prompt, found.negative_prompt, found.seed, found.guidance) == ("a cat", "blurry", 42, 8.5)
    assert (found.model, found.written_size, found.generator) == ("some_v1", (1152, 896), "ruinedfooocus")
    assert found.loras == (Lora("offset.safetensors", 0.1),)


@pytest.mark.parametrize("text", ['{"base_model": "x", "prompt": "a cat"}', "Fooocus", '{"Fooocus": 1}', '["full_prompt"]'])
def test_other_texts_are_not_fooocus(text):
    assert read(text) is None
