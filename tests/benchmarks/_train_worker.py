"""One way of training in a process of its own, a step at a time when asked: `python -m tests.benchmarks._train_worker SPEC`.

SPEC is JSON: {"model", "way": "plain" or an execution mode, "draws": K, "folder"}. A line on standard input asks for something,
a line of JSON answers: "step" trains one step; "floor" runs only the denoiser passes that such a step needs, and for the plain
recipe the encodes as well; "peak" is the most memory this process has held, "pairs" how many a step has.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from dpo.adapters import attach_adapter
from dpo.cache import encode_items, fit_image
from dpo.draws import Draws, pair_generator
from dpo.events import Note, StepEnd
from dpo.optimisation import prepare_denoiser
from dpo.parallel import join_processes
from dpo.remembered import RememberedErrors, fingerprint
from dpo.runs import create_run
from dpo.trainer import item_index, train
from tests.benchmarks._models import build_family, make_config, make_pairs
from tests.benchmarks._plain_recipe import PlainRecipe


def main() -> None:
    spec = json.loads(sys.argv[1])
    folder = Path(spec["folder"])
    config = make_config(spec["model"])
    way = spec["way"]
    if way != "plain":
        config = replace(config, execution=way, reference_draws=spec["draws"])
    pairs = make_pairs(config, folder / "images")
    family = build_family(spec["model"])
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    prepare_denoiser(config, family)
    data, nothing = (encode(items, family, config, folder / "cache") for items in (pairs, []))
    if way == "plain":
        recipe = PlainRecipe(config, family.pipeline, family.add_noise)
        steps, floor = plain_steps(config, recipe, pairs, family, data), _plain_parts(config, recipe, pairs, family, data)
    else:
        memory = None
        if spec["draws"]:
            memory = RememberedErrors(folder / "reference", fingerprint(family, "", config))
        run = create_run(folder / "runs", "run", config, pairs)
        events = train(config, data, nothing, family, adapter, run, processes=join_processes(), memory=memory)
        steps, floor = our_steps(events), _our_floor(config, family, adapter, data)
    answers: dict[str, Callable[[], dict]] = {
        "step": lambda: next(steps),
        "floor": floor,
        "peak": _peak,
        "pairs": lambda: {"pairs_per_step": config.step_size},
    }
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


def encode(items, family, config, cache: Path):
    """The TrainingData; the last thing that `encode_items` yields."""
    *_, data = encode_items(items, family, config.resolution, cache)
    assert not isinstance(data, Note)
    return data


def our_steps(events) -> Iterator[dict]:
    """The live trainer, held between two steps for as long as nobody asks."""
    started = time.perf_counter()
    for event in events:
        if isinstance(event, StepEnd):
            _wait()
            yield {"seconds": time.perf_counter() - started, "loss": event.metrics["loss"]}
            started = time.perf_counter()


def plain_steps(config, recipe: PlainRecipe, pairs, family, data) -> Iterator[dict]:
    step = 0
    while True:
        inputs = _plain_inputs(config, pairs, family, data, step)
        _wait()
        started = time.perf_counter()
        loss = recipe.step(*inputs)
        _wait()
        yield {"seconds": time.perf_counter() - started, "loss": loss}
        step += 1


def _batch(config, data, step: int):
    numbers = list(range(step * config.batch_size, (step + 1) * config.batch_size))
    indices = [item_index(len(data), config.seed, number) for number in numbers]
    (batch,) = data.batches(indices, numbers, [number // len(data) for number in numbers])
    return batch, indices


def _plain_inputs(config, pairs, family, data, step: int):
    """What ours trains on in this step: the same images, noise and timesteps."""
    batch, indices = _batch(config, data, step)
    noise = torch.stack(
        [torch.randn(batch.latents.shape[1:], generator=pair_generator(config.seed, number)) for number in batch.numbers]
    )
    timesteps = Draws(config, family).draw(batch).timesteps[batch.comparisons.chosen]
    size = (config.resolution, config.resolution)
    chosen_first = [pairs[index].chosen for index in indices] + [pairs[index].rejected for index in indices]
    return (
        torch.stack([fit_image(path, size) for path in chosen_first]),
        [pairs[index].prompt for index in indices],
        noise,
        timesteps,
    )


def _our_floor(config, family, adapter, data) -> Callable[[], dict]:
    """The forwards and backwards of one step of this execution mode, and nothing else: no data, no loss, no optimizer."""
    noised = Draws(config, family).draw(_batch(config, data, 0)[0])
    count = len(noised.noisy)
    together, rows = [noised], [noised.rows(row, row + 1) for row in range(count)]
    reference_in = together if config.execution == "full_concurrent" else rows
    policy_in = rows if config.execution == "sequential" else together

    def predict(part):
        return family.predict(part.noisy, part.timesteps, part.conditioning)

    def run() -> None:
        if not config.reference_draws:
            with torch.no_grad(), adapter.as_reference():
                for part in reference_in:
                    predict(part)
        if config.execution == "sequential":
            with torch.no_grad():
                for part in rows:
                    predict(part)
        for part in policy_in:
            predict(part).float().square().mean().backward()

    return lambda: {"seconds": _timed(run, adapter.parameters())}


def _plain_parts(config, recipe: PlainRecipe, pairs, family, data) -> Callable[[], dict]:
    """Seconds of each part that the plain recipe's step cannot do without."""
    pixels, prompts, *_ = _plain_inputs(config, pairs, family, data, 0)
    noised = Draws(config, family).draw(_batch(config, data, 0)[0])
    embeds = noised.conditioning["prompt_embeds"]

    def policy() -> None:
        recipe.errors(noised.noisy, noised.target, noised.timesteps, embeds).sum().backward()

    @torch.no_grad()
    def reference() -> None:
        recipe.errors(noised.noisy, noised.target, noised.timesteps, embeds)

    def encodes() -> None:
        recipe.encode_images(pixels)
        recipe.encode_prompts(prompts)

    parts = {"encodes": encodes, "policy": policy, "reference": reference}
    return lambda: {name: _timed(part, recipe.parameters) for name, part in parts.items()}


def _timed(work: Callable[[], None], parameters) -> float:
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    seconds = time.perf_counter() - started
    for parameter in parameters:
        parameter.grad = None
    return seconds


def _peak() -> dict:
    if torch.cuda.is_available():
        return {"bytes": torch.cuda.max_memory_allocated()}
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
