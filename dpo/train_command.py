"""`python -m dpo train`: a run without the page. Progress goes to stderr, the end to stdout.

Ctrl-C, or SIGTERM, stops after the current step and keeps what was learned; a second one ends at once, and the run goes on
from its last checkpoint. The same command under `accelerate launch` shares each step among processes: all compute, the first
one prints and records. While the app, or another command, has the device of this project, the run waits for it; with --no-wait
it is refused. The exit status is 0 if the run finished or was stopped, 1 if it failed or was stopped because it
damaged the images, 2 for a mistake in what was asked, 130 after a second Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.claims import add_wait_flag, check_device
from dpo.config import TrainConfig
from dpo.config_files import load_preset, preset_names
from dpo.events import Event, Note, RunEnded, SamplesSaved, StepEnd, ValidationEnd
from dpo.onetrainer import load_settings
from dpo.project import DEFAULT_PROJECT, open_project
from dpo.runs import Run, RunError, find_run, suggest_run_name

if TYPE_CHECKING:
    from dpo.parallel import Processes

SECONDS_TO_MEAN_IT = 2.0  # a launcher passes on a Ctrl-C that its processes have had already
TOLD = ("loss", "rewards/accuracies", "errors/chosen_drift")  # of a step or a validation, on one line


def train(args) -> int:
    """Train on what was picked in a project. CONFIG is a preset, a file of settings, or a config of OneTrainer's."""
    from dpo.launch import launch
    from dpo.parallel import join_processes
    from dpo.records import record
    from dpo.training import execute, in_turn

    processes = join_processes()
    if args.no_wait:
        check_device(project_of(args))
    run, cache = _chosen_run(args, processes)
    config = run.config
    processes.check_shares(config.accumulation)
    with _interrupts_stop(run):
        if processes.count == 1 and config.gpus > 1:
            end = _last(_told(launch(run, config.gpus)))  # the first of those processes records, and waits its turn
        elif processes.is_main:
            end = record(run, _told(in_turn(run, execute(run, cache, processes))), config)
        else:
            end = _last(execute(run, cache, processes))
            if end.reason == "failed":  # the first one hears only that this one is gone
                _tell([f"Process {processes.rank}: {end.message}"])
    if processes.is_main:
        said = {"run": str(run.path), "adapter": str(run.adapter), **asdict(end)}
        print(json.dumps(said) if args.json else end.message)
    return 0 if end.reason in ("finished", "stopped") else 1


def add_train_command(commands: argparse._SubParsersAction) -> None:
    """Add `train` to the commands of `python -m dpo`."""
    command = commands.add_parser(
        "train", help=train.__doc__, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "config", nargs="?", default="demo", metavar="CONFIG", help=f"a JSON file, or one of {', '.join(preset_names())}"
    )
    command.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    command.add_argument("--name", help="the run's name")
    command.add_argument("--resume", action="store_true", help="go on with the run of that name")
    command.add_argument("--run", type=Path, metavar="PATH", help="start the run of this folder, or go on with it")
    command.add_argument("--json", action="store_true", help="print the end as JSON")
    add_wait_flag(command)
    settings = command.add_argument_group("settings, over those of CONFIG")
    for field in fields(TrainConfig):
        # None tells what was not given from what was given at its default.
        options = {"default": None, "help": field.metadata["help"].replace("%", "%%")}
        if field.type == "bool":
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": {"str": str, "int": int, "float": float}[field.type], "metavar": field.type.upper()}
        settings.add_argument(f"--{field.name.replace('_', '-')}", **options)
    command.set_defaults(command=train)


def project_of(args) -> Path:
    """The folder of the project that a command is about. Of a run by its path: it lies in PROJECT/runs."""
    return (args.run.expanduser().resolve().parent.parent if args.run else args.project.expanduser()).resolve()


def _chosen_run(args, processes: Processes) -> tuple[Run, Path]:
    """(the run to go on with, or a new one; the folder of its project's cache)."""
    given = {field.name: getattr(args, field.name) for field in fields(TrainConfig) if getattr(args, field.name) is not None}
    if not (args.run or args.resume):
        return _new_run(args, given, processes)
    if args.run:
        path = args.run.expanduser().resolve()
        run, cache = find_run(path.parent, path.name), project_of(args) / "cache"
    else:
        project = open_project(args.project)
        run, cache = find_run(project.runs, args.name or ""), project.cache
    changed = [name for name, value in given.items() if getattr(run.config, name) != value]
    if changed:
        raise RunError(f"{run.name} keeps the settings it began with: {', '.join(changed)} cannot be changed. Start a new run.")
    if processes.is_main:
        run.clear_stop()
        run.clear_pause()
        status = run.status()
        if status.state in ("running", "paused") and not run.is_held:
            _tell([f"{run.name} stopped unexpectedly at step {status.step:,}. {run.resume_words}"])
        _tell(run.notes)
    return run, cache


def _new_run(args, given: dict, processes: Processes) -> tuple[Run, Path]:
    from dpo.training import make_run

    project = open_project(args.project)
    path = Path(args.config).expanduser()
    is_preset = args.config in preset_names()
    config, notes = (load_preset(args.config, **given), []) if is_preset else load_settings(path, **given)
    if processes.count > 1:
        config = replace(config, gpus=processes.count)
    name = args.name or suggest_run_name(project.runs, args.config if is_preset else path.stem)
    processes.wait()  # all have found the same name before the first one takes it
    mistake = None
    if processes.is_main:
        _tell(notes)
        try:
            make_run(project, config, name)
        except Exception as error:  # the others must hear of it, or they wait for ever
            mistake = error
    if not processes.agree(int(mistake is None)):
        raise mistake or RunError("The first process could not make the run; it says why.")
    run = Run(project.runs / name)
    if processes.is_main:
        _tell([event.message for event in run.events() if isinstance(event, Note)])
    return run, project.cache


@contextmanager
def _interrupts_stop(run: Run) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the run to stop; one some time later does what it always does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked: list[float] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _) -> None:
        asked.append(time.monotonic())
        run.request_stop()
        if asked[-1] - asked[0] > SECONDS_TO_MEAN_IT:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


def _told(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        match event:
            case Note(message=message, done=done, total=total):
                _tell([message + (f" {done}/{total}" if total else "")])
            case StepEnd(step=step, metrics=metrics) | ValidationEnd(step=step, metrics=metrics):
                text = "  ".join(f"{name} {metrics[name]:.4g}" for name in TOLD if name in metrics)
                _tell([f"{type(event).__name__} {step}  {text}"])
            case SamplesSaved(folder=folder):
                _tell([f"Samples are in {folder}"])
        yield event


def _tell(sentences: list[str]) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr, flush=True)


def _last(events: Iterator[Event]) -> RunEnded:
    end = RunEnded(0, "finished")
    for event in events:
        if isinstance(event, RunEnded):
            end = event
    return end
