import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpo.adapter_files import AdapterError
from dpo.adapters import POLICY, REFERENCE, Average
from dpo.families import load_family
from dpo.sampling import Sampler, SampleSettings
from dpo.scoring import errors
from tests.batches import attach, draw_noise, make_batch, move, reference_errors
from tests.test_scoring import gradients
from tests.tiny import build_pipeline

SETTINGS = SampleSettings(sampling_steps=3)
ROWS = [("a cat", 1), ("a dog", 2)]


def arrays(images):
    return np.stack([np.asarray(image) for image in images])


@pytest.fixture
def learned(tmp_path):
    """An adapter file with alpha != rank, and the images its own pipeline makes."""
    family, adapter = build_learned(rank=2, alpha=6.0)
    adapter.save(tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    images = arrays(Sampler(family.pipeline, "tiny").sample(ROWS, SETTINGS))
    return tmp_path / "adapter" / "pytorch_lora_weights.safetensors", images


@pytest.fixture
def other(tmp_path):
    """Another adapter file, of another rank."""
    _, adapter = build_learned(rank=3, alpha=3.0)
    adapter.save(tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def build_learned(rank, alpha):
    family = load_family(build_pipeline())
    adapter = attach(family, lora_rank=rank, lora_alpha=alpha)
    move(family, 0.3)
    return family, adapter


def start(**options):
    """A family, its adapter as `attach_adapter` makes it, and a draw to score."""
    family = load_family(build_pipeline())
    adapter = attach(family, **options)
    return family, adapter, draw_noise(family, make_batch(family))


def scored(path=None):
    """The errors of a pipeline of its own, with the adapter in `path`."""
    family = load_family(build_pipeline())
    if path:
        family.pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
    with torch.no_grad():
        return errors(family, draw_noise(family, make_batch(family)))


def policy_errors(family, noised):
    with torch.no_grad():
        return errors(family, noised)


def train(family, adapter, rate=0.05):
    """One optimizer step."""
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=rate)
    gradients(family, adapter, make_batch(family), "full_concurrent")
    optimizer.step()


def weights(family, name):
    return {key: value.clone() for key, value in family.denoiser.named_parameters() if f".{name}." in key}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------------------ files


def test_an_exported_adapter_in_a_fresh_pipeline_gives_the_same_image_also_when_alpha_is_not_the_rank(learned):
    path, images = learned
    sampler = Sampler(build_pipeline(), "tiny", path)
    difference = np.abs(arrays(sampler.sample(ROWS, SETTINGS, strength=1.0)).astype(int) - images)
    assert difference.max() <= 1  # training computes attention in another order of summation
    assert np.abs(arrays(sampler.sample(ROWS, SETTINGS)).astype(int) - images).max() > 10


def test_strength_zero_equals_the_base_to_the_bit_and_strength_grows_from_there(learned):
    sampler = Sampler(build_pipeline(), "tiny", learned[0])
    base = arrays(sampler.sample(ROWS, SETTINGS))
    assert np.array_equal(arrays(sampler.sample(ROWS, SETTINGS, strength=0.0)), base)
    half, full = (np.abs(arrays(sampler.sample(ROWS, SETTINGS, strength=s)).astype(int) - base).mean() for s in (0.5, 1.0))
    assert 0 < half < full
    assert np.array_equal(arrays(Sampler(build_pipeline(), "tiny").sample(ROWS, SETTINGS)), base)


def test_an_image_is_the_same_alone_and_in_a_batch():
    sampler = Sampler(build_pipeline(), "tiny")
    together = arrays(sampler.sample(ROWS, SETTINGS)).astype(int)
    alone = arrays([sampler.sample([row], SETTINGS)[0] for row in ROWS])
    assert np.abs(together - alone).max() <= 1  # the order of summation may differ by a grey level


def test_the_file_header_carries_rank_and_alpha(learned):
    with safe_open(learned[0], framework="pt") as file:
        header = str(file.metadata())
    assert '"unet.lora_alpha": 6.0' in header and '"unet.r": 2' in header


# ------------------------------------------------------------------------------------------------ policy and reference


def test_the_reference_is_the_base_the_starting_adapter_or_another_file_as_asked(learned, other):
    path = learned[0]
    for options, expected_policy, expected_reference in (
        ({}, None, None),
        ({"starting": path}, path, None),
        ({"starting": path, "reference": path}, path, path),
        ({"starting": path, "reference": other}, path, other),
        ({"reference": other}, None, other),
        ({"moving": True}, None, None),
        ({"starting": path, "reference": path, "moving": True}, path, path),
    ):
        family, adapter, noised = start(**options)
        torch.testing.assert_close(policy_errors(family, noised), scored(expected_policy), rtol=1e-6, atol=0)
        torch.testing.assert_close(reference_errors(family, adapter, noised), scored(expected_reference), rtol=1e-6, atol=0)
    assert not torch.isclose(scored(path), scored(other), rtol=1e-4).any()
    assert not torch.isclose(scored(path), scored(), rtol=1e-4).any()


def test_only_the_policy_trains_whatever_is_switched(learned):
    """Also by peft's own switches, which set anew what trains: sample pictures and probes use them."""
    family, adapter, noised = start(starting=learned[0], reference=learned[0])
    expected = adapter.trainable_names()
    assert expected and all(f".{POLICY}." in name for name in expected)
    assert len(expected) == len(adapter.parameters()) and all(parameter.requires_grad for parameter in adapter.parameters())

    reference_errors(family, adapter, noised)
    assert adapter.trainable_names() == expected
    family.pipeline.disable_lora()
    family.pipeline.enable_lora()
    assert adapter.trainable_names() == expected
    adapter.load_state_dict(adapter.copy())
    train(family, adapter)
    assert adapter.trainable_names() == expected


@pytest.mark.parametrize("options", [{}, {"moving": True}], ids=["standing", "moving"])
def test_the_reference_does_not_move_by_training_nor_peft_nor_a_restored_checkpoint(learned, options):
    family, adapter, noised = start(starting=learned[0], reference=learned[0], **options)
    before, error = weights(family, REFERENCE), reference_errors(family, adapter, noised)
    saved = adapter.copy()
    train(family, adapter)
    family.denoiser.enable_adapters()
    train(family, adapter)
    assert not same(adapter.copy(), saved)
    adapter.load_state_dict(saved)
    assert same(adapter.copy(), saved)
    assert same(weights(family, REFERENCE), before)
    assert torch.equal(reference_errors(family, adapter, noised), error)


def test_nothing_of_the_base_changes_when_training(learned):
    family, adapter, _ = start(starting=learned[0], reference=learned[0])
    base = {name: value.clone() for name, value in family.denoiser.named_parameters() if ".lora_" not in name}
    train(family, adapter)
    assert same({name: value for name, value in family.denoiser.named_parameters() if ".lora_" not in name}, base)


def test_an_exception_inside_as_reference_leaves_the_policy_in_place(learned):
    family, adapter, noised = start(starting=learned[0], reference=learned[0])
    train(family, adapter)
    before = policy_errors(family, noised)
    with pytest.raises(ZeroDivisionError), adapter.as_reference():
        assert not torch.equal(policy_errors(family, noised), before)
        raise ZeroDivisionError
    assert torch.equal(policy_errors(family, noised), before)


def test_in_half_precision_the_adapters_stay_in_float32_so_that_small_updates_count(learned):
    family = load_family(build_pipeline(dtype=torch.bfloat16))
    adapter = attach(family, starting=learned[0], reference=learned[0])
    assert {value.dtype for name in (POLICY, REFERENCE) for value in weights(family, name).values()} == {torch.float32}
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())


