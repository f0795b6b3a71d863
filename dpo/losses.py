"""Preference losses: plain functions of numbers. No modules, no parameters, no state. When to use which: dpo/menu.py.

The losses of a comparison map two vectors of *log-ratios* to one loss per comparison, unreduced:

    chosen_logratios    (M,)   how much better the policy denoises the chosen image than the reference does
    rejected_logratios  (M,)   and likewise the rejected image

A diffusion model has no cheap likelihood, so the log-ratio is its usual surrogate, `reference_error - policy_error` at one
shared timestep and noise (Diffusion-DPO, Wallace et al. 2023, Eq. 14), where an error is a *mean* over the image. In formulas,
c and r are beta times the log-ratios of chosen and rejected, x = c - r is the margin, and s is the label smoothing.

Scale of beta: no hidden 0.5, as in TRL. Salesforce's DiffusionDPO and diffusers' SDXL script multiply by 0.5 * beta:
their 5000 is our 2500. Losses that aim at a value (ipo, sppo_hard) aim at it in units of the margin: at the small log-ratios of
diffusion, TRL's forms, which are ours over beta**2, would vanish beside anything they are mixed with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

LEAST_EXO_SMOOTHING = 1e-3
MAPO_RATE, MAPO_WEIGHT = 0.5, 0.1


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


@dataclass(frozen=True)
class Labels:
    """Rows that were judged by themselves. rows: (L,) row indices. liked: (L,) bool. weight: (L,) share in the loss."""

    rows: Tensor
    liked: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Recipe:
    """What a run minimises: the weighted sum of `terms`, (name, weight) each, and `sft_weight` times the supervised mix.

    kto_offset: what kto measures a reward against, a running mean of rewards (scaled by beta), 0 or more.
    """

    terms: tuple[tuple[str, float], ...]
    beta: float
    label_smoothing: float
    sft_weight: float
    kto_offset: float = 0.0


@dataclass(frozen=True)
class Losses:
    """(M + L,) weighted losses, comparisons first, then labels: their sum over the items of a step, by the number of items, is
    the step's loss. `preference` is `total` without the supervised mix."""

    total: Tensor
    preference: Tensor


def make_recipe(config, *, beta: float | None = None, kto_offset: float = 0.0) -> Recipe:
    """What a `TrainConfig` minimises, with its own beta or the one that adaptive beta has come to.

    sft among several losses is the supervised mix, as `sft_weight` is, and so no part of the preference term.
    """
    beta = config.beta if beta is None else beta
    losses = config.losses
    if len(losses) > 1:
        losses.pop("sft", None)
    return Recipe(tuple(losses.items()), beta, config.label_smoothing, config.supervised_mix, kto_offset)


# ------------------------------------------------------------------------------------------------ from images to log-ratios


def per_image_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per image: (R, ...) -> (R,), in float32 or better."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).pow(2).flatten(1).mean(1)


def logratios(policy_error: Tensor, reference_error: Tensor) -> Tensor:
    """(R,) errors -> (R,) log-ratios. Positive = the policy denoises this image better than the reference."""
    return reference_error - policy_error


# ------------------------------------------------------------------------------------------------ losses of a margin


def sigmoid(
    chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float, label_smoothing: Tensor | float = 0.0
) -> Tensor:
    """-(1 - s) log sigmoid(x) - s log sigmoid(-x). DPO (Rafailov et al. 2023, Eq. 7); with s > 0, conservative DPO (Mitchell
    2023, Eq. 3), whose margin settles at log((1 - s) / s). The one to start with.

    Over all comparisons of a ranking, weighted by `ranking_weights`, it is RankDPO (Karthik et al. 2024, Eq. 7).
    """
    margin = beta * (chosen_logratios - rejected_logratios)
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def robust(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float, label_smoothing: Tensor | float = 0.0) -> Tensor:
    """(-(1 - s) log sigmoid(x) + s log sigmoid(-x)) / (1 - 2s). Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409): unbiased if
    a share s of picks is wrong, at the price of variance, for it scales unsure comparisons up. Has no bound below: it pays for
    ever larger margins.
    """
    margin = beta * (chosen_logratios - rejected_logratios)
    return (-(1 - label_smoothing) * logsigmoid(margin) + label_smoothing * logsigmoid(-margin)) / (1 - 2 * label_smoothing)


