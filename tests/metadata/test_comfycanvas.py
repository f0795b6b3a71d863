"""The canvas of ComfyUI: what ComfyUI dissolves before it runs is dissolved here too, and widgets get their names."""

import random

import pytest

from tests.metadata.comfygraphs import canvas, drawn, read, workflow

CONDITIONING, MODEL, LATENT, IMAGE, STRING = "CONDITIONING", "MODEL", "LATENT", "IMAGE", "STRING"
SETTINGS = [42, "randomize", 20, 7.5, "euler", "normal", 1]


def painting(*nodes: dict, links=(), positive: int = 2, slot: int = 0, **more) -> dict:
    """A canvas whose KSampler takes its positive from output `slot` of node `positive`."""
    sampler = drawn(90, "KSampler", [("positive", CONDITIONING, 900)], [LATENT], SETTINGS)
    save = drawn(91, "SaveImage", [("images", IMAGE, 901)])
    return workflow(*nodes, sampler, save, links=[*links, (900, positive, slot, 90, 0), (901, 90, 0, 91, 0)], **more)


def prompt_on(*nodes: dict, **more) -> str:
    return read(workflow=painting(*nodes, **more)).prompt


def encoder(key, text: str = "", link=None, **more) -> dict:
    inputs = [("clip", "CLIP", None)] + ([("text", STRING, link, "text")] if link is not None else [])
    return drawn(key, "CLIPTextEncode", inputs, [CONDITIONING], [text], **more)


@pytest.mark.parametrize("mode", [0, 4])
def test_canvas_is_read_where_there_is_no_prompt_graph(mode):
    found = read(workflow=canvas(mode))
    assert (found.prompt, found.negative_prompt, found.where) == ("a cat", "a dog", "PNG workflow")
    assert (found.seed, found.steps, found.guidance, found.model) == (42, 20, 7.5, "some.safetensors")


def test_muted_node_of_a_canvas_is_not_there():
    workflow = canvas()
    workflow["nodes"][1]["mode"] = 2
    assert read(workflow=workflow).prompt == "a dog"


def test_bypassed_sampler_of_a_canvas_draws_nothing():
    workflow = canvas()
    workflow["nodes"][3]["mode"] = 4
    found = read(workflow=workflow)
    assert (found.prompt, found.seed) == ("a dog", 7)


def test_reroutes_primitives_and_notes_are_dissolved():
    nodes = [
        encoder(2, "the old text", link=1),
        drawn(3, "PrimitiveNode", outputs=[STRING], widgets=["a cat", "fixed"]),
        drawn(4, "Reroute", [("", "*", 2)], ["*"]),
        drawn(5, "MarkdownNote", widgets=["a long note that nobody should take for a prompt, however long it is"]),
    ]
    assert prompt_on(*nodes, links=[(1, 3, 0, 2, 1), (2, 2, 0, 4, 0)], positive=4) == "a cat"


def test_get_node_is_fed_by_the_set_node_of_its_name():
    nodes = [
        encoder(2, "a cat"),
        encoder(3, "a dog that is said at length"),
        drawn(4, "SetNode", [(CONDITIONING, CONDITIONING, 1)], ["*"], ["mine"]),
        drawn(5, "SetNode", [(CONDITIONING, CONDITIONING, 2)], ["*"], ["other"]),
        drawn(6, "GetNode", outputs=[CONDITIONING], widgets=["mine"]),
    ]
    assert prompt_on(*nodes, links=[(1, 2, 0, 4, 0), (2, 3, 0, 5, 0)], positive=6) == "a cat"


def test_bypassed_node_gives_out_the_input_beside_its_output():
    apply = [("positive", CONDITIONING, 1), ("negative", CONDITIONING, 2)]
    control = drawn(4, "ControlNetApplyAdvanced", apply, [CONDITIONING, CONDITIONING], mode=4)
    nodes = [encoder(2, "a cat"), encoder(3, "a dog"), control]
    links = [(1, 2, 0, 4, 0), (2, 3, 0, 4, 1)]
    assert prompt_on(*nodes, links=links, positive=4, slot=0) == "a cat"
    assert prompt_on(*nodes, links=links, positive=4, slot=1) == "a dog"


def test_bypassed_sampler_is_none():
    sampler = drawn(4, "KSampler", [("positive", CONDITIONING, 1)], [LATENT], SETTINGS, mode=4)
    found = read(workflow=workflow(encoder(2, "a cat"), sampler, links=[(1, 2, 0, 4, 0)]))
    assert (found.prompt, found.certainty, found.seed) == ("a cat", "guess", None)  # the longest text


def test_prompts_everywhere_reach_a_sampler_without_wires():
    sides = [("+", CONDITIONING, 1), ("-", CONDITIONING, 2)]
    sampler = drawn(5, "KSampler", [("positive", CONDITIONING, None), ("negative", CONDITIONING, None)], [LATENT], SETTINGS)
    nodes = [encoder(2, "a cat"), encoder(3, "a dog"), drawn(4, "Prompts Everywhere", sides), sampler]
    found = read(workflow=workflow(*nodes, links=[(1, 2, 0, 4, 0), (2, 3, 0, 4, 1)]))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


