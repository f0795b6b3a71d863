"""The scorers at work: CLIP models through transformers, the LAION aesthetic head, and a run's own implicit reward.

Weights come from .safetensors alone, and no code comes with a model. A scorer is made by `load_scorer`; its scores are floats,
the higher the better, whose unit is its own:

    pickscore   exp(logit_scale) * cosine of image and text, as in the authors' code
    clip        w * max(cosine, 0) with w = 2.5 (Hessel et al. 2021, Eq. in section 3)
    aesthetic   about 1 to 10: a stack of linear layers on the normalised image embedding of CLIP ViT-L/14
    adapter     beta * mean over K fixed draws of (reference error - policy error), the implicit reward of DPO

Prompts longer than the text encoder reads are cut at its end; `cut` says how many tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from dpo.adapters import attach_adapter
from dpo.cache import TrainingData, encode_items
from dpo.checkpoint_header import HeaderError, check_folder, read_header
from dpo.draws import fixed_draw
from dpo.families import load_family
from dpo.models import default_device, load_pipeline
from dpo.pairs import Like
from dpo.pixels import PixelError, open_pixels
from dpo.runs import Run
from dpo.scorer_choice import ScorerChoice, ScorerError
from dpo.scores import Ask
from dpo.scoring import Reference, errors

# PickScore's own repository holds the weights; its authors take the words and pixels from here.
PICKSCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
AESTHETIC_CLIP = "openai/clip-vit-large-patch14"
CLIP_WEIGHT = 2.5
DRAWS = 8  # of a run's reward
HEAD_FILE = "aesthetic.safetensors"


class Scorer(Protocol):
    """A loaded scorer. Scores of two scorers, or of images of two prompts, are not comparable."""

    def score(self, asks: Sequence[Ask]) -> list[float | None]:
        """One score for each image, in one pass; None for a file that cannot be opened."""
        ...

    def cut(self, prompt: str) -> int:
        """Tokens at the prompt's end that are not read."""
        ...


def load_scorer(choice: ScorerChoice, cache: Path) -> Scorer:
    """Load it onto the fastest device. cache: a folder for latents, for "adapter". Raises StudioError, naming what is missing."""
    device = default_device()
    match choice.kind:
        case "pickscore":
            has_own = (Path(choice.model) / "preprocessor_config.json").is_file()
            return _PickScore(choice.model, choice.model if has_own else PICKSCORE_PROCESSOR, device)
        case "clip":
            return _ClipScore(choice.model, choice.model, device)
        case "aesthetic":
            return _Aesthetic(Path(choice.model), device)
    return _AdapterReward(Run(Path(choice.model)), cache)


