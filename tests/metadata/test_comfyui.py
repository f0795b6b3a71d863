"""ComfyUI graphs: which sampler, which text. `graph` draws the usual one; tests replace nodes in it."""

import json
import random

import pytest

from dpo.metadata import comfyfields
from dpo.metadata.comfyui import parse
from dpo.metadata.containers import TextField
from tests.metadata.comfygraphs import canvas, graph, ksampler, node, prompt_of, read


def test_plain_graph_gives_prompt_and_settings():
    found = read(graph())
    assert (found.prompt, found.negative_prompt, found.seed, found.steps) == ("a cat", "a dog", 42, 20)
    assert (found.guidance, found.sampler, found.model) == (7.5, "euler", "some.safetensors")
    assert (found.generator, found.where, found.warnings) == ("comfyui", "PNG prompt", ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Make", "workflow:{GRAPH}"),
        ("Model", "prompt:{GRAPH}"),
        ("ImageDescription", "Prompt: {GRAPH}"),
        ("UserComment", '{"prompt": {GRAPH}, "workflow": {}}'),
        ("UserComment", "{GRAPH}"),
        ("comment", "{GRAPH}\0"),
    ],
)
def test_graph_is_read_from_every_place_savers_put_it(name, text):
    text = text.replace("{GRAPH}", json.dumps(graph()))
    assert parse([TextField(name, text, "EXIF")]).prompt == "a cat"


def test_graph_stored_as_text_inside_json_is_read():
    text = json.dumps({"prompt": json.dumps(graph())})
    assert parse([TextField("UserComment", text, "EXIF")]).prompt == "a cat"


def test_nan_in_a_graph_is_read():
    text = json.dumps(graph() | {"x": {"class_type": "X", "inputs": {}, "is_changed": [float("nan")]}})
    assert "NaN" in text
    assert parse([TextField("prompt", text, "PNG prompt")]).prompt == "a cat"


def test_subgraph_ids_are_strings():
    assert prompt_of(**{"37:8": node("CLIPTextEncode", text="a bird"), "sampler": ksampler(positive=["37:8", 0])}) == "a bird"


def test_numeric_ids_of_wires_meet_their_nodes():
    assert prompt_of(**{"6": node("CLIPTextEncode", text="a bird"), "sampler": ksampler(positive=[6, 0])}) == "a bird"


def test_text_comes_through_other_nodes():
    strings = {
        "cat": node("CLIPTextEncode", text=["shown", 0], clip=["model", 1]),
        "shown": node("ShowText|pysssss", text=["joined", 0]),
        "joined": node("StringConcatenate", string_b=["b", 0], string_a="a red", delimiter=" "),
        "b": node("Reroute", **{"": ["c", 0]}),
        "c": node("PrimitiveStringMultiline", value="bird"),
    }
    assert prompt_of(**strings) == "a red bird"


def test_text_shown_at_run_time_counts_more_than_its_source():
    shown = node("ShowText|pysssss", text=["cat", 0], text2="a resolved bird")
    assert prompt_of(sampler=ksampler(positive=["e", 0]), e=node("CLIPTextEncode", text=["s", 0]), s=shown) == "a resolved bird"


def test_stored_result_of_a_string_function_counts_more_than_its_parts():
    joined = node("StringFunction|pysssss", action="append", text_a="a red", text_b=["b", 0], result="a red bird")
    assert prompt_of(cat=node("CLIPTextEncode", text=["joined", 0]), joined=joined) == "a red bird"


def test_resolved_wildcards_count_more_than_their_template():
    wildcards = node("ImpactWildcardEncode", wildcard_text="__animal__ in the rain", populated_text="a bird", seed=3)
    assert prompt_of(cat=wildcards) == "a bird"


def test_zeroed_conditioning_is_empty():
    found = read(graph(zero=node("ConditioningZeroOut", conditioning=["dog", 0]), sampler=ksampler(negative=["zero", 0])))
    assert (found.prompt, found.negative_prompt) == ("a cat", "")


