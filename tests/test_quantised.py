"""Quantised denoisers, on a CPU: what must hold for every family holds for them too, and nothing unpacked stays in the graph."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dpo.adapters import attach_adapter
from dpo.config import ConfigError, TrainConfig
from dpo.families import load_family
from dpo.fingerprints import weights_digest
from dpo.models import load_pipeline
from dpo.quantised import quantise
from dpo.sampling import SampleSettings, paint
from tests.families import Tiny, families
from tests.families.checks import (
    check_cached_equals_live,
    check_resume,
    check_round_trip,
    check_step_0,
    clean_latents,
    conditioning,
)

# setting -> (package, how far a packed product may be from the whole one, relative to its size, bits a weight)
KINDS = {
    "nf4": ("bitsandbytes", 0.2, 4),
    "int8": ("bitsandbytes", 0.02, 8),
    "int8_torchao": ("torchao", 0.02, 8),
    "fp8_torchao": ("torchao", 0.06, 8),
}
each = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def package(request):
    if "kind" in request.fixturenames:
        name = KINDS[request.getfixturevalue("kind")][0]
        pytest.importorskip(name, reason=f"the package {name} is not installed")


def tiny_of(name: str, kind: str, folder: Path) -> Tiny:
    """A tiny family whose denoiser is quantised as it is loaded."""
    tiny = next(tiny for tiny in families() if tiny.name == name)
    if not folder.exists():
        tiny.build().save_pretrained(folder)
    return replace(tiny, build=lambda: load_pipeline(str(folder), quantization=kind))


def stored(module: nn.Module) -> int:
    """Bytes of its weights as they are kept."""
    total = 0
    for parameter in module.parameters():
        parts = getattr(parameter, "__tensor_flatten__", lambda: ([],))()[0]
        total += sum(getattr(parameter, part).nbytes for part in parts) if parts else parameter.nbytes
    return total


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_answers_nearly_as_it_did_and_is_smaller(kind, dtype):
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(256, 128), nn.LayerNorm(128), nn.Linear(128, 64, bias=False)).to(dtype).eval()
    whole.requires_grad_(False)
    inputs = torch.randn(8, 256).to(dtype)
    expected, before = whole(inputs).float(), sum(parameter.nbytes for parameter in whole.parameters())
    quantise(whole, kind, dtype, "cpu")
    found = whole(inputs)
    assert found.dtype == dtype
    assert 0 < (found.float() - expected).norm() / expected.norm() < KINDS[kind][1]
    assert type(whole[1]) is nn.LayerNorm and whole[1].weight.dtype == dtype
    assert not any(layer.training for layer in whole)
    whole_bits = torch.finfo(dtype).bits
    assert stored(whole) < before * (KINDS[kind][2] / whole_bits + 0.1)


@each
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_pass_through_and_the_graph_keeps_neither_weights_nor_what_is_between_layers(kind, checkpointing):
    """As they would through the weight that the layer has now."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.Linear(256, 128)).requires_grad_(False)
    quantise(model, kind, torch.float32, "cpu")
    rows = torch.eye(128)
    with torch.no_grad():
        matrix = model(rows) - model(torch.zeros(1, 128))
    inputs = torch.randn(4, 128, requires_grad=True)
    kept, inner = [], []
    model[1].register_forward_pre_hook(lambda layer, inputs: inner.append(weakref.ref(inputs[0])))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        output = checkpoint(model, inputs, use_reentrant=False) if checkpointing else model(inputs)
    gc.collect()
    assert inner[0]() is None  # what is between the layers is needed for the gradient of neither
    coefficients = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * coefficients).sum().backward()
    difference = inputs.grad - coefficients @ matrix.T
    assert difference.norm() / inputs.grad.norm() < 1e-3
    assert max(kept, default=0) < 128 * 256


