"""What the Train tab says, as sentences: what training would be given, how a run is doing, one line of the list of runs.

Pure functions over settings, events and jobs; no gradio. What a run's curves mean: dpo/diagnosis.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.diagnosis import diagnose
from dpo.events import Event, Note, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.footprints import work
from dpo.jobs import Job, JobRegistry
from dpo.menu import LOSSES
from dpo.pairs import split_pairs
from dpo.prompts import count_syntax
from dpo.runs import MINIMUM_PAIRS, Run, RunStatus
from dpo.values import parse_losses
from ui.plots import SUFFERING, metric_points
from ui.words import LIVE, Report, count, duration, holder, size_words

RECENT_STEPS = 10
CONCERN = 0.5 * SUFFERING
LONGEST_LABEL = 3  # settings named in a folded group's line
FEW_HELD_OUT = 20  # pairs kept for validation, below which one pair moves the accuracy by more than a person would think
PLACES = {1: "next in line", 2: "second in line", 3: "third in line"}
ENDED = ("interrupted", "finished", "stopped", "damaged", "failed")


def group_label(section: str, values: dict[str, object]) -> str:
    """A folded group's name, with what in it is not at its default: "Loss: ipo, label smoothing 0.1"."""
    said = []
    for name, field in TrainConfig.__dataclass_fields__.items():
        if field.metadata["section"] != section or name == "model" or values[name] == field.default:
            continue
        label, value = field.metadata["label"].lower(), values[name]
        if isinstance(value, bool):
            said.append(label if value else f"no {label}")
        elif isinstance(value, str):
            said.append(f"{label} {value.rpartition('/')[2]}" if name not in ("loss", "optimizer", "execution") else value)
        else:
            said.append(f"{label} {value:g}" if value is not None else f"no {label}")
    if len(said) > LONGEST_LABEL:
        said[LONGEST_LABEL:] = [f"{len(said) - LONGEST_LABEL} more"]
    return f"{section}: {', '.join(said)}" if said else section


def loss_words(text: str) -> list[dict[str, str]]:
    """When to use each of the losses named, or what is wrong with how they are named."""
    try:
        names = parse_losses(text)
    except StudioError as error:
        return [{"text": str(error), "tone": "bad"}]
    if len(names) == 1:
        return [{"text": LOSSES[name].summary} for name in names]
    return [{"text": f"{name}, weight {weight:g}: {LOSSES[name].summary}"} for name, weight in names.items()]


def data_line(items: Sequence, chosen: Sequence, config: TrainConfig) -> str:
    """What training would be given, of what there is, and how much of it is kept out to measure on."""
    noun = config.data.removesuffix("s")
    if len(chosen) < MINIMUM_PAIRS:
        have = count(len(chosen), noun) if chosen else f"No {noun}s"
        if len(items) >= MINIMUM_PAIRS:
            return f"{have} of {len(items):,} left by the filters in Pairs below: training needs at least {MINIMUM_PAIRS}."
        return f"{have} yet: training needs at least {MINIMUM_PAIRS}. Pick some in Pairs."
    amount = count(len(chosen), noun) if len(chosen) == len(items) else f"{len(chosen):,} of {count(len(items), noun)}"
    prompts = len({item.prompt for item in chosen})
    _, held_out = split_pairs(chosen, config.validation_share)
    line = f"{amount} from {count(prompts, 'prompt')}"
    if not held_out:
        return f"{line}; none kept for validation, so accuracy is measured on what was trained."
    line += f"; {count(len({item.prompt for item in held_out}), 'prompt')} kept for validation"
    if len(held_out) < FEW_HELD_OUT:
        return f"{line}, with {count(len(held_out), noun)}: one {noun} is {1 / len(held_out):.0%}."
    return f"{line}, with {count(len(held_out), noun)}."


def prompts_line(items: Sequence) -> str:
    """What is done with prompts that hold more than words; "" if none does."""
    prompts = {item.prompt for item in items}
    tags, embeddings, brackets = count_syntax(prompts)
    said = [
        f"{number:,} {'has' if number == 1 else 'have'} {what}"
        for number, what in (
            (tags, "LoRA tags, which are left out"),
            (embeddings, "embeddings, which are left out"),
            (brackets, "brackets, whose weights count for Stable Diffusion 1.x, 2.x and SDXL alone"),
        )
        if number
    ]
    return f"Of {count(len(prompts), 'prompt')}, {', '.join(said)}." if said else ""


