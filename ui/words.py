"""What the page says, as sentences: durations, the job line, how a run is doing. Pure functions, no gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpo.catalogue import Catalogue
from dpo.events import Event, Note, RunStarted, StepEnd
from dpo.groups import normalise_prompt
from dpo.jobs import Job, JobRegistry
from dpo.pairs import Pair
from dpo.runs import MINIMUM_PAIRS, Run, RunStatus
from ui.plots import SUFFERING, metric_points

LIVE = ("queued", "preparing", "training", "stopping")
RECENT_STEPS = 10
CONCERN = 0.5 * SUFFERING
SILENT = ("no_metadata", "unknown_metadata", "no_prompt")  # reasons a typed or borrowed prompt does away with
REASON_WORDS = {  # of one image, of several
    "unreadable": ("cannot be opened",) * 2,
    "not_image": ("is no image", "are no images"),
    "damaged": ("cut short or damaged",) * 2,
    "no_metadata": ("without metadata",) * 2,
    "unknown_metadata": ("with unknown metadata",) * 2,
    "no_prompt": ("without a prompt",) * 2,
    "alone": ("alone with its prompt", "alone with their prompt"),
    "copy": ("copy", "copies"),
}
REASON_ADVICE = {
    "no_metadata": "These files do not say how they were made: an editor or a website took it out. Type their prompts here, "
    "or take them from elsewhere with the boxes above.",
    "unknown_metadata": "These files hold texts, but of no program we know. Look at the raw text; a prompt can be typed here.",
    "no_prompt": "These files say how they were made, but name no prompt. It can be typed here.",
    "alone": "Nothing to compare them with: no other image has their prompt and shape. Generate more seeds of these prompts, or "
    "look under Grouping whether LoRA tags or upper case keep them apart.",
    "copy": "The same picture as another file that is used. One of each is enough.",
    "damaged": "These files end too early or are broken inside. Save or download them again, then scan.",
    "unreadable": "The system does not let these files be opened. Check that they are there and may be read, then scan.",
    "not_image": "Named like images, but not images inside.",
}
CERTAINTY_WORDS = {
    "exact": "exact, from the program's own field",
    "derived": "worked out from the graph",
    "guess": "a guess: several texts might be the prompt",
    "given": "given by you: typed, or taken from beside the image",
}
JOB_TABS = {"train": "train", "compare": "compare", "candidates": "pairs"}


def duration(seconds: float) -> str:
    """A time as a person says it: "38 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def reason_words(code: str, number: int) -> str:
    """How many images are left out and why, short: "38 without a prompt"."""
    one, several = REASON_WORDS.get(code, (code, code))
    return f"{number:,} {one if number == 1 else several}"


def certainty_words(certainty: str) -> str:
    return CERTAINTY_WORDS.get(certainty, "")


def summary_line(whole: Catalogue, chosen: Catalogue) -> str:
    """One line for a scanned folder: "360 images, 60 prompts, 3 without a prompt: why?", and what is picked from if it is
    not all of it."""
    line = f"{count(whole.images, 'image')}, {count(whole.prompts, 'prompt')}"
    left_out = sum(number for code, number in whole.reasons.items() if code != "copy")
    silent = sum(whole.reasons.get(code, 0) for code in SILENT)
    if left_out:
        line += f", {left_out:,} {'without a prompt' if left_out == silent else 'left out'}: why?"
    if len(chosen.lines) != len(whole.lines):
        line += f" Picking from {len(chosen.lines):,} of {count(len(whole.lines), 'group')}."
    return line


def useless_folder(folder: str, whole: Catalogue) -> str:
    """Why nothing can be picked from a scanned folder, and what to do; "" if something can."""
    if whole.lines or not whole.images:
        return ""
    if not whole.prompts:
        return f"{folder}: {count(whole.images, 'image')}, and none says its prompt. For example, {whole.example}"
    return (
        f"{folder}: {count(whole.images, 'image')}, and no two of them share prompt and shape. "
        "Generate several images of each prompt, with different seeds."
    )


