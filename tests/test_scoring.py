from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dpo.config import TrainConfig
from dpo.draws import Draws, add_noise, pair_generator
from dpo.families import load_family
from dpo.losses import make_recipe, per_image_error, preference_losses, safeguard_scale
from dpo.remembered import RememberedErrors
from dpo.scoring import Reference, backward, errors
from tests.batches import build, draw_noise, make_batch, reference_errors
from tests.kept import peak_of_saved_bytes
from tests.tiny import build_pipeline

MODES = ["full_concurrent", "policy_concurrent", "sequential"]
LOSSES = {"pairs": "sigmoid", "rankings": "rankdpo", "likes": "kto"}


def gradients(family, adapter, batch, mode, *, memory=None, **options):
    """The value of the loss, and its gradient as one vector."""
    kind = "likes" if len(batch.labels.rows) else "rankings" if len(batch.comparisons.chosen) > len(batch.keys) else "pairs"
    config = TrainConfig(**{"loss": LOSSES[kind], "beta": 50.0, "sft_weight": 0.2, "execution": mode} | options)
    recipe = make_recipe(config)

    def loss(policy_error, reference_error, rejected_scale):
        return preference_losses(
            policy_error, reference_error, batch.comparisons, batch.labels, recipe, rejected_scale=rejected_scale
        ).total.sum() / len(batch.numbers)  # fmt: skip

    for parameter in adapter.parameters():
        parameter.grad = None
    draws = Draws(config, family)
    reference = Reference(family, adapter, config.reference_mode, memory)
    policy_error, reference_error = backward(family, reference, draws.draw(batch), batch, draws.keys(batch), config, loss)
    assert not policy_error.requires_grad
    return loss(policy_error, reference_error, None), torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])


def assert_same(found, expected, tolerance):
    """Loss and gradient, relative to the loss and to the largest component."""
    (value, gradient), (other_value, other_gradient) = expected, found
    assert gradient.abs().max() > 1e-4
    assert (other_value - value).abs() <= tolerance * value.abs()
    assert (other_gradient - gradient).abs().max() <= tolerance * gradient.abs().max()


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """An adapter file of another rank than a fresh one here, made in float64."""
    path = tmp_path_factory.mktemp("learned") / "adapter.safetensors"
    _, adapter = build(lora_rank=3, lora_alpha=5.0)
    adapter.save(path)
    return path


def starting(path):
    return {"starting": path, "reference": path}


# ------------------------------------------------------------------------------------------------ execution modes

