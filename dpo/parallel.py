"""Several processes that share each step of a run: on one machine a process for each GPU, or on several machines.

`accelerate launch` starts them, each with the same program and the same data. Every process computes some micro-batches of a
step, one all-reduce sums the adapter's gradients, and all take the same step: there is no wrapper around the model. Only the
first process writes. What a step is made of does not depend on how many there are.

A process that ends takes the others with it: gloo notices a closed connection at once, and a silent one after `SILENCE`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.values import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

SILENCE = timedelta(hours=1)  # the first process may validate, sample or write this long before the others give it up
PREPARATION = timedelta(days=1)  # and this long encode images
LOST = "has lost the others"  # says a process that failed because another did


class ProcessesError(StudioError, RuntimeError):
    """The other processes of a run are gone."""


class Processes:
    """This process among all that train a run: number `rank` of `count`. Alone, every method returns what it was given.

    All processes must call the same methods in the same order.
    """

    def __init__(self, rank: int = 0, count: int = 1, patient: ProcessGroup | None = None):
        self.rank, self.count, self._patient = rank, count, patient

    @property
    def is_main(self) -> bool:
        """The one that writes, validates and reports."""
        return self.rank == 0

    def check_shares(self, accumulation: int) -> None:
        """Raises ConfigError if the micro-batches of a step do not go round evenly: some process would wait for ever."""
        if accumulation % self.count:
            raise ConfigError(
                f"accumulation={accumulation} cannot be shared evenly by {self.count} processes. Make it a multiple, such as "
                f"{self.count * -(-accumulation // self.count)}."
            )

    def sum_gradients(self, parameters: list[Tensor]) -> None:
        """Make every gradient the sum over all processes, with one all-reduce. All have gradients for all parameters."""
        if self.count == 1:
            return
        import torch

        gradients = [parameter.grad for parameter in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._together():
            torch.distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])

    def sum(self, pairs: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """(sum, count) by name -> the same over all processes, which need not know the same names: a quartile of the schedule
        may have been drawn by one alone. Equal to the bit everywhere, for it is added up in the same order."""
        if self.count == 1:
            return pairs
        import torch

        gathered: list[dict[str, tuple[float, float]]] = [{}] * self.count
        with self._together():
            torch.distributed.all_gather_object(gathered, pairs)
        total: dict[str, tuple[float, float]] = {}
        for part in gathered:
            for name, (value, number) in part.items():
                so_far = total.get(name, (0.0, 0.0))
                total[name] = (so_far[0] + value, so_far[1] + number)
        return total

    def agree(self, value: int) -> int:
        """The first process's value, in all of them."""
        return self._share(int(value))

    def all_of(self, value: bool) -> bool:
        """Whether it is true in all of them."""
        return not self.sum({"false": (float(not value), 1)})["false"][0]

    def share(self, values: dict[str, float]) -> dict[str, float]:
        """The first process's values, in all of them."""
        return self._share(values)

    def wait(self, *, leaving: bool = False) -> bool:
        """Until all processes are here, as long as preparing a large set of images may take. True if one of them is leaving."""
        if self.count == 1:
            return leaving
        import torch

        leavers = torch.tensor(int(leaving))
        with self._together():
            torch.distributed.all_reduce(leavers, group=self._patient)
        return bool(leavers)

    def _share(self, value):
        if self.count == 1:
            return value
        import torch

        box = [value]
        with self._together():
            torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what torch makes of a peer that is gone, or silent for too long
            # [file:line] Connection closed by peer [address]. This is typically caused by ...
            reason = re.sub(r"^\[[^\]]*\] ", "", str(error).strip()).splitlines()[0].split(". ")[0].rstrip(".")
            raise ProcessesError(
                f"Process {self.rank} of {self.count} {LOST}: {reason}. One of them failed, and says why itself, or cannot be "
                "reached. Resume the run: it goes on from its last checkpoint."
            ) from error


def join_processes() -> Processes:
    """Find the other processes that `accelerate launch` has started; alone, nothing is initialised. May be called again.

    Each gets a GPU of its own where there are GPUs. Raises ProcessesError if there are too few, or the others do not come.
    """
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes()
    import torch
    from torch import distributed

    from dpo.models import default_device

    backend = "gloo"
    if default_device() == "cuda":
        place, places = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= places:
            raise ProcessesError(
                f"Process {rank} of {count} finds no GPU of its own: this machine has {places}. Start as many processes on it."
            )
        torch.cuda.set_device(place)
        if distributed.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"  # gradients by one, words by the other, which need not wait for the GPU
    processes = Processes(rank, count)
    with processes._together():
        if not distributed.is_initialized():
            distributed.init_process_group(backend, timeout=SILENCE)
        patient = distributed.new_group(backend="gloo", timeout=PREPARATION)
    return Processes(rank, count, patient)