def run_state(run: Run, status: RunStatus, job: Job | None) -> str:
    """What is true of a run: its folder says what was written, only the registry knows whether anyone still writes."""
    is_begun = status.state in ("running", "paused")
    if job is not None and job.is_active:
        if job.state == "queued":
            return "queued"
        if job.stop.is_set():
            return "stopping"
    elif not (status.state == "new" or is_begun) or not run.is_held:  # held: another process trains it, by the command line
        return _ended(status, job)
    if not is_begun:
        return "preparing"
    return "stopping" if run.stop_requested() else "paused" if run.pause_requested() else "training"


def report_run(run: Run, events: Sequence[Event], status: RunStatus, jobs: JobRegistry) -> Report:
    job = jobs.find("train", run.name)
    state = run_state(run, status, job)
    place = f"step {status.step:,} of {status.total_steps:,}" if status.total_steps else "before its first step"
    done, total = status.step, status.total_steps
    tone, detail = _health(events, run.config)
    if state == "queued":
        headline = f"{run.name} waits, {place_words(queue_place(run.name, jobs))}."
        detail = f"{holder(jobs)} has the device."
    elif state == "preparing":
        note = next((event for event in reversed(events) if isinstance(event, Note)), Note(0, "Starting"))
        done, total = note.done, note.total
        amount = f", {note.done:,} of {note.total:,}" if note.total else ""
        headline, detail = f"{run.name} is being prepared.", f"{note.message.rstrip('.')}{amount}."
    elif state == "training":
        headline = f"{run.name} is training: {place}{_pace(events, status)}."
        detail = detail or "The first step is being made."
    elif state == "paused":
        headline, detail = f"{run.name} is paused: {place}.", "It keeps the device, so what waits in the queue waits on."
    elif state == "stopping":
        headline, detail = f"{run.name} is stopping: {place}.", "It ends after this step and keeps what was learned."
    elif state == "interrupted":
        headline = f"{run.name} stopped unexpectedly {'at ' if status.total_steps else ''}{place}."
        tone, detail = "warn", f"Whatever trained it was closed or broke down. {run.resume_words}"
    elif state == "finished":
        headline = f"{run.name} finished: {count(status.step, 'step')}{_accuracy(events, status)}."
        detail = f"{status.message} {detail}".strip() if status.step < status.total_steps else detail
    elif state == "stopped":
        headline = f"{run.name} was stopped {'at ' if status.total_steps else ''}{place}{_accuracy(events, status)}."
        detail = f"What it learned is kept. {detail}".strip() if status.step else "Resume starts it again."
    elif state == "damaged":
        tone, headline = "bad", f"{run.name} was stopped at {place}, because it was damaging the images."
        detail = status.message or detail
    else:
        tone, headline = "bad", f"{run.name} failed {'at ' if status.total_steps else ''}{place}."
        detail = status.message if status.state == "failed" else (job.message if job else "")
    return Report(state, headline, detail, tone, done, total)


def broken_report(run: Run, problem: str) -> Report:
    """Of a run whose folder cannot be read."""
    return Report("unreadable", f"{run.name} cannot be read.", problem, "bad", 0, 0)


def queue_place(name: str, jobs: JobRegistry) -> int:
    """The place of a waiting run, from 1."""
    waiting = [job.key for job in jobs.active() if job.state == "queued"]
    return waiting.index(name) + 1 if name in waiting else 1


def place_words(place: int) -> str:
    return PLACES.get(place, f"{place}th in line")


def run_row(run: Run, jobs: JobRegistry) -> dict:
    """One line of the list of runs, without what depends on who looks."""
    try:
        config, number, status, events = run.config, len(run.items), run.status(), run.events()
    except StudioError as error:
        nothing = {"pairs": "", "steps": "", "accuracy": "", "download": False}
        return {"name": run.name, **nothing, "state": "unreadable", "tone": "bad", "problem": str(error), "actions": ["delete"]}
    state = run_state(run, status, jobs.find("train", run.name))
    is_live, place = state in LIVE, queue_place(run.name, jobs)
    steps = config.max_steps if not status.total_steps else status.total_steps
    best = best_accuracy(events)
    return {
        "name": run.name,
        "pairs": f"{number:,}",
        "steps": f"{steps:,}" if is_live else f"{status.step:,} of {steps:,}",
        "accuracy": "" if best is None or is_live else f"{best:.0%}",
        "state": f"waits, {place_words(place)}" if state == "queued" else state,
        "tone": {"damaged": "bad", "failed": "bad", "interrupted": "warn"}.get(state, "calm"),
        "problem": "",
        "actions": _actions(state, status.step > 0, place),
    }


def best_accuracy(events: Sequence[Event]) -> float | None:
    """Of the validations; of the last step where nothing was kept out."""
    held_out = metric_points(events, "rewards/accuracies", ValidationEnd)
    if held_out:
        return max(value for _, value in held_out)
    trained = metric_points(events, "rewards/accuracies")
    return trained[-1][1] if trained else None