CASES = {
    "pairs": {},
    "safeguard": {"safeguard_mu": 0.9},
    "no reference": {"loss": "mapo", "sft_weight": 0.0, "beta": 1000.0},
    "unshared": {"shared_noise": False},
    "rankings": {"kind": "rankings"},
    "likes": {"kind": "likes", "sft_weight": 0.0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("existing", [False, True], ids=["new adapter", "existing adapter"])
def test_all_execution_modes_give_the_same_loss_and_gradients(case, existing, learned):
    """All six combinations of execution mode and adapter, to 1e-9."""
    options = dict(CASES[case])
    family, adapter = build(**(starting(learned) if existing else {}))
    batch = make_batch(family, kind=options.pop("kind", "pairs"))
    expected = gradients(family, adapter, batch, "full_concurrent", **options)
    for mode in MODES[1:]:
        assert_same(gradients(family, adapter, batch, mode, **options), expected, 1e-9)


def test_in_float32_the_modes_differ_by_the_order_of_summation(learned):
    """To 1e-3 of the largest component; 1e-4 is seen here, and more where sums are longer."""
    family, adapter = build(torch.float32)
    batch = make_batch(family)
    expected = gradients(family, adapter, batch, "full_concurrent", safeguard_mu=0.9)
    for mode in MODES[1:]:
        assert_same(gradients(family, adapter, batch, mode, safeguard_mu=0.9), expected, 1e-3)


@pytest.mark.parametrize("existing", [False, True], ids=["new adapter", "existing adapter"])
def test_loss_and_gradients_are_those_of_the_formula_with_a_second_model_as_reference(existing, learned):
    """DPO written out, with the reference in a pipeline of its own: what all modes are compared with is right itself."""
    family, adapter = build(**(starting(learned) if existing else {}))
    other = load_family(build_pipeline(dtype=torch.float64))
    if existing:
        other.pipeline.load_lora_weights(learned.parent, weight_name=learned.name, adapter_name="the reference")
    batch = make_batch(family)
    found = gradients(family, adapter, batch, "full_concurrent", sft_weight=0.0)

    noised = draw_noise(family, batch)
    policy = (family.predict(noised.noisy, noised.timesteps, noised.conditioning) - noised.target).square().mean((1, 2, 3))
    with torch.no_grad():
        reference = (other.predict(noised.noisy, noised.timesteps, noised.conditioning) - noised.target).square().mean((1, 2, 3))
    margin = 50 * ((reference - policy)[0::2] - (reference - policy)[1::2])
    value = -torch.nn.functional.logsigmoid(margin).mean()
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(value, adapter.parameters())])
    assert_same(found, (value.detach(), gradient), 1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_the_safeguard_scales_the_gradient_of_the_rejected_error_by_what_the_predictions_say(mode):
    family, adapter = build()
    batch = make_batch(family)
    found = gradients(family, adapter, batch, mode, safeguard_mu=0.9, sft_weight=0.0)

    noised = draw_noise(family, batch)
    residual = family.predict(noised.noisy, noised.timesteps, noised.conditioning) - noised.target
    policy, reference = residual.square().mean((1, 2, 3)), reference_errors(family, adapter, noised)
    scale = safeguard_scale(residual[0::2], residual[1::2], 0.9)
    assert 0 < scale.min() < 1
    margin = 50 * ((reference - policy)[0::2] - (reference - policy)[1::2])
    slope = 50 * torch.sigmoid(-margin.detach()) / 3
    surrogate = (slope * (policy[0::2] - scale * policy[1::2])).sum()
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(surrogate, adapter.parameters())])
    assert_same(found, (-torch.nn.functional.logsigmoid(margin).mean().detach(), gradient), 1e-9)


@contextmanager
def counted_forwards(family):
    """The rows of every forward pass of the denoiser, as they come."""
    rows = []
    hook = family.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        hook.remove()


FORWARDS = {"full_concurrent": ([6], [6]), "policy_concurrent": ([1] * 6, [6]), "sequential": ([1] * 6, [1] * 12)}


@pytest.mark.parametrize("mode", MODES)
def test_a_step_takes_as_many_forwards_as_its_mode_says_and_no_reference_pass_that_is_not_needed(mode, tmp_path):
    family, adapter = build()
    batch, memory = make_batch(family), RememberedErrors(tmp_path, "errors")
    reference, policy = FORWARDS[mode]
    with counted_forwards(family) as rows:
        gradients(family, adapter, batch, mode, safeguard_mu=0.9)
        assert rows == reference + policy
        rows.clear()
        gradients(family, adapter, batch, mode, loss="mapo", sft_weight=0.0)
        assert rows == policy
        rows.clear()
        for expected in (reference + policy, policy):
            gradients(family, adapter, batch, mode, memory=memory, reference_draws=2)
            assert rows == expected
            rows.clear()


@pytest.mark.parametrize("options", [{}, {"safeguard_mu": 0.9}])
def test_sequential_holds_the_activations_of_one_image(options):
    """A sixth of those of 6 rows, but for what no image has of its own, such as the loss."""
    family, adapter = build(torch.float32)
    batch = make_batch(family)
    peaks = {
        mode: peak_of_saved_bytes(family, lambda mode=mode: gradients(family, adapter, batch, mode, **options)) for mode in MODES
    }
    assert peaks["policy_concurrent"] == peaks["full_concurrent"] > 1e5
    assert peaks["sequential"] / peaks["full_concurrent"] == pytest.approx(1 / 6, rel=0.01)


