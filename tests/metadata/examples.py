"""What hypothesis thinks up for test_fuzz.py: broken files, texts, and ComfyUI's graphs, made of words that parsers look for."""

from hypothesis import strategies as st

from tests.metadata.test_boxes import PLACES as BOX_PLACES
from tests.metadata.test_containers import PLACES

FILES = [data for data, *_ in [*PLACES.values(), *BOX_PLACES.values()]]
NAMES = """
    parameters prompt workflow Comment Description Software Title Dream sd-metadata UserComment invokeai_metadata invokeai_graph
    fooocus_scheme generation_data parameters-json XML:com.adobe.xmp comment negative_prompt use_stable_diffusion_model smproj
""".split()
NAMES.append("Raw profile type exif")
KEYS = """
    prompt negative_prompt negativePrompt positive_prompt sui_image_params sui_extra_data uc c v2 image images model loras lora
    seed steps cfg width height size resolution metadata workflow nodes links class_type type inputs outputs widgets_values
    definitions subgraphs extraMetadata weight v4_prompt caption char_captions base_caption Comment prompts Prompt full_prompt
    baseModel name edges
""".split()
TEXTS = [
    "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 1x1, Model: m, Version: v1.10.1",
    'a <lora:x:0.8> b\nSteps: 20, Sampler: x, Seed: 1, Lora hashes: "x: 1, y: 2", Civitai resources: [{"weight":1}]',
    '"a cat [blurry]" -s 50 -S 42 -W 512 -H 512 -C 7.5 -A k_lms',
    'prompt: {"1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "steps": 1}}}',
    "aigc_info",
]
HALF_A_PAIR = "half an emoji: \ud83d"  # JSON can say this; no file and no database can hold it
KINDS = """
    KSampler KSamplerAdvanced SamplerCustomAdvanced CLIPTextEncode CLIPTextEncodeSDXL CLIPTextEncodeFlux Reroute SaveImage
    ConditioningCombine ConditioningZeroOut ControlNetApplyAdvanced StringConcatenate PrimitiveNode ImpactWildcardProcessor
    CFGGuider BasicGuider ShowText|pysssss LoraLoader VAEDecode RegexReplace workflow/group ImpactSwitch
""".split()
KINDS += ["Any Switch", "easy int", "Text Concatenate"]
INPUTS = """
    positive negative text text_g text_l steps cfg seed sampler_name latent_image samples images conditioning conditioning_1
    conditioning_2 guider model clip vae pipe basic_pipe string_a string_b delimiter populated_text wildcard_text value select
    input1 input2 any_01 prompt lora_name width
""".split()

# --- files


LENGTHS = st.sampled_from([0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF])


@st.composite
def damaged_files(draw) -> bytes:
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["byte", "length", "insert", "delete", "repeat"])):
            case "byte":
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "length":
                data[place : place + 4] = draw(LENGTHS).to_bytes(4, draw(st.sampled_from(["big", "little"])))
            case "insert":
                data[place:place] = draw(st.binary(max_size=20))
            case "delete":
                del data[place : place + draw(st.integers(1, 20))]
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 200))] * draw(st.integers(1, 5))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


# --- texts


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*TEXTS, *KEYS, HALF_A_PAIR])
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)


@st.composite
def edited_texts(draw) -> str:
    text = draw(st.sampled_from(TEXTS))
    place = draw(st.integers(0, len(text)))
    other = draw(st.text(max_size=10) | st.sampled_from([",", ":", "\n", '"', "{", "[", "\\", "\0", "Steps: ", "\r\n"]))
    return text[:place] + other + text[place + draw(st.integers(0, 30)) :]


# --- graphs


LINKS = st.tuples(st.integers(0, 9).map(str), st.integers(0, 3)).map(list)
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(KINDS),
        "inputs": st.dictionaries(st.sampled_from(INPUTS), LINKS | LINKS | PLAIN | VALUES, max_size=6),
    }
)
RUN_GRAPHS = st.dictionaries(st.integers(0, 9).map(str), NODES | VALUES, max_size=10)
SOCKETS = st.fixed_dictionaries(
    {"name": st.sampled_from(INPUTS)},
    optional={"link": st.integers(0, 12) | VALUES, "type": st.text(max_size=2), "links": VALUES},
)
SHAPES = st.fixed_dictionaries(
    {"id": st.integers(-20, 9) | VALUES, "type": st.sampled_from([*KINDS, "sub"])},
    optional={
        "inputs": st.lists(SOCKETS | VALUES, max_size=4) | VALUES,
        "outputs": st.lists(SOCKETS | VALUES, max_size=2) | VALUES,
        "widgets_values": st.lists(PLAIN, max_size=5) | VALUES,
        "mode": st.sampled_from([0, 2, 4]),
        "properties": VALUES,
    },
)
EDGES = st.lists(st.integers(-20, 12), min_size=5, max_size=5) | VALUES
CANVAS = st.fixed_dictionaries({"nodes": st.lists(SHAPES | VALUES, max_size=8), "links": st.lists(EDGES, max_size=10)})
SUBGRAPHS = st.builds(
    lambda canvas, name: {**canvas, "id": name, "inputs": [], "outputs": []}, CANVAS, st.sampled_from(["sub", "x"])
)
CANVASES = st.builds(
    lambda canvas, definitions: {**canvas, "last_node_id": 9, "definitions": {"subgraphs": definitions}},
    CANVAS, st.lists(SUBGRAPHS | VALUES, max_size=2),
)  # fmt: skip
