"""What a run trains on, and everything that can be known to be wrong with it before a model loads: said all at once.

Only headers of images and adapters are read, and nothing here imports torch: the form asks while someone is typing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dpo import StudioError
from dpo.adapter_files import AdapterError, check_adapter
from dpo.buckets import choose_bucket
from dpo.config import TrainConfig
from dpo.extras import missing_packages
from dpo.models import ModelError, describe_model, resolve_model
from dpo.pairs import Item, Like, Pair, Ranking, split_pairs
from dpo.pixels import PixelError, image_size
from dpo.runs import MINIMUM_PAIRS

KINDS = {"pairs": Pair, "likes": Like, "rankings": Ranking}
FILTERS = ("rater", "source", "round", "min_confidence")
PIXEL_MULTIPLE = 64  # where the model's own is not known yet: that of SD 1.x, and a multiple of most others'
LATENT_BYTES = 0.25  # per pixel: 4 channels of float32 for 8 x 8 pixels
PROMPT_BYTES = 256 << 10  # 77 tokens of 768 float32, and a little
NAMED = 3  # examples in a sentence


class ChecksError(StudioError):
    """All that speaks against a run, a sentence or two each, one a line. `problems`: the same as a list."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


def select_items(items: Sequence[Item], config: TrainConfig) -> list[Item]:
    """What the settings leave of `items`, in their order: by rater, source, round and confidence, and at most `max_pairs`.

    Which ones those are is a lot drawn for every item by itself, from the seed: 200 hold the 100 of the same seed, and more
    picks replace few of them.
    """
    wanted = [item for item in items if _is_wanted(item, config)]
    if not config.max_pairs or len(wanted) <= config.max_pairs:
        return wanted
    by_lot = sorted(range(len(wanted)), key=lambda index: _lot(wanted[index], config.seed))
    return [wanted[index] for index in sorted(by_lot[: config.max_pairs])]


def check_training(config: TrainConfig, items: Sequence[Item], cache: Path | None = None) -> list[str]:
    """Check a run on `items`, which `select_items` has chosen; `cache`: the folder for its tensors, to see that they fit.

    Returns warnings: sentences about what will be missing from a run that can be made. Raises ChecksError.
    """
    problems = [
        *_model(config),
        *_adapters(config),
        *missing_packages(config),
        *_enough(config, items),
        *_images(config, items),
        *_limits(config, items),
        *_room(config, items, cache),
    ]
    if problems:
        raise ChecksError(problems)
    return list(_without_validation(config, items))


def pixel_multiple(model: str, components: str = "") -> int:
    """What image sides must be multiples of, from the model's own files, or PIXEL_MULTIPLE where they do not say. Of a checkpoint
    file, from the folder that has its settings.

    The VAE halves the sides once for each of its levels but the first, and so does the UNet.
    """
    levels = []
    try:
        for part in ("vae", "unet"):
            text = (Path(resolve_model(components or model)) / f"{part}/config.json").read_text(encoding="utf-8")
            levels.append(len(json.loads(text)["block_out_channels"]))
    except (StudioError, OSError, ValueError, KeyError, TypeError):
        return PIXEL_MULTIPLE
    return 2 ** (sum(levels) - len(levels))


def _is_wanted(item: Item, config: TrainConfig) -> bool:
    return (
        config.rater in ("", item.rater)
        and config.source in ("", item.source)
        and config.round in ("", item.round)
        and item.confidence >= config.min_confidence
    )


def _lot(item: Item, seed: int) -> bytes:
    return hashlib.blake2b("\0".join((str(seed), item.prompt, *item.images)).encode(), digest_size=8).digest()


def _model(config: TrainConfig) -> Iterator[str]:
    try:
        describe_model(config.model, config.prediction_type, config.components)
    except ModelError as error:
        yield str(error)


def _adapters(config: TrainConfig) -> Iterator[str]:
    for field in ("base_adapter", "starting_adapter", "reference_adapter"):
        path = getattr(config, field)
        try:
            if path:
                check_adapter(Path(path).expanduser())
        except AdapterError as error:
            yield f"{field}: {error}"


