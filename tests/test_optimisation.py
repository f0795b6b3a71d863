import pkgutil
from dataclasses import replace

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from dpo.adapters import attach_adapter
from dpo.config import ConfigError, TrainConfig
from dpo.extras import check_optional
from dpo.families import load_family
from dpo.optimisation import FIRST_SCALE, STEPS_TO_GROW, Scaler, learning_rate_at, make_optimizer, prepare_denoiser
from tests.tiny import build_pipeline

CONFIG = TrainConfig(lora_rank=2, warmup_steps=0)


def build(config=CONFIG, dtype=torch.float32):
    """A tiny family whose adapter has learned something, prepared as the settings say, and its adapter."""
    family = load_family(build_pipeline(dtype=dtype))
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.normal_(generator=torch.Generator().manual_seed(number), std=0.3)
    prepare_denoiser(config, family)
    return family, adapter


def inputs(family):
    generator = torch.Generator().manual_seed(9)
    conditioning = {"prompt_embeds": torch.randn(2, 16, 16, generator=generator)}
    return torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([100, 700]), conditioning


def forward_and_backward(family, adapter, scaler=None):
    """(prediction, gradient of its mean square by the adapter)."""
    prediction = family.predict(*inputs(family))
    loss = prediction.float().square().mean()
    (scaler.scale(loss) if scaler else loss).backward()
    return prediction.detach(), torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])


def saved_bytes(family) -> int:
    """What a forward pass keeps for its backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = family.predict(*inputs(family))
    assert prediction.requires_grad
    return sum(kept.values())


# ------------------------------------------------------------------------------------------------ the learning rate


def rates(num_steps, **settings):
    config = replace(TrainConfig(learning_rate=8.0), **settings)
    return [learning_rate_at(config, step, num_steps) for step in range(num_steps)]


def test_the_rate_rises_evenly_from_the_first_step_to_the_peak_and_stays():
    assert rates(6, warmup_steps=4) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert rates(3, warmup_steps=0) == [8.0, 8.0, 8.0]


def test_linear_and_cosine_fall_from_the_peak_to_the_final_rate_one_step_after_the_last():
    assert rates(4, scheduler="linear", warmup_steps=0) == [8.0, 6.0, 4.0, 2.0]
    assert rates(5, scheduler="linear", warmup_steps=1, final_learning_rate=4.0) == [8.0, 8.0, 7.0, 6.0, 5.0]
    half = 0.5**0.5  # the cosine of an eighth of a turn
    assert rates(4, scheduler="cosine", warmup_steps=0) == pytest.approx([8.0, 4 * (1 + half), 4.0, 4 * (1 - half)])
    falling = rates(50, scheduler="cosine", warmup_steps=5, final_learning_rate=1.0)[5:]
    assert falling == sorted(falling, reverse=True) and 1.0 < falling[-1] < 1.1


def test_a_warm_up_longer_than_the_run_is_only_a_rise():
    assert rates(3, warmup_steps=4, scheduler="linear") == [2.0, 4.0, 6.0]


# ------------------------------------------------------------------------------------------------ the optimizer


def weight(gradient=(1.0, -2.0)):
    parameter = torch.nn.Parameter(torch.tensor([0.5, 0.25]))
    parameter.grad = torch.tensor(gradient)
    return parameter


def test_adamw_steps_by_the_rate_times_the_sign_and_decays_the_weights():
    """Loshchilov & Hutter 2019, Algorithm 2, first step: m/sqrt(v) is the gradient's sign where epsilon is small."""
    parameter = weight()
    make_optimizer(replace(CONFIG, learning_rate=0.1, weight_decay=0.5, adam_epsilon=1e-12), [parameter]).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.5, 0.25]) * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([1.0, -1.0]))


def test_every_setting_of_adam_reaches_the_optimizer():
    config = replace(CONFIG, adam_beta1=0.5, adam_beta2=0.75, adam_epsilon=0.125, weight_decay=0.25, learning_rate=0.0625)
    (group,) = make_optimizer(config, [weight()]).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.5, 0.75), 0.125, 0.25, 0.0625)
    assert group["fused"] is True