def test_dropout_of_a_starting_adapter_is_switched_off(learned, tmp_path):
    with safe_open(learned[0], framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
    assert header["unet.lora_dropout"] == 0.0
    header["unet.lora_dropout"] = 0.5
    save_file(load_file(learned[0]), tmp_path / "dropout.safetensors", {"lora_adapter_metadata": json.dumps(header)})
    family, adapter, noised = start(starting=tmp_path / "dropout.safetensors", reference=learned[0])
    family.denoiser.train()
    assert torch.equal(policy_errors(family, noised), reference_errors(family, adapter, noised))


def test_a_copy_takes_the_adapter_back_exactly(learned):
    family, adapter, noised = start()
    before, saved = policy_errors(family, noised), adapter.copy()
    train(family, adapter)
    assert not torch.equal(policy_errors(family, noised), before)
    adapter.load_state_dict(saved)
    assert torch.equal(policy_errors(family, noised), before)


# ------------------------------------------------------------------------------------------------ a reference that moves


def test_a_reference_moved_all_the_way_is_the_policy_exactly_and_stays_there_when_the_policy_goes_on():
    family, adapter, noised = start(moving=True)
    train(family, adapter)
    there = policy_errors(family, noised)
    assert not torch.equal(reference_errors(family, adapter, noised), there)
    adapter.sync_reference(1.0)
    assert torch.equal(reference_errors(family, adapter, noised), there)
    train(family, adapter)
    assert torch.equal(reference_errors(family, adapter, noised), there)
    assert not torch.equal(policy_errors(family, noised), there)


def test_a_reference_moved_a_share_mixes_the_factors_and_is_off_by_their_second_order():
    """product of mixed factors = mix of products - a (1 - a) (B1 - B0)(A1 - A0); from the base, B0 = 0, and A0 is where the
    policy's A started: a small step from it, or else that product would not be small."""
    family, adapter, _ = start(moving=True)
    first, begun = weights(family, REFERENCE), weights(family, POLICY)
    assert same(first, {name.replace(f".{POLICY}.", f".{REFERENCE}."): value for name, value in begun.items()})
    assert all((value == 0).all() == (".lora_B." in name) for name, value in first.items())
    train(family, adapter)
    adapter.sync_reference(0.25)
    policy, mixed = weights(family, POLICY), weights(family, REFERENCE)
    for name in (name for name in policy if ".lora_A." in name):
        twin = name.replace(f".{POLICY}.", f".{REFERENCE}.")
        a1, b1, a0, a = policy[name], policy[name.replace("lora_A", "lora_B")], first[twin], mixed[twin]
        b = mixed[twin.replace("lora_A", "lora_B")]
        torch.testing.assert_close(a, 0.25 * a1 + 0.75 * a0)
        torch.testing.assert_close(b, 0.25 * b1)
        torch.testing.assert_close(b @ a, 0.25 * (b1 @ a1) - 0.25 * 0.75 * b1 @ (a1 - a0))


def test_a_moving_reference_takes_the_values_of_the_reference_vectors():
    """A single weight, as TR-DPO's authors' trainer moves it; when it is moved is the trainer's to say."""
    vector = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())["tr_dpo"]
    family, adapter, _ = start(moving=True)
    for step, (value, expected) in enumerate(zip(vector["policy"], vector["ref_after_step"], strict=True), 1):
        put(adapter, value)
        if step % vector["sync_steps"] == 0:
            adapter.sync_reference(vector["alpha"])
        (name, *_) = (name for name in weights(family, REFERENCE) if ".lora_B." in name)
        assert weights(family, REFERENCE)[name].unique().tolist() == pytest.approx([expected]), step


