"""Frozen layers whose weight is not at hand: it waits in the computer's memory, or is packed.

It is fetched for the forward pass, dropped, and fetched again for the backward one. A plain layer would leave the fetched weight
in the graph until then: the whole model would be on the device after all, or unpacked. Nothing is computed differently, so
outputs and gradients are those of the plain layer. A weight gets no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Apply(torch.autograd.Function):
    """`layer.push`, with nothing but the layer itself kept for `layer.pull`."""

    @staticmethod
    def forward(ctx, inputs: Tensor, layer: Fetched) -> Tensor:
        ctx.layer, ctx.shape = layer, inputs.shape
        return layer.push(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.pull(gradient, ctx.shape), None


class Fetched:
    """The part of such a layer that makes its forward pass what was said above.

    push(inputs): what the plain layer answers. pull(gradient, shape): the gradient of inputs of that shape, from the answer's.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        return _Apply.apply(inputs, self)


class FetchedLinear(Fetched, nn.Linear):
    """fetch(like): the weight, in the dtype and on the device of a tensor that goes into the layer or comes out of it."""

    def push(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.fetch(inputs), self.bias)

    def pull(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        return gradient @ self.fetch(gradient)


class _Conv2d(Fetched, nn.Conv2d):
    def push(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.fetch(inputs), self.bias)

    def pull(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        weight = self.fetch(gradient)
        return nn.grad.conv2d_input(shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups)


class _InMemory:
    """The weight is a tensor in the computer's memory, and no parameter: what moves the model leaves it where it is."""

    def fetch(self, like: Tensor) -> Tensor:
        return self.weight.to(like.device, non_blocking=True)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


class OffloadedLinear(_InMemory, FetchedLinear):
    pass


class OffloadedConv2d(_InMemory, _Conv2d):
    pass


class TorchaoLinear(FetchedLinear):
    """Of a weight that torchao has packed."""

    def fetch(self, like: Tensor) -> Tensor:
        return self.weight.dequantize()


class GGUFLinear(FetchedLinear):
    """Of a weight as it stands in a GGUF file."""

    def fetch(self, like: Tensor) -> Tensor:
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(self.weight).to(self.compute_dtype)

    def push(self, inputs: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return nn.functional.linear(inputs, self.fetch(inputs), bias)


OFFLOADED = {nn.Linear: OffloadedLinear, nn.Conv2d: OffloadedConv2d}


def offload(denoiser: nn.Module, share: float, device: str) -> None:
    """Move a denoiser to the device, but leave the weights of its largest layers, up to about this share of all, in memory.

    Largest first: the fewest transfers for what is saved. It must be frozen, and hold no adapter yet.
    """
    layers = [module for module in denoiser.modules() if type(module) in OFFLOADED and _is_plain(module)]
    left = share * sum(parameter.nbytes for parameter in denoiser.parameters())
    for layer in sorted(layers, key=lambda layer: -layer.weight.nbytes):
        if left <= 0:
            break
        left -= layer.weight.nbytes
        weight = layer._parameters.pop("weight").data
        layer.__class__ = OFFLOADED[type(layer)]
        layer.weight = weight.pin_memory() if device.startswith("cuda") else weight
    denoiser.to(device)


def _is_plain(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether its gradient is as above: that of a convolution that pads with something else than zeros is not."""
    return isinstance(layer, nn.Linear) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
