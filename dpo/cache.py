"""Items as tensors: latents and prompt embeddings, encoded once and kept on disk, and batches of them by number.

Row order in a batch: item by item, an item's images in its own order; a batch of pairs is chosen 0, rejected 0, chosen 1,
rejected 1, ... All images of an item are fitted to the bucket of its first one: same size, same centred crop.

A cached file is named after all that its tensors follow from: an image's bytes and bucket, or a prompt's words, and the
encoder's weights, dtype and settings. So nothing stale is ever found, and any file may be deleted at any moment. Images are
encoded one by one: in a batch, the last bits of an image's latents would depend on its neighbours.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load, save
from torch import Tensor

from dpo import StudioError
from dpo.buckets import choose_bucket
from dpo.checkpoint_header import HeaderError, check_data, read_header
from dpo.contents import Contents, read_digest
from dpo.events import Note
from dpo.families import Conditioning, Family
from dpo.fingerprints import digest, weights_digest
from dpo.losses import Comparisons, Labels, ranking_weights
from dpo.pairs import Item, Like
from dpo.pixels import PixelError, image_size, open_pixels

HOT_BYTES = 1 << 30  # of tensors that a TrainingData keeps in memory; what does not fit is read anew for every step
ENCODING = "3"  # raise it when what `fit_image` or a family's encoding computes changes: cached files are named after it
DECODERS = 4  # threads that open images while one is encoded
BETWEEN_NOTES = 20  # images or prompts


class DataError(StudioError):
    """Training data that cannot be read."""


@dataclass(frozen=True)
class Batch:
    """R rows (images) of G items: clean latents (R, C, h, w), conditioning (R, ...), what was said of them, and what fixes
    their randomness.

    groups: (R,) which of the G items a row belongs to. numbers: of each item, its position in the run. visits: how often
    the run saw the item before. keys: 32 hex characters from the very tensors of the item, the same in every run. limits: of each
    item, the place in the schedule below which it is drawn, 1.0 for anywhere (`Pair.max_timestep`).
    """

    latents: Tensor
    conditioning: Conditioning
    comparisons: Comparisons
    labels: Labels
    groups: Tensor
    numbers: list[int]
    visits: list[int]
    keys: list[str]
    limits: list[float]


@dataclass(frozen=True)
class _Source:
    """What a cached file is made from: the prompt `text`, or, with a `bucket`, the image at the path `text` fitted to it.

    name: of the file. content: digest of the image's bytes, which must still be so when it is encoded. size: what the denoiser is
    told of the image's size, one row; not in the file, for two sizes may share it.
    """

    name: str
    text: str
    bucket: tuple[int, int] | None = None
    content: str = ""
    size: Conditioning = field(default_factory=dict, compare=False)


class TrainingData:
    """Encoded items. Made by `encode_items`."""

    def __init__(self, items: list[Item], sources: list[list[_Source]], tensors: _Tensors):
        self.items, self._sources, self._tensors = items, sources, tensors

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, indices: Sequence[int], numbers: Sequence[int], visits: Sequence[int]) -> list[Batch]:
        """The items at `indices`, as one batch for every shape of latents and prompt embeddings among them.

        Raises DataError for a cached file that is gone, or damaged, and can no longer be made again.
        """
        by_shape: dict[tuple, list] = {}
        for index, number, visit in zip(indices, numbers, visits, strict=True):
            *images, prompt = (self._tensors.load(source) for source in self._sources[index])
            sizes = [source.size for source in self._sources[index][:-1]]
            told = [str(tensor.tolist()) for size in sizes for tensor in size.values()]
            key = digest(*(found.key for found in (*images, prompt)), *told)
            latents = [found.tensors["latents"] for found in images]
            conditioning = [prompt.tensors | {name: tensor[0] for name, tensor in size.items()} for size in sizes]
            row = (self.items[index], latents, conditioning, number, visit, key)
            shapes = tuple((name, tensor.shape) for name, tensor in sorted(prompt.tensors.items()))
            by_shape.setdefault((latents[0].shape, shapes), []).append(row)
        return [_make_batch(rows, self._tensors.device) for rows in by_shape.values()]


def encode_items(items: Sequence[Item], family: Family, resolution: int, cache: Path) -> Iterator[Note | TrainingData]:
    """Encode what the cache does not hold yet; yield Notes on the way and the TrainingData last.

    The encoders are asked for, and moved to the device, only if something is missing.

    Raises DataError for an image that cannot be opened or a disk that refuses.
    """
    tensors = _Tensors(family, cache)
    contents = Contents(cache / "contents")
    sources: list[list[_Source]] = []
    for done, item in enumerate(items, 1):
        digests = [_content(path, contents.digest) for path in item.images]
        sizes = [_image_size(path) for path in item.images]
        bucket = choose_bucket(*sizes[0], resolution, family.pixel_multiple)
        images = [tensors.image(*image, bucket) for image in zip(item.images, digests, sizes, strict=True)]
        sources.append([*images, tensors.prompt(item.prompt)])
        if done % (10 * BETWEEN_NOTES) == 0:
            yield Note(0, "Looking at images", done, len(items))
    try:
        contents.flush()
    except OSError as error:
        raise _unwritable(cache, error) from error
    missing = [source for source in dict.fromkeys(source for row in sources for source in row) if not tensors.has(source)]
    if missing:
        with family.encoders():
            for done, (source, pixels) in enumerate(_opened(missing), 1):
                tensors.make(source, pixels)
                if done % BETWEEN_NOTES == 0 or done == len(missing):
                    yield Note(0, "Preparing images", done, len(missing))
    yield TrainingData(list(items), sources, tensors)


def cut_note(prompts: Iterable[str], family: Family) -> Note | None:
    """A warning of how many of the prompts are longer than the family reads, if any are."""
    cuts = [family.cut_tokens(prompt) for prompt in set(prompts)]
    number, most = sum(cut > 0 for cut in cuts), max(cuts, default=0)
    if not number:
        return None
    return Note(
        0,
        f"{number:,} of {len(cuts):,} prompts {'is' if number == 1 else 'are'} longer than this model reads: up to {most:,} "
        f"token{'' if most == 1 else 's'} at the end {'is' if most == 1 else 'are'} not seen.",
        tone="warning",
    )


def _opened(sources: Sequence[_Source]) -> Iterator[tuple[_Source, Tensor | None]]:
    """Sources in turn, images with their pixels: while one is encoded, the next ones are decoded already."""
    with ThreadPoolExecutor(DECODERS) as decoders:
        ahead: deque[tuple[_Source, Future[Tensor | None]]] = deque()
        for source in sources:
            ahead.append((source, decoders.submit(_pixels, source)))
            if len(ahead) > 2 * DECODERS:
                first, pixels = ahead.popleft()
                yield first, pixels.result()
        for source, pixels in ahead:
            yield source, pixels.result()


def _pixels(source: _Source) -> Tensor | None:
    if source.bucket is None:
        return None
    pixels = fit_image(source.text, source.bucket)
    if _content(source.text, read_digest) != source.content:
        raise DataError(f"{source.text} changed while it was being read. Start again once nothing writes to it.")
    return pixels


def fit_image(path: str, size: tuple[int, int]) -> Tensor:
    """Scale and centre-crop an image to `size` (width, height): (3, H, W) in [-1, 1]."""
    try:
        image = open_pixels(path)
    except PixelError as error:
        raise _unusable(path, error) from error
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True)
class _Loaded:
    """The tensors of one cached file, and a digest of its bytes."""

    tensors: dict[str, Tensor]
    key: str


class _Tensors:
    """Files of tensors in a folder, the encoders they come from, and in memory what was read of them, up to HOT_BYTES.

    What is in memory stays: every epoch is a fresh order of all items, so what was used last is not what comes next.
    """

    def __init__(self, family: Family, folder: Path):
        self._family, self._folder = family, folder
        self._vae = _encoder_digest(family, "vae")
        self._text = _encoder_digest(family, "text_encoder")
        self._hot: dict[str, _Loaded] = {}
        self._room = HOT_BYTES

    @property
    def device(self) -> torch.device:
        return self._family.device

    def image(self, path: str, content: str, size: tuple[int, int], bucket: tuple[int, int]) -> _Source:
        told = self._family.size_conditioning(size, bucket)
        return _Source(digest(ENCODING, content, str(bucket), self._vae), path, bucket, content, told)

    def prompt(self, prompt: str) -> _Source:
        return _Source(digest(ENCODING, prompt, self._text), prompt)

    def has(self, source: _Source) -> bool:
        """Whether its file is there, and as long as its head says: a crash of the whole machine leaves empty or short ones."""
        try:
            read_header(self._file(source))
        except HeaderError:
            return False
        return True

    def load(self, source: _Source) -> _Loaded:
        """From memory, from its file, or, where that is gone or damaged, encoded again."""
        if source.name in self._hot:
            return self._hot[source.name]
        try:
            data = self._file(source).read_bytes()
            check_data(data)
            found = _Loaded(load(data), digest(data))
        except (OSError, HeaderError):
            self._file(source).unlink(missing_ok=True)
            if self._family.pipeline.vae is None:
                raise DataError(
                    f"{self._file(source)} is gone or damaged. Start the run again: it encodes what is missing and goes on "
                    "from its last checkpoint."
                ) from None
            with self._family.encoders():
                return self.make(source, _pixels(source))
        return self._keep(source, found)

    def make(self, source: _Source, pixels: Tensor | None) -> _Loaded:
        """Encode, and put the file in its place. The encoders are on the device already."""
        if pixels is None:
            tensors = {name: tensor[0] for name, tensor in self._family.encode_prompts([source.text]).items()}
        else:
            tensors = {"latents": self._family.encode_images(pixels.unsqueeze(0).to(self.device))[0]}
        data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        _write(self._file(source), data)
        return self._keep(source, _Loaded(load(data), digest(data)))

    def _keep(self, source: _Source, found: _Loaded) -> _Loaded:
        size = sum(tensor.nbytes for tensor in found.tensors.values())
        if size <= self._room:
            self._hot[source.name] = found
            self._room -= size
        return found

    def _file(self, source: _Source) -> Path:
        return self._folder / f"{source.name}.safetensors"


def _make_batch(rows: list[tuple], device: torch.device) -> Batch:
    """Of (item, the latents of its images, their conditioning, number, visit, key) each."""
    items, images, conditionings, numbers, visits, keys = zip(*rows, strict=True)
    groups = [group for group, latents in enumerate(images) for _ in latents]
    comparisons: list[tuple[int, int, float, float]] = []
    labels: list[tuple[int, bool, float]] = []
    for group, item in enumerate(items):
        first, count = groups.index(group), len(images[group])
        if isinstance(item, Like):
            labels.append((first, item.liked, 1.0))
            continue
        weights = ranking_weights(count).tolist()
        for (better, worse), weight in zip(combinations(range(first, first + count), 2), weights, strict=True):
            comparisons.append((better, worse, weight, 1 - item.confidence))
    latents = torch.stack([image for latents in images for image in latents]).float()
    told = [one for conditioning in conditionings for one in conditioning]
    conditioning = {name: torch.stack([one[name] for one in told]) for name in told[0]}
    return Batch(
        latents=_send(latents, device),
        conditioning={name: _send(tensor, device) for name, tensor in conditioning.items()},
        comparisons=Comparisons(*_columns(comparisons, (torch.long, torch.long, torch.float, torch.float), device)),
        labels=Labels(*_columns(labels, (torch.long, torch.bool, torch.float), device)),
        groups=_send(torch.tensor(groups), device),
        numbers=list(numbers),
        visits=list(visits),
        keys=list(keys),
        limits=[getattr(item, "max_timestep", 1.0) for item in items],
    )


def _columns(rows: list[tuple], dtypes: tuple, device: torch.device) -> Iterable[Tensor]:
    for column, dtype in enumerate(dtypes):
        yield _send(torch.tensor([row[column] for row in rows], dtype=dtype), device)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for what the device is at: that takes memory which the system does not move."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _encoder_digest(family: Family, prefix: str) -> str:
    """Of the pipeline's modules whose name starts with `prefix`: weights, and settings such as the scaling factor."""
    parts = []
    for name, module in sorted(family.pipeline.components.items()):
        if name.startswith(prefix) and isinstance(module, torch.nn.Module):
            settings = module.config if isinstance(module.config, dict) else module.config.to_dict()
            known = {key: value for key, value in settings.items() if not key.startswith("_")}
            if getattr(module, "use_tiling", False):  # latents differ a little where tiles meet
                known["use_tiling"] = True
            parts += [name, weights_digest(module), json.dumps(known, sort_keys=True, default=str)]
    return digest(type(family).__name__, *parts)


def _image_size(path: str) -> tuple[int, int]:
    try:
        return image_size(path)
    except PixelError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: PixelError | OSError) -> DataError:
    problem = f"{error.strerror}." if isinstance(error, OSError) else error
    return DataError(f"{path} cannot be opened: {problem} Delete the pairs that use it, or bring the file back.")


def _content(path: str, read: Callable[[str], str]) -> str:
    try:
        return read(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all, also with two processes at it. Not synced: a file that a crash leaves empty is encoded again."""
    partial = file.with_name(f"{file.stem}-{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _unwritable(file.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"{folder} cannot be written: {error.strerror}. Free some space and start again.")