class _Clip:
    """A CLIPModel in float32, its tokenizer and what prepares images for it."""

    def __init__(self, model: str, processor: str, device: str) -> None:
        with _explained(model):
            if Path(model).is_dir():
                check_folder(Path(model))
            self._model, report = CLIPModel.from_pretrained(
                model, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        if report["missing_keys"]:  # transformers makes them up
            raise ScorerError(
                f"{model} is no whole CLIP model: {len(report['missing_keys'])} weights are missing, such as "
                f"{sorted(report['missing_keys'])[0]}. Choose a model of the kind CLIPModel."
            )
        with _explained(processor):
            self._tokenizer = CLIPTokenizer.from_pretrained(processor)
            self._pixels = CLIPImageProcessor.from_pretrained(processor)
        self._model.eval().requires_grad_(False).to(device)
        self._longest = self._model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def score(self, asks: Sequence[Ask]) -> list[float | None]:
        opened = {number: image for number, ask in enumerate(asks) if (image := _open(ask.path))}
        found: list[float | None] = [None] * len(asks)
        if opened:
            scores = self._score(list(opened.values()), [asks[number].text for number in opened])
            for number, score in zip(opened, scores.tolist(), strict=True):
                found[number] = score
        return found

    def cut(self, prompt: str) -> int:
        return max(0, len(self._tokenizer(prompt, verbose=False).input_ids) - self._longest)

    def _score(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        raise NotImplementedError

    def _embed_images(self, images: list[Image.Image]) -> Tensor:
        """(B, D), each of length 1."""
        pixels = self._pixels(images=images, return_tensors="pt").pixel_values.to(self._model.device)
        return _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)

    def _cosines(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        """(B,) of each image and its own text."""
        words = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        features = self._model.get_text_features(**words.to(self._model.device)).pooler_output
        return (self._embed_images(images) * _unit(features)).sum(-1)


class _PickScore(_Clip):
    def _score(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        return self._model.logit_scale.exp() * self._cosines(images, texts)


class _ClipScore(_Clip):
    def _score(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        return CLIP_WEIGHT * self._cosines(images, texts).clamp(min=0)


class _Aesthetic(_Clip):
    """`place`: the head's .safetensors file, or a folder with it as `HEAD_FILE` or as the only such file. A folder may hold the
    CLIP model too, in `clip`; otherwise it is ViT-L/14."""

    def __init__(self, place: Path, device: str) -> None:
        clip = place / "clip" if (place / "clip").is_dir() else AESTHETIC_CLIP
        self._head = _load_head(_head_file(place))
        super().__init__(str(clip), str(clip), device)
        width = self._model.config.projection_dim
        if self._head[0][0].shape[1] != width:
            raise ScorerError(
                f"{place} takes embeddings of {self._head[0][0].shape[1]} numbers, and {clip} gives {width}. "
                "Put the CLIP model it was made for into a folder clip beside it."
            )
        self._head = [(weight.to(device), bias.to(device)) for weight, bias in self._head]

    def cut(self, prompt: str) -> int:
        return 0

    def _score(self, images: list[Image.Image], texts: list[str]) -> Tensor:
        found = self._embed_images(images)
        for weight, bias in self._head:  # no activation between them, as in the original
            found = torch.nn.functional.linear(found, weight, bias)
        return found[:, 0]


class _AdapterReward:
    """The implicit reward of a run. Every image meets the same K draws of place and noise, one in each stratum of the run's
    law: what differs between two images is not the dice."""

    def __init__(self, run: Run, cache: Path) -> None:
        self._config = config = run.config
        self._family = family = load_family(load_pipeline(config.model, config.precision, **config.base))
        reference = run.reference if run.reference.exists() else None
        adapter = attach_adapter(family, config, starting=run.adapter, reference=reference, moving=False)
        # Losses without a reference are judged against the base too, as in validation.
        self._reference = Reference(family, adapter, "base" if config.reference_mode == "none" else config.reference_mode)
        self._cache = cache / "tensors"

    @torch.no_grad()
    def score(self, asks: Sequence[Ask]) -> list[float | None]:
        found: list[float | None] = [None] * len(asks)
        good = [number for number, ask in enumerate(asks) if _open(ask.path)]
        items = [Like(asks[number].text, asks[number].path, True) for number in good]
        *_, data = encode_items(items, self._family, self._config.resolution, self._cache)
        assert isinstance(data, TrainingData)
        places = range(len(items))
        for batch in data.batches(places, places, [0] * len(items)):
            same = replace(batch, numbers=[0] * len(batch.numbers))
            rewards = torch.zeros(len(batch.latents), device=batch.latents.device)
            for draw in range(DRAWS):
                noised = fixed_draw(self._family, same, draw, DRAWS, self._config.seed, self._config)
                rewards += self._reference.errors(noised, same, None, at_once=True) - errors(self._family, noised)
            for place, reward in zip(batch.numbers, (self._config.beta * rewards / DRAWS).tolist(), strict=True):
                found[good[place]] = reward
        return found

    def cut(self, prompt: str) -> int:
        return self._family.cut_tokens(prompt)


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def _open(path: str) -> Image.Image | None:
    try:
        return open_pixels(path).convert("RGB")
    except PixelError:
        return None  # the report counts it


def _head_file(place: Path) -> Path:
    if place.is_file():
        return place
    if (place / HEAD_FILE).is_file():
        return place / HEAD_FILE
    found = sorted(place.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    raise ScorerError(f"{place} holds {len(found)} .safetensors files. Name the head's file, or call it {HEAD_FILE}.")


def _load_head(path: Path) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each linear layer, first to last, of tensors named layers.N.weight and layers.N.bias."""
    try:
        read_header(path)
    except HeaderError as error:
        raise ScorerError(f"{error} Or convert it again.") from error
    tensors = load_file(path)
    numbers = sorted(int(match[1]) for name in tensors if (match := re.fullmatch(r"layers\.(\d+)\.weight", name)))
    names = {f"layers.{number}.{part}" for number in numbers for part in ("weight", "bias")}
    if not numbers or names != tensors.keys():
        raise ScorerError(
            f"{path} is no LAION aesthetic head: it should hold layers.N.weight and layers.N.bias, and nothing else."
        )
    layers = [(tensors[f"layers.{number}.weight"].float(), tensors[f"layers.{number}.bias"].float()) for number in numbers]
    sizes = [weight.shape for weight, _ in layers]
    if [size[1] for size in sizes[1:]] + [1] != [size[0] for size in sizes]:
        raise ScorerError(f"{path} is no LAION aesthetic head: its layers ({[tuple(size) for size in sizes]}) do not follow on.")
    return layers


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what transformers raises within it into ScorerError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ScorerError(
            f"{model} does not fit the device's memory. Close what else uses it, or choose a smaller one."
        ) from error
    except HeaderError as error:
        raise ScorerError(str(error)) from error
    except (OSError, ValueError, ImportError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ScorerError(
            f"{model} cannot be loaded: {reason} It needs config.json, model.safetensors, the tokenizer and "
            "preprocessor_config.json; give the folder that has them, or a hub id while there is a connection."
        ) from error