def test_combined_conditionings_are_combined():
    both = node("ConditioningCombine", conditioning_1=["cat", 0], conditioning_2=["bird", 0])
    assert (
        prompt_of(sampler=ksampler(positive=["both", 0]), both=both, bird=node("CLIPTextEncode", text="a bird"))
        == "a cat\na bird"
    )


def test_equal_texts_that_are_combined_are_said_once():
    both = node("ConditioningCombine", conditioning_1=["cat", 0], conditioning_2=["same", 0])
    assert prompt_of(sampler=ksampler(positive=["both", 0]), both=both, same=node("CLIPTextEncode", text="a cat ")) == "a cat"


@pytest.mark.parametrize("kind", ["FluxGuidance", "ConditioningSetArea", "ControlNetApply", "unCLIPConditioning", "Unheard of"])
def test_nodes_that_change_conditioning_are_walked_through(kind):
    assert prompt_of(sampler=ksampler(positive=["x", 0]), x=node(kind, conditioning=["cat", 0])) == "a cat"


def test_label_of_a_box_is_not_the_prompt():
    box = node("GLIGENTextBoxApply", text="sun", conditioning_to=["cat", 0], clip=["model", 1])
    assert prompt_of(sampler=ksampler(positive=["box", 0]), box=box) == "a cat"


@pytest.mark.parametrize(("passed", "first_slot"), [({}, 0), ({"model": ["model", 0]}, 1)])
@pytest.mark.parametrize("is_crossed", [False, True])
def test_output_slot_tells_positive_from_negative(passed, first_slot, is_crossed):
    control = node("ControlNetApplyAdvanced", positive=["cat", 0], negative=["dog", 0], **passed)
    wires = [["control", first_slot], ["control", first_slot + 1]]
    positive, negative = reversed(wires) if is_crossed else wires
    found = read(graph(control=control, sampler=ksampler(positive=positive, negative=negative)))
    assert (found.prompt, found.negative_prompt) == (("a dog", "a cat") if is_crossed else ("a cat", "a dog"))


def test_loader_with_prompts_as_widgets_is_read():
    loader = node("Efficient Loader", ckpt_name="x.ckpt", positive="a bird", negative="a fish")
    found = read(graph(cat=None, dog=None, model=loader, sampler=ksampler(positive=["model", 1], negative=["model", 2])))
    assert (found.prompt, found.negative_prompt, found.model) == ("a bird", "a fish", "x.ckpt")


@pytest.mark.parametrize("wire", ["basic_pipe", "pipe"])
def test_pipe_carries_both_sides(wire):
    pipe = node("ToBasicPipe", model=["model", 0], positive=["cat", 0], negative=["dog", 0])
    sampler = node(
        "ImpactKSamplerBasicPipe", seed=1, steps=5, cfg=2, sampler_name="x", latent_image=["empty", 0], **{wire: ["p", 0]}
    )
    found = read(graph(p=pipe, sampler=sampler))
    assert (found.prompt, found.negative_prompt, found.steps) == ("a cat", "a dog", 5)


def test_context_chain_carries_both_sides():
    contexts = {
        "first": node("Context Big (rgthree)", model=["model", 0], positive=["cat", 0], negative=["dog", 0], steps=3),
        "second": node("Context (rgthree)", base_ctx=["first", 0]),
        "sampler": ksampler(model=["second", 1], positive=["second", 4], negative=["second", 5], latent_image=["second", 6]),
    }
    found = read(graph(**contexts))
    assert (found.prompt, found.negative_prompt, found.model, found.steps) == ("a cat", "a dog", "some.safetensors", 20)


def custom_sampler(guider: dict) -> dict:
    return graph(
        sampler=node("SamplerCustomAdvanced", noise=["n", 0], guider=["g", 0], sampler=["k", 0], sigmas=["s", 0]),
        n=node("RandomNoise", noise_seed=9),
        k=node("KSamplerSelect", sampler_name="heun"),
        s=node("BasicScheduler", steps=33, model=["model", 0]),
        g=guider,
    )  # fmt: skip


