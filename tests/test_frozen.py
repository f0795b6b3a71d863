"""Layers that fetch their weight compute what plain ones do, and leave nothing of it behind."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dpo import frozen
from dpo.adapters import attach_adapter
from dpo.config import TrainConfig
from dpo.families import load_family
from dpo.fingerprints import weights_digest
from dpo.models import load_pipeline
from tests.families import families
from tests.families.checks import check_resume, check_round_trip, check_step_0, clean_latents, conditioning
from tests.tiny import build_pipeline

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (2, 3, 6)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (4, 6)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 7)),
    "grouped, dilated conv": (lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False), (2, 4, 9, 9)),
}


def pair(build) -> tuple[nn.Module, nn.Module]:
    """(a frozen layer, the same with its weight left in memory)"""
    torch.manual_seed(0)
    plain = build().requires_grad_(False)
    other = nn.Sequential(copy.deepcopy(plain))
    frozen.offload(other, 1.0, "cpu")
    return plain, other[0]


def gradient(layer: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
    """(output, gradient of the inputs, what the graph kept)"""
    inputs = inputs.clone().requires_grad_()
    kept: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.setdefault(id(tensor), tensor), lambda tensor: tensor):
        output = layer(inputs)
    (output * torch.arange(output.numel()).reshape(output.shape)).sum().backward()
    return output.detach(), inputs.grad, kept


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_plain_layer(name, dtype):
    build, shape = LAYERS[name]
    plain, other = pair(lambda: build().to(dtype))
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected, found = gradient(plain, inputs), gradient(other, inputs)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)
    assert found[1].abs().sum() > 0


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_the_graph_keeps_no_weight(name):
    """A plain layer's graph does, or this says nothing."""
    build, shape = LAYERS[name]
    plain, other = pair(build)
    size = plain.weight.numel()
    kept = [tensor.numel() for tensor in gradient(plain, torch.randn(shape))[2].values()]
    assert size in kept
    assert gradient(other, torch.randn(shape))[2] == {}


def test_a_weight_in_memory_stays_there_when_the_model_moves():
    """The meta device stands for a GPU. It has no numbers, so only places are looked at."""
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2)).requires_grad_(False)
    frozen.offload(model, 1.0, "meta")
    assert [model[place].weight.device.type for place in (0, 1, 2)] == ["cpu", "meta", "cpu"]
    assert [model[place].bias.device.type for place in (0, 1, 2)] == ["meta"] * 3
    assert model[2](model[1](model[0](torch.zeros(1, 6, device="meta")))).device.type == "meta"
    assert {name for name, _ in model.named_parameters()} == {"0.bias", "1.weight", "1.bias", "2.bias"}
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("share, moved", [(0.0, []), (0.01, [4]), (0.6, [4]), (0.75, [4, 2]), (1.0, [4, 2, 0])])
def test_the_largest_weights_are_left_first_up_to_the_share(share, moved):
    """Of 8 * 2 + 2, 2 * 16 + 16, 16 * 8 + 8 = 202 numbers: 128 are 63%, with the next 32 79%, with the last 16 87%."""
    model = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8)).requires_grad_(False)
    frozen.offload(model, share, "cpu")
    assert [place for place in (4, 2, 0) if type(model[place]) is frozen.OffloadedLinear] == moved


def test_a_convolution_that_pads_with_what_is_inside_keeps_its_weight():
    """Its gradient is another one."""
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.Conv2d(6, 4, 3, padding="same"))
    frozen.offload(model.requires_grad_(False), 1.0, "cpu")
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]


def test_the_digest_of_a_model_does_not_depend_on_where_its_weights_are():
    unet = build_pipeline().unet
    before = weights_digest(unet)
    frozen.offload(unet, 0.5, "cpu")
    assert weights_digest(unet) == before


# ------------------------------------------------------------------------------------------------ whole denoisers


def offloaded(tiny, folder: Path, share: float = 1.0):
    if not folder.exists():
        tiny.build().save_pretrained(folder)
    return load_pipeline(str(folder), offload=share)


TINIES = [pytest.param(tiny, id=tiny.name) for tiny in families()]


@pytest.mark.parametrize("tiny", TINIES)
def test_an_adapter_on_fetched_weights_gets_the_gradients_it_gets_on_plain_ones(tiny, tmp_path):
    """To the bit, or as near as another order of the same sums comes."""
    gradients = []
    for share in (0.0, 1.0):
        family = load_family(offloaded(tiny, tmp_path / "model", share))
        config = TrainConfig(lora_rank=2)
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
        latents = clean_latents(family, tiny)
        answer = family.predict(latents, family.timesteps(torch.tensor([0.5])), conditioning(family, tiny, 1))
        answer.square().mean().backward()
        gradients.append(
            torch.cat([parameter.grad.flatten() for parameter in adapter.parameters() if parameter.grad is not None])
        )
    assert gradients[1].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("from_file", [False, True])
def test_an_adapter_goes_where_the_model_is_and_not_where_its_weights_wait(tmp_path, from_file):
    """The meta device stands for a GPU."""
    starting = None
    if from_file:
        family = load_family(load_pipeline("demo"))
        starting = tmp_path / "adapter.safetensors"
        attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False).save(starting)
    family = load_family(load_pipeline("demo", device="meta", offload=1.0))
    adapter = attach_adapter(family, TrainConfig(), starting=starting, reference=None, moving=False)
    assert {parameter.device.type for parameter in adapter.parameters()} == {"meta"}


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "oft"])
def test_no_adapter_that_can_be_chosen_asks_for_the_weights(kind):
    """On the device they are not to be had. DoRA would, and is refused."""
    family = load_family(load_pipeline("demo", device="meta", offload=1.0))
    attach_adapter(family, TrainConfig(adapter=kind, lora_rank=4, offload=1.0), starting=None, reference=None, moving=False)
    settings, place = family.denoiser.config, {"device": "meta"}
    noisy, told = torch.zeros(1, settings.in_channels, 8, 8, **place), torch.zeros(1, 4, settings.cross_attention_dim, **place)
    assert family.denoiser(noisy, torch.zeros(1, **place), told).sample.device.type == "meta"


@pytest.mark.parametrize("check", [check_step_0, check_round_trip, check_resume])
def test_what_must_hold_for_every_family_holds_with_fetched_weights(check, tmp_path):
    tiny = families()[0]
    check(replace(tiny, build=lambda: offloaded(tiny, tmp_path / "model")), tmp_path)