def job_line(job: Job | None) -> str:
    """The right end of the top line: "training demo-1, 41%, 38 s left", or "idle"."""
    if job is None:
        return "idle"
    if job.state == "queued":
        return f"{job.title} waits"
    parts = [f"{job.title}: stopping" if job.stop.is_set() else job.title]
    is_preparing = job.kind == "train" and job.message not in ("", "training")
    if is_preparing:
        parts = [f"{job.title}: {job.message[:1].lower()}{job.message[1:].rstrip('.')}"]
    if job.total:
        parts.append(f"{job.done / job.total:.0%}")
    if job.seconds_left is not None and not is_preparing:
        parts.append(f"{duration(job.seconds_left)} left")
    return ", ".join(parts)


def pairs_line(pairs: Sequence[Pair], validation_share: float) -> str:
    """What training would be given, and how much of it is kept out to measure on."""
    if len(pairs) < MINIMUM_PAIRS:
        have = count(len(pairs), "pair") if pairs else "No pairs"
        return f"{have} yet: training needs at least {MINIMUM_PAIRS}. Pick some in Pairs."
    prompts = len({normalise_prompt(pair.prompt) for pair in pairs})
    kept = round(validation_share * prompts)
    line = f"{count(len(pairs), 'pair')} from {count(prompts, 'prompt')}"
    if not kept:
        return f"{line}; none kept for validation, so accuracy is measured on what was trained."
    return f"{line}; {count(kept, 'prompt')} kept for validation."


@dataclass(frozen=True)
class Report:
    """How a run or a comparison is doing, for the lines beside it. `tone`: "calm", "warn" or "bad"; bar: `done` of `total`."""

    state: str  # "queued", "preparing", "training", "stopping", "interrupted", "finished", "stopped", "damaged", "failed"
    headline: str
    detail: str
    tone: str
    done: int
    total: int

    def shown(self) -> dict:
        """What the page's report part takes."""
        names = ("headline", "detail", "tone", "done", "total")
        return {name: getattr(self, name) for name in names} | {"total": self.total if self.is_live else 0}

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def can_resume(self) -> bool:
        return self.state in ("interrupted", "stopped", "failed")


def run_state(status: RunStatus, job: Job | None) -> str:
    """What is true of a run: its folder says what was written, only the registry knows whether anyone still writes."""
    if job is not None and job.is_active:
        if job.state == "queued":
            return "queued"
        if job.stop.is_set():
            return "stopping"
        return "training" if status.state == "running" else "preparing"
    if status.state in ("new", "running"):
        return job.state if job is not None and job.state in ("failed", "stopped") else "interrupted"
    return status.state


def report_run(run: Run, events: Sequence[Event], status: RunStatus, jobs: JobRegistry) -> Report:
    job = jobs.find("train", run.name)
    state = run_state(status, job)
    place = f"step {status.step:,} of {status.total_steps:,}" if status.total_steps else "before its first step"
    done, total = status.step, status.total_steps
    tone, detail = _diagnosis(events, run.config.max_chosen_drift)
    if state == "queued":
        headline, detail = f"{run.name} waits.", f"{_holder(jobs)} has the device; this run is next in line."
    elif state == "preparing":
        note = next((event for event in reversed(events) if isinstance(event, Note)), Note(0, "Starting"))
        done, total = note.done, note.total
        amount = f", {note.done:,} of {note.total:,}" if note.total else ""
        headline, detail = f"{run.name} is being prepared.", f"{note.message.rstrip('.')}{amount}."
    elif state == "training":
        pace = f", {1 / status.seconds_per_step:.1f} steps/s" if status.seconds_per_step else ""
        left = f", {duration(status.seconds_left)} left" if status.seconds_per_step else ""
        headline = f"{run.name} is training: {place}{pace}{left}."
        detail = detail or "The first step is being made."
    elif state == "stopping":
        headline, detail = f"{run.name} is stopping: {place}.", "It ends after this step and keeps what was learned."
    elif state == "interrupted":
        headline = f"{run.name} was interrupted {'at ' if status.total_steps else ''}{place}."
        tone, detail = "warn", "The app closed while it trained. Resume goes on from its last checkpoint."
    elif state == "finished":
        headline = f"{run.name} finished: {count(status.total_steps, 'step')}{_accuracy(events, status)}."
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


