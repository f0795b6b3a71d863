"""Settings that are fine alone and senseless together: each is refused with the reason, before a model loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dpo.menu import LOSSES
from dpo.values import ConfigError

if TYPE_CHECKING:
    from dpo.config import TrainConfig

PATIENCE_METRICS = ("accuracy", "chosen_reward", "loss")
LEAST_RATE_OF_PRODIGY = 0.1
# Adapters that compute with the weights themselves, and how these must then not be kept.
APART = {
    "dora": {"int8", "offload", "gguf"}, "loha": {"nf4", "gguf"}, "lokr": {"nf4", "gguf"}, "oft": {"int8_torchao", "fp8_torchao"},
}  # fmt: skip
BASE_DEFAULTS = {"base_adapter": "", "offload": 0.0, "quantization": "none"}
DEFAULTS = {"adapter": "lora", "lora_modules": "attention"}


def check_combinations(config: TrainConfig) -> None:
    """Raises ConfigError for the first combination that cannot be meant."""
    checks: tuple[Callable[[TrainConfig], str], ...] = (
        _model, _losses, _smoothing, _reference, _adapter, _safeguard, _timesteps, _rates, _validation, _processes,
    )  # fmt: skip
    for check in checks:
        reason = check(config)
        if reason:
            raise ConfigError(reason)


def _model(config: TrainConfig) -> str:
    ending = config.model.strip().lower().rpartition(".")[2]
    if config.components and ending not in ("safetensors", "gguf"):
        return (
            f"components={config.components!r} completes a checkpoint file, and model={config.model!r} is none. Empty it, or "
            "choose a .safetensors or .gguf file."
        )
    if config.base_adapter_strength != 1 and not config.base_adapter:
        return f"base_adapter_strength={config.base_adapter_strength:g} is of a base_adapter, and there is none. Set it to 1."
    if ending == "gguf":
        for name in ("base_adapter", "offload", "quantization"):
            value, nothing = getattr(config, name), BASE_DEFAULTS[name]
            if value != nothing:
                return f"{name}={value!r} needs whole weights, and those of a GGUF file are packed. Set it to {nothing!r}."
    packing = {"quantization": config.quantization, "offload": config.offload}
    changed = [name for name, value in packing.items() if value != BASE_DEFAULTS[name]]
    if len(changed) == 2:
        return f"offload={config.offload:g} moves whole weights, and quantization={config.quantization!r} packs them. Choose one."
    kept = {name if name == "offload" else packing[name] for name in changed} | {ending}
    if clash := kept & APART.get(config.adapter, set()):
        return (
            f"adapter={config.adapter!r} computes with the model's own weights, and cannot with those of {clash.pop()}. Choose "
            "lora, or keep the weights another way."
        )
    if config.compile and (changed or ending == "gguf"):
        why = f"{changed[0]}={packing[changed[0]]!r}" if changed else "a GGUF file"
        return f"compile=True needs plain layers, and {why} makes others of them. Set compile to False."
    return ""


def _losses(config: TrainConfig) -> str:
    first, *others = config.losses
    for name in others:
        if LOSSES[name].data != LOSSES[first].data:
            return (
                f"loss={config.loss!r} mixes {first} on {LOSSES[first].data} with {name} on {LOSSES[name].data}. "
                "Train on one kind of data at a time."
            )
    if config.sft_weight and "sft" in config.losses:
        return f"sft_weight={config.sft_weight} and loss={config.loss!r} add the same term twice. Keep one of them."
    if config.sft_weight and config.data == "likes":
        return f"sft_weight={config.sft_weight} needs chosen images, and loss={config.loss!r} learns from likes. Set it to 0."
    return ""


def _smoothing(config: TrainConfig) -> str:
    if config.label_smoothing and not any(LOSSES[name].smoothing for name in config.losses):
        return (
            f"label_smoothing={config.label_smoothing} means nothing to {', '.join(config.losses)}. Set it to 0, or choose one "
            f"of: {', '.join(name for name, loss in LOSSES.items() if loss.smoothing)}."
        )
    if "robust" in config.losses and not config.label_smoothing:
        return "loss='robust' with label_smoothing=0 is sigmoid. Choose sigmoid, or say what share of picks is wrong."
    return ""


def _reference(config: TrainConfig) -> str:
    asked = [name for name in ("reference_adapter", "ref_model_sync_steps", "reference_draws") if getattr(config, name)]
    if asked and config.reference_mode == "none":
        value = getattr(config, asked[0])
        return f"{asked[0]}={value!r} needs a reference, and loss={config.loss!r} has none. Set it to {type(value)()!r}."
    if config.ref_model_sync_steps and config.reference_draws:
        return (
            f"reference_draws={config.reference_draws} remembers the errors of a reference that ref_model_sync_steps="
            f"{config.ref_model_sync_steps} moves. Set one of them to 0."
        )
    if config.ref_model_mixup_alpha != 1 and not config.ref_model_sync_steps:
        return (
            f"ref_model_mixup_alpha={config.ref_model_mixup_alpha} moves nothing while ref_model_sync_steps=0 keeps the "
            "reference where it is. Set the one to 1, or the other to a number of steps."
        )
    if config.adaptive_beta and (config.reference_mode == "none" or config.data == "likes"):
        return (
            f"adaptive_beta={config.adaptive_beta} follows the margins of pairs over a reference, and loss={config.loss!r} has "
            "none. Set it to 0."
        )
    return ""


def _adapter(config: TrainConfig) -> str:
    rules = config.layer_rules
    if config.starting_adapter:
        changed = next((name for name in ("adapter", "lora_modules") if getattr(config, name) != DEFAULTS[name]), None)
        if changed:
            return (
                f"{changed}={getattr(config, changed)!r} is about a fresh adapter, and starting_adapter has its own. "
                f"Set {changed} to {DEFAULTS[changed]!r}, or start without one."
            )
        if any(rule.rank is not None or rule.alpha is not None for rule in rules):
            return f"layer_profile={config.layer_profile!r} sets ranks, and starting_adapter has its own. Leave only rates in it."
    if config.adapter == "oft" and (config.lora_alpha or any(rule.rank or rule.alpha is not None for rule in rules)):
        return (
            f"adapter='oft' has one block size (the rank) and no alpha, and there is lora_alpha={config.lora_alpha} with "
            f"layer_profile={config.layer_profile!r}. Set lora_alpha to 0, and leave only rates and rank 0 in layer_profile."
        )
    if config.adapter != "lora" and config.ref_model_mixup_alpha != 1:
        return (
            f"ref_model_mixup_alpha={config.ref_model_mixup_alpha} mixes the factors of an adapter, which is near to mixing what "
            f"they do for lora alone, not for {config.adapter}. Set it to 1."
        )
    return ""


def _safeguard(config: TrainConfig) -> str:
    if config.safeguard_mu and (config.data != "pairs" or list(config.losses) == ["sft"]):
        return (
            f"safeguard_mu={config.safeguard_mu} holds back a rejected image for its chosen one, and loss={config.loss!r} trains "
            "on no such pairs. Set it to 0."
        )
    return ""


def _timesteps(config: TrainConfig) -> str:
    if config.min_timestep >= config.max_timestep:
        return (
            f"min_timestep={config.min_timestep} is not below max_timestep={config.max_timestep}. Lower one or raise the other."
        )
    if config.timestep_sampling == "list" and not config.timestep_places:
        return "timestep_sampling='list' needs timestep_list, such as 0.8, 0.55, 0.3."
    if config.timestep_list and config.timestep_sampling != "list":
        return f"timestep_list={config.timestep_list!r} is used by timestep_sampling='list' alone. Choose that, or empty it."
    for place in config.timestep_places:
        if not config.min_timestep <= place <= config.max_timestep:
            return (
                f"timestep_list={config.timestep_list!r}: {place:g} lies outside of min_timestep={config.min_timestep:g} to "
                f"max_timestep={config.max_timestep:g}. Take it out, or widen the range."
            )
    return ""


def _rates(config: TrainConfig) -> str:
    if config.final_learning_rate and config.scheduler == "constant":
        return (
            f"final_learning_rate={config.final_learning_rate} is where cosine and linear end, and scheduler='constant' stays "
            "where it is. Set it to 0, or choose another schedule."
        )
    if config.final_learning_rate > config.learning_rate:
        return (
            f"final_learning_rate={config.final_learning_rate} is above learning_rate={config.learning_rate}, the peak. "
            "Lower one or raise the other."
        )
    if config.optimizer == "prodigy" and config.learning_rate < LEAST_RATE_OF_PRODIGY:
        return (
            f"learning_rate={config.learning_rate} with optimizer='prodigy' is a share of the rate that it finds by itself, so "
            "it would train next to nothing. Set it to 1."
        )
    return ""


def _validation(config: TrainConfig) -> str:
    unknown = set(config.patience_watches) - set(PATIENCE_METRICS)
    if unknown or not config.patience_watches:
        return f"patience_metrics={config.patience_metrics!r} is not known. Name some of: {', '.join(PATIENCE_METRICS)}."
    for name in ("validate_every", "validation_share"):
        if config.patience and not getattr(config, name):
            return (
                f"patience={config.patience} counts validations, and {name}={getattr(config, name)} makes none. "
                f"Set patience to 0, or {name} above 0."
            )
    return ""


def _processes(config: TrainConfig) -> str:
    if config.accumulation % config.gpus:
        return (
            f"accumulation={config.accumulation} cannot be shared evenly by gpus={config.gpus}. Make it a multiple, such as "
            f"{config.gpus * -(-config.accumulation // config.gpus)}."
        )
    return ""
