"""A tiny family with an adapter, batches of it by hand, and draws of them: what tests of scoring start from."""

import dataclasses
import itertools

import torch

from dpo.adapters import POLICY, attach_adapter
from dpo.cache import Batch
from dpo.config import TrainConfig
from dpo.draws import Draws
from dpo.families import load_family
from dpo.losses import Comparisons, Labels, ranking_weights
from dpo.scoring import Reference
from tests.tiny import build_pipeline

SIZES = {"rankings": [3, 4], "likes": [1, 1, 1]}


def attach(family, *, starting=None, reference=None, moving=False, **settings):
    config = TrainConfig(**{"lora_rank": 2, "lora_alpha": 2.0} | settings)
    return attach_adapter(family, config, starting=starting, reference=reference, moving=moving)


def move(family, std=0.5):
    """As if the policy had learned something, so that it differs from its reference."""
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if "lora_B" in name and f".{POLICY}." in name:
                parameter += std * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))


def build(dtype=torch.float64, *, moved=True, **options):
    """A tiny family with an adapter; `moved`: as if it had learned something."""
    family = load_family(build_pipeline(dtype=dtype))
    adapter = attach(family, **options)
    if moved:
        move(family)
    return family, adapter


def make_batch(family, count=3, *, kind="pairs", twins=False) -> Batch:
    """Items of one kind; `twins`: the images of an item are equal."""
    sizes = [2] * count if kind == "pairs" else SIZES[kind]
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    latents = torch.randn(len(groups), 4, 8, 8, generator=torch.Generator().manual_seed(5))
    if twins:
        latents = latents[[groups.index(group) for group in groups]]
    compared = [
        (groups.index(group) + better, groups.index(group) + worse, weight)
        for group, size in enumerate(sizes)
        for (better, worse), weight in zip(
            itertools.combinations(range(size), 2), ranking_weights(size).tolist() if size > 1 else [], strict=True
        )
    ]
    chosen, rejected, weights = zip(*compared, strict=True) if compared else ((), (), ())
    comparisons = Comparisons(as_rows(chosen), as_rows(rejected), torch.tensor(weights), torch.zeros(len(chosen)))
    judged = as_rows(range(len(groups))) if kind == "likes" else as_rows(())
    embeds = family.encode_prompts([f"prompt {group}" for group in range(min(len(sizes), 4))])["prompt_embeds"]
    return Batch(
        latents=latents,
        conditioning={"prompt_embeds": embeds[[group % len(embeds) for group in groups]]},
        comparisons=comparisons,
        labels=Labels(judged, judged % 2 == 0, torch.ones(len(judged))),
        groups=torch.tensor(groups),
        numbers=list(range(len(sizes))),
        visits=[0] * len(sizes),
        keys=[f"key {group}" for group in range(len(sizes))],
        limits=[1.0] * len(sizes),
    )


def as_rows(numbers) -> torch.Tensor:
    return torch.tensor(list(numbers), dtype=torch.long)


def take_items(batch: Batch, items: list[int]) -> Batch:
    """A batch of some of the pairs of a batch."""
    rows = [row for item in items for row in (2 * item, 2 * item + 1)]
    first = torch.arange(0, len(rows), 2)
    return dataclasses.replace(
        batch,
        latents=batch.latents[rows],
        conditioning={name: tensor[rows] for name, tensor in batch.conditioning.items()},
        comparisons=Comparisons(first, first + 1, torch.ones(len(items)), torch.zeros(len(items))),
        groups=torch.arange(len(items)).repeat_interleave(2),
        numbers=[batch.numbers[item] for item in items],
        visits=[batch.visits[item] for item in items],
        keys=[batch.keys[item] for item in items],
        limits=[batch.limits[item] for item in items],
    )


def draw_noise(family, batch, seed=0):
    return Draws(TrainConfig(seed=seed), family).draw(batch)


def reference_errors(family, adapter, noised, *, at_once=True):
    return Reference(family, adapter, "base").errors(noised, None, None, at_once=at_once)