def estimate_line(config: TrainConfig, items: int, runs: Sequence[Run]) -> str:
    """How long a run would take, by the pace of the newest run of the same model on this machine; "" if there is none."""
    for run in runs:
        try:
            known = run.config
            pace = run.status().seconds_per_step if known.model == config.model else None
        except StudioError:  # a run that cannot be read says nothing
            continue
        if pace:
            seconds = pace / work(known) * work(config) * config.num_steps(items)
            return f"About {duration(seconds)} for {count(config.num_steps(items), 'step')}, by the pace of {run.name}."
    return ""


def finding_lines(events: Sequence[Event], config: TrainConfig) -> list[dict[str, str]]:
    """What the curves mean and what to try."""
    return [{"text": finding.text, "advice": finding.advice, "tone": "calm"} for finding in diagnose(events, config)]


def warnings_of(events: Sequence[Event]) -> list[dict[str, str]]:
    """What a run warned of, each once, the newest last."""
    said = dict.fromkeys(event.message for event in events if isinstance(event, Note) and event.tone == "warning")
    return [{"text": message, "tone": "warn"} for message in said]


def log_lines(events: Sequence[Event]) -> str:
    """The notes of a run, one a line, each at most once in a row."""
    lines: list[str] = []
    for event in events:
        words = getattr(event, "message", "") or (f"checkpoint {event.path}" if hasattr(event, "path") else "")
        line = f"step {event.step:>5}  {words}"
        if words and (not lines or lines[-1] != line):
            lines.append(line)
    return "\n".join(lines)


def _ended(status: RunStatus, job: Job | None) -> str:
    if status.state in ("new", "running", "paused"):
        return job.state if job is not None and job.state in ("failed", "stopped") else "interrupted"
    return status.state


def _actions(state: str, has_curves: bool, place: int) -> list[str]:
    """What can be asked of a run from the list; what can be asked of the shown one stands above it."""
    compare = ["compare"] if has_curves else []
    if state == "queued":
        return ["sooner", "clone", "remove"] if place > 1 else ["clone", "remove"]
    return [*compare, "clone", *(["delete"] if state in ENDED else [])]


def _pace(events: Sequence[Event], status: RunStatus) -> str:
    """How fast, how long, how much memory, as far as known."""
    said = []
    if status.seconds_per_step:
        pace = status.seconds_per_step
        said.append(f"{1 / pace:.1f} steps/s" if pace < 1 else f"{pace:.1f} s a step")
        said.append(f"{duration(status.seconds_left)} left")
    memory = metric_points(events[-RECENT_STEPS:], "memory_bytes")
    if memory:
        said.append(f"{size_words(round(memory[-1][1]))} of memory")
    return "".join(f", {words}" for words in said)


def _accuracy(events: Sequence[Event], status: RunStatus) -> str:
    if status.accuracy is None:
        return ""
    started = next((event for event in reversed(events) if isinstance(event, RunStarted)), None)
    if started is None or not started.num_validation:
        return f", accuracy {status.accuracy:.0%} on the pairs it trained on"
    return f", accuracy {status.accuracy:.0%} on {count(started.num_validation, 'pair')} kept out of training"


def reference_words(config: TrainConfig) -> str:
    """What the policy's errors are compared with."""
    return "the base model" if config.reference_mode in ("base", "none") and not config.ref_model_sync_steps else "the reference"


def _health(events: Sequence[Event], config: TrainConfig) -> tuple[str, str]:
    """(tone, sentence) from the chosen error over the reference's, mean of the last steps."""
    recent = metric_points([event for event in events if isinstance(event, StepEnd)][-RECENT_STEPS:], "errors/chosen_drift")
    if not recent:
        return "calm", ""
    drift = sum(value for _, value in recent) / len(recent)
    is_over = isinstance(events[-1], RunEnded)
    stops = "" if is_over or config.on_damage == "warn" else f" The run stops itself at {config.max_chosen_drift:g}."
    than = f"{abs(drift):.3f} {'worse' if drift > 0 else 'better'} than" if abs(drift) >= 0.0005 else "as well as"
    measured = f"chosen images are denoised {than} by {reference_words(config)}"
    if drift >= SUFFERING:
        again = "Start again" if is_over else "Stop, and start again"
        return "bad", f"Images suffer: {measured}. {again} with a lower learning rate.{stops}"
    if drift >= CONCERN:
        return "warn", f"Worth watching: {measured}; past {SUFFERING:g} images suffer.{stops}"
    return "calm", f"No damage: {measured}; past {SUFFERING:g} images would suffer."