def _enough(config: TrainConfig, items: Sequence[Item]) -> Iterator[str]:
    kind = KINDS[config.data]
    strangers = sum(not isinstance(item, kind) for item in items)
    if strangers:
        yield f"loss={config.loss!r} learns from {config.data}, and {strangers} of {len(items)} items are none. Choose another."
    if not strangers and items and "kto" in config.losses and len({item.liked for item in items}) == 1:
        kind = "good" if items[0].liked else "bad"
        yield f"loss={config.loss!r} learns from what sets good images apart from bad ones, and all {len(items)} are {kind}."
    if len(items) < MINIMUM_PAIRS:
        filters = [f"{name}={getattr(config, name)!r}" for name in FILTERS if getattr(config, name)]
        remedy = f"Pick a few more, or loosen {' and '.join(filters)}." if filters else "Pick a few more in Pairs."
        yield f"There are {len(items)} {config.data} and training needs at least {MINIMUM_PAIRS}. {remedy}"


def _images(config: TrainConfig, items: Sequence[Item]) -> Iterator[str]:
    """What is wrong with the images, one sentence for each way of being wrong: thousands may be so for one reason."""
    multiple = pixel_multiple(config.model, config.components)
    sizes: dict[str, tuple[int, int]] = {}
    gone, unreadable = [], []
    for path in dict.fromkeys(path for item in items for path in item.images):
        try:
            sizes[path] = image_size(path)
        except PixelError as error:
            if os.path.isfile(path):
                unreadable.append(str(error))
            else:
                gone.append(path)
    if gone:
        yield (
            f"{_many(gone, 'image')} of the {config.data} {_are(gone)} gone: {_some(gone)}. "
            f"Bring back what is missing, or delete those {config.data}."
        )
    if unreadable:
        yield f"{_many(unreadable, 'image')} of the {config.data} cannot be read: {unreadable[0]}"

    apart = []
    for item in items:
        buckets = {choose_bucket(*sizes[path], config.resolution, multiple): path for path in item.images if path in sizes}
        if len(buckets) > 1:
            apart.append(" and ".join(f"{path} ({sizes[path][0]} x {sizes[path][1]})" for path in list(buckets.values())[:2]))
    if apart:
        yield (
            f"In {len(apart)} of the {config.data} the images differ in shape at resolution {config.resolution}, such as "
            f"{apart[0]}. One of them would have to be cropped or squeezed. Delete those {config.data}, or change the resolution."
        )


def _limits(config: TrainConfig, items: Sequence[Item]) -> Iterator[str]:
    """Of items whose images share their course down to a place in the schedule, whether any timestep is left below it."""
    lowest = min(config.timestep_places, default=config.min_timestep)
    limits = [limit for item in items if (limit := getattr(item, "max_timestep", 1.0)) <= lowest]
    if limits:
        name = "timestep_list" if config.timestep_places else "min_timestep"
        yield (
            f"The images of {len(limits)} of the {config.data} differ only below timestep {min(limits):g}, and {name} begins at "
            f"{lowest:g}. Lower it, or leave those {config.data} out (round, source)."
        )


def _room(config: TrainConfig, items: Sequence[Item], cache: Path | None) -> Iterator[str]:
    if cache is None:
        return
    images, prompts = {path for item in items for path in item.images}, {item.prompt for item in items}
    needed = int(len(images) * config.resolution**2 * LATENT_BYTES) + len(prompts) * PROMPT_BYTES
    if cache.exists():  # what is there may be of these very images: a warm cache must not be asked for its room twice
        needed -= sum(_size(entry) for entry in os.scandir(cache))
    folder = next(parent for parent in (cache, *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        yield (
            f"Preparing {len(images)} images takes about {needed / 1e9:.1f} GB in {cache}, and {free / 1e9:.1f} GB are free. "
            "Free some space, lower the resolution, or use fewer images (max_pairs)."
        )


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a cache may be deleted at any moment
        return 0


def _without_validation(config: TrainConfig, items: Sequence[Item]) -> Iterator[str]:
    _, held_out = split_pairs(items, config.validation_share)
    if not config.validation_share:
        reason = "validation_share is 0"
    elif not config.validate_every:
        reason = "validate_every is 0"
    elif not held_out:
        reason = f"all {config.data} have the same prompt, and it keeps out whole prompts"
    else:
        return
    looks = (
        "Nothing then tells learning from damage, for this loss has no reference."
        if config.reference_mode == "none"
        else "Accuracy is then measured on what was trained, which always looks good."
    )
    yield f"Validation is off: {reason}. {looks}"


def _many(found: Sequence, noun: str) -> str:
    return f"{len(found)} {noun}" if len(found) == 1 else f"{len(found)} {noun}s"


def _are(found: Sequence) -> str:
    return "is" if len(found) == 1 else "are"


def _some(found: Sequence[str]) -> str:
    more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more
