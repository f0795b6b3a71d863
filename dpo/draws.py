"""Where in the schedule, and with what noise, every image of a batch is scored.

A draw is a function of (seed, number of the item in the run), never of how items are batched: a resumed run, a halved batch
or more processes draw the same. With K reference draws it is a function of (key of the item, visit modulo K) instead, and
the seed is nowhere in it: later visits, and other runs, meet the same K draws, whose reference errors can be remembered.

First v in [0, 1) is drawn, then a law maps it to u, the place in the schedule: 0 is the clean image, 1 pure noise. Rows that
are compared share both u and noise, as explicit tensors. An item may have a limit of its own (`Batch.limits`): the law is
then cut off there, for this item alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dpo.cache import Batch
from dpo.config import TrainConfig
from dpo.families import Conditioning, Family

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill [0, 1) evenly however many there are


@dataclass(frozen=True)
class Noised:
    """What the denoiser sees. All have R rows: noisy and target (R, C, h, w), timesteps (R,), conditioning tensors (R, ...).

    u: (R,) in [0, 1), where in the schedule the timesteps are; float32.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    u: Tensor

    def rows(self, start: int, stop: int) -> Noised:
        conditioning = {name: tensor[start:stop] for name, tensor in self.conditioning.items()}
        return Noised(
            self.noisy[start:stop], self.target[start:stop], self.timesteps[start:stop], conditioning, self.u[start:stop]
        )


class Draws:
    """The draws of a training run. `shared_noise` off: every row of an item has its own, drawn as if it were alone."""

    def __init__(self, config: TrainConfig, family: Family):
        self._config, self._family = config, family
        self._start = torch.rand(1, generator=pair_generator(config.seed, -1), dtype=torch.float64).item()
        law = (_law(config, family), config.timestep_list, config.min_timestep, config.max_timestep, config.shared_noise)
        self._conditions = f"{config.reference_draws} {law}"  # two runs that differ in these have other draws of the same name

    def draw(self, batch: Batch) -> Noised:
        if self._config.shared_noise:
            sources, index = [(group, 0) for group in range(len(batch.numbers))], batch.groups
        else:
            sources, index = _rows(batch), torch.arange(len(batch.latents))
        drawn = [self._draw(batch, group, row) for group, row in sources]
        v = torch.tensor([v for v, _ in drawn], dtype=torch.float64)
        u = place(self._config, self._family, v, [batch.limits[group] for group, _ in sources])
        shape = batch.latents.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=generator) for _, generator in drawn])
        return add_noise(self._family, batch, u, noise, index)

    def keys(self, batch: Batch) -> list[str] | None:
        """One name per row for all that its reference error depends on, but the reference. None where draws never return."""
        count = self._config.reference_draws
        if not count:
            return None
        return [
            f"{batch.keys[group]} row {row} draw {batch.visits[group] % count} of {self._conditions}{_below(batch.limits[group])}"
            for group, row in _rows(batch)
        ]

    def _draw(self, batch: Batch, group: int, row: int) -> tuple[float, torch.Generator]:
        """v, and the source of the noise."""
        config = self._config
        if config.reference_draws:
            name, number = f"{batch.keys[group]} row {row}", batch.visits[group] % config.reference_draws
            # In an order of its own: the first visits of all items must not be all at the clean end.
            strata = torch.randperm(config.reference_draws, generator=pair_generator(f"strata {name}", config.reference_draws))
            v = (strata[number].item() + _uniform(name, number)) / config.reference_draws
        else:
            name, number = config.seed if config.shared_noise else f"{config.seed} row {row}", batch.numbers[group]
            v = self._fresh(name, number)
        return v, pair_generator(name, number)

    def _fresh(self, name: int | str, number: int) -> float:
        if self._config.shared_noise:  # what is spread evenly over numbers would tie the rows of an item to each other
            match self._config.timestep_sampling:
                case "stratified":
                    # Successive items lie far apart and leave no gap, which lowers the variance of a step for nothing.
                    return (self._start + GOLDEN * number) % 1
                case "list":
                    count = len(self._config.timestep_places)
                    return (number % count + 0.5) / count
        return _uniform(name, number)


