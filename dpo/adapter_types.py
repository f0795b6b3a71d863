"""The kinds of adapters that can be trained, as peft's settings: which layers they change, and how much they can.

    lora  W + s B A                                    (Hu et al. 2022)
    dora  LoRA on the direction of every row of W, its length trained by itself        (Liu et al. 2024)
    loha  W + s (B1 A1) * (B2 A2), elementwise: rank r squared from two of rank r      (Hyeon-Woo et al. 2022)
    lokr  W + s C x (B A), Kronecker: very small files                                 (Yeh et al. 2024)
    oft   W R, R orthogonal, block by block: rotates what goes into W, keeps angles    (Qiu et al. 2023)

with s = alpha / rank. The rank of oft is the side of its blocks; it has no alpha. All of them are nothing at the start.
"""

from __future__ import annotations

import re

from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig
from torch import nn

from dpo.config import TrainConfig
from dpo.families import Family
from dpo.layer_profile import exactly, rule_of


def adapter_settings(config: TrainConfig, family: Family) -> PeftConfig:
    """Of a fresh adapter on that family's denoiser."""
    target = {"target_modules": _targets(config, family)}
    ranks = {"r": config.lora_rank, **_patterns(config)}
    match config.adapter:
        case "loha":
            return LoHaConfig(alpha=config.scale_alpha, **ranks, **target)
        case "lokr":
            return LoKrConfig(alpha=config.scale_alpha, **ranks, **target)
        case "oft":
            return OFTConfig(r=0, oft_block_size=config.lora_rank, **target)
        case kind:
            return LoraConfig(
                lora_alpha=config.scale_alpha, init_lora_weights="gaussian", use_dora=kind == "dora", **ranks, **target
            )


def rate_shares(config: TrainConfig, names: list[str]) -> list[float]:
    """By which the learning rate is multiplied for the weights of layers of these names."""
    rules = config.layer_rules
    found = (rule_of(rules, name) for name in names)
    return [1.0 if rule is None or rule.rate is None else rule.rate for rule in found]


def _targets(config: TrainConfig, family: Family) -> list[str] | str:
    """Suffixes of modules' names; or an expression for whole names, where not all of those with the suffixes are meant."""
    suffixes = family.lora_targets + (family.mlp_targets if config.lora_modules == "attention+mlp" else [])
    out = [exactly(config.layer_rules, index) for index, rule in enumerate(config.layer_rules) if rule.rank == 0]
    parts = _last_half(family) if config.lora_modules == "last_half" else []
    if not out and not parts:
        return suffixes
    # Looked for, not consumed: a family may name a layer by its whole name, which then follows.
    where = f"(?=(?:{'|'.join(map(re.escape, parts))})\\.)" if parts else ""
    ends = "|".join(map(re.escape, suffixes))
    return "".join(f"(?!{expression}$)" for expression in out) + where + rf"(?:.*\.)?(?:{ends})"


def _last_half(family: Family) -> list[str]:
    """Names of the blocks of the denoiser that compute last: of 9, the last 5."""
    blocks: list[str] = []
    for name in family.blocks:
        part = family.denoiser.get_submodule(name)
        blocks += [f"{name}.{number}" for number in range(len(part))] if isinstance(part, nn.ModuleList) else [name]
    return blocks[len(blocks) // 2 :]


def _patterns(config: TrainConfig) -> dict[str, dict[str, float]]:
    """Ranks and alphas of layers that the profile names. peft's settings are written sorted: no pattern may depend on order."""
    rules, ranks, alphas = config.layer_rules, {}, {}
    for index, rule in enumerate(rules):
        rank = config.lora_rank if rule.rank is None else rule.rank
        alpha = config.scale_alpha / config.lora_rank * rank if rule.alpha is None else rule.alpha
        if rank and (rank, alpha) != (config.lora_rank, config.scale_alpha):
            ranks[exactly(rules, index)], alphas[exactly(rules, index)] = rank, alpha
    return {"rank_pattern": ranks, "alpha_pattern": alphas}