# --- subgraphs


def subgraph(name: str, *nodes: dict, links=(), inputs=(), outputs=1) -> dict:
    """Links inside a subgraph are dicts; -10 and -20 are its own inputs and outputs."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    return {
        "id": name,
        "nodes": list(nodes),
        "links": [dict(zip(names, link, strict=True)) for link in links],
        "inputs": [{"name": slot} for slot in inputs],
        "outputs": [{"name": "out"}] * outputs,
    }


def definitions(*subgraphs: dict) -> dict:
    return {"definitions": {"subgraphs": list(subgraphs)}}


INNER = subgraph("uuid", encoder(7, "a cat inside", link=1), links=[(1, -10, 0, 7, 1), (2, 7, 0, -20, 0)], inputs=["text"])


def test_subgraph_is_entered_by_its_outputs():
    host = drawn(2, "uuid", outputs=[CONDITIONING])
    assert prompt_on(host, **definitions(INNER)) == "a cat inside"


def test_text_comes_into_a_subgraph_by_wire():
    host = drawn(2, "uuid", [("text", STRING, 5, "text")], [CONDITIONING])
    text = drawn(3, "PrimitiveStringMultiline", outputs=[STRING], widgets=["a cat outside"])
    assert prompt_on(host, text, links=[(5, 3, 0, 2, 0)], **definitions(INNER)) == "a cat outside"


def test_value_on_the_outside_of_a_subgraph_counts_more_than_the_one_inside():
    host = drawn(2, "uuid", [("text", STRING, None, "text")], [CONDITIONING], ["a cat outside"])
    assert prompt_on(host, **definitions(INNER)) == "a cat outside"


def test_values_of_proxy_widgets_belong_to_the_inner_nodes_they_name():
    inner = subgraph("uuid", encoder(7, "a cat inside"), links=[(2, 7, 0, -20, 0)])
    proxies = {"proxyWidgets": [["7", "text"]]}
    host = drawn(2, "uuid", outputs=[CONDITIONING], widgets=["a cat outside"], properties=proxies)
    assert prompt_on(host, **definitions(inner)) == "a cat outside"
    assert prompt_on(host | {"widgets_values": []}, **definitions(inner)) == "a cat inside"


def test_subgraphs_in_subgraphs_pass_their_inputs_on():
    middle_host = drawn(4, "uuid", [("text", STRING, 1, "text")], [CONDITIONING])
    middle = subgraph("middle", middle_host, links=[(1, -10, 0, 4, 0), (2, 4, 0, -20, 0)], inputs=["prompt"])
    host = drawn(2, "middle", [("prompt", STRING, None, "prompt")], [CONDITIONING], ["a cat outside"])
    assert prompt_on(host, **definitions(INNER, middle)) == "a cat outside"


def test_sampler_inside_a_subgraph_is_found():
    sampler = drawn(8, "KSampler", [("positive", CONDITIONING, 2)], [LATENT], SETTINGS)
    inner = subgraph("uuid", encoder(7, "a cat"), sampler, links=[(2, 7, 0, 8, 0), (3, 8, 0, -20, 0)])
    save = drawn(91, "SaveImage", [("images", IMAGE, 1)])
    found = read(workflow=workflow(drawn(2, "uuid", outputs=[IMAGE]), save, links=[(1, 2, 0, 91, 0)], **definitions(inner)))
    assert (found.prompt, found.seed, found.certainty) == ("a cat", 42, "derived")


def test_bypassed_subgraph_is_passed_over():
    host = drawn(2, "uuid", [("in", CONDITIONING, 1)], [CONDITIONING], mode=4)
    assert prompt_on(host, encoder(3, "a dog"), links=[(1, 3, 0, 2, 0)], **definitions(INNER)) == "a dog"


@pytest.mark.parametrize("name", ["workflow>mine", "workflow/mine"])
def test_group_node_is_entered_too(name):
    """The subgraph of older canvases: nodes by index, links as lists of indexes."""
    inner = {"nodes": [encoder(0, "a cat"), drawn(0, "FluxGuidance", [("conditioning", CONDITIONING, None)], [CONDITIONING])]}
    group = inner | {"links": [[0, 0, 1, 0, 1, CONDITIONING]]}
    host = drawn(2, name, outputs=[CONDITIONING])
    assert prompt_on(host, extra={"groupNodes": {"mine": group}}) == "a cat"


def test_values_of_a_group_node_are_its_inner_nodes_one_after_another():
    inner = {"nodes": [drawn(0, "KSamplerSelect", widgets=["euler"]), encoder(1, "the old text")], "links": []}
    group = inner | {"external": [[1, 0, CONDITIONING]]}
    host = drawn(2, "workflow>mine", outputs=["SAMPLER", CONDITIONING], widgets=["heun", "a cat"])
    assert prompt_on(host, slot=0, extra={"groupNodes": {"mine": group}}) == "a cat"


# --- names of widgets


def test_widgets_that_are_listed_among_the_inputs_get_their_names():
    unheard_of = drawn(2, "Unheard Of", [("mode", "COMBO", None, "mode"), ("prompt", STRING, None, "prompt")], [CONDITIONING])
    assert prompt_on(unheard_of | {"widgets_values": ["a mode of many words in a row", "a cat"]}) == "a cat"


def test_widget_beside_a_seed_has_no_name():
    inputs = [("noise_seed", "INT", None, "noise_seed"), ("steps", "INT", None, "steps"), ("positive", CONDITIONING, 1)]
    sampler = drawn(5, "Unheard Of", inputs, [LATENT], [7, "randomize", 33])
    found = read(workflow=workflow(encoder(2, "a cat"), sampler, links=[(1, 2, 0, 5, 2)]))
    assert (found.seed, found.steps) == (7, 33)


def test_sampler_of_an_unknown_kind_is_read_by_the_looks_of_its_values():
    inputs = [("positive", CONDITIONING, 1), ("latent_image", LATENT, None)]
    sampler = drawn(5, "Unheard Of", inputs, [LATENT], ["on", 7, "fixed", 33, 4.5, "dpmpp_2m", "karras"])
    found = read(workflow=workflow(encoder(2, "a cat"), sampler, links=[(1, 2, 0, 5, 0)]))
    assert (found.seed, found.steps, found.guidance, found.sampler) == (7, 33, 4.5, "dpmpp_2m")


def test_widgets_may_have_their_names_with_them():
    assert prompt_on(drawn(2, "Unheard Of", outputs=[CONDITIONING], widgets={"prompt": "a cat", "mode": "x"})) == "a cat"


def test_converted_widget_counts_by_its_wire_and_keeps_its_place():
    inputs = [("t5xxl", STRING, 1, "t5xxl")]
    flux = drawn(2, "CLIPTextEncodeFlux", inputs, [CONDITIONING], ["cat", "the old text of the widget", 3.5])
    text = drawn(3, "PrimitiveString", outputs=[STRING], widgets=["a cat in the rain"])
    found = read(workflow=painting(flux, text, links=[(1, 3, 0, 2, 0)]))
    assert (found.prompt, found.alternatives) == ("a cat in the rain", ("cat",))


def test_node_that_draws_by_itself_tells_its_sentence_and_not_its_model():
    values = ["Some Model 3", "a cat that sits on a wall", "1:1", 7, "randomize"]
    save = drawn(9, "SaveImage", [("images", IMAGE, 1)])
    found = read(workflow=workflow(drawn(2, "SomeHostedNode", outputs=[IMAGE], widgets=values), save, links=[(1, 2, 0, 9, 0)]))
    assert (found.prompt, found.seed) == ("a cat that sits on a wall", 7)


def test_text_shown_on_the_canvas_is_known():
    shown = drawn(3, "ShowText|pysssss", [("text", STRING, None)], [STRING], [["a cat", "a dog"]])
    assert prompt_on(encoder(2, link=1), shown, links=[(1, 3, 0, 2, 1)]) == "a cat\na dog"


def test_no_canvas_raises():
    randomness = random.Random(0)
    junk = [None, True, -1, 1.5, "x", [], {}, ["2", 0], [1, "0"], [[1], 0], {"a": {}}, 10**30, -10, -20, "uuid", "workflow>mine"]

    def damage(value):
        if randomness.random() < 0.03:
            return randomness.choice(junk)
        if isinstance(value, dict):
            return {key: damage(child) for key, child in value.items()}
        return [damage(child) for child in value] if isinstance(value, list) else value

    def rich() -> dict:
        group = {"nodes": [encoder(0, "a cat"), encoder(1, "a dog")], "links": [[0, 0, 1, 0]], "external": [[1, 0, "X"]]}
        nodes = [
            drawn(2, "uuid", [("text", STRING, 1, "text")], [CONDITIONING], ["a"], properties={"proxyWidgets": [["7", "text"]]}),
            drawn(3, "PrimitiveString", outputs=[STRING], widgets=["a cat"]),
            drawn(4, "workflow>mine", [("in", CONDITIONING, 2)], [CONDITIONING], ["a", "b"]),
            drawn(5, "Reroute", [("", "*", 3)], ["*"], mode=4),
            drawn(6, "GetNode", outputs=["*"], widgets=["x"]),
            drawn(7, "SetNode", [("", "*", 4)], ["*"], ["x"]),
        ]
        links = [(1, 3, 0, 2, 0), (2, 2, 0, 4, 0), (3, 4, 0, 5, 0), (4, 5, 0, 7, 0)]
        return painting(*nodes, links=links, positive=6, extra={"groupNodes": {"mine": group}}, **definitions(INNER))

    for _ in range(1500):
        read(workflow=damage(rich()))
