"""What a run leaves for people and their tools to read: its events file, TensorBoard, and a tracker if one was asked for.

Tags are those of OneTrainer's preference training, with its meaning: `dpo/chosen_reward` and its kin are log-ratios, not
scaled by beta. TRL's `rewards/*` are, and stand beside them.

    loss/train_step, loss/dpo       the whole loss, with the supervised mix     dpo/raw_loss, dpo/val_loss     without it
    dpo/chosen_reward, dpo/rejected_reward, dpo/accuracy                        of a step: the mean over its items
    dpo/val_chosen_reward, dpo/val_rejected_reward, dpo/val_accuracy            of a validation
    raw_model_loss, raw_ref_loss    error of the policy and of the reference
    validation/NAME, probe/NAME     all else of a validation, of the probe before the first step; of a step: NAME itself
    samples/NNN-SEED                base beside policy, as pictures
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.config import TrainConfig
from dpo.events import Event, Note, ProbeEnd, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.runs import Run, unwritable

if TYPE_CHECKING:
    import numpy

PROJECT = "image-dpo"  # under which a tracker files our runs
STEP_TAGS = {
    "loss": ("loss/train_step", "loss/dpo"),
    "loss/preference": ("dpo/raw_loss",),
    "logratios/chosen": ("dpo/chosen_reward",),
    "logratios/rejected": ("dpo/rejected_reward",),
    "rewards/accuracies": ("dpo/accuracy", "rewards/accuracies"),
    "errors/policy": ("raw_model_loss",),
    "errors/reference": ("raw_ref_loss",),
}
VALIDATION_TAGS = {
    "loss/preference": ("dpo/val_loss",),
    "logratios/chosen": ("dpo/val_chosen_reward",),
    "logratios/rejected": ("dpo/val_rejected_reward",),
    "rewards/accuracies": ("dpo/val_accuracy", "validation/rewards/accuracies"),
}
# What receives records: scalars by tag, pictures by tag, the step.
Writer = Callable[[Mapping[str, float], Mapping[str, "numpy.ndarray"], int], None]


def record(run: Run, events: Iterator[Event], config: TrainConfig) -> RunEnded:
    """Iterate a run's events into its folder, and to the tracker. Returns the last event.

    This is the whole difference between training in a thread, from the command line, and in a test. The run is held
    meanwhile: raises RunError if another process trains it. A tracker that does not take it is a warning among the events. A
    disk that does not take them ends the run, with what to do.
    """
    end = RunEnded(0, "failed", "The run ended without saying why.")
    try:
        with run.held(), ExitStack() as stack:
            writers: list[Writer] = []
            for event in events:
                end = event if isinstance(event, RunEnded) else replace(end, step=event.step)
                run.append(event)
                if isinstance(event, RunStarted) and not writers:
                    writers = _open_writers(run, config, event.step, stack)
                values, pictures = scalars(event), _pictures(run, event)
                if values or pictures:
                    for write in writers:
                        write(values, pictures, event.step)
    except OSError as error:
        if isinstance(events, Generator):
            events.close()  # keeps what was learned, if the disk takes that
        end = RunEnded(end.step, "failed", unwritable(run, error))
        with suppress(OSError):
            run.append(end)
    return end


def scalars(event: Event) -> dict[str, float]:
    """Tag and value of all numbers that an event reports."""
    match event:
        case StepEnd(metrics=metrics):
            return {tag: value for name, value in metrics.items() for tag in STEP_TAGS.get(name, (name,))}
        case ValidationEnd(metrics=metrics):
            return {tag: value for name, value in metrics.items() for tag in VALIDATION_TAGS.get(name, (f"validation/{name}",))}
        case ProbeEnd(metrics=metrics):
            return {f"probe/{name}": value for name, value in metrics.items()}
    return {}


def _open_writers(run: Run, config: TrainConfig, step: int, stack: ExitStack) -> list[Writer]:
    writers = [_tensorboard(run, step, stack)]
    if config.tracker != "none":
        try:
            writers.append(_wandb(run, config, stack) if config.tracker == "wandb" else _trackio(run, config, stack))
        except Exception as error:  # an account, a network, a server: none of them is a reason not to train
            text = f"{config.tracker} does not take this run: {type(error).__name__}: {error}. Training goes on without it."
            run.append(Note(step, text, tone="warning"))
    return writers


def _tensorboard(run: Run, step: int, stack: ExitStack) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    # What a run did after the checkpoint it resumes from no longer holds: readers drop it.
    writer = stack.enter_context(SummaryWriter(str(run.tensorboard), purge_step=step + 1))

    def write(values: Mapping[str, float], pictures: Mapping[str, numpy.ndarray], step: int) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)
        for tag, picture in pictures.items():
            writer.add_image(tag, picture, step, dataformats="HWC")

    return write


def _wandb(run: Run, config: TrainConfig, stack: ExitStack) -> Writer:
    import wandb

    tracked = wandb.init(
        project=PROJECT, name=run.name, id=_lasting_id(run), resume="allow", dir=str(run.path), config=asdict(config)
    )
    stack.callback(tracked.finish)
    tracked.define_metric("step")
    tracked.define_metric("*", step_metric="step")  # its own step never goes back, as a resumed run does

    def write(values: Mapping[str, float], pictures: Mapping[str, numpy.ndarray], step: int) -> None:
        tracked.log({"step": step, **values, **{tag: wandb.Image(picture) for tag, picture in pictures.items()}})

    return write


def _trackio(run: Run, config: TrainConfig, stack: ExitStack) -> Writer:
    import trackio

    tracked = trackio.init(
        project=PROJECT, name=f"{run.name}-{_lasting_id(run)}", resume="allow", embed=False, config=asdict(config)
    )
    stack.callback(tracked.finish)

    def write(values: Mapping[str, float], pictures: Mapping[str, numpy.ndarray], step: int) -> None:
        tracked.log({**values, **{tag: trackio.Image(picture) for tag, picture in pictures.items()}}, step=step)

    return write


def _lasting_id(run: Run) -> str:
    """The same each time this run goes on, another for a run of the same name elsewhere or after this one was deleted."""
    return hashlib.blake2b(f"{run.path} {run.made}".encode(), digest_size=6).hexdigest()


def _pictures(run: Run, event: Event) -> dict[str, numpy.ndarray]:
    """Tag and (height, width, 3) uint8: what the base paints on the left, what the policy paints on the right."""
    import numpy
    from PIL import Image

    if not isinstance(event, SamplesSaved):
        return {}
    found = {}
    for path in sorted(Path(event.folder).glob("*.png")):
        sides = [path for path in (run.base_samples / path.name, path) if path.exists()]
        images = [numpy.asarray(Image.open(side).convert("RGB")) for side in sides]
        found[f"samples/{path.stem}"] = numpy.concatenate(images, axis=1)
    return found
