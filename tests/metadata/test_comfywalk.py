"""Which samplers a graph has, and which nodes nothing uses."""

from dpo.metadata.comfygraph import Node
from dpo.metadata.comfywalk import Walk


def graph(first: object) -> dict[str, Node]:
    """Two passes, saved; `first` is how the second names the first."""
    return {
        "1": Node("CLIPTextEncode", {"text": "a cat"}),
        "2": Node("KSampler", {"steps": 20, "positive": ["1", 0]}),
        "3": Node("KSampler", {"steps": 20, "positive": ["1", 0], "latent_image": [first, 0]}),
        "4": Node("VAEDecode", {"samples": ["3", 0]}),
        "5": Node("SaveImage", {"images": ["4", 0], "tags": ["4", "3"]}),
    }


def test_a_wire_names_its_node_by_text_or_by_number():
    for first in ("2", 2):
        walk = Walk(graph(first))
        assert walk.outputs() == ["5"]
        assert walk.samplers_above("5") == ["3"] and walk.first_pass("3") == "2"


def test_a_list_of_two_texts_is_no_wire():
    walk = Walk(graph("2") | {"4": Node("VAEDecode", {"samples": ["3", "0"]})})
    assert walk.outputs() == ["5", "3"] and walk.samplers_above("5") == []


def test_walking_in_a_circle_ends_and_a_sampler_is_not_above_itself():
    circle = graph("2") | {"6": Node("LatentUpscaleBy", {"samples": ["2", 0]})}
    circle["2"].inputs["latent_image"] = ["6", 0]
    walk = Walk(circle)
    assert walk.samplers_above("2") == [] and walk.samplers_above("3") == ["2"]
    assert walk.first_pass("3") == "2"