@each
def test_the_gradient_is_that_of_the_weight_as_it_is_packed(kind):
    """The matrix is what the layer makes of the unit vectors, which nothing rounds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64, bias=False)).requires_grad_(False)
    quantise(model, kind, torch.float32, "cpu")
    with torch.no_grad():
        matrix = model(torch.eye(128))
    inputs = torch.zeros(4, 128, requires_grad=True)
    coefficients = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    (model(inputs) * coefficients).sum().backward()
    torch.testing.assert_close(inputs.grad, coefficients @ matrix.T, rtol=1e-3, atol=1e-3)


@each
def test_layers_that_must_stay_in_float32_stay_as_they_are(kind):
    class Model(nn.Module):
        _keep_in_fp32_modules = ("gate", "norm")

        def __init__(self):
            super().__init__()
            self.gate, self.norm = nn.Linear(64, 64), nn.ModuleDict({"linear": nn.Linear(64, 64)})
            self.other = nn.Linear(64, 64)

    model = Model().requires_grad_(False)
    quantise(model, kind, torch.float32, "cpu")
    assert type(model.gate) is type(model.norm["linear"]) is nn.Linear
    assert type(model.other) is not nn.Linear


@each
@pytest.mark.parametrize(
    "name, check",
    [
        *(("sd_1.x", check) for check in (check_step_0, check_cached_equals_live, check_round_trip, check_resume)),
        *(("z-image", check) for check in (check_step_0, check_round_trip)),
    ],
)
def test_what_must_hold_for_every_family_holds_with_packed_weights(kind, name, check, tmp_path):
    """Margin 0 at step 0, an adapter file that gives the same image on a fresh model, a resumed run that ends the same."""
    check(tiny_of(name, kind, tmp_path / "model"), tmp_path)


@each
def test_the_adapter_is_float32_and_all_of_it_gets_a_gradient(kind, tmp_path):
    tiny = tiny_of("z-image", kind, tmp_path / "model")
    family = load_family(load_pipeline(str(tmp_path / "model"), "bfloat16", quantization=kind))
    adapter = attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False)
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    answer = family.predict(clean_latents(family, tiny), family.timesteps(torch.tensor([0.5])), conditioning(family, tiny, 1))
    answer.float().square().mean().backward()
    second = [parameter for name, parameter in family.denoiser.named_parameters() if "lora_B" in name]
    assert len(second) > 4 and all(parameter.grad.abs().sum() > 0 for parameter in second)
    assert len(adapter.trainable_names()) == len(adapter.parameters())


@each
def test_a_gradient_passes_after_a_pass_without_one_and_the_answers_are_the_same(kind):
    """As of reference and policy. On some CPUs bitsandbytes would pack weights anew in the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64)).to(torch.bfloat16).eval().requires_grad_(False)
    quantise(model, kind, torch.bfloat16, "cpu")
    inputs = torch.randn(4, 128, dtype=torch.bfloat16)
    with torch.no_grad():
        without = model(inputs)
    inputs.requires_grad_()
    output = model(inputs)
    assert torch.equal(output, without)
    output.sum().backward()
    assert inputs.grad.abs().sum() > 0


@each
def test_packed_weights_have_a_digest_of_their_own(kind, tmp_path):
    """Errors of a reference are remembered by it."""
    tiny_of("sd_1.x", kind, tmp_path / "model")
    digests = [weights_digest(load_pipeline(str(tmp_path / "model"), quantization=how).unet) for how in ("none", kind, kind)]
    assert digests[0] != digests[1] == digests[2]
    unet = load_pipeline(str(tmp_path / "model"))
    with torch.no_grad():
        unet.unet.mid_block.attentions[0].proj_in.weight[0] += 1
    unet.save_pretrained(tmp_path / "other")
    other = load_pipeline(str(tmp_path / "other"), quantization=kind).unet
    assert weights_digest(other) != digests[1]


@each
def test_an_adapter_is_merged_before_the_weights_are_packed(kind, tmp_path):
    """Merged into packed ones, it would be rounded away."""
    tiny = tiny_of("z-image", kind, tmp_path / "model")
    family = load_family(load_pipeline(str(tmp_path / "model")))
    adapter = attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(0.5)
    adapter.save(tmp_path / "adapter.safetensors")
    size = SampleSettings(sampling_steps=2, guidance_scale=1.0, width=tiny.side, height=tiny.side)
    pictures = []
    for more in ({}, {"quantization": kind}):
        family = load_family(load_pipeline(str(tmp_path / "model"), base_adapter=str(tmp_path / "adapter.safetensors"), **more))
        pictures.append(np.asarray(paint(family, [(family.prompt_arguments("a cat", ""), 1)], size)[0]).astype(int))
    base = load_family(load_pipeline(str(tmp_path / "model")))
    unmerged = np.asarray(paint(base, [(base.prompt_arguments("a cat", ""), 1)], size)[0]).astype(int)
    assert np.abs(pictures[1] - pictures[0]).mean() < np.abs(unmerged - pictures[0]).mean()


@each
def test_what_goes_into_a_layer_is_not_rounded(kind):
    """Else policy and reference would each be rounded otherwise, and a margin of DPO is smaller than that: inputs that differ by
    little make outputs that differ by as little."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 128)).requires_grad_(False)
    quantise(model, kind, torch.float32, "cpu")
    inputs, step = torch.randn(8, 256), 1e-4 * torch.randn(8, 256)
    with torch.no_grad():
        matrix = model(torch.eye(256)) - model(torch.zeros(1, 256))
        difference = model(inputs + step) - model(inputs)
    torch.testing.assert_close(difference, step @ matrix, rtol=0, atol=1e-5)


@each
@pytest.mark.parametrize("adapter", ["dora", "loha", "lokr", "oft"])
def test_every_kind_of_adapter_trains_on_packed_weights_or_is_refused(kind, adapter, tmp_path):
    try:
        config = TrainConfig(adapter=adapter, quantization=kind, lora_rank=2)
    except ConfigError as error:
        assert f"cannot with those of {kind}" in str(error)
        return
    tiny = tiny_of("z-image", kind, tmp_path / "model")
    family = load_family(tiny.build())
    asked = clean_latents(family, tiny), family.timesteps(torch.tensor([0.5])), conditioning(family, tiny, 1)
    with torch.no_grad():
        base = family.predict(*asked)
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    answer = family.predict(*asked)
    torch.testing.assert_close(answer, base, rtol=1e-4, atol=1e-5)
    answer.square().mean().backward()
    moved = [parameter for parameter in adapter.parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0]
    assert len(moved) >= len(adapter.parameters()) / 4
