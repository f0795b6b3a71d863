"""One export: the file in its format, the card beside it, and the proof, a fresh pipeline that paints the same image from it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import load_adapter, peft_header, set_strength
from dpo.disk import write_text
from dpo.families import Family
from dpo.fingerprints import weights_digest
from dpo.formats import PRECISIONS, ExportError, check_offer, has_alpha_in_factors
from dpo.formats.card import CARD, card_text
from dpo.formats.factors import Factors, factors, kind_of, tensors_of
from dpo.formats.header import header_of
from dpo.formats.naming import places
from dpo.formats.origin import Origin
from dpo.sampling import SampleSettings, paint

NAME = "exported"  # of the adapter on the denoiser
SIDE, STEPS, SEED = 512, 4, 1  # of the image it is tried on
GREY_LEVELS = 1  # by which images may differ where nothing was rounded: what is left is the order of sums
SHARE = 0.25  # of the adapter's own effect, in the mean, that rounding may make up


@dataclass(frozen=True)
class Exported:
    """difference: largest of two grey levels between the image the adapter makes and the one its file makes. effect: the same
    between that image and the base model's."""

    file: Path
    card: Path
    precision: str
    difference: int
    effect: int

    def sentence(self) -> str:
        """What the check found, for a person."""
        if not self.effect:
            return "The file was loaded into a fresh pipeline. The adapter changes nothing in the image it was tried on."
        if not self.difference:
            return "The file was loaded into a fresh pipeline and makes the same image, in every grey level."
        return (
            f"The file was loaded into a fresh pipeline and makes the same image but for {self.difference} of 255 grey levels, "
            f"by rounding ({self.precision}); the adapter itself changes up to {self.effect}."
        )


