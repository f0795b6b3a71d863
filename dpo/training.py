"""From settings and items to a run: check early, queue the work, and iterate the trainer into the run's folder."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.checks import check_training, select_items
from dpo.claims import DEVICE, Claim
from dpo.config import TrainConfig
from dpo.disk import write_text
from dpo.events import Event, Note, ProbeEnd, RunEnded, StepEnd
from dpo.foreign_models import foreign_models
from dpo.jobs import Job, JobRegistry
from dpo.launch import launch
from dpo.pairs import Item, split_pairs
from dpo.parallel import Processes, join_processes
from dpo.records import record
from dpo.runs import Run, RunError, create_run, unwritable

if TYPE_CHECKING:
    from dpo.project import Project

# In what PyTorch says where it has no exception of its own for it.
DEVICE_MARKS = ("CUDA error", "HIP error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "MPS backend", "device-side assert")


def items_for(project: Project, config: TrainConfig) -> list[Item]:
    """What a run with these settings would learn from: all that was picked of its kind, less what the settings leave out."""
    everything = {"pairs": project.picks.pairs, "likes": project.picks.likes, "rankings": project.picks.rankings}
    return select_items(everything[config.data](), config)


def start_training(project: Project, jobs: JobRegistry, config: TrainConfig, name: str) -> Run:
    """Make the run and queue it. Raises StudioError for everything that can be known to be wrong before a model loads."""
    run = make_run(project, config, name)
    _submit(project, jobs, run)
    return run


def make_run(project: Project, config: TrainConfig, name: str) -> Run:
    """Check, and make the run's folder, with a note of what it must do without. Raises StudioError with all that is wrong."""
    items = items_for(project, config)
    warnings = check_training(config, items, project.cache / "tensors")
    warnings += foreign_models(project, config, items, hashes=True)
    run = create_run(project.runs, name, config, items)
    for warning in warnings:
        run.append(Note(0, warning, tone="warning"))
    return run


def resume_training(project: Project, jobs: JobRegistry, run: Run) -> None:
    """Queue a run that stopped or was interrupted; it goes on from its newest checkpoint."""
    _submit(project, jobs, run)


def stop_training(jobs: JobRegistry, run: Run) -> None:
    """Ask the run to stop after the current step; what was learned is kept."""
    run.request_stop()
    job = jobs.find("train", run.name)
    if job is not None:
        job.stop.set()


def start_probe(project: Project, jobs: JobRegistry, config: TrainConfig) -> Job:
    """Queue the measurement that beta is chosen by; the job's result becomes its numbers (dpo/probe.py)."""
    items = items_for(project, config)
    check_training(config, items, project.cache / "tensors")

    def work(job: Job) -> dict[str, float]:
        from dpo.probe import probe_config

        metrics: dict[str, float] = {}
        for event in probe_config(config, items, project.cache / "tensors"):
            if job.stop.is_set():
                break
            if isinstance(event, ProbeEnd):
                metrics = event.metrics
            else:
                job.report(event.done, event.total, event.message)
        return metrics

    return jobs.submit("probe", "measuring the strength", "probe", work)


def _submit(project: Project, jobs: JobRegistry, run: Run) -> None:
    def work(job: Job) -> None:
        gpus = run.config.gpus
        if gpus > 1:  # the processes write the run's folder; this one only follows it
            for event in _reported(launch(run, gpus), job):
                end = event
        else:
            end = record(run, _reported(execute(run, project.cache), job), run.config)
        if end.reason == "failed":
            raise RunError(end.message)

    run.clear_stop()
    run.clear_pause()
    jobs.submit("train", f"training {run.name}", run.name, work)


def _reported(events: Iterator[Event], job: Job) -> Iterator[Event]:
    total = 0
    is_paced = False
    for event in events:
        if isinstance(event, StepEnd) and not is_paced:
            job.started, is_paced = time.monotonic() - event.seconds * event.step, True  # the pace without the preparation
        match event:
            case Note(message=message, done=done, total=part):
                job.report(done or job.done, part or job.total, message)
            case StepEnd(step=step):
                job.report(step, total, "training")
            case RunEnded(step=step, message=message):
                job.report(step, total, message)
            case _:
                total = getattr(event, "total_steps", total)
        yield event


def in_turn(run: Run, events: Iterator[Event]) -> Iterator[Event]:
    """The events of a run that is not in an app's queue, once its project's device is free. A stop ends the waiting."""
    claim, is_told = Claim(run.path.parent.parent, DEVICE), False  # it lies in PROJECT/runs
    for other in claim.wait(f"training {run.name}"):
        if run.stop_requested():
            yield RunEnded(run.resume_step, "stopped", f"Stopped while it waited for the device. {run.resume_words}")
            return
        if not is_told:
            yield Note(run.resume_step, f"Waiting: {other.doing or 'other work'} has the device ({other})")
            is_told = True
    try:
        yield from events
    finally:
        claim.give_up()


