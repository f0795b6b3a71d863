"""What the page says, as sentences: durations, counts, the job line, reports. Pure functions, no gradio.

What is said of runs: train_words.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpo.catalogue import Catalogue
from dpo.claims import Claimant
from dpo.jobs import Job, JobRegistry

LIVE = ("queued", "preparing", "training", "paused", "stopping")
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
SOURCE_WORDS = {"best_worst": "best and worst", "duel": "duels", "triage": "triage"}
JOB_TABS = {
    "train": "train", "probe": "train", "export": "train", "compare": "compare", "test": "compare", "candidates": "pairs",
    "score": "pairs", "score_test": "compare",
}  # fmt: skip
LONGEST_PROMPT = 5000  # characters of one that the page takes among others; people write hundreds


def shown_prompt(prompt: str) -> str:
    """A prompt as a list takes it: of one that is longer than anybody reads, its beginning and how long it is."""
    if len(prompt) <= LONGEST_PROMPT:
        return prompt
    return f"{prompt[:LONGEST_PROMPT]}... ({len(prompt):,} characters)"


def duration(seconds: float) -> str:
    """A time as a person says it: "38 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def ago(seconds: float) -> str:
    """How long ago something was: "just now", "3 h ago", "5 days ago"."""
    if seconds < 90:
        return "just now"
    for size, unit in ((60, "min"), (3600, "h"), (86400, "day"), (604800, "week"), (31557600, "year")):
        if seconds >= 1.5 * size or unit == "min":
            number, words = round(seconds / size), unit
    if words not in ("min", "h") and number > 1:
        words += "s"
    return f"{number:,} {words} ago"


def size_words(size: int) -> str:
    """Bytes as a person says them: "12.3 MB"."""
    if size > 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.1f} MB" if size > 1e6 else f"{size / 1e3:,.0f} kB"


def source_words(source: str) -> str:
    """Where a pair came from, as the review says it."""
    return SOURCE_WORDS.get(source, source)


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


def job_line(job: Job | None, elsewhere: Claimant | None = None) -> str:
    """The right end of the top line: "training demo-1, 41%, 38 s left", or "idle". `elsewhere`: another process that has the
    device, or else the queue."""
    if job is None:
        return f"{elsewhere.doing or 'other work'}: {elsewhere}" if elsewhere else "idle"
    if job.state == "queued":
        return f"{job.title} waits for {elsewhere.doing or 'other work'}" if elsewhere else f"{job.title} waits"
    parts = [f"{job.title}: stopping" if job.stop.is_set() else job.title]
    is_preparing = job.kind == "train" and job.message not in ("", "training")
    if is_preparing:
        parts = [f"{job.title}: {job.message[:1].lower()}{job.message[1:].rstrip('.')}"]
    if job.total:
        parts.append(f"{job.done / job.total:.0%}")
    if job.seconds_left is not None and not is_preparing:
        parts.append(f"{duration(job.seconds_left)} left")
    return ", ".join(parts)


@dataclass(frozen=True)
class Report:
    """How a run or a comparison is doing, for the lines beside it. `tone`: "calm", "warn" or "bad"; bar: `done` of `total`."""

    state: str  # one of LIVE, else "interrupted", "finished", "stopped", "damaged", "failed" or "unreadable"
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


def report_look(job: Job, jobs: JobRegistry) -> Report:
    """How a look is doing: its request says how many images there will be, its progress how far they are."""
    asked = job.request
    images = len(asked.prompts) * len(asked.seeds) * len(asked.variants)
    made = sum(len(row.images) for row in job.result or [])
    failed = job.state == "failed"
    if job.state == "queued":
        headline, detail = "The comparison waits.", f"{holder(jobs)} has the device; this is next in line."
    elif job.is_active and job.stop.is_set():
        headline, detail = "Stopping.", "What is done is kept."
    elif job.is_active and not job.total:
        headline, detail = "Getting ready.", f"{job.message[:1].upper()}{job.message[1:]}." if job.message else ""
    elif job.is_active:
        left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        headline, detail = f"{images * job.done // job.total} of {count(images, 'image')}{left}.", "Stop keeps what is done."
    elif failed:
        headline, detail = "The comparison failed.", job.message
    else:
        headline = f"{count(made, 'image')}{f' of {images:,}, stopped' if job.state == 'stopped' else ''}."
        detail = "Same prompt, same seed, same noise; only the adapter differs."
    tone = "bad" if failed else "calm"
    return Report("training" if job.is_active else job.state, headline, detail, tone, job.done, job.total)


def holder(jobs: JobRegistry) -> str:
    """Whoever has the device, as the beginning of a sentence."""
    current, guest = jobs.current(), jobs.guest()
    if guest:
        return f"{(guest.doing or 'other work').capitalize()} ({guest})"
    return current.title.capitalize() if current else "Another job"
