"""A1111 texts: the reference parser's rule, its relatives' habits, and our own way back."""

import pytest
from PIL import Image

from dpo.metadata import Lora, format_parameters, read_image
from dpo.metadata.a1111 import parse, split_parameters
from dpo.metadata.containers import TextField
from dpo.metadata.writer import write_png

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: some_v1, Version: v1.10.1"


def generation(text: str, name: str = "parameters"):
    return parse([TextField(name, text, f"PNG {name}")])


def test_prompt_negative_and_settings_are_parted():
    found = generation(f"a cat\nNegative prompt: blurry\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("a cat", "blurry")
    assert (found.seed, found.steps, found.guidance) == (42, 20, 7.5)
    assert (found.sampler, found.model, found.generator) == ("Euler a", "some_v1", "a1111")


def test_prompt_and_negative_may_have_many_lines():
    found = generation(f"a cat,\n\n  on a sofa\nNegative prompt: blurry,\nlowres\n\nugly\n{SETTINGS}\n")
    assert found.prompt == "a cat,\n\n  on a sofa"
    assert found.negative_prompt == "blurry,\nlowres\n\nugly"


def test_last_line_with_pairs_of_no_known_key_belongs_to_the_prompt():
    found = generation("a sign,\nfront: red, back: blue, left: green")
    assert found.prompt == "a sign,\nfront: red, back: blue, left: green"


def test_last_line_with_two_pairs_belongs_to_the_prompt():
    found = generation("a sign,\nfront: red, back: blue")
    assert found.prompt == "a sign,\nfront: red, back: blue"
    assert found.seed is None


def test_settings_without_a_prompt_are_not_taken_for_one():
    assert generation(SETTINGS).prompt == ""
    assert generation(f"Negative prompt: blurry\n{SETTINGS}").prompt == ""


def test_the_word_unknown_is_no_prompt():
    assert generation(f"unknown\nNegative prompt: unknown\n{SETTINGS}").prompt == ""


@pytest.mark.parametrize(
    "line",
    [
        'Lora hashes: "Seed: 9, Model: b", Steps: 20, Seed: 42, Model: some_v1',
        'Steps: 20, Hires prompt: "a, \\"b\\"\\nSeed: 9", Seed: 42, Model: some_v1',
        'Steps: 20, Hashes: {"x, Seed: 9": "1, Model: b"}, Seed: 42, Model: some_v1',
        'Steps: 20, Civitai resources: [{"a":"b, Seed: 9, c"},{"d":1}], Seed: 42, Model: some_v1',
        'Steps: 20, Odd (key): 3, TI: "unclosed, Seed: 42, Model: some_v1',
        "Model: some_v1, Seed: 42, Steps: 20, Seed: 9, Model: , TE: a, TE: b",
    ],
)
def test_commas_inside_a_value_do_not_end_it(line):
    found = generation(f"a cat\n{line}")
    assert (found.prompt, found.seed, found.steps, found.model) == ("a cat", 42, 20, "some_v1")


def test_keys_may_have_any_case():
    found = generation("a cat\nSteps: 4, CFG Scale: 1.5, seed: 3, sampler: euler_simple, model: x")
    assert (found.steps, found.guidance, found.seed, found.sampler, found.model) == (4, 1.5, 3, "euler_simple", "x")


def test_numbers_that_say_nothing_are_none():
    found = generation("a cat\nSteps: many, Sampler: Undefined, CFG scale: inf, Seed: -1")
    assert (found.steps, found.guidance, found.seed, found.sampler) == (None, None, None, "")


def test_seed_of_64_bits_keeps_every_digit():
    assert generation("a cat\nSteps: 20, Seed: 18446744073709551615, Sampler: x").seed == 18446744073709551615


def test_template_lines_after_the_settings_are_not_the_prompt():
    found = generation(f"a gold ring\n{SETTINGS}\nTemplate:a {{gold|platinum}} ring\nNegative Template: x")
    assert (found.prompt, found.seed) == ("a gold ring", 42)
    found = generation(f"a sign:\nSteps: 1, up: 2, down: 3\n{SETTINGS}\nTemplate: a sign")
    assert (found.prompt, found.seed) == ("a sign:\nSteps: 1, up: 2, down: 3", 42)


def test_template_is_an_alternative_wherever_it_stands():
    assert generation(f"a gold ring\n{SETTINGS}\nTemplate:a {{gold|platinum}} ring\nNegative Template: x").alternatives == (
        "a {gold|platinum} ring",
    )
    found = generation(f"a ring\nNegative prompt: dog\nTemplate: a {{gold|platinum}}\nring\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt, found.alternatives) == ("a ring", "dog", ("a {gold|platinum}\nring",))
    assert generation(f"a ring\nNegative prompt: dog\nTemplate: a ring\n{SETTINGS}").alternatives == ()


def test_prompts_of_two_encoders_are_told_apart():
    found = generation(f"T5 Prompt: a cat on a sofa,\nCLIP Prompt: cat, sofa\nNegative prompt: dog\n{SETTINGS}")
    assert (found.prompt, found.alternatives, found.negative_prompt) == ("a cat on a sofa", ("cat, sofa",), "dog")


@pytest.mark.parametrize(
    ("prompt", "settings", "loras"),
    [
        ("a <lora:fur:0.8> cat <lyco:hat:-1:0.5>", "", (Lora("fur", 0.8), Lora("hat", -1.0))),
        ("a <lora:fur> cat", "", (Lora("fur"),)),
        ("a <lora:fur:0.8> cat", ', Lora hashes: "fur: 1a, hat: 2b"', (Lora("fur", 0.8), Lora("hat"))),
        ("a cat", ', Hashes: {"model": "1a", "lora:fur": "2b"}', (Lora("fur"),)),
        ("a cat", ", Lora_0 Model name: fur, Lora_0 Strength model: 0.8", (Lora("fur", 0.8),)),
        (
            "a cat",
            ', Civitai resources: [{"type":"checkpoint","modelName":"M"},{"type":"lora","weight":0.8,"modelVersionId":7}]',
            (Lora("civitai:7", 0.8),),
        ),
        ("a <cat:0.5> <segment:face>", "", ()),
    ],
)
def test_loras_are_named_wherever_they_are_told(prompt, settings, loras):
    found = generation(f"{prompt}\n{SETTINGS}{settings}")
    assert (found.prompt, found.loras) == (prompt, loras)


def test_model_is_civitais_checkpoint_or_the_unet_where_none_is_named():
    resources = '[{"type":"checkpoint","modelVersionId":1,"modelName":"FLUX","modelVersionName":"Dev"}]'
    assert generation(f"a cat\nSteps: 0, Sampler: Undefined, Seed: -1, Civitai resources: {resources}").model == "FLUX Dev"
    assert generation("a cat\nSteps: 20, Seed: 1, Model: , Unet: some.gguf, Version: stable-diffusion.cpp").model == "some.gguf"


def test_written_size_is_kept_beside_the_decoded_one():
    assert generation(f"a cat\n{SETTINGS}").written_size == (512, 768)
    assert generation("a cat\nSteps: 20, Sampler: x, Seed: 1, Size: large").written_size is None
    assert generation("a cat\nSteps: 20, Sampler: x, Seed: 1, Size: 0x0").written_size is None


def test_negative_without_settings_is_parted():
    found = generation("a cat\nNegative prompt: blurry", name="UserComment")
    assert (found.prompt, found.negative_prompt) == ("a cat", "blurry")


def test_horde_is_known_by_the_software_of_the_file():
    text = TextField("UserComment", "a cat\nSteps: 28, Sampler: x, Seed: 1, model: Deliberate", "EXIF UserComment")
    software = TextField("Software", "ArtBot - Create images with the AI Horde", "EXIF Software")
    assert (parse([software, text]).generator, parse([software, text]).model) == ("aihorde", "Deliberate")
    assert parse([text]).generator == "a1111"


def test_windows_line_ends_are_line_ends():
    found = generation(f"a cat\r\non a sofa\r\nNegative prompt: dog\r\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("a cat\non a sofa", "dog")


def test_negative_begins_only_at_the_start_of_a_line():
    found = generation(f"a sign with Negative prompt: on it\n Negative prompt: dog\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("a sign with Negative prompt: on it", "dog")


def test_joined_lines_are_parted_again():
    found = generation("a cat, on a sofa, Negative prompt: blurry, ugly Steps: 20, Sampler: x, Seed: 42")
    assert (found.prompt, found.negative_prompt, found.seed) == ("a cat, on a sofa", "blurry, ugly", 42)
    found = generation("a sign: red, on a sofa. Steps: 20, Sampler: x, Seed: 42")
    assert (found.prompt, found.seed) == ("a sign: red, on a sofa.", 42)


def test_prompt_that_is_json_is_a_prompt():
    assert generation('{\n  "scene": "a cat"\n}\n' + SETTINGS).prompt == '{\n  "scene": "a cat"\n}'


def test_json_without_settings_is_another_programs():
    assert generation('{"prompt": "a cat"}') is None
    assert generation('{ "prompt": "a cat", "cut": "sho') is None


def test_plain_parameters_text_is_a_prompt_and_a_plain_comment_is_not():
    assert generation("a cat").prompt == "a cat"
    assert generation("a cat", name="UserComment") is None
    assert generation("a cat", name="comment") is None


def test_camera_comment_is_no_generation():
    assert generation("filter: 0; intensity: 1, mode: 2, face: 3, hdr: 4", name="UserComment") is None


@pytest.mark.parametrize(
    ("end", "generator"),
    [
        ("Version: v1.10.1", "a1111"),
        ("Version: f2.0.1v1.10.1-previous-313-g8a042934", "forge"),
        ("ADetailer version: 24.1, Version: classic", "forge"),
        ("ADetailer Version: Neo, Version: v1.9.0", "a1111"),
        ("Version: neo-2.28", "forge"),
        ("Version: f1.0.0v2-v1.10.1RC-latest-2498-g5120e679", "reforge"),
        ("App: SD.Next, Version: 56a8aea", "sdnext"),
        ("Version: stable-diffusion.cpp", "sdcpp"),
        ("Version: f2.0.1-v1.10.1", "easyreforge"),
        ("Version: f2.0.1v2-v1.10.1RC-latest-2498-g5120e679", "reforge"),
        ('Civitai resources: [{"type":"checkpoint"}]', "civitai"),
        ("Version: ComfyUI", "comfyui"),
    ],
)
def test_generator_is_known_by_its_version(end, generator):
    assert generation(f"a cat\nSteps: 20, Seed: 1, {end}").generator == generator


ROUND_TRIPS = [
    ("a cat", ""),
    ("a cat,\non a sofa: \"red\", <lora:x:0.8> (soft:1.2) [a|b] {c|d} \\(e\\)", "blurry,\nugly: very"),
    ("猫, Kätzchen 😀", "ぼやけ"),
    ("", "blurry"),
    ("", ""),
    ('{"prompt": "json"}', ""),
    ("Steps: 3, Seed: 4, Sampler: 5", ""),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "negative_prompt"), ROUND_TRIPS)
@pytest.mark.parametrize("model", ["some_v1", "a, b: c", '"quoted"', "[list]", " spaces ", "two\nlines", "", "猫"])
def test_what_is_formatted_is_read_back(prompt, negative_prompt, model):
    text = format_parameters(prompt, negative_prompt, steps=20, sampler="Euler a", guidance=7.5, seed=42, model=model)
    assert split_parameters(text) == (
        prompt,
        negative_prompt,
        {"steps": "20", "sampler": "Euler a", "cfg scale": "7.5", "seed": "42", "model": model},
    )


def test_format_is_the_one_everyone_knows():
    text = format_parameters("a cat", "dog", steps=20, sampler="Euler a", guidance=7, seed=1, size="64x64", model="demo")
    assert text == (
        "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, Model: demo"
    )  # fmt: skip


@pytest.mark.parametrize("prompt", ["a cat", "Kätzchen", "猫 😀"])
def test_written_png_is_read_back_by_us_and_by_pillow(tmp_path, prompt):
    text = format_parameters(prompt, "blurry", steps=20, guidance=3.0, seed=7, sampler="DDIM", model="demo")
    write_png(Image.new("RGB", (8, 6)), tmp_path / "a.png", text)
    record = read_image(tmp_path / "a.png")
    assert (record.prompt, record.negative_prompt, record.error) == (prompt, "blurry", None)
    assert (record.steps, record.guidance, record.seed, record.sampler, record.model) == (20, 3.0, 7, "DDIM", "demo")
    assert (record.width, record.height, record.where) == (8, 6, "PNG parameters")
    assert Image.open(tmp_path / "a.png").text["parameters"] == text
