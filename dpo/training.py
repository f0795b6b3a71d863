"""From a config and pairs to a run: check early, queue the work, and iterate the trainer into the run's folder."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.config import ConfigError, TrainConfig
from dpo.events import Event, Note, RunEnded, StepEnd
from dpo.jobs import Job, JobRegistry
from dpo.models import resolve_model
from dpo.pairs import Pair, split_pairs
from dpo.runs import Run, RunError, create_run, record

if TYPE_CHECKING:
    from dpo.project import Project


def start_training(project: Project, jobs: JobRegistry, config: TrainConfig, name: str, pairs: list[Pair]) -> Run:
    """Make the run and queue it. Raises StudioError for everything that can be known to be wrong before a model loads."""
    check_training(config, pairs)
    run = create_run(project.runs, name, config, pairs)
    _submit(project, jobs, run)
    return run


def check_training(config: TrainConfig, pairs: list[Pair]) -> None:
    """Raises StudioError for a model, an adapter or images that are not there."""
    resolve_model(config.model)
    missing = [path for pair in pairs for path in (pair.chosen, pair.rejected) if not Path(path).is_file()]
    if missing:
        raise RunError(
            f"{len(missing)} images of the pairs are gone, such as {missing[0]}. Bring them back or delete those pairs."
        )
    if config.starting_adapter and not Path(config.starting_adapter).expanduser().is_file():
        raise ConfigError(
            f"starting_adapter={config.starting_adapter!r} is not a file. Choose an adapter file, or leave it empty."
        )


def resume_training(project: Project, jobs: JobRegistry, run: Run) -> None:
    """Queue a run that stopped or was interrupted; it goes on from its newest checkpoint."""
    _submit(project, jobs, run)


def stop_training(jobs: JobRegistry, run: Run) -> None:
    """Ask the run to stop after the current step; what was learned is kept."""
    run.request_stop()
    job = jobs.find("train", run.name)
    if job is not None:
        job.stop.set()


def _submit(project: Project, jobs: JobRegistry, run: Run) -> None:
    def work(job: Job) -> None:
        end = record(run, _reported(execute(run, project.cache), job))
        if end.reason == "failed":
            raise RunError(end.message)

    run.clear_stop()
    jobs.submit("train", f"training {run.name}", run.name, work)


def _reported(events: Iterator[Event], job: Job) -> Iterator[Event]:
    total = 0
    is_paced = False
    for event in events:
        if isinstance(event, StepEnd) and not is_paced:
            job.started, is_paced = time.monotonic() - event.seconds * event.step, True  # the pace without the preparation
        match event:
            case Note(message=message, done=done, total=part):
                job.report(done, part, message)
            case StepEnd(step=step):
                job.report(step, total, "training")
            case RunEnded(step=step, message=message):
                job.report(step, total, message)
            case _:
                total = getattr(event, "total_steps", total)
        yield event


def execute(run: Run, cache: Path) -> Iterator[Event]:
    """Everything a run does, as events. A failure a person can mend is the last event, not an exception."""
    step = 0
    try:
        for event in _execute(run, cache):
            step = event.step
            yield event
    except Exception as error:
        if not isinstance(error, StudioError):
            yield RunEnded(step, "failed", f"{type(error).__name__} at step {step}: {error}. What was saved is in {run.path}.")
            raise
        yield RunEnded(step, "failed", str(error))


def _execute(run: Run, cache: Path) -> Iterator[Event]:
    from dpo.adapters import attach_new_adapter, attach_starting_adapter
    from dpo.cache import encode_pairs
    from dpo.families import load_family
    from dpo.models import load_pipeline
    from dpo.trainer import train

    config = run.config
    yield Note(0, f"Loading {config.model}")
    family = load_family(load_pipeline(config.model, config.precision))
    if config.starting_adapter:
        adapter = attach_starting_adapter(family, keep_reference(run, Path(config.starting_adapter).expanduser()))
    else:
        adapter = attach_new_adapter(family, rank=config.lora_rank, alpha=config.scale_alpha, seed=config.seed)

    data = []
    for pairs in split_pairs(run.pairs, config.validation_share, config.seed):
        for item in encode_pairs(pairs, family, config.resolution, cache / "tensors"):
            if isinstance(item, Note):
                if run.stop_requested():
                    yield RunEnded(0, "stopped", "Stopped while preparing. What was prepared is kept.")
                    return
                yield item
            else:
                data.append(item)
    family.release_encoders()
    yield from train(config, *data, family, adapter, run)


def keep_reference(run: Run, starting_adapter: Path) -> Path:
    """Copy the starting adapter into the run, once, with its hash. Raises RunError if the copy has changed since."""
    record_file = run.reference.with_suffix(".sha256")
    if not run.reference.exists():
        run.reference.parent.mkdir(exist_ok=True)
        shutil.copyfile(starting_adapter, run.reference)
        record_file.write_text(_sha256(run.reference))
    elif _sha256(run.reference) != record_file.read_text():
        raise RunError(
            f"{run.reference} has changed since the run began, so the reference would move. Put it back, or start a new run."
        )
    return run.reference


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