def test_guider_with_one_conditioning_has_no_negative():
    found = read(custom_sampler(node("BasicGuider", model=["model", 0], conditioning=["cat", 0])))
    assert (found.prompt, found.negative_prompt) == ("a cat", "")
    assert (found.seed, found.steps, found.sampler, found.model) == (9, 33, "heun", "some.safetensors")


def test_guiders_with_several_conditionings_have_sides():
    found = read(custom_sampler(node("CFGGuider", model=["model", 0], positive=["cat", 0], negative=["dog", 0], cfg=3)))
    assert (found.prompt, found.negative_prompt, found.guidance) == ("a cat", "a dog", 3.0)
    found = read(custom_sampler(node("DualCFGGuider", cond1=["cat", 0], cond2=["dog", 0], negative=["dog", 0])))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


@pytest.mark.parametrize(
    "texts",
    [
        {"text_g": "a bird in the sky", "text_l": "a bird in the sky"},
        {"clip_l": "bird, sky", "t5xxl": "a bird in the sky"},
        {"clip_g": "", "clip_l": "bird", "t5xxl": "a bird in the sky"},
        {"bert": "bird", "mt5xl": "a bird in the sky"},
        {"prompt": "a bird in the sky"},
    ],
)
def test_encoder_with_several_texts_gives_the_sentence(texts):
    assert prompt_of(cat=node("AnyEncode", clip=["model", 1], **texts)) == "a bird in the sky"


def test_first_pass_wins_over_refiner_and_detailer():
    later = {
        "refiner": ksampler(positive=["bird", 0], latent_image=["sampler", 0], seed=2),
        "decode": node("VAEDecode", samples=["refiner", 0], vae=["model", 2]),
        "detailer": node("FaceDetailer", image=["decode", 0], positive=["face", 0], negative=["dog", 0], steps=9, seed=3),
        "save": node("SaveImage", images=["detailer", 0]),
        "bird": node("CLIPTextEncode", text="a bird with a very long description"),
        "face": node("CLIPTextEncode", text="a face"),
    }
    found = read(graph(**later))
    assert (found.prompt, found.seed, found.warnings) == ("a cat", 42, ())


def test_sampler_that_merges_several_pictures_tells_the_scene():
    merged = {
        "left": ksampler(positive=["bird", 0]),
        "both": node("LatentComposite", samples_to=["sampler", 0], samples_from=["left", 0]),
        "last": ksampler(positive=["scene", 0], latent_image=["both", 0]),
        "decode": node("VAEDecode", samples=["last", 0]),
        "bird": node("CLIPTextEncode", text="a bird"),
        "scene": node("CLIPTextEncode", text="a cat and a bird"),
    }
    assert prompt_of(**merged) == "a cat and a bird"


def test_sampler_whose_picture_is_saved_wins_over_one_that_is_only_shown():
    shown = {
        "0": node("PreviewImage", images=["1", 0]),
        "1": node("VAEDecode", samples=["2", 0]),
        "2": ksampler(positive=["dog", 0]),
    }
    found = read(shown | graph())
    assert found.prompt == "a cat"
    assert "Several prompts" in found.warnings[0]


def test_sampler_without_words_passes_the_question_to_the_one_before_it():
    cascade = {
        "zero": node("ConditioningZeroOut", conditioning=["cat", 0]),
        "stage_b": node("StableCascade_StageB_Conditioning", conditioning=["zero", 0], stage_c=["sampler", 0]),
        "second": ksampler(positive=["stage_b", 0], negative=["zero", 0]),
        "decode": node("VAEDecode", samples=["second", 0]),
    }
    assert prompt_of(**cascade) == "a cat"


def test_empty_prompt_stays_empty():
    assert prompt_of(cat=node("CLIPTextEncode", text="", clip=["model", 1])) == ""


