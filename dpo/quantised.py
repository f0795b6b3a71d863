"""A denoiser of fewer bytes: the weights of its linear layers in 4 or 8 bits. It stays frozen, and the adapter is float32.

The model is loaded as it is, an adapter is merged if one is to be, and then each layer is packed on its way to the device: the
computer's memory holds the whole model for a moment, the device never does. Embeddings, norms and convolutions stay as they are;
so do text encoders, which leave the device before training starts.
"""

from __future__ import annotations

import torch
from torch import nn

from dpo.frozen import TorchaoLinear


def quantise(denoiser: nn.Module, kind: str, dtype: torch.dtype, device: str) -> None:
    """Pack the linear layers, and move everything to the device.

    kind: "nf4" (4 bits, bitsandbytes), "int8" (bitsandbytes), "int8_torchao" or "fp8_torchao". Weights alone are packed, and for
    every product unpacked to `dtype`. Layers that diffusers keeps in float32 are left as they are.
    """
    pack = {"nf4": _nf4, "int8": _int8, "int8_torchao": _torchao_int8, "fp8_torchao": _torchao_fp8}[kind]
    kept = set(getattr(denoiser, "_keep_in_fp32_modules", None) or ())
    for name, parent in list(denoiser.named_modules()):
        for child_name, child in list(parent.named_children()):
            if type(child) is nn.Linear and not kept & {*name.split("."), child_name}:
                setattr(parent, child_name, pack(child, dtype, device))
    if kind == "nf4":
        denoiser.is_loaded_in_4bit = True  # peft asks the model, not its layers, how they are to be adapted
    elif kind == "int8":
        denoiser.is_loaded_in_8bit = True
    denoiser.to(device)
    denoiser.train(denoiser.training)  # layers are made in training mode


def _nf4(layer: nn.Linear, dtype: torch.dtype, device: str) -> nn.Module:
    from dpo.bitsandbytes_layers import nf4

    return nf4(layer, dtype).to(device).requires_grad_(False)


def _int8(layer: nn.Linear, dtype: torch.dtype, device: str) -> nn.Module:
    from dpo.bitsandbytes_layers import int8

    return int8(layer).to(device).requires_grad_(False)


def _torchao_int8(layer: nn.Linear, dtype: torch.dtype, device: str) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig

    return _torchao(layer, Int8WeightOnlyConfig(version=2), device)


def _torchao_fp8(layer: nn.Linear, dtype: torch.dtype, device: str) -> nn.Module:
    from torchao.quantization import Float8WeightOnlyConfig

    return _torchao(layer, Float8WeightOnlyConfig(), device)


def _torchao(layer: nn.Linear, config: object, device: str) -> nn.Module:
    from torchao.quantization import quantize_

    quantize_(layer.to(device), config)
    layer.__class__ = TorchaoLinear  # torchao's own product leaves the unpacked weight in the graph
    return layer.requires_grad_(False)
