"""How a run takes its steps: the optimizer, its learning rate, the scale of float16 gradients, and how the denoiser computes.

Nothing here knows of losses or pairs. Clipping is the trainer's: it stands between unscaling and the step.
"""

from __future__ import annotations

import contextlib
import math
import sys

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor

from dpo.config import ConfigError, TrainConfig
from dpo.extras import check_optional
from dpo.families import Family

FUSED = ("cpu", "cuda", "mps")  # where AdamW updates all weights in one kernel
FIRST_SCALE, STEPS_TO_GROW = 2.0**16, 2000  # as torch.amp.GradScaler begins, and when it tries a larger scale
# A block is compiled once for every width, batch size, and policy or reference. Past PyTorch's own limit of 8 it would be
# left uncompiled, with nothing but a line in the log.
MOST_COMPILED = 64


def make_optimizer(config: TrainConfig, parameters: list[Tensor], shares: list[float] | None = None) -> torch.optim.Optimizer:
    """The optimizer of the settings; `set_learning_rate` before every step. Raises ConfigError for a missing package.

    shares: by which the rate is multiplied for each parameter; 1 if not given.
    """
    check_optional(config)
    device = parameters[0].device.type
    by_share: dict[float, list[Tensor]] = {}
    for parameter, share in zip(parameters, shares or [1.0] * len(parameters), strict=True):
        by_share.setdefault(share, []).append(parameter)
    parameters = [{"params": group, "share": share} for share, group in by_share.items()]
    options = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.weight_decay,
    }
    match config.optimizer:
        case "adamw_8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(parameters, **options)
        case "prodigy":
            from prodigyopt import Prodigy

            # Bias correction makes it Adam, and the safeguard keeps a warm-up from blowing up its estimate of the rate: its
            # authors' advice for diffusion models.
            with contextlib.redirect_stdout(sys.stderr):  # it prints, and stdout may be a program's answer
                return Prodigy(parameters, **options, use_bias_correction=True, safeguard_warmup=True)
        case _:
            return torch.optim.AdamW(parameters, **options, fused=device in FUSED)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate_at(config: TrainConfig, step: int, num_steps: int) -> float:
    """The rate of the step about to be taken: `step` of `num_steps` are done.

    It rises evenly over `warmup_steps`, so that the first step has a share of the peak and the last of them all of it, and
    then stays, or falls as half a cosine or a line to what `final_learning_rate` would be for one step more: no step is wasted
    on a rate of 0.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    match config.scheduler:
        case "cosine":
            share = (1 + math.cos(math.pi * done)) / 2
        case "linear":
            share = 1 - done
        case _:
            return config.learning_rate
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * share


class Scaler:
    """Scales the loss where gradients are float16, whose smallest numbers they would fall below. Does nothing elsewhere.

    The law is that of torch.amp.GradScaler: a step whose gradients overflow is skipped and halves the scale, 2000 in a row that
    do not double it. Ours unscales in place before the clipping, and its state is plain numbers.
    """

    def __init__(self, config: TrainConfig):
        self._is_on = config.precision == "float16"
        self._scale, self._good_steps = FIRST_SCALE, 0

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self._scale if self._is_on else loss

    def unscale(self, parameters: list[Tensor]) -> bool:
        """Take the scale out of the summed gradients. False: they overflowed, and this step must not be taken."""
        if not self._is_on:
            return True
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1 / self._scale)
        is_usable = bool(torch.stack(torch._foreach_norm(gradients, math.inf)).isfinite().all())
        self._good_steps = self._good_steps + 1 if is_usable else 0
        if not is_usable:
            self._scale /= 2
        elif self._good_steps == STEPS_TO_GROW:
            self._scale, self._good_steps = self._scale * 2, 0
        return is_usable

    def state_dict(self) -> dict:
        return {"scale": self._scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict) -> None:
        self._scale, self._good_steps = state["scale"], state["good_steps"]


def prepare_denoiser(config: TrainConfig, family: Family) -> None:
    """Make the denoiser compute as the settings say, after its adapter is attached. The numbers stay the same, up to rounding.

    Raises ConfigError for what this model cannot do.
    """
    denoiser = family.denoiser
    if config.attention != "auto":
        _set_attention(config, denoiser)
    elif family.device.type == "cpu" and isinstance(denoiser, UNet2DConditionModel):
        # The backward of the fused attention is 10 times slower on a CPU than the plain one's.
        denoiser.set_attn_processor(AttnProcessor())
    if config.gradient_checkpointing:
        if not getattr(denoiser, "_supports_gradient_checkpointing", False):
            raise ConfigError(f"gradient_checkpointing is not for {type(denoiser).__name__}. Switch it off.")
        # diffusers recomputes without reentrance: gradients reach an adapter though nothing before it, not even the input,
        # needs one.
        denoiser.enable_gradient_checkpointing()
    if config.compile:
        if not getattr(denoiser, "_repeated_blocks", None):
            raise ConfigError(
                f"compile=True needs a model of repeated blocks, and {type(denoiser).__name__} has none. Switch it off."
            )
        torch._dynamo.config.recompile_limit = max(MOST_COMPILED, torch._dynamo.config.recompile_limit)
        denoiser.compile_repeated_blocks()


def _set_attention(config: TrainConfig, denoiser: torch.nn.Module) -> None:
    check_optional(config)
    name = config.attention
    processors = [getattr(module, "processor", None) for module in denoiser.modules()]
    is_dispatched = any(hasattr(processor, "_attention_backend") for processor in processors)
    if name == "flash" and not is_dispatched:
        raise ConfigError(
            f"attention='flash' is not for {type(denoiser).__name__}. Set it to 'native': PyTorch's flash attention, on a GPU."
        )
    try:
        if is_dispatched:
            denoiser.set_attention_backend(name)
        elif name == "native":
            denoiser.set_attn_processor(AttnProcessor2_0())
        else:
            denoiser.enable_xformers_memory_efficient_attention()
    except (ImportError, RuntimeError, ValueError) as error:  # diffusers' words for: not this package, device or version
        raise ConfigError(f"attention={name!r} does not work here: {error} Set it to 'auto'.") from error
