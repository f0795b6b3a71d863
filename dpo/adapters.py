"""The LoRA that turns the reference into the policy: attach, switch off, move, average, save, load.

The base weights exist once. The policy is the base with the adapter "policy" active. The reference is the base with the
adapter "reference" active, which is frozen, or, where there is none, the base alone. Switching touches no `requires_grad`:
peft's own `enable_adapters` sets it anew on every active adapter, and a frozen one would start to train.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import adapted_layers, add_adapter, load_adapter, save_adapter
from dpo.adapter_types import adapter_settings, rate_shares
from dpo.config import TrainConfig
from dpo.families import Family

POLICY, REFERENCE = "policy", "reference"


class Adapter:
    """The trainable adapter on a family's denoiser, and the frozen one of its reference where that is not the base.

    `moving`: the reference is not what it was when training started, so checkpoints keep it.
    """

    def __init__(self, family: Family, *, moving: bool = False):
        self._family, self._moving = family, moving
        self._has_reference = REFERENCE in family.denoiser.peft_config
        self._layers = adapted_layers(family.denoiser)
        named = dict(family.denoiser.named_parameters())
        for name, parameter in named.items():
            is_policy = is_of(POLICY, name)
            parameter.requires_grad_(is_policy)
            if (is_policy or is_of(REFERENCE, name)) and parameter.dtype in (torch.float16, torch.bfloat16):
                # Updates are far smaller than what half precision can add to a weight. The reference likewise, or else it
                # would not be what the policy starts from.
                parameter.data = parameter.data.float()
        self._policy = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        self._reference = {name: parameter for name, parameter in named.items() if is_of(REFERENCE, name)}
        self._activate(POLICY)

    def parameters(self) -> list[Tensor]:
        """All that trains."""
        return list(self._policy.values())

    def rate_shares(self, config: TrainConfig) -> list[float]:
        """By which the learning rate is multiplied for each of `parameters()`: the layer profile's rates."""
        return rate_shares(config, [_layer_of(name) for name in self._policy])

    def trainable_names(self) -> list[str]:
        """A census: what would train, were a gradient to reach it. It is `parameters()`, or something is wrong."""
        return [name for name, parameter in self._family.denoiser.named_parameters() if parameter.requires_grad]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within it the denoiser is the reference. The policy is back afterwards, whatever happens inside."""
        self._activate(REFERENCE if self._has_reference else None)
        try:
            yield
        finally:
            self._activate(POLICY)

    @torch.no_grad()
    def sync_reference(self, alpha: float) -> None:
        """Move the reference towards the policy (TR-DPO, Gorbatovski et al. 2024): its factors become
        (1 - alpha) reference + alpha policy.

        alpha = 1 is exact: the reference is the policy. Less is approximate, for mixing the factors A and B is not mixing
        their product: it is off by alpha (1 - alpha) (B1 - B0)(A1 - A0), of second order in how far the policy has gone.
        """
        assert self._moving, "the reference of this adapter was attached to stand still"
        for reference, policy in self._moving_pairs():
            reference.lerp_(policy, alpha)

    def reference_state(self) -> dict[str, Tensor] | None:
        """The weights of a reference that moves; None for one that stands still."""
        return {name: parameter.detach() for name, parameter in self._reference.items()} if self._moving else None

    @torch.no_grad()
    def load_reference_state(self, state: dict[str, Tensor] | None) -> None:
        """Put a moving reference back to where it was. One that stands still does not move, whatever `state` is."""
        if self._moving and state:
            for name, parameter in self._reference.items():
                parameter.copy_(state[name])

    def state_dict(self) -> dict[str, Tensor]:
        return get_peft_model_state_dict(self._family.denoiser, adapter_name=POLICY)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self._family.denoiser, state, adapter_name=POLICY)

    def copy(self) -> dict[str, Tensor]:
        """A state that training does not change: `load_state_dict` takes the adapter back to it."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write the adapter file, in diffusers' format."""
        save_adapter(self._family, self.state_dict(), POLICY, path)

    def _moving_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name, policy in self._policy.items():
            yield self._reference[_twin(name)], policy

    def _activate(self, name: str | None) -> None:
        for layer in self._layers:
            layer._disable_adapters = name is None
            layer._active_adapter = [name or POLICY]


