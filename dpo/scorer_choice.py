"""Which scorer judges images: its kind and its model, checked before anything is loaded.

    pickscore   PickScore (Kirstain et al. 2023): a CLIP model trained on what people picked; of image and prompt
    clip        CLIP score (Hessel et al. 2021): how well an image fits its prompt
    aesthetic   the LAION aesthetic predictor: of the image alone
    adapter     what a run has learned: its implicit reward of the image under its prompt

A scorer proposes. What a person said goes before it, and its scores compare images of one prompt only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dpo import StudioError
from dpo.checkpoint_header import PICKLES
from dpo.groups import normalise_prompt, without_loras
from dpo.runs import Run

KINDS = ("pickscore", "clip", "aesthetic", "adapter")
USUAL_MODELS = {
    "pickscore": "yuvalkirstain/PickScore_v1",
    "clip": "openai/clip-vit-large-patch14",
    "aesthetic": "",
    "adapter": "",
}
LONGEST_NAME = 60


class ScorerError(StudioError):
    """A scorer that cannot be found, loaded or used."""


@dataclass(frozen=True)
class ScorerChoice:
    """`model`: a hub id or a folder with a CLIP model; of "aesthetic" the head, a .safetensors file or a folder with one (see
    `dpo.scorers`); of "adapter" a run's folder. "" is the usual one, where there is one. Raises ScorerError."""

    kind: str
    model: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ScorerError(f"scorer={self.kind!r} is not known. Choose one of: {', '.join(KINDS)}.")
        model = self.model.strip() or USUAL_MODELS[self.kind]
        path = Path(model).expanduser()
        is_there = bool(model) and path.exists()
        # By its place, wherever the program was started; what was scored with it is found again.
        object.__setattr__(self, "model", str(path.resolve()) if is_there else model)
        if path.suffix.lower() in PICKLES:
            raise ScorerError(f"{path} is a pickle, which can run code when it is opened. {_CONVERT}")
        if self.kind == "aesthetic" and not is_there:
            named = (
                f"{model} is not there." if model else "The aesthetic scorer needs its head, which has no safe copy we know of."
            )
            raise ScorerError(f"{named} Name a .safetensors file, or a folder with one. {_CONVERT}")
        if self.kind == "adapter" and not (is_there and Run(path).adapter.is_file()):
            raise ScorerError(f"{model or 'No run'} is not a run with an adapter. Choose one that has learned something.")
        if not is_there and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
            raise ScorerError(f"model={model!r} is neither a folder that is there nor a hub id such as {USUAL_MODELS['clip']}.")

    @property
    def name(self) -> str:
        """For people, and in the source of pairs: "pickscore", or "clip NAME" of a model that is not the usual one."""
        if self.model == USUAL_MODELS[self.kind]:
            return self.kind
        return "aesthetic" if self.kind == "aesthetic" else f"{self.kind} {Path(self.model).name}"[:LONGEST_NAME]

    @property
    def identity(self) -> str:
        """What its scores are kept under. A model that was trained on at the same place counts as the same: its scores stay."""
        return f"{self.kind} {self.model}"

    def text_of(self, prompt: str | None) -> str:
        """What it reads of an image's prompt: LoRA tags say nothing to it, and the aesthetic scorer reads none."""
        return "" if self.kind == "aesthetic" else without_loras(normalise_prompt(prompt))


_CONVERT = (
    "The LAION head (sac+logos+ava1-l14-linearMSE.pth) is converted once, where torch is installed: "
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('HEAD.pth', weights_only=True), 'aesthetic.safetensors')\""
)