@pytest.mark.parametrize(
    "settings, package",
    [
        ({"optimizer": "adamw_8bit"}, "bitsandbytes"),
        ({"optimizer": "prodigy", "learning_rate": 1.0}, "prodigyopt"),
        ({"attention": "flash"}, "flash-attn"),
        ({"attention": "xformers"}, "xformers"),
        ({"tracker": "wandb"}, "wandb"),
        ({"tracker": "trackio"}, "trackio"),
    ],
)
def test_a_setting_whose_package_is_missing_names_it_before_anything_loads(settings, package, monkeypatch):
    config = replace(CONFIG, **settings)
    setting = next(iter(settings))
    monkeypatch.setattr(pkgutil, "iter_modules", lambda: [])
    with pytest.raises(ConfigError, match=rf"{setting}='{settings[setting]}' needs a package: pip install {package}\. Or set"):
        check_optional(config)
    if setting == "optimizer":
        with pytest.raises(ConfigError, match=package):
            make_optimizer(config, [weight()])


def test_settings_that_need_no_extra_package_pass():
    check_optional(CONFIG)


@pytest.mark.parametrize("name, package", [("adamw_8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
def test_an_optional_optimizer_steps_and_resumes_to_the_bit(name, package):
    pytest.importorskip(package)
    config = replace(CONFIG, optimizer=name, learning_rate=1.0 if name == "prodigy" else 0.1)

    def steps(optimizer, parameter, start, stop):
        for step in range(start, stop):
            parameter.grad = torch.linspace(-1, 1, 8192).roll(step)
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(8192))
    steps(make_optimizer(config, [whole]), whole, 0, 6)
    assert (whole != 1).any()
    parts = torch.nn.Parameter(torch.ones(8192))
    first = make_optimizer(config, [parts])
    steps(first, parts, 0, 3)
    second = make_optimizer(config, [parts])
    second.load_state_dict(first.state_dict())
    steps(second, parts, 3, 6)
    assert torch.equal(whole, parts)


# ------------------------------------------------------------------------------------------------ float16


def test_other_precisions_are_not_scaled():
    scaler, parameter = Scaler(CONFIG), weight((float("nan"), 1.0))
    loss = torch.tensor(2.0)
    assert scaler.scale(loss) is loss
    assert scaler.unscale([parameter]) is True
    assert parameter.grad[1] == 1.0


def test_a_float16_step_that_overflows_is_skipped_and_halves_the_scale():
    scaler = Scaler(replace(CONFIG, precision="float16"))
    assert scaler.scale(torch.tensor(2.0)) == 2 * FIRST_SCALE
    for gradient in (float("inf"), float("nan")):
        assert scaler.unscale([weight((gradient, 1.0)), weight()]) is False
    assert scaler.scale(torch.tensor(1.0)) == FIRST_SCALE / 4
    parameter = weight((FIRST_SCALE, FIRST_SCALE / 4))
    assert scaler.unscale([parameter]) is True
    assert parameter.grad.tolist() == [4.0, 1.0]


def test_the_scale_doubles_after_as_many_good_steps_in_a_row_also_across_a_resume():
    config = replace(CONFIG, precision="float16")
    scaler, overflow = Scaler(config), weight((float("inf"), 0.0))
    for _ in range(3):
        scaler.unscale([weight()])
    scaler.unscale([overflow])  # ends the row: the three before do not count
    for step in range(STEPS_TO_GROW - 1):
        if step == 1000:
            state = scaler.state_dict()
            scaler = Scaler(config)
            scaler.load_state_dict(state)
        scaler.unscale([weight()])
    assert scaler.scale(torch.tensor(1.0)) == FIRST_SCALE / 2
    scaler.unscale([weight()])
    assert scaler.scale(torch.tensor(1.0)) == FIRST_SCALE


def test_a_float16_denoiser_gives_the_float32_gradients_to_its_half_precision():
    config = replace(CONFIG, precision="float16")
    half, adapter = build(config, torch.float16)
    scaler = Scaler(config)
    _, gradient = forward_and_backward(half, adapter, scaler)
    assert scaler.unscale(adapter.parameters())
    gradient = torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])
    _, expected = forward_and_backward(*build())
    assert (gradient - expected).norm() / expected.norm() < 0.02