class Average:
    """A moving average of an adapter's weights: after update n it is d average + (1 - d) adapter, d = min(decay, n / (9 + n)).

    The early updates count more, so that a short run is not mostly an average with its start. With decay 0 there is no
    average, and all of this does nothing.
    """

    def __init__(self, adapter: Adapter, decay: float):
        self._decay, self._updates = decay, 0
        self._parameters = adapter.parameters() if decay else []
        self._values = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        if self._values:
            self._updates += 1
            decay = min(self._decay, self._updates / (9 + self._updates))
            torch._foreach_lerp_(self._values, self._parameters, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the adapter has the averaged weights. Its own are back afterwards, whatever happens inside."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self._put(self._values)
        try:
            yield
        finally:
            self._put(own)

    def state_dict(self) -> dict:
        return {"updates": self._updates, "values": self._values}

    def load_state_dict(self, state: dict) -> None:
        self._updates = state["updates"]
        for value, saved in zip(self._values, state["values"], strict=True):
            value.copy_(saved)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def attach_adapter(
    family: Family, config: TrainConfig, *, starting: Path | None, reference: Path | None, moving: bool
) -> Adapter:
    """Put the policy's adapter on a family's denoiser, and the reference's.

    starting: the file to go on from; None: a fresh adapter of the config's rank, whose second matrix is zero, so that the
    policy starts equal to the base. reference: the file of the reference; None: the base. moving: `sync_reference` will be
    called. The reference then is an adapter of the policy's shape from the start: a file of that shape, or for the base a copy
    of the fresh policy.

    Raises AdapterError if a file does not fit the model, or a moving reference cannot be mixed with the policy.
    """
    family.denoiser.requires_grad_(False)
    if starting:
        load_adapter(family, starting, POLICY)
    else:
        fresh = adapter_settings(config, family)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            add_adapter(family.denoiser, fresh, POLICY)
    if reference:
        load_adapter(family, reference, REFERENCE)
    elif moving:
        _add_equal_reference(family)
    _switch_dropout_off(family)
    if moving and reference:
        _check_mixable(adapted_layers(family.denoiser), reference, config.ref_model_mixup_alpha)
    return Adapter(family, moving=moving)


@torch.no_grad()
def _add_equal_reference(family: Family) -> None:
    """The base, as an adapter that can move: a copy of the fresh policy, which does nothing yet."""
    with torch.random.fork_rng():
        add_adapter(family.denoiser, copy.deepcopy(family.denoiser.peft_config[POLICY]), REFERENCE)
    named = dict(family.denoiser.named_parameters())
    for name, parameter in named.items():
        if is_of(POLICY, name):
            named[_twin(name)].copy_(parameter)


def _switch_dropout_off(family: Family) -> None:
    """Also that of an adapter trained with it: policy and reference would each lose something else."""
    for layer in adapted_layers(family.denoiser):
        for name in getattr(layer, "lora_dropout", ()):
            layer.lora_dropout[name] = nn.Identity()
        for name in getattr(layer, "oft_dropout", ()):
            layer.oft_dropout[name].p = 0.0
        for chances in (getattr(layer, "rank_dropout", {}), getattr(layer, "module_dropout", {})):
            chances.update(dict.fromkeys(chances, 0.0))
    for found in family.denoiser.peft_config.values():
        for kind in ("lora_dropout", "rank_dropout", "module_dropout"):
            if hasattr(found, kind):
                setattr(found, kind, 0.0)
    family.denoiser.eval()


def _check_mixable(layers: list[BaseTunerLayer], path: Path, alpha: float) -> None:
    """Raises AdapterError if mixing the factors of policy and reference would not be mixing what they do."""
    for layer in layers:
        policy, reference = _factors(layer, POLICY), _factors(layer, REFERENCE)
        if [factor.shape for factor in policy] != [factor.shape for factor in reference] or (
            policy and layer.scaling.get(POLICY) != layer.scaling.get(REFERENCE)
        ):
            raise AdapterError(
                f"{path} differs from the policy in rank, alpha or layers, so the reference cannot move from it to the policy. "
                "Train with its rank and alpha, or set ref_model_sync_steps=0."
            )
        if alpha < 1 and not all(map(torch.equal, policy, reference)):
            raise AdapterError(
                f"{path} is not where the policy starts, so a share of each (ref_model_mixup_alpha={alpha:g}) would be neither. "
                "Set ref_model_mixup_alpha=1, or start from that adapter."
            )


def is_of(adapter: str, name: str) -> bool:
    """Whether the parameter of that name belongs to the adapter of that name."""
    return adapter in name.split(".")


def _layer_of(name: str) -> str:
    """The layer whose policy has the parameter of that name, as in LAYER.lora_A.policy.weight."""
    parts = name.split(".")
    return ".".join(parts[: parts.index(POLICY) - 1])


def _twin(name: str) -> str:
    """The reference's parameter that goes with the policy's of that name."""
    return ".".join(REFERENCE if part == POLICY else part for part in name.split("."))


def _factors(layer: BaseTunerLayer, adapter: str) -> list[Tensor]:
    return [parameter for name, parameter in layer.named_parameters() if is_of(adapter, name)]
