"""The losses on offer, in words: what each needs, when to use it, and what is not offered and why. The formulas: dpo/losses.py.

Nothing here imports torch: settings are checked, and forms filled, before a model loads.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LossInfo:
    """`summary`: what the loss does and when to use it. `data`: what an item of training is, "pairs", "likes" or "rankings".
    `smoothing`: whether label smoothing has a meaning; where it has none, an unsure pair counts for less instead."""

    summary: str
    data: str = "pairs"
    needs_reference: bool = True
    smoothing: bool = False


LOSSES: dict[str, LossInfo] = {
    "sigmoid": LossInfo(
        "DPO; with label smoothing, conservative DPO, which stops at the margin that the smoothing is worth. Start here.",
        smoothing=True,
    ),
    "hinge": LossInfo("Pushes no more once a pair is right by a margin of 1: when easy pairs drown the hard ones."),
    "ipo": LossInfo("Aims at a margin of one half instead of ever more: for few pairs, or picks that contradict each other."),
    "robust": LossInfo(
        "Unbiased if a known share of picks is wrong, say it as label smoothing. Has no bound below: watch the damage limit.",
        smoothing=True,
    ),
    "exo_pair": LossInfo(
        "Aims at the chance that picks are right, 1 - label smoothing, and never pulls hard: when picks are nearly all right.",
        smoothing=True,
    ),
    "nca_pair": LossInfo("Also holds the chosen image's own reward up: when the chosen error rises under sigmoid."),
    "bco_pair": LossInfo(
        "Judges each image by itself, chosen up and rejected down: when chosen images are good and rejected ones bad."
    ),
    "sppo_hard": LossInfo(
        "Aims at a reward of one half for chosen and minus one half for rejected images: a gentle, fixed goal."
    ),
    "apo_zero": LossInfo(
        "Raises chosen and lowers rejected, both bounded: when chosen images beat what the model makes by itself."
    ),
    "sft": LossInfo(
        "Ordinary training on the chosen images, blind to the rejected ones: the baseline to beat.", needs_reference=False
    ),
    "mapo": LossInfo(
        "No reference, so a third less work and memory, but it drifts to the look of the chosen images: for one style.",
        needs_reference=False,
    ),
    "kto": LossInfo("For images called good or bad in triage that never became pairs; needs some of each.", data="likes"),
    "rankdpo": LossInfo(
        "For groups ranked to the end by duels: all comparisons of a group for one pass an image, mistakes at the top first.",
        data="rankings",
        smoothing=True,
    ),
}

# What people may look for under the names that TRL or its papers use, and why it is not here.
NOT_OFFERED: dict[str, str] = {
    "aot": "it sorts the batch, and at different timesteps that sorts the timesteps, not the images. Choose sigmoid.",
    "aot_unpaired": "it sorts the batch, and at different timesteps that sorts the timesteps, not the images. Choose bco_pair.",
    "discopop": (
        "its gradient has the wrong sign where an adapter starts, so training sticks at a margin of -0.12. Choose sigmoid."
    ),
    "apo_down": "it lowers chosen images as well, and at the start does not see them at all. Choose nca_pair or bco_pair.",
    "ld_dpo": "it discounts the tail of longer texts, and both images of a pair have the same size. Choose sigmoid.",
    "wpo": "it weights by the probability of a text under the policy, which a diffusion model does not tell. Choose sigmoid.",
    "f_divergence": (
        "log-ratios of images are so small that forward KL and alpha are the same as sigmoid, and Jensen-Shannon is sigmoid at "
        "half the beta. Choose sigmoid."
    ),
    "sigmoid_norm": "errors are means over the image already, so it is the same. Choose sigmoid.",
}