def execute(run: Run, cache: Path, processes: Processes | None = None) -> Iterator[Event]:
    """Everything a run does, as events. A failure a person can mend is the last event, not an exception."""
    step = 0
    try:
        for event in _execute(run, cache, processes or join_processes()):
            step = event.step
            yield event
    except Exception as error:
        known = _explain(run, step, error)
        yield RunEnded(step, "failed", known or f"{type(error).__name__} at step {step}: {error}. {run.resume_words}")
        if not known:
            raise


def _explain(run: Run, step: int, error: Exception) -> str:
    """What went wrong and what to do, where a person can do something; "" for a mistake of ours."""
    kind, words = type(error).__name__, str(error)  # by name: torch and safetensors are not imported here
    if isinstance(error, StudioError):
        return words
    if kind == "OutOfMemoryError":
        from dpo.portions import memory_report

        return memory_report(run.config, step, run.path)
    if kind == "AcceleratorError" or (isinstance(error, RuntimeError) and any(mark in words for mark in DEVICE_MARKS)):
        return (
            f"The device failed after step {step}: {words.strip().splitlines()[0]}. Close this program and start it again: "
            f"a device that has failed answers nothing in the same process. {run.resume_words}"
        )
    if isinstance(error, OSError):
        return unwritable(run, error)
    if kind == "SafetensorError":
        return f"{run.name} cannot be written or read ({words}). Check the disk and its free space. {run.resume_words}"
    return ""


def _execute(run: Run, cache: Path, processes: Processes) -> Iterator[Event]:
    from dpo.adapters import attach_adapter
    from dpo.cache import cut_note, encode_items
    from dpo.families import load_family
    from dpo.models import default_device, load_parts, place_denoiser
    from dpo.optimisation import prepare_denoiser
    from dpo.remembered import RememberedErrors, fingerprint
    from dpo.strip import Strip, encode_samples
    from dpo.trainer import train

    config = run.config
    yield Note(0, f"Loading {config.model}")
    if processes.is_main:
        keep_adapters(run, config)
    processes.wait()  # a copy is hashed when it is whole
    starting, reference = keep_adapters(run, config)
    device = default_device()
    family = load_family(load_parts(config.model, config.precision, device, **config.base), device)

    if not processes.is_main and processes.wait():  # the first one fills the cache, the others find it filled
        return
    data = []
    sides = split_pairs(run.items, config.validation_share)
    for items in sides:
        for found in encode_items(items, family, config.resolution, cache / "tensors"):
            if isinstance(found, Note):
                if processes.is_main and run.stop_requested():
                    processes.wait(leaving=True)
                    yield RunEnded(0, "stopped", "Stopped while preparing. What was prepared is kept.")
                    return
                yield found
            else:
                data.append(found)
    if note := cut_note((item.prompt for item in run.items), family):
        yield note
    samples, encoded = [], []
    if processes.is_main:
        run.hold_out(sorted({item.prompt for item in sides[1]}))
        if config.sample_every:
            samples = prompts_to_sample(sides, config.sample_prompts)
            encoded = encode_samples(family, samples)
        processes.wait()
    if samples:
        family.park_encoders()
    else:
        family.release_encoders()
    # Only now: text encoders and denoiser need not fit the device together.
    place_denoiser(family.pipeline, config.model, config.precision, device, **config.base)
    adapter = attach_adapter(family, config, starting=starting, reference=reference, moving=config.ref_model_sync_steps > 0)
    prepare_denoiser(config, family)
    strip = Strip(config, family, adapter, samples, encoded, run.samples) if samples else None
    memory = None
    if config.reference_draws:
        standing = _sha256(reference) if reference else ""
        memory = RememberedErrors(cache / "reference", fingerprint(family, standing, config))
    yield from train(config, *data, family, adapter, run, processes=processes, memory=memory, strip=strip)


def prompts_to_sample(sides: Sequence[Sequence[Item]], count: int) -> list[str]:
    """The first `count` different prompts, those held out first: what the run never saw tells most."""
    training, held_out = sides
    return list(dict.fromkeys(item.prompt for item in [*held_out, *training]))[:count]


def keep_adapters(run: Run, config: TrainConfig) -> tuple[Path | None, Path | None]:
    """(file to start from, file of the reference), None for the base. The reference is copied into the run, once."""
    starting = Path(config.starting_adapter).expanduser() if config.starting_adapter else None
    match config.reference_mode:
        case "adapter":
            kept = keep_reference(run, starting)
            return kept, kept
        case "file":
            return starting, keep_reference(run, Path(config.reference_adapter).expanduser())
        case _:
            return starting, None


def keep_reference(run: Run, adapter: Path) -> Path:
    """Copy the reference's adapter into the run, once, with its hash. Raises RunError if the copy has changed since."""
    record_file = run.reference.with_suffix(".sha256")
    if not record_file.exists():
        run.reference.parent.mkdir(exist_ok=True)
        shutil.copyfile(adapter, run.reference)
        write_text(record_file, _sha256(run.reference))  # whole or not there: half a hash would be a changed reference for ever
    elif not run.reference.exists() or _sha256(run.reference) != record_file.read_text():
        raise RunError(
            f"{run.reference} has changed since the run began, so the reference would move. Put it back, or start a new run."
        )
    return run.reference


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
