"""Preference losses: plain functions of numbers. No modules, no parameters, no state.

Every loss maps two vectors of *log-ratios* to one loss per comparison, unreduced:

    chosen_logratios    (M,)   how much better the policy denoises the chosen image than the reference does
    rejected_logratios  (M,)   and likewise the rejected image

A diffusion model has no cheap likelihood, so the log-ratio is its usual surrogate, `reference_error - policy_error` at one
shared timestep and noise (Diffusion-DPO, Wallace et al. 2023, Eq. 14), where an error is a *mean* over the image.

Scale of beta: no hidden 0.5, as in TRL. Salesforce's DiffusionDPO and diffusers' SDXL script multiply by 0.5 * beta:
their 5000 is our 2500.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Comparisons:
    """Which rows (images) of a batch are compared: `chosen[m]` is preferred to `rejected[m]`.

    chosen, rejected: (M,) row indices. weight: (M,) share of each comparison in the loss. smoothing: (M,) in [0, 0.5), the
    probability that the pick was a mistake. N pairs are the simple case; a ranked group of N rows has many comparisons.
    """

    chosen: Tensor
    rejected: Tensor
    weight: Tensor
    smoothing: Tensor


def per_image_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per image: (R, ...) -> (R,), in float32 or better."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).pow(2).flatten(1).mean(1)


def logratios(policy_error: Tensor, reference_error: Tensor) -> Tensor:
    """(R,) errors -> (R,) log-ratios. Positive = the policy denoises this image better than the reference."""
    return reference_error - policy_error


def sigmoid(
    chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float, label_smoothing: Tensor | float = 0.0
) -> Tensor:
    """DPO (Rafailov et al. 2023, Eq. 7); with label_smoothing > 0, conservative DPO (Mitchell 2023, Eq. 3)."""
    margin = beta * (chosen_logratios - rejected_logratios)
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def preference_loss(
    policy_error: Tensor,
    reference_error: Tensor,
    comparisons: Comparisons,
    *,
    beta: float,
    label_smoothing: float,
    sft_weight: float,
) -> Tensor:
    """The training loss, one value per comparison: (R,) errors -> (M,).

    A comparison's own smoothing and the run's `label_smoothing` are independent chances of a flipped label, so they
    combine as a(1-b) + b(1-a). `sft_weight` adds the ordinary denoising loss of the chosen image.
    """
    ratios = logratios(policy_error, reference_error)
    smoothing = comparisons.smoothing * (1 - label_smoothing) + label_smoothing * (1 - comparisons.smoothing)
    losses = sigmoid(ratios[comparisons.chosen], ratios[comparisons.rejected], beta=beta, label_smoothing=smoothing)
    return losses + sft_weight * policy_error[comparisons.chosen]


def reward_metrics(policy_error: Tensor, reference_error: Tensor, comparisons: Comparisons, *, beta: float) -> dict[str, Tensor]:
    """Implicit rewards per comparison, (M,) each, under the names every DPO plot uses (TRL's).

    Accuracy is the share of margins above zero: a tie is not a win. `errors/chosen_drift` is the policy's error on the
    chosen images over the reference's; it is what tells a healthy run from one that breaks the images.
    """
    rewards = beta * logratios(policy_error, reference_error).detach()
    chosen, rejected = rewards[comparisons.chosen], rewards[comparisons.rejected]
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "errors/chosen_drift": (policy_error - reference_error).detach()[comparisons.chosen],
    }
