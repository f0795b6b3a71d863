"""No graph takes long: nodes are visited a bounded number of times, however a file was crafted."""

import json
import time

import pytest

from dpo.metadata.comfyfields import load_graphs
from dpo.metadata.comfytext import MAX_TEXT
from dpo.metadata.comfyui import parse, read_graph
from dpo.metadata.comfywalk import MAX_VISITS, Walk
from dpo.metadata.containers import TextField
from tests.metadata.comfygraphs import drawn, encoded, graph, ksampler, node, read, workflow

MANY = 10_000
WIRE = ("conditioning", "CONDITIONING")


def chain(kind: str, name: str = "conditioning", length: int = MANY, **more) -> dict:
    return {f"c{i}": node(kind, **{name: [f"c{i + 1}", 0]}, **more) for i in range(length)}


def monsters():
    """Each of about ten thousand nodes or wires; name -> graph."""
    first = ksampler(positive=["c0", 0])
    fan = {f"c{i}": node("Blend", image1=[f"c{i + 1}", 0], image2=[f"c{i + 2}", 0]) for i in range(5_000)}
    fork = {f"c{i}": node("Join", **{f"text{j}": [f"c{i + j}", 0] for j in range(1, 9)}) for i in range(2_000)}
    words = node("CLIPTextEncode", text=["c0", 0])
    reroutes = [drawn(i, "Reroute", [(*WIRE, i + 1)], ["*"]) for i in range(1, MANY)]
    reroute_links = [(i + 1, i + 1, 0, i, 0) for i in range(1, MANY)]
    inner = [drawn(i, "again") for i in range(10)]
    again = {"id": "again", "nodes": inner, "links": [], "inputs": [], "outputs": []}
    return {
        "conditioning": graph(sampler=first, **chain("ConditioningSetArea")),
        "reroutes": graph(sampler=first, **chain("Reroute")),
        "switches in a circle": graph(
            sampler=first, **chain("ImpactSwitch", "input1", select=1) | {"c10": node("ImpactSwitch", select=1, input1=["c5", 0])}
        ),
        "samplers": graph(**{f"c{i}": ksampler(latent_image=[f"c{i + 1}", 0]) for i in range(2_000)}),
        "pictures": graph(save=node("SaveImage", images=["c0", 0]), **fan),
        "texts": graph(cat=words, **fork),
        "savers": graph(**{f"s{i}": node("SaveImage", images=["decode", 0]) for i in range(MANY)}),
        "canvas": workflow(*reroutes, drawn(MANY + 1, "KSampler", [("positive", "X", 2)]), links=reroute_links),
        "subgraph in itself": workflow(drawn(1, "again"), definitions={"subgraphs": [again]}),
    }


@pytest.mark.parametrize("name", monsters())
def test_monster_is_read_in_bounded_time_and_visits(name):
    field = TextField("workflow" if name in ("canvas", "subgraph in itself") else "prompt", json.dumps(monsters()[name]), "x")
    start = time.process_time()
    parse([field])
    assert time.process_time() - start < 10  # a hundredth of it on an idle machine
    for loaded, where in load_graphs([field]):
        walk = Walk(loaded)
        read_graph(walk, where)
        assert walk.visits <= MAX_VISITS


def test_usual_graph_needs_few_visits():
    ((loaded, where),) = load_graphs([TextField("prompt", json.dumps(graph()), "x")])
    walk = Walk(loaded)
    assert read_graph(walk, where)[1].prompt == "a cat"
    assert 0 < walk.visits < 40


def test_chain_of_ten_thousand_reroutes_has_a_beginning():
    assert (
        read(graph(sampler=ksampler(positive=["c0", 0]), **chain("Reroute"), **{f"c{MANY}": encoded("a bird")})).prompt
        == "a bird"
    )


def test_reroute_may_feed_several_nodes():
    reroutes = {"r1": node("Reroute", a=["r2", 0]), "r2": node("Reroute", a=["bird", 0]), "bird": encoded("a bird")}
    found = read(
        graph(sampler=ksampler(positive=["r1", 0], negative=["both", 0]), both=node("X", conditioning=["r1", 0]), **reroutes)
    )
    assert found.prompt == "a bird"
    found = read(
        graph(sampler=ksampler(negative=["r1", 0], positive=["both", 0]), both=node("X", conditioning=["r2", 0]), **reroutes)
    )
    assert (found.prompt, found.negative_prompt) == ("a bird", "")


def test_reroutes_in_a_circle_carry_nothing():
    circle = {"c0": node("Reroute", a=["c1", 0]), "c1": node("Reroute", a=["c0", 0])}
    assert read(graph(cat=node("CLIPTextEncode", text=["c0", 0]), **circle)).prompt == ""


def test_text_that_doubles_itself_is_cut():
    doubling = {f"j{i}": node("Concat", text_a=[f"j{i + 1}", 0], text_b=[f"j{i + 1}", 0]) for i in range(60)}
    found = read(graph(cat=node("CLIPTextEncode", text=["j0", 0]), **doubling, j60=node("String", string="a cat ")))
    assert len(found.prompt) <= MAX_TEXT


def test_canvas_of_subgraphs_that_double_ends():
    doubling = [
        {"id": f"s{i}", "nodes": [drawn(1, f"s{i + 1}"), drawn(2, f"s{i + 1}")], "links": []} for i in range(40)
    ]  # 2 to the 40th uses
    start = time.process_time()
    read(workflow=workflow(drawn(1, "s0"), definitions={"subgraphs": doubling}))
    assert time.process_time() - start < 10


def test_nodes_beyond_number_are_not_read():
    assert read({"1": node("Note", **{f"text_{i}": "a" for i in range(20_001)})}) is None


def test_deep_nesting_is_no_graph():
    assert parse([TextField("prompt", "[" * 100_000, "PNG prompt")]) is None
    assert parse([TextField("prompt", '{"a":' * 100_000, "PNG prompt")]) is None


@pytest.mark.parametrize(
    "text", ["a" * 90_000, " " * 90_000, "/*" * 45_000, "<lora:" + "a" * 90_000, "a.b" * 30_000, "<lora:" * 15_000]
)
def test_long_text_takes_no_longer_than_its_length(text):
    start = time.process_time()
    read(graph(cat=node("CLIPTextEncode", text=["s", 0]), s=node("Unheard Of", entry=text)))
    read(graph(cat=encoded(text)))
    read(workflow=workflow(drawn(1, "Unheard Of", widgets=[text]), drawn(2, "CLIPTextEncode", widgets=[text])))
    assert time.process_time() - start < 10
