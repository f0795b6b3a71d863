"""What autograd keeps for the backward pass, in bytes."""

import weakref

import torch


def peak_of_saved_bytes(family, run) -> int:
    """The most bytes that graphs hold at one time for their backward, the model's own weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in family.denoiser.parameters()}
    held = {"now": 0, "peak": 0}

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    def release(size):
        held["now"] -= size

    def pack(tensor):
        saved = Saved(tensor)
        if tensor.untyped_storage().data_ptr() not in weights:
            held["now"] += tensor.nbytes
            held["peak"] = max(held.values())
            weakref.finalize(saved, release, tensor.nbytes)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        run()
    return held["peak"]
