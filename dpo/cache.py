"""Pairs as tensors: latents and prompt embeddings, encoded once and kept on disk, and batches of them by number.

Row order in a batch: the chosen images of its N pairs, then the rejected ones; row i and row i + N are partners. Both
images of a pair are fitted to the bucket of the chosen one: same size, same centred crop.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpo import StudioError
from dpo.events import Note
from dpo.families import Conditioning, Family
from dpo.losses import Comparisons
from dpo.pairs import Pair
from dpo.pixels import PixelError, image_size, open_pixels


class DataError(StudioError):
    """Training data that cannot be read."""


@dataclass(frozen=True)
class Batch:
    """R rows of clean latents (R, C, h, w) with conditioning, the comparisons among them, and what fixes their randomness.

    groups: (R,) rows with the same value share one draw of timestep and noise. numbers: for each of those G groups, its
    position in the run; the draw is a function of (seed, number).
    """

    latents: Tensor
    conditioning: Conditioning
    comparisons: Comparisons
    groups: Tensor
    numbers: list[int]


class PairData:
    """Encoded pairs. Made by `encode_pairs`."""

    def __init__(self, pairs: list[Pair], files: list[tuple[Path, Path, Path]], device):
        self.pairs, self._files, self._device = pairs, files, device

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(self, indices: list[int], numbers: list[int]) -> list[Batch]:
        """The pairs at `indices`, as one batch for every latent shape among them."""
        by_shape: dict[tuple, list] = {}
        for index, number in zip(indices, numbers, strict=True):
            chosen, rejected, prompt = (load_file(file) for file in self._files[index])
            by_shape.setdefault(chosen["latents"].shape, []).append((chosen, rejected, prompt, self.pairs[index], number))
        return [self._batch(rows) for rows in by_shape.values()]

    def _batch(self, rows: list) -> Batch:
        chosen, rejected, prompts, pairs, numbers = zip(*rows, strict=True)
        count = len(rows)
        latents = torch.stack([image["latents"] for image in (*chosen, *rejected)]).to(self._device)
        conditioning = {name: torch.stack([prompt[name] for prompt in prompts * 2]).to(self._device) for name in prompts[0]}
        order = torch.arange(count, device=self._device)
        comparisons = Comparisons(
            chosen=order,
            rejected=order + count,
            weight=torch.ones(count, device=self._device),
            smoothing=torch.tensor([1 - pair.confidence for pair in pairs], device=self._device),
        )
        return Batch(latents, conditioning, comparisons, groups=order.repeat(2), numbers=list(numbers))


def encode_pairs(pairs: list[Pair], family: Family, resolution: int, cache: Path) -> Iterator[Note | PairData]:
    """Encode what the cache does not hold yet; yield Notes on the way and the PairData last.

    A cached file's name is a hash of the image's bytes, its bucket and the encoder's weights, so nothing stale is ever used.

    Raises DataError for an image that cannot be opened or a disk that refuses.
    """
    vae, text = _fingerprint(family.pipeline.vae), _fingerprint(family.pipeline.text_encoder)
    files: list[tuple[Path, Path, Path]] = []
    for done, pair in enumerate(pairs, 1):
        bucket = choose_bucket(*_image_size(pair.chosen), resolution, family.pixel_multiple)
        triple = [cache / f"{_digest(_read(path), str(bucket), vae)}.safetensors" for path in (pair.chosen, pair.rejected)]
        triple.append(cache / f"{_digest(pair.prompt, text)}.safetensors")
        for file, path in zip(triple, (pair.chosen, pair.rejected), strict=False):
            if not file.exists():
                pixels = fit_image(path, bucket).unsqueeze(0).to(family.denoiser.device)
                _store(file, {"latents": family.encode_images(pixels)[0].float()})
        if not triple[2].exists():
            _store(triple[2], {name: tensor[0] for name, tensor in family.encode_prompts([pair.prompt]).items()})
        files.append(tuple(triple))
        if done % 20 == 0 or done == len(pairs):
            yield Note(0, "Preparing images", done, len(pairs))
    yield PairData(pairs, files, family.denoiser.device)


def choose_bucket(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about resolution**2 pixels in the image's aspect, both multiples of `multiple`."""
    aspect = width / height
    wide = max(1, round(resolution * math.sqrt(aspect) / multiple))
    high = max(1, round(resolution / math.sqrt(aspect) / multiple))
    return wide * multiple, high * multiple


def fit_image(path: str, size: tuple[int, int]) -> Tensor:
    """Scale and centre-crop an image to `size` (width, height): (3, H, W) in [-1, 1]."""
    try:
        image = open_pixels(path)
    except PixelError as error:
        raise _unusable(path, error) from error
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _image_size(path: str) -> tuple[int, int]:
    try:
        return image_size(path)
    except PixelError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: PixelError | OSError) -> DataError:
    problem = f"{error.strerror}." if isinstance(error, OSError) else error
    return DataError(f"{path} cannot be opened: {problem} Delete the pairs that use it, or bring the file back.")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(path, error) from error


def _store(file: Path, tensors: dict[str, Tensor]) -> None:
    partial = file.with_suffix(".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{file.parent} cannot be written: {error.strerror}. Free some space and start again.") from error


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


def _fingerprint(module) -> str:
    """Of the weights: the first values of every tensor tell two models apart without reading gigabytes."""
    parts = [
        name.encode() + tensor.flatten()[:64].float().cpu().numpy().tobytes() for name, tensor in module.state_dict().items()
    ]
    return _digest(*parts)