def fixed_draw(family: Family, batch: Batch, draw: int, draws: int, seed: int, config: TrainConfig) -> Noised:
    """Draw number `draw` of the `draws` at which validation measures every item: one in each stratum of the run's law.

    Always shared by the rows of an item, also where training does not share: what is measured is the policy, not the noise.
    """
    generators = [pair_generator(f"validation {seed}", number * draws + draw) for number in batch.numbers]
    v = torch.cat([(draw + torch.rand(1, generator=generator)) / draws for generator in generators]).double()
    noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=generator) for generator in generators])
    return add_noise(family, batch, place(config, family, v, batch.limits), noise, batch.groups)


def place(config: TrainConfig, family: Family, v: Tensor, limits: Sequence[float]) -> Tensor:
    """(D,) in [0, 1), float64 -> (D,) float32 places in the schedule, as the run's law and range say, and below each one's limit.

    uniform, stratified: low + (high - low) v. logit_normal: the inverse of the distribution function of the standard
    logit-normal (Esser et al. 2024, Eq. 19, with m = 0, s = 1), cut off at the range. list: one of the listed places, each
    for an equal share of v; it is its own range.
    """
    u = _place(config, family, v, 1.0)
    for limit in {*limits} - {1.0}:  # each by itself: what has no limit is drawn to the bit as if nothing had one
        mine = torch.tensor([each == limit for each in limits])
        u[mine] = _place(config, family, v[mine], limit)
    return u


def _place(config: TrainConfig, family: Family, v: Tensor, limit: float) -> Tensor:
    low, high = float(config.min_timestep), min(float(config.max_timestep), limit)  # a settings file may say 1
    match _law(config, family):
        case "list":
            low, high = 0.0, limit
            places = torch.tensor([each for each in config.timestep_places if each <= limit], dtype=torch.float64)
            u = places[(v * len(places)).long()]
        case "logit_normal":
            first, last = torch.special.ndtr(torch.logit(torch.tensor([low, high], dtype=torch.float64)))
            u = torch.sigmoid(torch.special.ndtri(first + (last - first) * v))
        case _:
            u = low + (high - low) * v
    below = torch.nextafter(torch.tensor(high), torch.tensor(low))  # rounding to float32 must not reach the end
    return u.float().clamp(torch.tensor(low), below)


def add_noise(family: Family, batch: Batch, u: Tensor, noise: Tensor, index: Tensor) -> Noised:
    """Noise a batch. u: (D,) in [0, 1). noise: (D, C, h, w). index: (R,), which of the D draws each row gets.

    Were a draw not shared by rows that are compared, the difference of their errors would measure the noise, not the images.
    """
    device = batch.latents.device
    index = _send(index, device)
    u = _send(u, device)[index]
    timesteps = family.timesteps(u)
    noisy, target = family.add_noise(batch.latents, _send(noise, device).to(batch.latents.dtype)[index], timesteps)
    return Noised(noisy, target, timesteps, batch.conditioning, u)


def pair_generator(seed: int | str, number: int) -> torch.Generator:
    """The source of everything random about item `number` of a run: a resumed run or a halved batch draws the same."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _uniform(name: int | str, number: int) -> float:
    return torch.rand(1, generator=pair_generator(f"timestep {name}", number), dtype=torch.float64).item()


def _below(limit: float) -> str:
    return f" below {limit}" if limit < 1 else ""


def _law(config: TrainConfig, family: Family) -> str:
    return family.timestep_sampling if config.timestep_sampling == "family" else config.timestep_sampling


def _rows(batch: Batch) -> list[tuple[int, int]]:
    """(group, place in it) of every row."""
    groups, rows = len(batch.numbers), len(batch.latents)
    if (
        rows <= 2 * groups
    ):  # likes or pairs, for a run has one kind of item and a ranking 3 rows or more: no need to ask the device
        return list(product(range(groups), range(rows // groups)))
    seen: Counter[int] = Counter()
    found = []
    for group in batch.groups.tolist():
        found.append((group, seen[group]))
        seen[group] += 1
    return found


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for what it is doing: only a copy from pinned memory need not."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
