"""Every export that is offered gives the same image, by this program's reading of it and by that of the programs it is for."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import load_adapter
from dpo.adapters import POLICY, attach_adapter
from dpo.families import load_family
from dpo.formats import FORMATS, KINDS, ExportError, why_not
from dpo.formats.factors import factors
from dpo.formats.origin import Origin
from dpo.formats.writing import export_adapter
from dpo.sampling import paint
from tests.families import families
from tests.families.checks import PROMPT, SETTINGS, difference, move, settings
from tests.families.loaders import merge


def unless(is_usual):
    """Marks of a case that is left out of the usual tests unless `is_usual`."""
    return () if is_usual else pytest.mark.thorough


# One of each pipeline: variants of a family differ in what they are told, not in their layers.
TINIES = list({type(tiny.build()).__name__: tiny for tiny in reversed(families())}.items())[::-1]
# Of LoRA and of SD all that is offered. Of the others not again what is a run's own file, which test_adapter_types.py loads, nor
# klein, whose layers are dev's.
OFFERS = [
    pytest.param(
        tiny,
        kind,
        format,
        id=f"{tiny.name}-{kind}-{format}",
        marks=unless(kind == "lora" or pipeline == "StableDiffusionPipeline"),
    )
    for pipeline, tiny in TINIES
    for kind in KINDS
    for format in FORMATS
    if not why_not(pipeline, kind, format)
    if kind == "lora" or pipeline == "StableDiffusionPipeline" or (format != "diffusers" and pipeline != "Flux2KleinPipeline")
]
KOHYA_OF_A_BLOCK = [  # sd-scripts' names of what it trains in one block of SD 1.x: its Transformer2DModel and all within
    "proj_in", "proj_out", "transformer_blocks_0_attn1_to_k", "transformer_blocks_0_attn1_to_out_0",
    "transformer_blocks_0_attn1_to_q", "transformer_blocks_0_attn1_to_v", "transformer_blocks_0_attn2_to_k",
    "transformer_blocks_0_attn2_to_out_0", "transformer_blocks_0_attn2_to_q", "transformer_blocks_0_attn2_to_v",
    "transformer_blocks_0_ff_net_0_proj", "transformer_blocks_0_ff_net_2",
]  # fmt: skip


def trained(tiny, kind, folder, std=0.1, **options):
    """(the family with an adapter of alpha three times its rank that learned something, its file)"""
    alpha = 0.0 if kind == "oft" else 6.0
    config = replace(settings(tiny), adapter=kind, lora_alpha=alpha, lora_modules="attention+mlp", **options)
    family = load_family(tiny.build())
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    move(family, std)
    adapter.save(folder / "adapter.safetensors")
    return family, folder / "adapter.safetensors"


def image(family, tiny):
    size = replace(SETTINGS, width=tiny.side, height=tiny.side)
    return paint(family, [(family.prompt_arguments(PROMPT, ""), 1)], size)


def export(tiny, file, format, folder, precision="fp32"):
    return export_adapter(
        lambda: load_family(tiny.build()), file, Origin("cats"), format, precision, folder / "out", side=tiny.side
    )


@pytest.mark.parametrize(("tiny", "kind", "format"), OFFERS)
def test_an_export_makes_the_same_image_here_and_where_it_is_meant_for(tiny, kind, format, tmp_path):
    family, file = trained(tiny, kind, tmp_path)
    expected = image(family, tiny)
    result = export(tiny, file, format, tmp_path)
    assert result.difference == 0 < result.effect  # by the check that every export ends with
    if format != "diffusers":
        other = load_family(tiny.build())
        base = image(other, tiny)
        count = merge(type(other.pipeline).__name__, other.denoiser, result.file)
        assert count == len(factors(family.denoiser, POLICY))
        painted = image(other, tiny)
        # Factors merged into a weight, and factors beside it, are summed in another order.
        assert difference(painted, expected) <= 1 < difference(base, expected)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=unless(kind == "oft")) for kind in KINDS])
@pytest.mark.parametrize(("pipeline", "tiny"), TINIES, ids=[tiny.name for _, tiny in TINIES])
def test_what_is_not_offered_is_refused_with_its_reason_and_leaves_no_file(pipeline, tiny, kind, tmp_path):
    refused = [format for format in FORMATS if why_not(pipeline, kind, format)]
    if not refused:
        pytest.skip("all of it is offered")
    _, file = trained(tiny, kind, tmp_path)
    with pytest.raises(ExportError) as error:
        export(tiny, file, refused[0], tmp_path)
    assert why_not(pipeline, kind, refused[0]) in str(error.value) and "Choose diffusers" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_kohya_file_has_the_names_that_sd_scripts_gives(tmp_path):
    tiny = dict(TINIES)["StableDiffusionPipeline"]
    _, file = trained(tiny, "lora", tmp_path)
    names = load_file(export(tiny, file, "kohya", tmp_path).file)
    blocks = ["down_blocks_0_attentions_0", "mid_block_attentions_0", "up_blocks_1_attentions_0", "up_blocks_1_attentions_1"]
    layers = [f"lora_unet_{block}_{layer}" for block in blocks for layer in KOHYA_OF_A_BLOCK]
    assert sorted(names) == sorted(
        f"{layer}.{end}" for layer in layers for end in ("alpha", "lora_down.weight", "lora_up.weight")
    )
    assert {tensor.item() for name, tensor in names.items() if name.endswith(".alpha")} == {6.0}
    assert {len(tensor) for name, tensor in names.items() if name.endswith("lora_down.weight")} == {2}
    assert names["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"].ndim == 4  # a convolution stays one


@pytest.mark.parametrize(("kind", "format"), [("lora", "kohya"), ("dora", "comfyui"), ("loha", "kohya"), ("lokr", "comfyui")])
@pytest.mark.parametrize(
    "pipeline",
    [
        pytest.param(name, marks=unless(name == "StableDiffusionPipeline"))
        for name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "ZImagePipeline")
    ],
)
def test_an_export_is_a_starting_adapter_again_with_its_ranks_and_strengths(pipeline, kind, format, tmp_path):
    tiny = dict(TINIES)[pipeline]
    if why_not(pipeline, kind, format):
        format = "comfyui"
    family, file = trained(tiny, kind, tmp_path, layer_profile="attn.*to_q: rank 3, alpha 2; attention.to_q: rank 3")
    before = factors(family.denoiser, POLICY)
    result = export(tiny, file, format, tmp_path)
    fresh = load_family(tiny.build())
    adapter = attach_adapter(fresh, settings(tiny), starting=result.file, reference=None, moving=False)
    after = factors(fresh.denoiser, POLICY)
    assert after.keys() == before.keys()
    # A LoKr of two whole factors has no rank.
    ranks = {name: part.rank for name, part in before.items() if {"lokr_w1", "lokr_w2"} - part.tensors.keys()}
    assert {name: after[name].rank for name in ranks} == ranks
    assert kind == "lokr" or set(ranks.values()) == {2, 3}
    assert difference(image(fresh, tiny), image(family, tiny)) == 0
    # What a run writes at its end is the same adapter.
    adapter.save(tmp_path / "again.safetensors")
    again = load_family(tiny.build())
    load_adapter(again, tmp_path / "again.safetensors", POLICY)
    assert difference(image(again, tiny), image(family, tiny)) == 0


def test_a_file_that_does_something_else_is_not_kept_and_said_loudly(tmp_path, monkeypatch):
    tiny = dict(TINIES)["StableDiffusionPipeline"]
    _, file = trained(tiny, "lora", tmp_path, std=0.2)
    before = file.read_bytes()

    def half(tensors, path, header):
        save_file({name: tensor / 2 if name.endswith("alpha") else tensor for name, tensor in tensors.items()}, path, header)

    monkeypatch.setattr("dpo.formats.writing.save_file", half)
    with pytest.raises(ExportError, match=r"makes another image than the adapter: \d+ of 255 grey levels, where the adapter"):
        export(tiny, file, "kohya", tmp_path)
    with pytest.raises(ExportError, match="makes another image"):
        export(tiny, file, "kohya", tmp_path, "fp16")
    assert list((tmp_path / "out").iterdir()) == [] and file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda name: name.replace("attn1_to_q", "attn9_to_q"),
            r"changes lora_unet_down\w*attn9_to_q, which this model",
        ),
        (lambda name: name.replace("hada_w1_a", "hada_q"), r"hada_q, which is not known here"),
    ],
)
def test_a_foreign_file_that_does_not_fit_is_named_with_what_does_not(change, words, tmp_path):
    tiny = dict(TINIES)["StableDiffusionPipeline"]
    _, file = trained(tiny, "loha", tmp_path)
    tensors = load_file(export(tiny, file, "kohya", tmp_path).file)
    save_file({change(name): tensor for name, tensor in tensors.items()}, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=words):
        load_adapter(load_family(tiny.build()), tmp_path / "other.safetensors", POLICY)
