"""InvokeAI of every version: metadata, graph, command line."""

import json

import pytest

from dpo.metadata import Lora
from dpo.metadata.containers import TextField
from dpo.metadata.invokeai import parse

DREAM = '"a cat" -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms'
METADATA = {
    "positive_prompt": "a cat", "negative_prompt": "blurry", "seed": 42, "steps": 15, "cfg_scale": 7.5, "scheduler": "euler",
    "width": 512, "height": 768,
}  # fmt: skip


def read(**texts):
    return parse([TextField(name.replace("_metadata", "-metadata") if name == "sd_metadata" else name, text, f"PNG {name}")
                  for name, text in texts.items()])  # fmt: skip


def sd_metadata(prompt, **more):
    image = {"prompt": prompt, "seed": 42, "steps": 50, "cfg_scale": 7.5, "sampler": "k_lms", "width": 512, "height": 768}
    return json.dumps({"model": "stable diffusion", "model_weights": "some_v1", "image": image} | more)


@pytest.mark.parametrize(
    ("model", "loras"),
    [
        ({"model_name": "some_v1", "base_model": "sd-1"}, [{"lora": {"model_name": "fur"}, "weight": 0.75}]),
        ({"name": "some_v1", "key": "1"}, [{"model": {"name": "fur", "key": "2"}, "weight": 0.75}]),
    ],
)
def test_metadata_of_versions_3_and_4_is_read(model, loras):
    found = read(invokeai_metadata=json.dumps(METADATA | {"model": model, "loras": loras}))
    assert (found.prompt, found.negative_prompt, found.seed, found.steps) == ("a cat", "blurry", 42, 15)
    assert (found.guidance, found.sampler, found.model) == (7.5, "euler", "some_v1")
    assert found.loras == (Lora("fur", 0.75),)
    assert (found.written_size, found.certainty) == ((512, 768), "exact")


def test_style_prompt_is_an_alternative_or_the_prompt_where_there_is_no_other():
    assert read(invokeai_metadata=json.dumps(METADATA | {"positive_style_prompt": "ink"})).alternatives == ("ink",)
    assert read(invokeai_metadata=json.dumps(METADATA | {"positive_style_prompt": "a cat"})).alternatives == ()
    assert read(invokeai_metadata='{"positive_prompt": "", "positive_style_prompt": "ink"}').prompt == "ink"


GRAPH = {
    "nodes": {
        "neg": {"id": "neg", "type": "compel", "prompt": "blurry"},
        "pos": {"id": "pos", "type": "compel"},
        "words": {"id": "words", "type": "string", "value": "a cat"},
        "both": {"id": "both", "type": "collect"},
        "denoise": {"id": "denoise", "type": "denoise_latents"},
    },
    "edges": [
        {"source": {"node_id": one, "field": "x"}, "destination": {"node_id": two, "field": field}}
        for one, two, field in [
            ("neg", "denoise", "negative_conditioning"),
            ("words", "pos", "prompt"),
            ("pos", "both", "item"),
            ("both", "denoise", "positive_conditioning"),
        ]
    ],
}


def test_prompt_of_a_graph_is_the_text_that_reaches_the_positive_side():
    found = read(invokeai_metadata='{"canvas_v2_metadata": {}}', invokeai_graph=json.dumps(GRAPH))
    assert (found.prompt, found.certainty) == ("a cat", "derived")


@pytest.mark.parametrize("graph", [{}, {"nodes": {}, "edges": [1, {"source": 1}]}, {"nodes": [], "edges": {}}])
def test_graph_without_texts_is_metadata_without_a_prompt(graph):
    assert read(invokeai_graph=json.dumps(graph)).prompt == ""


def test_workflow_alone_is_metadata_without_a_prompt():
    assert (read(invokeai_workflow="{}").prompt, read(invokeai_workflow="{}").generator) == ("", "invokeai")


def test_circle_in_a_graph_ends():
    circle = [{"source": {"node_id": "both"}, "destination": {"node_id": "both", "field": "item"}}]
    assert read(invokeai_graph=json.dumps({**GRAPH, "edges": GRAPH["edges"][3:] + circle})).prompt == ""


@pytest.mark.parametrize("prompt", ["a cat [blurry]", [{"prompt": "a cat [blurry]", "weight": 1.0}]])
def test_sd_metadata_keeps_the_prompt_as_typed(prompt):
    found = read(sd_metadata=sd_metadata(prompt), Dream=DREAM)
    assert (found.prompt, found.negative_prompt, found.seed, found.model) == ("a cat [blurry]", "", 42, "some_v1")
    assert (found.written_size, found.sampler) == ((512, 768), "k_lms")


def test_version_1_lists_several_images():
    data = json.loads(sd_metadata("a cat"))
    data["images"] = [data.pop("image")]
    assert read(sd_metadata=json.dumps(data)).prompt == "a cat"


def test_blend_is_told_as_it_was_typed_and_else_with_its_weights():
    blend = sd_metadata([{"prompt": "a cat", "weight": 0.25}, {"prompt": "a dog", "weight": 0.75}])
    assert read(sd_metadata=blend, Dream='"a cat:1 a dog:3" -s 50').prompt == "a cat:1 a dog:3"
    assert read(sd_metadata=blend).prompt == "a cat:0.25 a dog:0.75"


@pytest.mark.parametrize(
    ("dream", "prompt"),
    [
        (DREAM, "a cat"),
        ('"a cat" -s50 -W512 -H768 -C7.5 -Ak_lms -V 7,0.1;8,0.1 -S42', "a cat"),
        ("a cat -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms", "a cat"),
        ("a well -lit cat, -50 degrees -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms", "a well -lit cat, -50 degrees"),
        ('"a \\"cat\\" of -s" -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms -I "a b.png"', 'a "cat" of -s'),
        ('"a "cat"" -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms', 'a "cat"'),
    ],
)  # fmt: skip
def test_command_line_is_parted_into_prompt_and_switches(dream, prompt):
    found = read(Dream=dream)
    assert (found.prompt, found.steps, found.seed, found.guidance) == (prompt, 50, 42, 7.5)
    assert (found.sampler, found.written_size) == ("k_lms", (512, 768))


def test_command_that_changes_an_image_has_no_prompt():
    assert read(Dream="!fix 000001.png -G 0.8").prompt == ""
    assert read(Dream="!fix 000001.png -G 0.8", sd_metadata=sd_metadata("a cat")).prompt == "a cat"


def test_comments_of_a_converted_file_are_read():
    fields = [TextField("comment", f"invokeai_metadata: {json.dumps(METADATA)}", "JPEG comment")]
    assert (parse(fields).prompt, parse(fields).where) == ("a cat", "JPEG comment")


def test_other_texts_are_not_invokeais():
    assert parse([TextField("comment", "a cat", "JPEG comment"), TextField("parameters", DREAM, "PNG parameters")]) is None
