"""The settings of a ComfyUI graph: the sampler's own, or of the nodes that it takes them from."""

import pytest

from dpo.metadata.records import Lora
from tests.metadata.comfygraphs import encoded, graph, ksampler, node, read


def custom(**nodes):
    sampler = node(
        "SamplerCustomAdvanced", noise=["n", 0], guider=["g", 0], sampler=["k", 0], sigmas=["s", 0], latent_image=["empty", 0]
    )
    usual = {
        "n": node("RandomNoise", noise_seed=9),
        "g": node("BasicGuider", model=["model", 0], conditioning=["cat", 0]),
        "k": node("KSamplerSelect", sampler_name="heun"),
        "s": node("BasicScheduler", steps=33, model=["model", 0]),
    }
    return read(graph(**{"sampler": sampler} | usual | nodes))


def test_seed_of_a_wildcard_node_is_not_the_samplers():
    words = node("ImpactWildcardProcessor", populated_text="a cat", seed=1)
    assert custom(cat=node("CLIPTextEncode", text=["w", 0]), w=words).seed == 9


@pytest.mark.parametrize("source", [node("Seed (rgthree)", seed=5), node("PrimitiveInt", value=5), node("easy seed", seed=5)])
def test_seed_comes_by_wire(source):
    assert read(graph(sampler=ksampler(seed=["x", 0]), x=source)).seed == 5


def test_setting_by_wire_is_the_one_of_its_name():
    config = node("KSampler Config (rgthree)", steps_total=12, steps=12, refiner_step=8, cfg=6.5, sampler_name="ddim")
    found = read(graph(sampler=ksampler(steps=["c", 0], cfg=["c", 2], sampler_name=["c", 3]), c=config))
    assert (found.steps, found.guidance, found.sampler) == (12, 6.5, "ddim")


def test_distilled_guidance_counts_where_cfg_is_one_or_absent():
    guided = node("FluxGuidance", conditioning=["cat", 0], guidance=3.5)
    assert read(graph(f=guided, sampler=ksampler(positive=["f", 0], cfg=1.0))).guidance == 3.5
    assert read(graph(f=guided, sampler=ksampler(positive=["f", 0], cfg=6.0))).guidance == 6.0
    assert read(graph(sampler=ksampler(cfg=1.0))).guidance == 1.0
    assert custom(f=guided, g=node("BasicGuider", model=["model", 0], conditioning=["f", 0])).guidance == 3.5


def test_cfg_of_a_guider_is_the_guidance():
    guider = node("CFGGuider", model=["model", 0], positive=["cat", 0], negative=["dog", 0], cfg=3)
    assert custom(g=guider).guidance == 3.0


def test_loras_on_the_way_to_the_model_took_part():
    chain = {
        "a": node(
            "LoraLoader", model=["b", 0], clip=["model", 1], lora_name="a.safetensors", strength_model=0.5, strength_clip=1
        ),
        "b": node("LoraLoaderModelOnly", model=["model", 0], lora_name="b.safetensors", strength_model=["half", 0]),
        "half": node("PrimitiveFloat", value=0.25),
        "unused": node("LoraLoader", model=["model", 0], lora_name="unused.safetensors", strength_model=1),
    }
    found = read(graph(sampler=ksampler(model=["a", 0]), **chain))
    assert found.loras == (Lora("a.safetensors", 0.5), Lora("b.safetensors", 0.25))
    assert found.model == "some.safetensors"


def test_loras_of_a_power_loader_took_part_where_they_are_on():
    rows = {
        "lora_1": {"on": True, "lora": "a.safetensors", "strength": 0.5},
        "lora_2": {"on": False, "lora": "b.safetensors", "strength": 1},
    }
    loader = node("Power Lora Loader (rgthree)", model=["model", 0], **rows)
    assert read(graph(sampler=ksampler(model=["p", 0]), p=loader)).loras == (Lora("a.safetensors", 0.5),)


def test_loras_of_a_manager_took_part_where_they_are_active():
    rows = [{"name": "a", "strength": 0.5, "active": True}, {"name": "b", "strength": 1, "active": False}]
    loader = node("Lora Loader (LoraManager)", model=["model", 0], text="", loras={"__value__": rows})
    assert read(graph(sampler=ksampler(model=["p", 0]), p=loader)).loras == (Lora("a", 0.5),)


def test_loras_of_a_stack_took_part_as_far_as_it_counts():
    stack = node(
        "LoRA Stacker", lora_count=1, lora_name_1="a.safetensors", lora_wt_1=0.5, lora_name_2="b.safetensors", lora_wt_2=1
    )
    loader = node("Efficient Loader", ckpt_name="x.ckpt", lora_name="None", positive="a cat", negative="", lora_stack=["st", 0])
    found = read(graph(st=stack, e=loader, sampler=ksampler(model=["e", 0], positive=["e", 1], negative=["e", 2])))
    assert (found.loras, found.model) == ((Lora("a.safetensors", 0.5),), "x.ckpt")


def test_lora_tags_in_the_prompt_are_loras():
    found = read(graph(cat=encoded("a cat <lora:some style:0.8> <lora:other>")))
    assert found.loras == (Lora("some style", 0.8), Lora("other", None))


def test_size_is_the_empty_latents():
    assert read(graph()).written_size == (64, 64)
    sized = node("EmptyLatentImage", width=["w", 0], height=48)
    assert read(graph(empty=sized, w=node("PrimitiveInt", value=32))).written_size == (32, 48)
    assert read(graph(empty=node("VAEEncode", pixels=["photo", 0]), photo=node("LoadImage", image="a.png"))).written_size is None


def test_size_that_is_chosen_by_name_counts_more_than_the_numbers_beside_it():
    chosen = node("CR SDXL Aspect Ratio", width=64, height=64, aspect_ratio="3:4 portrait 896x1152")
    assert read(graph(empty=chosen)).written_size == (896, 1152)
    custom_size = node("CR SDXL Aspect Ratio", width=64, height=48, aspect_ratio="custom")
    assert read(graph(empty=custom_size)).written_size == (64, 48)


def test_motion_module_is_not_the_model():
    motion = node("ADE_AnimateDiffLoaderWithContext", model=["model", 0], model_name="motion.ckpt")
    assert read(graph(m=motion, sampler=ksampler(model=["m", 0]))).model == "some.safetensors"


def test_patch_and_negative_model_are_not_the_model():
    patched = node("Patched", model_patch=["p", 0], model_negative=["n", 0], model=["between", 0])
    others = {
        "p": node("ModelPatchLoader", ckpt_name="patch.safetensors"),
        "n": node("UNETLoader", unet_name="unconditional.safetensors"),
        "between": node("ModelSampling", model=["model", 0]),
    }
    assert read(graph(x=patched, sampler=ksampler(model=["x", 0]), **others)).model == "some.safetensors"


def test_hosted_model_is_the_model():
    assert (
        read({"1": node("Hosted", prompt="a cat", model="fancy-2"), "2": node("SaveImage", images=["1", 0])}).model == "fancy-2"
    )