def test_prompt_that_is_not_in_the_graph_is_not_invented():
    assert prompt_of(cat=node("CLIPTextEncode", text=["llm", 0]), llm=node("Describe", image=["photo", 0])) == ""
    found = read(
        graph(cat=node("CLIPTextEncode", text=["j", 0]), j=node("JoinStrings", string1=["llm", 0]), llm=node("Describe"))
    )
    assert (found.prompt, found.where, found.warnings) == ("", "PNG prompt", ())


def test_node_that_draws_by_itself_tells_its_prompt():
    api = {
        "api": node("IdeogramV3", prompt="a bird", negative_prompt="a very long negative prompt", seed=3),
        "save": node("SaveImage", images=["api", 0]),
        "note": node("Note", text="a long note that nobody should take for a prompt"),
    }
    assert read(api).prompt == "a bird"


def test_suite_that_draws_by_itself_is_asked_for_the_positive():
    suite = {
        "0": node("SuiteText", prompt="a very long negative prompt"),
        "1": node("SuiteText", prompt="a bird"),
        "2": node("SuitePrompts", negative_main_prompt=["0", 0], main_prompt=["1", 0]),
        "3": node("SuiteSave", data=["2", 0]),
    }
    assert read(suite).prompt == "a bird"


def test_texts_that_reach_no_output_are_a_last_resort_with_a_warning():
    found = read({"a": node("Note", text="a bird"), "b": node("Note", text="a small bird")})
    assert found.prompt == "a small bird"
    assert "longest" in found.warnings[0]


def test_graph_without_texts_has_no_prompt():
    assert read({"1": node("LoadImage", image="a.png"), "2": node("SaveImage", images=["1", 0])}).prompt == ""


def test_other_json_is_not_mine():
    assert read({"prompt": {"prompts": [[1, "a cat"]]}}) is None
    assert parse([TextField("prompt", "a cat, plain", "PNG prompt")]) is None


def test_cycles_end():
    assert prompt_of(cat=node("CLIPTextEncode", text=["loop", 0]), loop=node("Reroute", a=["cat", 0], b=["loop", 0])) == ""
    looped = {"sampler": ksampler(latent_image=["second", 0]), "second": ksampler(latent_image=["sampler", 0])}
    assert prompt_of(**looped) == "a cat"


def test_graph_that_was_run_counts_more_than_the_canvas():
    run = graph(cat=node("CLIPTextEncode", text="a bird"))
    assert read(run, canvas()).prompt == "a bird"
    webp = [
        TextField("Make", f"workflow:{json.dumps(canvas())}", "EXIF"),
        TextField("Model", f"prompt:{json.dumps(run)}", "EXIF"),
    ]
    assert parse(webp).prompt == "a bird"


def test_canvas_is_asked_where_the_prompt_graph_tells_nothing():
    loaded = {"1": node("LoadImage", image="a.png"), "2": node("SaveImage", images=["1", 0])}
    assert read(loaded, canvas()).prompt == "a cat"


def test_no_json_raises():
    randomness = random.Random(0)
    junk = [None, True, -1, 1.5, "x", [], {}, ["cat", 0], ["cat", "0"], [["cat"], 0], {"a": {}}, ["sampler", 0]]

    def damage(value):
        if randomness.random() < 0.03:
            return randomness.choice(junk)
        if isinstance(value, dict):
            return {key: damage(child) for key, child in value.items()}
        return [damage(child) for child in value] if isinstance(value, list) else value

    for _ in range(800):
        read(damage(graph()), damage(canvas(randomness.choice([0, 2, 4]))))


def test_canvas_is_not_parsed_where_the_run_was_clear(monkeypatch):
    parsed = []
    monkeypatch.setattr(comfyfields, "parse_json", lambda text: parsed.append(text) or json.loads(text))
    fields = [TextField("workflow", json.dumps(canvas()), "PNG workflow"), TextField("prompt", json.dumps(graph()), "PNG prompt")]
    assert (parse(fields).prompt, len(parsed)) == ("a cat", 1)