def test_a_moving_reference_is_restored_and_a_standing_one_has_nothing_to_restore(learned):
    family, adapter, noised = start(moving=True)
    train(family, adapter)
    adapter.sync_reference(0.6)
    state, error = copy.deepcopy(adapter.reference_state()), reference_errors(family, adapter, noised)
    resumed, again, _ = start(moving=True)
    again.load_reference_state(state)
    assert torch.equal(reference_errors(resumed, again, noised), error)

    standing, still, _ = start(starting=learned[0], reference=learned[0])
    assert still.reference_state() is None
    before = weights(standing, REFERENCE)
    still.load_reference_state({name: value + 1 for name, value in before.items()})
    assert same(weights(standing, REFERENCE), before)


def test_a_moving_reference_that_cannot_be_mixed_with_the_policy_is_refused_with_the_reason(learned, other):
    path = learned[0]
    with pytest.raises(AdapterError, match=r"other.safetensors differs from the policy in rank, alpha or layers.*=0"):
        start(starting=path, reference=other, moving=True)
    with pytest.raises(AdapterError, match="differs from the policy in rank, alpha"):
        start(reference=path, moving=True, lora_rank=2, lora_alpha=5.0)
    with pytest.raises(
        AdapterError, match=r"not where the policy starts.*ref_model_mixup_alpha=0.5.*Set ref_model_mixup_alpha=1"
    ):
        start(reference=path, moving=True, lora_rank=2, lora_alpha=6.0, ref_model_mixup_alpha=0.5, ref_model_sync_steps=4)
    start(reference=path, moving=True, lora_rank=2, lora_alpha=6.0)
    start(starting=path, reference=path, moving=True, ref_model_mixup_alpha=0.5, ref_model_sync_steps=4)


