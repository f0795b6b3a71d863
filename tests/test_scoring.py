import pytest
import torch

from dpo.adapters import POLICY, attach_new_adapter
from dpo.cache import Batch
from dpo.families import load_family
from dpo.losses import Comparisons, preference_loss
from dpo.scoring import add_noise, backward, errors, pair_generator, reference_errors
from dpo.trainer import draw_noise
from tests.tiny import build_pipeline

MODES = ["full_concurrent", "policy_concurrent", "sequential"]


def build(dtype=torch.float64, *, moved=True):
    """A tiny family with an adapter; `moved`: as if it had learned something, so that policy and reference differ."""
    family = load_family(build_pipeline(dtype=dtype))
    adapter = attach_new_adapter(family, rank=2, alpha=2.0, seed=0)
    if moved:
        with torch.no_grad():
            for name, parameter in family.denoiser.named_parameters():
                if "lora_B" in name and f".{POLICY}." in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.5)
    return family, adapter


def make_batch(family, pairs=3, *, twins=False) -> Batch:
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(2 * pairs, 4, 8, 8, generator=generator)
    if twins:
        latents = latents[:pairs].repeat(2, 1, 1, 1)
    order = torch.arange(pairs)
    comparisons = Comparisons(order, order + pairs, torch.ones(pairs), torch.zeros(pairs))
    conditioning = {
        name: tensor.repeat(2, *[1] * (tensor.dim() - 1))
        for name, tensor in family.encode_prompts([f"prompt {i}" for i in range(pairs)]).items()
    }
    return Batch(latents, conditioning, comparisons, order.repeat(2), list(range(pairs)))


def gradients(family, adapter, batch, mode, **options):
    def loss(policy_error, reference_error):
        settings = {"beta": 50.0, "label_smoothing": 0.1, "sft_weight": 0.2} | options
        return preference_loss(policy_error, reference_error, batch.comparisons, **settings).mean()

    for parameter in adapter.parameters():
        parameter.grad = None
    policy_error, reference_error = backward(family, adapter, draw_noise(family, batch, 0), loss, mode)
    value = loss(policy_error, reference_error)
    return value, torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])


@pytest.mark.parametrize("mode", MODES[1:])
def test_all_execution_modes_give_the_same_loss_and_gradients(mode):
    family, adapter = build()
    batch = make_batch(family)
    value, gradient = gradients(family, adapter, batch, "full_concurrent")
    other_value, other_gradient = gradients(family, adapter, batch, mode)
    assert gradient.abs().max() > 1e-4
    torch.testing.assert_close(other_value, value, rtol=1e-9, atol=0)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-7, atol=gradient.abs().max().item() * 1e-9)


def test_sequential_runs_one_image_at_a_time_and_full_concurrent_two_passes():
    family, adapter = build()
    batch = make_batch(family)
    rows = []
    family.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    gradients(family, adapter, batch, "full_concurrent")
    assert rows == [6, 6]
    rows.clear()
    gradients(family, adapter, batch, "sequential")
    assert rows == [1] * 18  # 6 reference, 6 policy without gradients, 6 with


@pytest.mark.parametrize("mode", ["full_concurrent", "sequential"])
def test_a_fresh_adapter_has_exactly_the_references_errors(mode):
    family, adapter = build(torch.float32, moved=False)
    noised = draw_noise(family, make_batch(family), 0)
    at_once = mode == "full_concurrent"
    with torch.no_grad():
        assert torch.equal(errors(family, noised, at_once=at_once), reference_errors(family, adapter, noised, at_once=at_once))


def test_twin_images_have_exactly_zero_margin_whatever_the_policy_is():
    """Fails if the two images of a pair do not share timestep and noise."""
    family, adapter = build()
    noised = draw_noise(family, make_batch(family, twins=True), 0)
    with torch.no_grad():
        policy, reference = errors(family, noised), reference_errors(family, adapter, noised)
    ratios = reference - policy
    assert ratios.abs().min() > 1e-6
    torch.testing.assert_close(ratios[:3], ratios[3:], rtol=1e-9, atol=1e-12)


def test_rows_of_one_group_get_the_same_draw_and_other_groups_another():
    family, _ = build()
    batch = make_batch(family, twins=True)
    noised = draw_noise(family, batch, 0)
    assert torch.equal(noised.noisy[:3], noised.noisy[3:])
    assert torch.equal(noised.timesteps[:3], noised.timesteps[3:])
    assert not torch.equal(noised.noisy[0] - batch.latents[0], noised.noisy[1] - batch.latents[1])


def test_draws_follow_from_seed_and_number_alone():
    family, _ = build()
    whole = draw_noise(family, make_batch(family), 7)
    batch = make_batch(family)
    second = Batch(
        batch.latents[[1, 4]], {"prompt_embeds": batch.conditioning["prompt_embeds"][[1, 4]]},
        batch.comparisons, torch.tensor([0, 0]), [1],
    )  # fmt: skip
    alone = draw_noise(family, second, 7)
    assert torch.equal(alone.noisy, whole.noisy[[1, 4]])
    assert not torch.equal(draw_noise(family, make_batch(family), 8).noisy, whole.noisy)


def test_timesteps_of_a_run_cover_the_schedule_evenly():
    """64 successive pairs: a golden-ratio sequence leaves no gap wider than 3 / 64 of the schedule."""
    family, _ = build()
    batch = make_batch(family, pairs=64)
    steps = sorted(draw_noise(family, batch, 3).timesteps[:64].tolist())
    gaps = [b - a for a, b in zip([0, *steps], [*steps, 1000], strict=True)]
    assert max(gaps) < 1000 * 3 / 64


def test_an_exception_inside_the_reference_pass_leaves_the_policy_in_place():
    family, adapter = build()
    noised = draw_noise(family, make_batch(family), 0)
    with torch.no_grad():
        before = errors(family, noised)
        with pytest.raises(ZeroDivisionError), adapter.as_reference():
            raise ZeroDivisionError
        assert torch.equal(errors(family, noised), before)


def test_noise_is_explicit_and_indexed_by_group():
    family, _ = build()
    batch = make_batch(family)
    noise = torch.randn(3, 4, 8, 8, generator=pair_generator(0, 1))
    noised = add_noise(family, batch, torch.tensor([0.1, 0.5, 0.9]), noise)
    expected, _ = family.add_noise(batch.latents, noise.repeat(2, 1, 1, 1), family.timesteps(torch.tensor([0.1, 0.5, 0.9] * 2)))
    torch.testing.assert_close(noised.noisy, expected)
