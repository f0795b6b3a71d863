"""NovelAI of every age: PNG texts, one JSON object in WebP and pixels, characters, director tools."""

import json

import pytest

from dpo.metadata.containers import TextField
from dpo.metadata.novelai import parse

COMMENT = {
    "prompt": "a cat",
    "uc": "blurry",
    "steps": 28,
    "scale": 5.0,
    "seed": 42,
    "sampler": "k_euler",
    "width": 832,
    "height": 1216,
}
BESIDE = {"Title": "NovelAI generated image", "Description": "a cat", "Software": "NovelAI", "Source": "NovelAI Diffusion V4.5"}


def characters(*texts, base="a cat"):
    return {"caption": {"base_caption": base, "char_captions": [{"char_caption": text, "centers": []} for text in texts]}}


def read(**texts):
    return parse([TextField(name, text, f"PNG {name}") for name, text in texts.items()])


def test_comment_of_a_png_is_read():
    found = read(Comment=json.dumps(COMMENT), **BESIDE)
    assert (found.prompt, found.negative_prompt, found.seed, found.steps) == ("a cat", "blurry", 42, 28)
    assert (found.guidance, found.sampler, found.model) == (5.0, "k_euler", "NovelAI Diffusion V4.5")
    assert (found.written_size, found.generator, found.where) == ((832, 1216), "novelai", "PNG Comment")


@pytest.mark.parametrize("name", ["UserComment", "parameters"])
def test_all_texts_in_one_object_are_read(name):
    found = read(**{name: json.dumps(BESIDE | {"Comment": json.dumps(COMMENT)})})
    assert (found.prompt, found.seed, found.model) == ("a cat", 42, "NovelAI Diffusion V4.5")


def test_prompt_with_those_of_its_characters_is_an_alternative_and_warned_of():
    prompts = {"v4_prompt": characters("girl, red", "boy, blue"), "v4_negative_prompt": characters("hat", base="blurry")}
    found = read(Comment=json.dumps(COMMENT | prompts))
    assert (found.prompt, found.negative_prompt) == ("a cat", "blurry\nhat")
    assert found.alternatives == ("a cat\ngirl, red\nboy, blue",)
    assert "characters" in found.warnings[0]
    alone = read(Comment=json.dumps(COMMENT | {"v4_prompt": characters()}))
    assert (alone.alternatives, alone.warnings) == ((), ())


def test_oldest_files_have_their_prompt_in_the_description():
    old = json.dumps({name: COMMENT[name] for name in ("uc", "steps", "scale", "seed")})
    assert read(Comment=old, **BESIDE).prompt == "a cat"
    assert read(UserComment=json.dumps({"Comment": old}), ImageDescription="\0\0\0\0a cat").prompt == "a cat"


def test_director_tools_have_no_prompt_even_with_a_description():
    assert read(Comment='{"req_type": "emotion", "prompt": "happy;;", "steps": 28}', **BESIDE).prompt == ""


@pytest.mark.parametrize("text", ["Created with GIMP", '{"uc": "x"', '{"uc": 1}', '"uc"', '{"Comment": "[\\"uc\\"]"}'])
def test_other_comments_are_not_novelais(text):
    assert read(Comment=text, UserComment=text) is None


def test_odd_values_are_passed_over():
    odd = COMMENT | {"prompt": None, "v4_prompt": {"caption": {"char_captions": [1, {}]}}, "v4_negative_prompt": [], "width": "x"}
    assert (read(Comment=json.dumps(odd)).prompt, read(Comment=json.dumps(odd)).written_size) == ("", None)