def exo_pair(
    chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float, label_smoothing: Tensor | float = 0.0
) -> Tensor:
    """KL(sigmoid(x) || 1 - s), s at least 0.001. EXO (Ji et al. 2024, Eq. 16), the same as DMPO (arXiv 2507.07510) at alpha = s.

    Conservative DPO has this divergence the other way round. Here the loss is bounded, so neither a hopeless pair nor a solved
    one pulls without end: for picks that are nearly all right.
    """
    margin = beta * (chosen_logratios - rejected_logratios)
    smoothing = torch.as_tensor(label_smoothing, dtype=margin.dtype, device=margin.device).clamp(min=LEAST_EXO_SMOOTHING)
    right, wrong = logsigmoid(margin), logsigmoid(-margin)
    return right.exp() * (right - torch.log1p(-smoothing)) + wrong.exp() * (wrong - torch.log(smoothing))


def hinge(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """max(0, 1 - x). SLiC (Zhao et al. 2023, arXiv 2305.10425) on log-ratios as in RSO (Liu et al. 2023): a pair that is right by
    a margin of 1 pushes no more."""
    return relu(1 - beta * (chosen_logratios - rejected_logratios))


def ipo(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """(x - 1/2)**2. IPO (Azar et al. 2023, Eq. 17) times beta**2, where beta is their tau: aims at a margin, so few or
    contradictory pairs are not driven to extremes."""
    return (beta * (chosen_logratios - rejected_logratios) - 0.5).square()


# ------------------------------------------------------------------------------------------------ losses that anchor each image


def nca_pair(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(c) - 1/2 log sigmoid(-c) - 1/2 log sigmoid(-r). NCA (Chen et al. 2024, arXiv 2402.05369) for two images:
    c settles at log 2, so the chosen image's own reward is held up."""
    chosen, rejected = beta * chosen_logratios, beta * rejected_logratios
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def bco_pair(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(c) - log sigmoid(-r). BCO (Jung et al. 2024, arXiv 2404.04656) with its reward shift left at 0, for one
    shift for all timesteps would be wrong at each. Judges each image by itself."""
    return -logsigmoid(beta * chosen_logratios) - logsigmoid(-beta * rejected_logratios)


def sppo_hard(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """(c - 1/2)**2 + (r + 1/2)**2. SPPO (Wu et al. 2024, arXiv 2405.00675) times beta**2, picks taken for certain: aims at two
    fixed rewards."""
    return (beta * chosen_logratios - 0.5).square() + (beta * rejected_logratios + 0.5).square()


def apo_zero(chosen_logratios: Tensor, rejected_logratios: Tensor, *, beta: float) -> Tensor:
    """1 - sigmoid(c) + sigmoid(r). APO-zero (D'Oosterlinck et al. 2024, Eq. 7): for chosen images better than what the model
    makes; pulls on neither image without end."""
    return _logistic(-beta * chosen_logratios) + _logistic(beta * rejected_logratios)


# ------------------------------------------------------------------------------------------------ losses without a reference


def sft(chosen_error: Tensor) -> Tensor:
    """The ordinary denoising loss of the chosen image (M,): the supervised mix, and alone the baseline to beat."""
    return chosen_error


def mapo(chosen_error: Tensor, rejected_error: Tensor, *, beta: float) -> Tensor:
    """chosen_error - 0.1 log sigmoid(T (f(chosen_error) - f(rejected_error))), f(e) = e/2 / (exp(e/2) - 1). MaPO (Hong et al.
    2024, arXiv 2406.06424, and their code). For when there is no room or time for a reference.

    T = 4 beta, so that, as elsewhere, the margin is beta times the difference of small errors; their T = 1000 is our 250.
    """
    margin = 4 * beta * (_closeness(chosen_error) - _closeness(rejected_error))
    return chosen_error - MAPO_WEIGHT * logsigmoid(margin)


def _closeness(error: Tensor) -> Tensor:
    """z / (exp(z) - 1) - 1 at z = error / 2: falls from 0 at no error towards -1."""
    z = MAPO_RATE * error
    # Bernoulli's series near 0, where the closed form is 0/0 and differences of it would be lost in rounding.
    small = z.clamp(max=0.5)
    series = small * (-1 / 2 + small * (1 / 12 + small**2 * (-1 / 720 + small**2 * (1 / 30240 - small**2 / 1209600))))
    large = z.clamp(min=0.5)
    closed = large * torch.exp(-large) / -torch.expm1(-large) - 1
    return torch.where(z < 0.5, series, closed)


# ------------------------------------------------------------------------------------------------ loss of a label


def kto(logratio: Tensor, liked: Tensor, *, beta: float, offset: float = 0.0) -> Tensor:
    """1 - sigmoid(d - offset) where liked, 1 - sigmoid(offset - d) where not, d = beta times the log-ratio; (L,) each. KTO
    (Ethayarajh et al. 2024, Eq. 7) as in Diffusion-KTO (Li et al. 2024, arXiv 2404.04465), both lambdas 1. For images that were
    judged one by one: each is measured against how well the policy does on average, the offset."""
    reward = beta * logratio - offset
    return _logistic(torch.where(liked, -reward, reward))


def _logistic(x: Tensor) -> Tensor:
    """sigmoid(x), whose derivative keeps its precision where it saturates: torch's own takes it from 1 - sigmoid(x)."""
    return logsigmoid(x).exp()


# ------------------------------------------------------------------------------------------------ the loss of a batch

_SMOOTHED = {"sigmoid": sigmoid, "robust": robust, "exo_pair": exo_pair, "rankdpo": sigmoid}
_CERTAIN = {
    "hinge": hinge, "ipo": ipo, "nca_pair": nca_pair, "bco_pair": bco_pair, "sppo_hard": sppo_hard, "apo_zero": apo_zero,
}  # fmt: skip


def preference_losses(
    policy_error: Tensor,
    reference_error: Tensor | None,
    comparisons: Comparisons,
    labels: Labels,
    recipe: Recipe,
    *,
    rejected_scale: Tensor | None = None,
) -> Losses:
    """The training loss of a batch: (R,) errors -> (M + L,) losses. `reference_error` is None where no term asks for it.

    A comparison's own smoothing and the run's are independent chances of a flipped label, so they combine as
    a(1-b) + b(1-a). A loss that knows no smoothing counts an unsure comparison less instead: by 1 - 2 smoothing, what is left of
    it when the two labels are weighed against each other. The supervised terms compare nothing and count in full.

    rejected_scale: (M,) by which the gradient through each comparison's rejected error is multiplied; the value is not.
    """
    chosen_error, rejected_error = policy_error[comparisons.chosen], policy_error[comparisons.rejected]
    if rejected_scale is not None:
        value = rejected_error.detach()
        rejected_error = value + rejected_scale * (rejected_error - value)
    smoothing = comparisons.smoothing * (1 - recipe.label_smoothing) + recipe.label_smoothing * (1 - comparisons.smoothing)
    certainty = 1 - 2 * comparisons.smoothing

    def of_comparisons(name: str) -> Tensor:
        if name == "sft":
            return sft(chosen_error)
        if name == "mapo":
            return certainty * mapo(chosen_error, rejected_error, beta=recipe.beta)
        chosen = logratios(chosen_error, reference_error[comparisons.chosen])
        rejected = logratios(rejected_error, reference_error[comparisons.rejected])
        if name in _SMOOTHED:
            return _SMOOTHED[name](chosen, rejected, beta=recipe.beta, label_smoothing=smoothing)
        return certainty * _CERTAIN[name](chosen, rejected, beta=recipe.beta)

    def of_labels(name: str) -> Tensor:
        assert name == "kto", f"{name} is no loss of labels"
        ratios = logratios(policy_error[labels.rows], reference_error[labels.rows])
        return kto(ratios, labels.liked, beta=recipe.beta, offset=recipe.kto_offset)

    compared, labelled = torch.zeros_like(chosen_error), torch.zeros_like(policy_error[labels.rows])
    for name, weight in recipe.terms:
        if len(comparisons.chosen):
            compared = compared + weight * of_comparisons(name)
        if len(labels.rows):
            labelled = labelled + weight * of_labels(name)
    supervised = compared + recipe.sft_weight * sft(chosen_error)
    return Losses(
        total=torch.cat([comparisons.weight * supervised, labels.weight * labelled]),
        preference=torch.cat([comparisons.weight * compared, labels.weight * labelled]),
    )


def ranking_weights(count: int) -> Tensor:
    """Weights of all comparisons of a ranking of `count` images, 2 or more: (count * (count - 1) / 2,), summing to 1.

    In the order of `itertools.combinations(range(count), 2)`, best first: 0-1, 0-2, ..., 1-2, ... RankDPO (Karthik et al. 2024,
    arXiv 2410.18013, Eq. 6): |G_i - G_j| |1/D_i - 1/D_j|, gain G = 2**score - 1, discount D = log(1 + place). The score is the
    share of the other images that an image beats, the place is its place in the ranking: a mistake at the top counts most.
    """
    better, worse = torch.triu_indices(count, count, offset=1)
    place = torch.arange(1, count + 1, dtype=torch.float64)
    gain, discount = 2 ** ((count - place) / (count - 1)) - 1, torch.log2(1 + place)
    weights = (gain[better] - gain[worse]) * (1 / discount[better] - 1 / discount[worse])
    return (weights / weights.sum()).float()


def safeguard_scale(chosen_residual: Tensor, rejected_residual: Tensor, mu: float) -> Tensor:
    """How much of each pair's rejected gradient is harmless to its chosen image: (M, ...) residuals -> (M,) in [0, 1].

    Diffusion-SDPO (Fu et al. 2025, arXiv 2511.03317), for every pair by itself where their code has one for the batch. residual =
    prediction - target. A step down the loss moves both predictions alike, to first order; the chosen error still falls by a
    share mu of what it would fall alone as long as the rejected gradient is scaled to (1 - mu) |g_c|^2 / (g_r . g_c) or less.
    """
    chosen, rejected = (residual.detach().flatten(1) for residual in (chosen_residual, rejected_residual))
    dtype = torch.promote_types(chosen.dtype, torch.float32)
    chosen, rejected = chosen.to(dtype), rejected.to(dtype)
    along = (chosen * rejected).sum(1)
    allowed = (1 - mu) * chosen.square().sum(1)
    # Against each other, or at right angles, they do no harm.
    return torch.where(along > 0, (allowed / along.clamp(min=torch.finfo(dtype).tiny)).clamp(max=1), 1.0)


# ------------------------------------------------------------------------------------------------ what is recorded of it


def reward_metrics(
    policy_error: Tensor, reference_error: Tensor | None, comparisons: Comparisons, labels: Labels, *, beta: float
) -> dict[str, Tensor]:
    """Implicit rewards under the names every DPO plot uses (TRL's): (M,) values each, one a comparison, without gradient.

    Accuracy is the share of margins above zero: a tie is not a win. `errors/policy` and `errors/reference` are means over the
    two images. `errors/chosen_drift` is the policy's error on the chosen images over the reference's; it is what tells a healthy
    run from one that breaks the images. `logratios/*` are not scaled by beta.

    After the comparisons come labels: a liked image as a chosen one, another as a rejected one, its margin is the reward in the
    direction wanted. What has no value is left out: without a reference, all but `errors/policy`.
    """
    policy_error = policy_error.detach()
    liked, disliked = labels.rows[labels.liked], labels.rows[~labels.liked]

    def means(errors: Tensor) -> Tensor:
        return torch.cat([(errors[comparisons.chosen] + errors[comparisons.rejected]) / 2, errors[labels.rows]])

    metrics = {"errors/policy": means(policy_error)}
    if reference_error is not None:
        ratios = logratios(policy_error, reference_error.detach())
        chosen = ratios[torch.cat([comparisons.chosen, liked])]
        rejected = ratios[torch.cat([comparisons.rejected, disliked])]
        wanted = torch.where(labels.liked, ratios[labels.rows], -ratios[labels.rows])
        margins = beta * torch.cat([ratios[comparisons.chosen] - ratios[comparisons.rejected], wanted])
        metrics |= {
            "rewards/chosen": beta * chosen,
            "rewards/rejected": beta * rejected,
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).to(margins.dtype),
            "logratios/chosen": chosen,
            "logratios/rejected": rejected,
            "errors/reference": means(reference_error.detach()),
            "errors/chosen_drift": -chosen,
        }
    return {name: values for name, values in metrics.items() if len(values)}


def by_quartile(values: Tensor, u: Tensor) -> dict[str, Tensor]:
    """`values` (M,) by the quarter of the schedule they are from, "1" (next to the clean image) to "4"; u: (M,) in [0, 1).
    Quarters without values are left out."""
    rows: dict[str, list[int]] = {}
    for row, quarter in enumerate((4 * u).long().clamp(0, 3).tolist()):  # one wait for the device, where masks would be four
        rows.setdefault(str(quarter + 1), []).append(row)
    return {name: values[rows[name]] for name in sorted(rows)}
