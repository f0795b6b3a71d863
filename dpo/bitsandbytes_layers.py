"""Linear layers of bitsandbytes that can stand in a model which is trained through. Needs the package."""

from __future__ import annotations

import torch
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn

from dpo.frozen import FetchedLinear


class Int8Linear(FetchedLinear, Linear8bitLt):
    """Rows of 8 bits with a scale each.

    bitsandbytes itself would round the inputs too (LLM.int8), which policy and reference would each lose something else by, and
    more than a margin is. It would also keep them for the gradient, under gradient checkpointing too.
    """

    def push(self, inputs: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(inputs.dtype)  # what asks for a weight's dtype finds none to cast to
        return nn.functional.linear(inputs, self.fetch(inputs), bias)

    def fetch(self, like: Tensor) -> Tensor:
        if self.weight.CB is not None:
            self.init_8bit_state()
        return (self.state.CB * (self.state.SCB / 127)[:, None]).to(like.dtype)


def int8(layer: nn.Linear) -> nn.Module:
    """To be packed when it is moved to a device."""
    packed = Int8Linear(layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False, device="meta")
    packed.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    packed.bias = layer.bias
    return packed


def nf4(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """To be packed when it is moved to a device (Dettmers et al. 2023, section 3); products are computed in `dtype`."""
    packed = Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, quant_type="nf4", compute_dtype=dtype, device="meta"
    )
    packed.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=packed)
    packed.bias = layer.bias
    # On some CPUs it would pack its weight anew for the first pass without gradients, and then never let one through again.
    packed.support_avx512bf16_for_cpu = False
    return packed
