"""What cached tensors are known by: names that change whenever what they were computed from does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

FIRST = 64  # values from the start of every tensor
MOST_ROWS = 1 << 18  # of a tensor whose first column is looked at; of a longer one, about as many, evenly spread


def digest(*parts: str | bytes) -> str:
    """32 hex characters; the order of the parts and where one ends and the next begins count."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


@torch.no_grad()
def weights_digest(module: torch.nn.Module) -> str:
    """Of a module's weights, their dtypes and shapes, wherever they are; adapters attached to it do not count.

    The first values of every tensor and the first value of each of its rows tell two models apart without reading
    gigabytes: a fine-tune changes all rows, a new word is one row of the embeddings, and weights packed into one column are
    looked at all over. What stays unseen is a change that leaves the first column and the first values of every tensor as they
    were.
    """
    names: list[str] = []
    samples: dict[str, list[Tensor]] = {}
    tensors = {name.replace(".base_layer.", "."): tensor for name, tensor in module.state_dict().items() if "lora_" not in name}
    for name, tensor in sorted(_plain(tensors)):
        if tensor.numel():
            names.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}")
            samples.setdefault(str(tensor.device), []).extend(_samples(tensor))
    # One copy from a device, not one for every tensor: each would wait for all that is queued there.
    return digest("\n".join(names), *(torch.cat(parts).cpu().numpy().tobytes() for parts in samples.values()))


def _plain(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name; of one that is packed, the tensors it is made of."""
    for name, tensor in tensors.items():
        if hasattr(tensor, "__tensor_flatten__"):
            yield from ((f"{name}.{part}", getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])
        else:
            yield name, getattr(tensor, "as_tensor", lambda tensor=tensor: tensor)()  # the bytes of one from a GGUF file


def _samples(tensor: Tensor) -> list[Tensor]:
    if tensor.dim() == 0:
        tensor = tensor[None]
    column = tensor[:: -(-len(tensor) // MOST_ROWS)]
    while column.dim() > 1:
        column = column.select(1, 0)
    # Not `contiguous`: a column of one value counts as that with any stride, and cannot be viewed as bytes.
    copies = [part.clone(memory_format=torch.contiguous_format) for part in (tensor[0].flatten()[:FIRST], column)]
    return [copy.view(torch.uint8) for copy in copies]
