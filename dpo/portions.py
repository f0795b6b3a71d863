"""In what portions a step is computed, and what becomes of that when memory runs out.

The items of a step, their draws and their gradient stay the same; they are only computed in smaller parts: half as many items
at a time, and at last one image at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dpo.config import TrainConfig

# PyTorch has an exception of its own for GPUs only. MPS and the CPU raise a RuntimeError with these words.
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


class Portions:
    """Items per forward pass, at most those of the config's `batch_size`, and how they are executed."""

    def __init__(self, config: TrainConfig):
        self._size, self.config = config.batch_size, config

    def split(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(numbers), self._size):
            yield list(numbers[start : start + self._size])

    def shrink(self) -> str:
        """Make them smaller, and say how; "" if they are as small as can be."""
        gc.collect()  # a failed pass leaves cycles of frames and tensors behind
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._size > 1:
            self._size = -(-self._size // 2)
            return f"{self._size} {self.config.data if self._size > 1 else self.config.data.removesuffix('s')} at a time"
        if self.config.execution != "sequential":
            self.config = replace(self.config, execution="sequential")
            return "one image at a time"
        return ""


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)
    )


def memory_report(config: TrainConfig, step: int, kept: Path) -> str:
    """What to change where memory runs out, of what is not changed yet; and where what was learned is."""
    remedies = {
        "gradient_checkpointing=True": config.gradient_checkpointing,
        "execution='sequential'": config.execution == "sequential",
        "batch_size=1 and a larger accumulation": config.batch_size == 1,
        "a lower resolution": False,
    }
    left = ", ".join(remedy for remedy, is_done in remedies.items() if not is_done)
    return (
        f"Out of memory at step {step} (resolution={config.resolution}, batch_size={config.batch_size}, "
        f"execution={config.execution!r}, gradient_checkpointing={config.gradient_checkpointing}). Try {left}. What was saved is "
        f"in {kept}, as it was."
    )
