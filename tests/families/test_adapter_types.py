"""Every kind of adapter, on a UNet and on a transformer: nothing at the start, the same from its file, what its settings say."""

from dataclasses import replace

import pytest
import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import adapted_layers, load_adapter, set_strength
from dpo.adapters import POLICY, attach_adapter, is_of
from dpo.config import ConfigError, TrainConfig
from dpo.draws import Draws
from dpo.families import load_family
from dpo.optimisation import make_optimizer, set_learning_rate
from dpo.sampling import paint
from dpo.scoring import Reference, backward, errors
from tests.families import stable_diffusion
from tests.families.checks import PROMPT, SETTINGS, difference, encode, make_pairs, move, settings

KINDS = ["lora", "dora", "loha", "lokr", "oft"]
MODULES = ["attention", "attention+mlp", "last_half"]
TINY = stable_diffusion.TINIES[0]


def start(**options):
    config = replace(settings(TINY), **options)
    family = load_family(TINY.build())
    return config, family, attach_adapter(family, config, starting=None, reference=None, moving=config.ref_model_sync_steps > 0)


def trained_layers(family) -> set[str]:
    return {name for name, module in family.denoiser.named_modules() if module in adapted_layers(family.denoiser, POLICY)}


def ranks(family) -> dict[str, int]:
    return {
        name: module.r[POLICY]
        for name, module in family.denoiser.named_modules()
        if module in adapted_layers(family.denoiser, POLICY)
    }


def learn(config, family, adapter, folder, steps=3):
    """The loss of each step on the same draws."""
    data = encode(make_pairs(TINY, folder), family, TINY, folder)
    reference, draws = Reference(family, adapter, "base"), Draws(config, family)
    optimizer = make_optimizer(config, adapter.parameters(), adapter.rate_shares(config))
    batch, losses = data.batches([0, 1], [0, 1], [0, 0])[0], []

    def loss(policy_error, reference_error, rejected_scale):
        chosen, rejected = batch.comparisons.chosen, batch.comparisons.rejected
        logratio = reference_error - policy_error
        losses.append(-torch.nn.functional.logsigmoid(200 * (logratio[chosen] - logratio[rejected])).mean())
        return losses[-1]

    for _ in range(steps):
        optimizer.zero_grad()
        backward(family, reference, draws.draw(batch), batch, None, config, loss)
        set_learning_rate(optimizer, config.learning_rate)
        optimizer.step()
    return [one.item() for one in losses]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_is_the_base_and_learns(kind, tmp_path):
    config, family, adapter = start(adapter=kind, learning_rate=2e-3)
    data = encode(make_pairs(TINY, tmp_path), family, TINY, tmp_path)
    batch = data.batches([0, 1], [0, 1], [0, 0])[0]
    noised = Draws(config, family).draw(batch)
    with torch.no_grad():
        policy = errors(family, noised)
    reference = Reference(family, adapter, "base").errors(noised, batch, None, at_once=True)
    if kind in ("dora", "oft"):  # they divide by a norm, or multiply by an identity that was computed
        torch.testing.assert_close(policy, reference, rtol=1e-6, atol=0)
    else:
        assert torch.equal(policy, reference)
    losses = learn(config, family, adapter, tmp_path)
    assert losses[0] == pytest.approx(0.693147, abs=1e-3) and losses[-1] < losses[0] - 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_policy_trains_in_float32_also_on_a_half_precision_base(kind):
    config = replace(settings(TINY), adapter=kind)
    pipeline = TINY.build()
    pipeline.unet.to(torch.bfloat16)
    family = load_family(pipeline)
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=True)
    assert adapter.trainable_names() and all(is_of(POLICY, name) for name in adapter.trainable_names())
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_every_kind_gives_the_same_image_on_a_fresh_pipeline_and_with_strength_0_the_base(kind, tmp_path):
    alpha = {} if kind == "oft" else {"lora_alpha": 6.0}
    _, family, adapter = start(adapter=kind, lora_modules="attention+mlp", **alpha)
    move(family, 0.1)
    adapter.save(tmp_path / "adapter.safetensors")
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    size = replace(SETTINGS, width=TINY.side, height=TINY.side)
    expected, fresh = paint(family, rows, size), load_family(TINY.build())
    base = paint(fresh, rows, size)
    load_adapter(fresh, tmp_path / "adapter.safetensors", POLICY)
    assert difference(paint(fresh, rows, size), expected) == 0 < difference(base, expected)
    set_strength(fresh.denoiser, POLICY, 0.0)
    assert difference(paint(fresh, rows, size), base) == 0
    if kind == "oft":
        with pytest.raises(AdapterError, match=r"An OFT adapter has no strength between 0 and 1, and not 0\.5\. Choose 0 or 1\."):
            set_strength(fresh.denoiser, POLICY, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_that_moves_all_the_way_is_the_policy_to_the_bit(kind):
    _, family, adapter = start(adapter=kind, ref_model_sync_steps=1)
    move(family, 0.1)
    adapter.sync_reference(1.0)
    state = adapter.reference_state()
    assert state and all(
        torch.equal(value, dict(family.denoiser.named_parameters())[name.replace(".reference", f".{POLICY}")])
        for name, value in state.items()
    )


def test_layers_are_those_that_are_asked_for():
    layers = {modules: trained_layers(start(lora_modules=modules)[1]) for modules in MODULES}
    assert layers["attention"] < layers["attention+mlp"]
    assert any("ff.net" in name for name in layers["attention+mlp"] - layers["attention"])
    # Blocks of the tiny UNet: down 0, down 1, mid, up 0, up 1. The last three of five; attention is in down 0, mid and up 1.
    assert layers["last_half"] == {name for name in layers["attention"] if not name.startswith("down_blocks")}
    assert layers["last_half"]


def test_the_first_rule_of_a_profile_that_fits_a_layer_decides_its_rank_alpha_and_rate(tmp_path):
    profile = "mid_block: rank 0; up_blocks.*attn1: rank 5, rate 0.5; attn1: alpha 8; up_blocks: rate 3"
    config, family, adapter = start(lora_rank=2, lora_alpha=4.0, layer_profile=profile)
    found = ranks(family)
    assert not any("mid_block" in name for name in found)
    for name, rank in found.items():
        assert rank == (5 if "up_blocks" in name and "attn1" in name else 2), name
    scales = {
        name: module.scaling[POLICY]
        for name, module in family.denoiser.named_modules()
        if module in adapted_layers(family.denoiser, POLICY)
    }
    assert {scale for name, scale in scales.items() if "attn1" in name and "up_blocks" not in name} == {4.0}  # 8 / 2
    assert {scale for name, scale in scales.items() if "attn1" in name and "up_blocks" in name} == {2.0}  # as 4 / 2
    optimizer = make_optimizer(config, adapter.parameters(), adapter.rate_shares(config))
    set_learning_rate(optimizer, 0.1)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.05, 0.1, 0.3])
    move(family)
    adapter.save(tmp_path / "adapter.safetensors")
    fresh = load_family(TINY.build())
    load_adapter(fresh, tmp_path / "adapter.safetensors", POLICY)
    assert ranks(fresh) == found
    rows = [(family.prompt_arguments(PROMPT, ""), 1)]
    assert difference(paint(fresh, rows, SETTINGS), paint(family, rows, SETTINGS)) == 0