# ------------------------------------------------------------------------------------------------ the denoiser


def test_checkpointing_gives_the_same_gradients_to_an_adapter_on_a_frozen_base_and_keeps_less():
    plain, adapter = build()
    prediction, gradient = forward_and_backward(plain, adapter)
    frugal, frugal_adapter = build(replace(CONFIG, gradient_checkpointing=True))
    frugal_prediction, frugal_gradient = forward_and_backward(frugal, frugal_adapter)
    assert gradient.abs().max() > 1e-4
    assert torch.equal(frugal_prediction, prediction) and torch.equal(frugal_gradient, gradient)
    assert saved_bytes(frugal) < 0.5 * saved_bytes(plain)


def test_attention_stays_what_the_family_chose_unless_another_is_asked_for():
    plain, adapter = build()
    assert {type(processor) for processor in plain.denoiser.attn_processors.values()} == {AttnProcessor}
    native, native_adapter = build(replace(CONFIG, attention="native"))
    assert {type(processor) for processor in native.denoiser.attn_processors.values()} == {AttnProcessor2_0}
    for found, expected in zip(forward_and_backward(native, native_adapter), forward_and_backward(plain, adapter), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_model_that_dispatches_its_attention_is_told_which():
    transformer = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=1, joint_attention_dim=8,
        pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    prepare_denoiser(replace(CONFIG, attention="native"), Bare(transformer))
    assert {processor._attention_backend for processor in transformer.attn_processors.values()} == {"native"}


def test_attention_that_a_model_or_a_machine_cannot_do_is_a_sentence(monkeypatch):
    monkeypatch.setattr(pkgutil, "iter_modules", lambda: [Named("flash_attn"), Named("xformers")])
    with pytest.raises(ConfigError, match="attention='flash' is not for UNet2DConditionModel. Set it to 'native'"):
        build(replace(CONFIG, attention="flash"))
    with pytest.raises(ConfigError, match="attention='xformers' does not work here: .* Set it to 'auto'"):
        build(replace(CONFIG, attention="xformers"))


def test_a_model_that_cannot_be_compiled_in_parts_or_recomputed_is_refused_with_the_setting():
    for setting in ("compile", "gradient_checkpointing"):
        with pytest.raises(ConfigError, match=f"{setting}.* Linear.* Switch it off"):
            prepare_denoiser(replace(CONFIG, **{setting: True}), Bare(torch.nn.Linear(2, 2)))


def test_a_compiled_denoiser_still_tells_policy_from_reference_and_trains(monkeypatch):
    """PyTorch's tracing with its eager backend: the guards on switched adapters are tested, the code it writes is not ours."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    compiled, compiled_adapter = build(replace(CONFIG, compile=True))
    plain, adapter = build()
    for _ in range(2):  # the second pass runs what the first has compiled
        for family, own in ((compiled, compiled_adapter), (plain, adapter)):
            with torch.no_grad(), own.as_reference():
                family.reference = family.predict(*inputs(family))
        assert torch.equal(compiled.reference, plain.reference)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert torch._dynamo.config.recompile_limit >= 64  # a block has more than PyTorch's 8 forms: widths, shapes, with gradients
    prediction, gradient = forward_and_backward(compiled, compiled_adapter)
    expected, expected_gradient = forward_and_backward(plain, adapter)
    assert not torch.equal(prediction, compiled.reference)
    assert torch.equal(prediction, expected) and torch.equal(gradient, expected_gradient)


class Bare:
    """A family that is only a denoiser."""

    device = torch.device("cpu")

    def __init__(self, denoiser):
        self.denoiser = denoiser


class Named:
    def __init__(self, name):
        self.name = name
