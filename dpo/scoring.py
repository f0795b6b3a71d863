"""Per-image denoising errors of policy and reference, and the gradient of a loss of them.

Three execution modes, one mathematics. `full_concurrent` runs all rows of a batch at once, for policy and reference.
`policy_concurrent` runs only the policy's rows together. `sequential` holds the activations of one image at a time: errors
of all rows without gradients, the loss's derivative by each error, then a forward and backward per row with that
coefficient. The chain rule makes it exact for every loss that is a function of the errors.

Rows that are compared share timestep and noise, as explicit tensors. Randomness is a function of (seed, number), never of
how rows are batched: see `pair_generator`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpo.adapters import Adapter
from dpo.cache import Batch
from dpo.families import Conditioning, Family
from dpo.losses import per_image_error


@dataclass(frozen=True)
class Noised:
    """What the denoiser sees. All have R rows: noisy and target (R, C, h, w), timesteps (R,), conditioning tensors (R, ...)."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    conditioning: Conditioning

    def rows(self, start: int, stop: int) -> Noised:
        conditioning = {name: tensor[start:stop] for name, tensor in self.conditioning.items()}
        return Noised(self.noisy[start:stop], self.target[start:stop], self.timesteps[start:stop], conditioning)


def pair_generator(seed: int | str, number: int) -> torch.Generator:
    """The source of everything random about pair `number` of a run: a resumed run or a halved batch draws the same."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def add_noise(family: Family, batch: Batch, u: Tensor, noise: Tensor) -> Noised:
    """Noise a batch with one draw per group of compared rows.

    Were a draw not shared, the difference of two images' errors would measure the noise, not the images.

    Args:
        u: (G,) in [0, 1), where in the schedule. noise: (G, C, h, w). Row r gets draw `batch.groups[r]`.
    """
    device = batch.latents.device
    timesteps = family.timesteps(u).to(device)[batch.groups]
    noisy, target = family.add_noise(batch.latents, noise.to(device, batch.latents.dtype)[batch.groups], timesteps)
    return Noised(noisy, target, timesteps, batch.conditioning)


def errors(family: Family, noised: Noised, *, at_once: bool = True) -> Tensor:
    """(R,) error of the denoiser as it stands, in one forward pass or one per row."""
    if at_once:
        return per_image_error(family.predict(noised.noisy, noised.timesteps, noised.conditioning), noised.target)
    return torch.cat([errors(family, noised.rows(row, row + 1)) for row in range(len(noised.noisy))])


@torch.no_grad()
def reference_errors(family: Family, adapter: Adapter, noised: Noised, *, at_once: bool = True) -> Tensor:
    with adapter.as_reference():
        return errors(family, noised, at_once=at_once)


def backward(
    family: Family, adapter: Adapter, noised: Noised, loss: Callable[[Tensor, Tensor], Tensor], execution: str
) -> tuple[Tensor, Tensor]:
    """Add the gradient of `loss(policy_error, reference_error)` (a scalar) to the adapter's.

    Returns:
        policy_error, reference_error: (R,) each, detached.
    """
    reference_error = reference_errors(family, adapter, noised, at_once=execution == "full_concurrent")
    if execution != "sequential":
        policy_error = errors(family, noised)
        loss(policy_error, reference_error).backward()
        return policy_error.detach(), reference_error

    with torch.no_grad():
        policy_error = errors(family, noised, at_once=False)
    leaf = policy_error.clone().requires_grad_()
    (coefficients,) = torch.autograd.grad(loss(leaf, reference_error), leaf)
    for row, coefficient in enumerate(coefficients):
        (coefficient * errors(family, noised.rows(row, row + 1))[0]).backward()
    return policy_error, reference_error