def export_adapter(
    open_family: Callable[[], Family], source: Path, origin: Origin, format: str, precision: str, folder: Path,
    report: Callable[[str], None] = lambda text: None, side: int = SIDE,
) -> Exported:  # fmt: skip
    """Write the adapter in `source` to `folder`, under the origin's name.

    open_family: the base model, loaded anew at every call. side: of the image it is tried on, at most. What appears in `folder`
    was checked. Raises ExportError for what is not offered and for a file that does not do what the adapter does, AdapterError
    for a source that does not fit.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision={precision!r} is not known. Choose one of: {', '.join(PRECISIONS)}.")
    report("loading the model")
    family = open_family()
    pipeline, base_hash, is_exact = family.pipeline, weights_digest(family.denoiser), family.denoiser.dtype == torch.float32
    base = _paint(family, origin.prompt, side)
    load_adapter(family, source, NAME)
    found = factors(family.denoiser, NAME)
    kind = kind_of(found)
    check_offer(type(pipeline).__name__, kind, format)
    report("writing the file")
    tensors, header = _contents(family, found, format)
    rounded = {name: _rounded(name, tensor, getattr(torch, PRECISIONS[precision])) for name, tensor in tensors.items()}
    ranks = [part.rank for part in found.values()]
    alphas = ranks if has_alpha_in_factors(type(pipeline).__name__, kind, format) else [part.alpha for part in found.values()]
    header |= header_of(
        rounded, origin, pipeline, kind=kind, format=format, ranks=ranks, alphas=alphas, base_hash=base_hash,
        denoiser=family.denoiser.config,
    )  # fmt: skip
    expected = _paint(family, origin.prompt, side)
    del family, pipeline
    _forget()

    folder.mkdir(parents=True, exist_ok=True)
    unchecked = folder / f"unchecked-{origin.name}.safetensors"
    try:
        report("loading the file into a fresh pipeline")
        fresh = open_family()
        # First what was written, without rounding: else rounding would be an excuse for a wrong strength.
        painted = _paint_with(fresh, unchecked, tensors, header, "whole", origin.prompt, side)
        _check(painted, expected, base, GREY_LEVELS if is_exact else None)
        if precision != "fp32":
            painted = _paint_with(fresh, unchecked, rounded, header, "rounded", origin.prompt, side)
            _check(painted, expected, base, None)
        file = folder / f"{origin.name}.safetensors"
        unchecked.replace(file)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror}. Free some space or choose another folder.") from error
    finally:
        unchecked.unlink(missing_ok=True)
    result = Exported(file, folder / CARD, precision, _largest(painted, expected), _largest(base, expected))
    said = {"kind": kind, "format": format, "precision": precision, "rank": _size(kind, found), "proof": result.sentence()}
    write_text(result.card, card_text(origin, file.name, **said))
    return result


def _contents(family: Family, found: dict[str, Factors], format: str) -> tuple[dict[str, Tensor], dict]:
    """(tensors in float32, what of the header belongs to their format)"""
    if format == "diffusers":
        layers = get_peft_model_state_dict(family.denoiser, adapter_name=NAME)
        tensors = {f"{family.denoiser_name}.{key}": tensor for key, tensor in layers.items()}
        header = peft_header(family, NAME)
    else:
        pipeline, header = type(family.pipeline).__name__, {}
        keeps_alpha = not has_alpha_in_factors(pipeline, kind_of(found), format)
        modules = dict(family.denoiser.named_modules())
        tensors = {}
        for name, layers in places(pipeline, found, format, family.denoiser.config).items():
            parts = [found.get(layer) for layer in layers]
            tensors |= tensors_of([modules[layer] for layer in layers], parts, name, keeps_alpha=keeps_alpha)
    return {name: _rounded(name, tensor, torch.float32) for name, tensor in tensors.items()}, header


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    kept = torch.float32 if name.endswith(".alpha") else dtype  # an alpha of 0.3 is none that half precision has
    rounded = tensor.detach().to("cpu", kept).contiguous()
    if not rounded.isfinite().all():
        raise ExportError(f"{name} has values that {str(dtype).removeprefix('torch.')} cannot hold. Choose fp32 or bf16.")
    return rounded


def _size(kind: str, found: dict[str, Factors]) -> str:
    ranks, alphas = ({getattr(part, name) for part in found.values()} for name in ("rank", "alpha"))
    words = [f"{min(values):g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}" for values in (ranks, alphas)]
    return f"blocks of {words[0]}" if kind == "oft" else f"rank {words[0]}, alpha {words[1]}"


def _paint_with(
    family: Family, file: Path, tensors: dict[str, Tensor], header: dict[str, str], name: str, prompt: str, side: int
) -> np.ndarray:
    """The image of the base with this file alone, whatever was on it before."""
    save_file(tensors, file, header)
    try:
        load_adapter(family, file, name)
    except AdapterError as error:
        raise ExportError(f"The exported file cannot be loaded: {error} The run is as it was. Please report this.") from error
    set_strength(family.denoiser, name, 1.0)
    return _paint(family, prompt, side)


def _check(painted: np.ndarray, expected: np.ndarray, base: np.ndarray, limit: int | None) -> None:
    """limit: in grey levels, of the largest difference; None where numbers were rounded, and the mean is looked at."""
    largest, effect = _largest(painted, expected), _largest(base, expected)
    if limit is None:
        is_wrong = largest > GREY_LEVELS and np.abs(painted - expected).mean() > SHARE * np.abs(base - expected).mean()
    else:
        is_wrong = largest > limit
    if is_wrong:
        raise ExportError(
            f"The exported file makes another image than the adapter: {largest} of 255 grey levels, where the adapter itself "
            f"changes {effect}. The file was not kept; the run is as it was. Choose another format, and please report this."
        )


def _paint(family: Family, prompt: str, side: int) -> np.ndarray:
    side = min(family.image_side, side)
    settings = SampleSettings(sampling_steps=STEPS, width=side, height=side)
    return np.asarray(paint(family, [(family.prompt_arguments(prompt, ""), SEED)], settings)[0]).astype(int)


def _largest(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first - second).max())


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