# ------------------------------------------------------------------------------------------------ a moving average


def first_weight(adapter):
    return adapter.parameters()[0].flatten()[0].item()


def put(adapter, value):
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(value)


def test_an_average_follows_slower_and_slower_down_to_its_decay():
    """From 0, with the adapter at 1: 1 - 1/10, then 2/11 of that gap and 3/12, until n / (9 + n) passes the decay."""
    _, adapter, _ = start()
    put(adapter, 0.0)
    average = Average(adapter, 0.2)
    put(adapter, 1.0)
    gap = 1.0
    for kept in (1 / 10, 2 / 11, 0.2, 0.2):
        average.update()
        gap *= kept
        with average.in_place():
            assert first_weight(adapter) == pytest.approx(1 - gap)
    assert first_weight(adapter) == 1.0


def test_an_exception_while_the_average_is_in_place_gives_the_adapter_its_own_weights_back():
    family, adapter, _ = start()
    average = Average(adapter, 0.9)
    train(family, adapter)
    average.update()
    before = adapter.copy()
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert not same(adapter.copy(), before)
        raise ZeroDivisionError
    assert same(adapter.copy(), before)


def test_an_average_goes_on_where_it_was_saved(tmp_path):
    states = []
    for is_resumed in (False, True):
        _, adapter, _ = start()
        average = Average(adapter, 0.9)
        for value in (1.0, 3.0, -2.0):
            put(adapter, value)
            average.update()
            if is_resumed:
                torch.save(average.state_dict(), tmp_path / "average.pt")
                average = Average(adapter, 0.9)
                average.load_state_dict(torch.load(tmp_path / "average.pt", weights_only=True))
        states.append(average.state_dict())
    assert states[0]["updates"] == states[1]["updates"] == 3
    assert all(map(torch.equal, states[0]["values"], states[1]["values"]))


def test_without_a_decay_the_average_is_the_adapter_itself():
    _, adapter, _ = start()
    average = Average(adapter, 0.0)
    put(adapter, 2.0)
    average.update()
    with average.in_place():
        assert first_weight(adapter) == 2.0
        put(adapter, 3.0)
    assert first_weight(adapter) == 3.0
    average.load_state_dict(average.state_dict())


# ------------------------------------------------------------------------------------------------ what it is called


def test_a_saved_image_names_the_run_or_file_its_adapter_came_from_and_the_strength(learned, tmp_path):
    sampler = Sampler(build_pipeline(), "tiny", learned[0])
    image = sampler.sample(ROWS, SETTINGS, strength=0.5)[0]
    assert f"Adapter: {tmp_path.name}, Adapter strength: 0.5" in sampler.parameters("a cat", 1, SETTINGS, image, 0.5)
    assert "Adapter" not in sampler.parameters("a cat", 1, SETTINGS, image)
    shutil.copy(learned[0], tmp_path / "mine.safetensors")
    sampler = Sampler(build_pipeline(), "tiny", tmp_path / "mine.safetensors")
    assert "Adapter: mine, " in sampler.parameters("a cat", 1, SETTINGS, image, 1.0)
