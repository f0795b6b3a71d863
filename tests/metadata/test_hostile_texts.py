"""Whatever a text holds, no parser raises and none takes long: what is read is what strangers wrote."""

import json
import random
import time

import pytest

from dpo.metadata import PARSERS, TextField

LENGTH = 300_000  # characters: the square of it would take minutes
SETTINGS = ", Steps: 20, Sampler: x, Seed: 1"
NAMES = (
    "parameters",
    "UserComment",
    "Comment",
    "Dream",
    "sd-metadata",
    "invokeai_metadata",
    "invokeai_graph",
    "description",
    "prompt",
)

LONG = {
    "commas": "a" + "," * LENGTH + "x" + SETTINGS,
    "blanks": "a" + " " * LENGTH + "-x" + SETTINGS,
    "line_ends": "\n" * LENGTH + "Negative prompt:" + SETTINGS,
    "negatives": "Negative prompt: " * (LENGTH // 17),
    "steps": "a. Steps: 20, Sampler" * (LENGTH // 20),
    "templates": f"a{SETTINGS}\n" + "Template:\n" * (LENGTH // 10),
    "open_tags": "<lora:a" * (LENGTH // 7) + SETTINGS,
    "long_tag": "<lora:" + "a:" * (LENGTH // 2) + SETTINGS,
    "weights": f'a\nSteps: 1, Seed: 2, Lora weights: "{"a" * LENGTH}", Lora hashes: "{"a" * LENGTH}", Version: Fooocus 2',
    "brackets": "a: " + "[" * LENGTH + SETTINGS,
    "objects": "a: {" * (LENGTH // 4) + SETTINGS,
    "quotes": 'a: "' * (LENGTH // 4) + SETTINGS,
    "backslashes": '"' + "\\a" * (LENGTH // 2) + " -s 50",
    "quoted_quotes": '"' + '" ' * (LENGTH // 2) + "-s",
    "open_comment": '{"req_type"' + "{" * LENGTH,
    "deep": '{"uc": ' + "[" * LENGTH,
    "two_encoders": "T5 Prompt:" + " " * LENGTH + "CLIP" + SETTINGS,
    "digits": '{"uc": 1, "steps": 1, "scale": 1, "seed": ' + "9" * LENGTH + "}",
}

CIRCLES = {"nodes": {str(i): {} for i in range(3000)}, "edges": [
    {"source": {"node_id": str(i)}, "destination": {"node_id": str(j), "field": "item" if i else "positive_conditioning"}}
    for i in range(60) for j in range(60)
]}  # fmt: skip


@pytest.mark.parametrize("text", [*LONG.values(), json.dumps(CIRCLES)], ids=[*LONG, "circles"])
def test_no_text_takes_long(text):
    start = time.process_time()
    for name in NAMES:
        fields = [TextField(name, text, name), TextField("CreatorTool", "Draw Things", "XMP")]
        for parse in PARSERS:
            parse(fields)
    assert time.process_time() - start < 40


ODD = (
    None,
    1,
    -1.5,
    True,
    "",
    "x",
    [],
    {},
    [None],
    [[]],
    [["a", "b"]],
    {"a": 1},
    {"caption": {"char_captions": "x"}},
    10**30,
    float("nan"),
)
OBJECTS = (
    {"sui_image_params": {"prompt": "a", "loras": ["x"], "loraweights": ["1"], "width": 1, "height": 1}, "sui_extra_data": {}},
    {"positive_prompt": "a", "model": {"name": "x"}, "loras": [{"model": {"name": "x"}, "weight": 1}], "width": 1, "height": 1},
    {"nodes": {"a": {"prompt": "a"}}, "edges": [{"source": {"node_id": "a"}, "destination": {"field": "positive_conditioning"}}]},
    {"image": {"prompt": [{"prompt": "a", "weight": 1}], "seed": 1}, "model_weights": "x"},
    {"prompt": "a", "uc": "b", "steps": 1, "scale": 1, "v4_prompt": {"caption": {"base_caption": "a", "char_captions": [{}]}}},
    {"Comment": '{"uc": 1, "steps": 1, "scale": 1}', "Software": "NovelAI"},
    {"extra": {"airs": ["urn:air:a:lora:civitai:1@2"]}, "extraMetadata": {"prompt": "a", "resources": [{"modelVersionId": 2}]}},
    {"prompt": "a", "full_prompt": ["a"], "base_model": "x", "loras": [["x", 1]], "resolution": "(1, 1)"},
    {"Prompt": "a", "loras": [["x", "1 - y"]], "software": "RuinedFooocus"},
    {"c": "a", "uc": "b", "scale": 1, "lora": [{"model": "x", "weight": 1}]},
    {"prompt": "a", "samplerName": "x", "models": [{"type": "LORA", "label": "x"}], "baseModel": {"label": "x"}},
    {"prompt": "a", "use_stable_diffusion_model": "x", "use_lora_model": ["x"], "lora_alpha": [1]},
    {"prompt": {"prompts": [[1, "a"]]}},
)  # fmt: skip


def test_no_value_of_an_unexpected_kind_raises_or_gets_out():
    randomness = random.Random(0)

    def change(value):
        if randomness.random() < 0.15:
            return randomness.choice(ODD)
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items() if randomness.random() > 0.05}
        return [change(item) for item in value] if isinstance(value, list) else value

    for _ in range(30_000):
        text = json.dumps(change(randomness.choice(OBJECTS)))
        for parse in PARSERS:
            if found := parse([TextField(randomness.choice(NAMES), text, "here")]):
                texts = (found.prompt, found.negative_prompt, found.sampler, found.model, *found.alternatives)
                texts += tuple(lora.name for lora in found.loras)
                assert all(isinstance(value, str) for value in texts), text
                numbers = (found.seed, found.steps, found.guidance, *(lora.strength for lora in found.loras))
                assert all(value is None or type(value) in (int, float) for value in numbers), text
