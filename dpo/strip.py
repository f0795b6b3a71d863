"""Sample pictures while a run trains: fixed prompts and seeds, the base once, the policy every so many steps.

They are made on the live model, between two steps, and change nothing of it: no weight, no gradient, no random state. The
prompts are encoded before training starts, as the encoders are parked while it runs; the VAE alone comes back to decode.
A failure here is a warning: pictures that cannot be made are no reason to lose a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dpo.adapters import Adapter
from dpo.config import TrainConfig
from dpo.events import Note, SamplesSaved
from dpo.families import Family
from dpo.metadata.writer import write_png
from dpo.sampling import Encoded, SampleSettings, describe, paint, without_text_encoders

BASE = "base"  # the folder beside the steps'


class Strip:
    """The sample pictures of one run, `NNN-SEED.png` by prompt in FOLDER/base and FOLDER/step-000040.

    encoded: the prompts, by `encode_samples`, for the text encoders have left when it is made. What stands above the policy's
    pictures is the reference: the base, or the adapter that training started from.
    """

    def __init__(
        self, config: TrainConfig, family: Family, adapter: Adapter, prompts: list[str], encoded: list[Encoded], folder: Path
    ):
        self._family, self._adapter, self._folder, self._model = family, adapter, folder, config.model
        self._rows = [(prompt, seed) for seed, prompt in enumerate(prompts, 1)]
        self._settings = SampleSettings(width=config.resolution, height=config.resolution)
        self._painter = without_text_encoders(family)
        self._encoded = encoded

    def sample(self, step: int) -> Iterator[Note | SamplesSaved]:
        """Paint with the policy as it stands; the reference first, if its pictures are not there yet."""
        try:
            yield Note(step, "Painting samples")
            if not (self._folder / BASE).exists():
                with self._adapter.as_reference():
                    images = self._paint()
                self._save(images, BASE)
            name = f"step-{step:06d}"
            self._save(self._paint(), name, adapter=f"{self._folder.parent.name} step {step}", adapter_strength="1")
            yield SamplesSaved(step, str(self._folder / name))
        except Exception as error:  # of many kinds: memory, disk, the sampler of a model we never saw
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            yield Note(step, f"The sample pictures of step {step} cannot be made: {reason} Training goes on.", tone="warning")

    def _paint(self) -> list[Image.Image]:
        """One by one: then a picture does not depend on which others are made, and most memory is left to the training."""
        with self._family.encoders(only_vae=True):
            return [
                paint(self._painter, [(encoded, seed)], self._settings)[0]
                for encoded, (_, seed) in zip(self._encoded, self._rows, strict=True)
            ]

    def _save(self, images: list[Image.Image], name: str, **adapter: str) -> None:
        """All of them or none: a folder that is there is whole."""
        partial, whole = self._folder / f"partial-{name}", self._folder / name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number, (image, (prompt, seed)) in enumerate(zip(images, self._rows, strict=True)):
            text = describe(self._painter.pipeline, self._model, prompt, seed, self._settings, image, **adapter)
            write_png(image, partial / f"{number:03d}-{seed}.png", text)
        shutil.rmtree(whole, ignore_errors=True)  # of a run that went back and came here again
        partial.rename(whole)


def encode_samples(family: Family, prompts: list[str]) -> list[Encoded]:
    """What a Strip paints from, a prompt at a time: then its pictures do not depend on which others are sampled."""
    with family.encoders():
        return [family.prompt_arguments(prompt, SampleSettings().negative_prompt) for prompt in prompts]