def test_rules_decide_in_their_order_also_in_a_file_whose_settings_are_sorted(tmp_path):
    """The general rule comes second; of the two patterns it is the one that sorts first."""
    _, family, adapter = start(lora_rank=2, layer_profile="up_blocks.*attn1: rank 5; attn1: rank 3")
    found = ranks(family)
    assert {rank for name, rank in found.items() if "up_blocks" in name and "attn1" in name} == {5}
    assert {rank for name, rank in found.items() if "up_blocks" not in name and "attn1" in name} == {3}
    patterns = family.denoiser.peft_config[POLICY].rank_pattern
    for keys in (sorted(patterns), sorted(patterns, reverse=True)):
        assert {name: patterns.get(get_pattern_key(keys, name), 2) for name in found} == found
    move(family)
    adapter.save(tmp_path / "adapter.safetensors")
    fresh = load_family(TINY.build())
    load_adapter(fresh, tmp_path / "adapter.safetensors", POLICY)
    assert ranks(fresh) == found


def test_a_rate_is_for_the_layers_that_its_pattern_means_also_where_it_names_their_end():
    config, _, adapter = start(layer_profile="to_q$: rate 0.5")
    shares = dict(zip(adapter.state_dict(), adapter.rate_shares(config), strict=True))
    assert {share for name, share in shares.items() if ".to_q." in name} == {0.5}
    assert {share for name, share in shares.items() if ".to_q." not in name} == {1.0}


def test_an_adapter_file_of_another_model_is_refused(tmp_path):
    _, _family, adapter = start(adapter="loha")
    adapter.save(tmp_path / "adapter.safetensors")
    file = load_file(tmp_path / "adapter.safetensors")
    assert all(name.startswith("unet.") for name in file)
    fresh = load_family(TINY.build())
    fresh.denoiser_name = "transformer"
    with pytest.raises(AdapterError, match=r"adapter\.safetensors"):
        load_adapter(fresh, tmp_path / "adapter.safetensors", POLICY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_profile": "up_blocks rank 3"}, r"'up_blocks rank 3' is no rule\. Write them as in: up_blocks: rank 32"),
        ({"layer_profile": "up: size 3"}, r"'up: size 3' says 'size'\. Say some of: rank, alpha, rate, each with a number\."),
        ({"layer_profile": "up: rank x"}, r"'x' is no number for rank\. Write rank 8\."),
        ({"layer_profile": "up: rank -1"}, r"rank -1 is not from 0 to 1024\."),
        ({"layer_profile": "(: rank 1"}, r"'\(' is no regular expression"),
        ({"adapter": "oft", "lora_alpha": 2.0}, r"adapter='oft' has one block size \(the rank\) and no alpha"),
        ({"adapter": "loha", "starting_adapter": "x.safetensors"}, r"adapter='loha' is about a fresh adapter"),
        ({"adapter": "dora", "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}, r"for lora alone, not for dora\."),
        ({"layer_profile": "up: rank 3", "starting_adapter": "x.safetensors"}, r"Leave only rates in it\."),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused_with_the_reason(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**options)