def report_comparison(job: Job, jobs: JobRegistry) -> Report:
    made = len(job.result or [])
    failed = job.state == "failed"
    if job.state == "queued":
        headline, detail = "The comparison waits.", f"{_holder(jobs)} has the device; this is next in line."
    elif job.is_active and job.stop.is_set():
        headline, detail = "Stopping.", "What is done is kept."
    elif job.is_active and not job.total:
        headline, detail = "Getting ready.", f"{job.message[:1].upper()}{job.message[1:]}."
    elif job.is_active:
        # Progress comes in hundredths of a row.
        left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        headline, detail = f"{made} of {job.total // 100} done{left}.", "Stop keeps what is done."
    elif failed:
        headline, detail = "The comparison failed.", job.message
    else:
        headline = f"{count(made, 'comparison')}{', stopped' if job.state == 'stopped' else ''}."
        detail = "Same prompt, same seed, same noise; only the adapter differs. Hold F over a row to flip."
    tone = "bad" if failed else "calm"
    return Report("training" if job.is_active else job.state, headline, detail, tone, job.done, job.total)


def run_row(run: Run, jobs: JobRegistry, is_shown: bool) -> dict:
    """One line of the list of runs."""
    status = run.status()
    state = run_state(status, jobs.find("train", run.name))
    is_live = state in LIVE
    return {
        "name": run.name,
        "pairs": f"{len(run.pairs):,}",
        "steps": f"{run.config.max_steps:,}" if is_live else f"{status.step:,} of {run.config.max_steps:,}",
        "accuracy": "" if status.accuracy is None else f"{status.accuracy:.0%}",
        "state": state,
        "tone": {"damaged": "bad", "failed": "bad", "interrupted": "warn"}.get(state, "calm"),
        "shown": is_shown,
    }


def estimate_line(runs: Sequence[Run]) -> str:
    """How fast the newest run with a pace went, as the best guess for the next."""
    for run in runs:
        status = run.status()
        if status.seconds_per_step:
            return f"{run.name} took {duration(status.seconds_per_step * 100)} per 100 steps."
    return ""


def log_lines(events: Sequence[Event]) -> str:
    """The notes of a run, one a line, each at most once in a row."""
    lines: list[str] = []
    for event in events:
        words = getattr(event, "message", "") or (f"checkpoint {event.path}" if hasattr(event, "path") else "")
        line = f"step {event.step:>5}  {words}"
        if words and (not lines or lines[-1] != line):
            lines.append(line)
    return "\n".join(lines)


def _holder(jobs: JobRegistry) -> str:
    current = jobs.current()
    return current.title.capitalize() if current else "Another job"


def _accuracy(events: Sequence[Event], status: RunStatus) -> str:
    if status.accuracy is None:
        return ""
    started = next((event for event in reversed(events) if isinstance(event, RunStarted)), None)
    if started is None or not started.num_validation:
        return f", accuracy {status.accuracy:.0%} on the pairs it trained on"
    return f", accuracy {status.accuracy:.0%} on {count(started.num_validation, 'pair')} kept out of training"


def _diagnosis(events: Sequence[Event], limit: float) -> tuple[str, str]:
    """(tone, sentence) from the chosen error over the reference's, mean of the last steps."""
    recent = metric_points([event for event in events if isinstance(event, StepEnd)][-RECENT_STEPS:], "errors/chosen_drift")
    if not recent:
        return "calm", ""
    drift = sum(value for _, value in recent) / len(recent)
    stops = f" The run stops itself at {limit:g}." if limit else ""
    measured = f"chosen images are denoised {abs(drift):.3f} {'worse' if drift > 0 else 'better'} than by the base model"
    if drift >= SUFFERING:
        return "bad", f"Images suffer: {measured}. Stop, and start again with a lower learning rate.{stops}"
    if drift >= CONCERN:
        return "warn", f"Worth watching: {measured}; past {SUFFERING:g} images suffer.{stops}"
    return "calm", f"Healthy: {measured}; past {SUFFERING:g} images would suffer."