class Readings(TorchDispatchMode):
    """Counts how often a number is read from a tensor: on a GPU each of them waits for all that was asked of it."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
def test_a_backward_reads_no_number_back_from_the_device(mode, monkeypatch):
    family, adapter = build(torch.float32)
    batch = make_batch(family)
    lists = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(tensor))
    with Readings() as readings:
        torch.ones(()).item()
        assert readings.count == 1
        noised = draw_noise(family, batch)
        readings.count = 0
        config = TrainConfig(execution=mode, safeguard_mu=0.9)
        backward(
            family, Reference(family, adapter, "base"), noised, batch, None, config,
            lambda policy, reference, scale: (policy - reference).sum() + (scale * policy[1::2]).sum(),
        )  # fmt: skip
    assert readings.count == 0 and not lists


# ------------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize("mode", ["full_concurrent", "sequential"])
@pytest.mark.parametrize("existing", [False, True], ids=["new adapter", "existing adapter"])
def test_an_untrained_policy_has_exactly_the_references_errors(mode, existing, learned):
    for dtype in (torch.float32, torch.bfloat16):
        family, adapter = build(dtype, moved=False, **(starting(learned) if existing else {}))
        noised = draw_noise(family, make_batch(family))
        at_once = mode == "full_concurrent"
        with torch.no_grad():
            policy = errors(family, noised, at_once=at_once)
        assert policy.dtype == torch.float32
        assert torch.equal(policy, reference_errors(family, adapter, noised, at_once=at_once))


def test_twin_images_have_exactly_zero_margin_whatever_the_policy_is():
    """Fails if the two images of a pair do not share timestep and noise."""
    family, adapter = build()
    noised = draw_noise(family, make_batch(family, twins=True))
    with torch.no_grad():
        ratios = reference_errors(family, adapter, noised) - errors(family, noised)
    assert ratios.abs().min() > 1e-6
    torch.testing.assert_close(ratios[0::2], ratios[1::2], rtol=1e-9, atol=1e-12)


def test_remembered_errors_give_the_same_loss_and_gradients_as_computed_ones(tmp_path):
    family, adapter = build(torch.float32)
    batch, memory = make_batch(family), RememberedErrors(tmp_path, "errors")
    fresh = gradients(family, adapter, batch, "full_concurrent", reference_draws=2)
    for _ in range(2):
        value, gradient = gradients(family, adapter, batch, "full_concurrent", memory=memory, reference_draws=2)
        assert torch.equal(value, fresh[0]) and torch.equal(gradient, fresh[1])


def test_only_draws_that_return_are_remembered(tmp_path):
    family, adapter = build(torch.float32)
    memory = RememberedErrors(tmp_path, "errors")
    gradients(family, adapter, make_batch(family), "full_concurrent", memory=memory)
    assert len(memory) == 0
    gradients(family, adapter, make_batch(family), "full_concurrent", memory=memory, reference_draws=2)
    assert len(memory) == 6


def test_a_reference_pass_builds_no_graph_also_where_checkpointing_makes_inputs_ask_for_one():
    family, adapter = build()
    noised = draw_noise(family, make_batch(family))
    noised.noisy.requires_grad_()
    assert errors(family, noised).requires_grad
    assert not reference_errors(family, adapter, noised).requires_grad


def test_an_exception_inside_a_reference_pass_leaves_the_policy_in_place():
    family, adapter = build()
    noised = draw_noise(family, make_batch(family))
    with torch.no_grad():
        before = errors(family, noised)

    def fail(module, args):
        raise ZeroDivisionError

    hook = family.denoiser.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        reference_errors(family, adapter, noised)
    hook.remove()
    with torch.no_grad():
        assert torch.equal(errors(family, noised), before)
    assert torch.is_grad_enabled()


def test_noise_is_explicit_and_indexed_by_row():
    family, _ = build()
    batch, u = make_batch(family), torch.tensor([0.1, 0.5, 0.9])
    noise = torch.randn(3, 4, 8, 8, generator=pair_generator(0, 1))
    noised = add_noise(family, batch, u, noise, batch.groups)
    expected, _ = family.add_noise(batch.latents, noise.repeat_interleave(2, 0), family.timesteps(u.repeat_interleave(2)))
    torch.testing.assert_close(noised.noisy, expected)
    assert torch.equal(noised.u, u.repeat_interleave(2))


def test_an_error_is_the_mean_over_the_image_and_one_forward_or_many_agree():
    family, _ = build()
    noised = draw_noise(family, make_batch(family))
    with torch.no_grad():
        prediction = family.predict(noised.noisy, noised.timesteps, noised.conditioning)
        expected = per_image_error(prediction, noised.target)
        torch.testing.assert_close(errors(family, noised), expected)
        torch.testing.assert_close(errors(family, noised, at_once=False), expected, rtol=1e-9, atol=0)
