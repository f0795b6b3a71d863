"""Per-image denoising errors of policy and reference, and the gradient of a loss of them.

Three execution modes, one mathematics. `full_concurrent` runs all rows of a batch at once, for policy and reference.
`policy_concurrent` runs only the policy's rows together. `sequential` holds the activations of one image at a time: errors
of all rows without gradients, the loss's derivative by each error, then a forward and backward per row with that
coefficient. The chain rule makes it exact for every loss that is a function of the errors.

Forwards of R rows: 1 policy + 1 reference, 1 + R, 2R + R. Where reference errors are remembered, or there is no reference,
the second number is 0. Nothing here waits for the device, but to remember errors that were computed: once a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dpo.adapters import Adapter
from dpo.cache import Batch
from dpo.config import TrainConfig
from dpo.draws import Noised
from dpo.families import Family
from dpo.losses import per_image_error, safeguard_scale

if TYPE_CHECKING:
    from dpo.remembered import RememberedErrors

# (policy_error, reference_error or None, rejected_scale or None) -> scalar
Loss = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


class Reference:
    """What the policy is compared with. `mode`: TrainConfig.reference_mode; only "none" makes a difference here, for the
    adapter knows which weights the reference has. `memory` holds errors of this reference from earlier visits and runs."""

    def __init__(self, family: Family, adapter: Adapter, mode: str, memory: RememberedErrors | None = None):
        self._family, self._adapter, self._mode, self._memory = family, adapter, mode, memory

    @torch.no_grad()
    def errors(self, noised: Noised, batch: Batch, keys: list[str] | None, *, at_once: bool) -> Tensor | None:
        """(R,) errors of the reference, in one forward pass or one per row; None if there is no reference.

        keys: (R,) names under which the memory has them, or will; None: they are computed and not remembered.
        """
        if self._mode == "none":
            return None
        memory = self._memory if keys is not None else None
        if memory is not None:
            known = memory.get(keys)
            if known is not None:
                return torch.tensor(known).to(batch.latents.device, non_blocking=True)
        with self._adapter.as_reference():
            error = errors(self._family, noised, at_once=at_once)
        if memory is not None:
            memory.put(keys, error.tolist())
        return error

    def forget(self) -> None:
        """Compute every error from now on."""
        self._memory = None

    def state_dict(self) -> dict[str, Tensor]:
        """For checkpoints: the weights of a reference that moves. Empty for one that stands still, as its file is kept."""
        return self._adapter.reference_state() or {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._adapter.load_reference_state(state or None)


def errors(family: Family, noised: Noised, *, at_once: bool = True) -> Tensor:
    """(R,) error of the denoiser as it stands, in one forward pass or one per row."""
    if at_once:
        return per_image_error(_predict(family, noised), noised.target)
    return torch.cat([errors(family, noised.rows(row, row + 1)) for row in range(len(noised.noisy))])


def backward(
    family: Family,
    reference: Reference,
    noised: Noised,
    batch: Batch,
    keys: list[str] | None,
    config: TrainConfig,
    loss: Loss,
) -> tuple[Tensor, Tensor | None]:
    """Add the gradient of `loss(policy_error, reference_error, rejected_scale)` to the adapter's.

    Returns:
        policy_error, reference_error: (R,) each, detached; the second None where there is no reference.
    """
    reference_error = reference.errors(noised, batch, keys, at_once=config.execution == "full_concurrent")
    if config.execution != "sequential":
        prediction = _predict(family, noised)
        policy_error = per_image_error(prediction, noised.target)
        scale = _rejected_scale(prediction.detach(), noised, batch, config)
        loss(policy_error, reference_error, scale).backward()
        return policy_error.detach(), reference_error

    rows = [noised.rows(row, row + 1) for row in range(len(noised.noisy))]
    with torch.no_grad():
        prediction = torch.cat([_predict(family, row) for row in rows])
        policy_error = per_image_error(prediction, noised.target)
        scale = _rejected_scale(prediction, noised, batch, config)
    leaf = policy_error.clone().requires_grad_()
    (coefficients,) = torch.autograd.grad(loss(leaf, reference_error, scale), leaf)
    for row, coefficient in zip(rows, coefficients.unbind(), strict=True):
        (coefficient * errors(family, row)[0]).backward()
    return policy_error, reference_error


def _predict(family: Family, noised: Noised) -> Tensor:
    return family.predict(noised.noisy, noised.timesteps, noised.conditioning)


def _rejected_scale(prediction: Tensor, noised: Noised, batch: Batch, config: TrainConfig) -> Tensor | None:
    """(M,) by how much the safeguard holds each comparison back; None where it is off."""
    if not config.safeguard_mu:
        return None
    residual = prediction.to(torch.promote_types(prediction.dtype, torch.float32)) - noised.target
    comparisons = batch.comparisons
    return safeguard_scale(residual[comparisons.chosen], residual[comparisons.rejected], config.safeguard_mu)
