"""What Look asks of the app: how the newest look is doing and its rows, stopping it, saving it, and how two images differ.

A look is known to the page by a digest of its job's key, which is a folder and nobody's business.
"""

from __future__ import annotations

from pathlib import Path

from dpo.compare import CompareError, LookRequest, LookRow, save_look
from dpo.jobs import Job
from dpo.pixels import PixelError, mean_difference
from dpo.runs import list_runs
from ui.downloads import export_url
from ui.images import file_url
from ui.rights import open_to
from ui.session import Studio, limit
from ui.words import count, report_look, shown_prompt

GRID_FILE = "grid.png"  # as `save_look` names it
MOST_ROWS = 24  # in one answer: each image is drawn for the page first
EMPTY = "Nothing compared yet. Choose an adapter and press Compare: the base model and the adapter paint the same prompts here."
NO_ADAPTER = "No adapter yet. Train a run first; it appears here when it is done."


@open_to("viewer")
def answer_state(studio: Studio, payload: dict) -> dict:
    """The newest look: its report, its variants, and of its rows those that come after the `have` the page has of it.

    `made` is how many there are by now; `key` "" says that there is no look, and `empty` what to do about that.
    """
    job = newest_look(studio)
    if job is None:
        has_adapter = any(run.adapter.exists() for run in list_runs(studio.project.runs))
        nothing = {"key": "", "is_active": False, "variants": [], "rows": [], "made": 0}
        return nothing | {"empty": EMPTY if has_adapter else NO_ADAPTER}
    rows, key = list(job.result or []), _key(studio, job)
    start = limit(payload.get("have"), len(rows)) if payload.get("key") == key else 0
    return {
        "key": key, "is_active": job.is_active, "is_stopping": job.stop.is_set(), "made": len(rows),
        "report": report_look(job, studio.jobs).shown(),
        "variants": [{"label": variant.name} for variant in job.request.variants],
        "rows": [_describe(studio, row) for row in rows[start : start + MOST_ROWS]],
    }  # fmt: skip


def answer_stop(studio: Studio, payload: dict) -> dict:
    _asked_for(studio, payload).stop.set()
    return {}


def answer_save(studio: Studio, payload: dict) -> dict:
    """Save all images, and a grid of them, into the project's exports; `link` is the grid's address."""
    job = _asked_for(studio, payload)
    rows = list(job.result or [])
    folder = save_look(studio.project, job.request, rows)
    images = count(sum(len(row.images) for row in rows), "image")
    return {"text": f"Saved {images} and a grid of them in {folder}.", "link": export_url(studio, f"{folder.name}/{GRID_FILE}")}


@open_to("viewer")
def answer_difference(studio: Studio, payload: dict) -> dict:
    """How far the base's image and another variant's of the row are apart, in words."""
    job = _asked_for(studio, payload)
    rows, variants = list(job.result or []), job.request.variants
    if not rows:
        raise CompareError("There is no image yet. Wait for the first row.")
    row = rows[limit(payload.get("row"), len(rows) - 1)]
    difference = mean_difference(row.images[0], row.images[limit(payload.get("variant"), len(variants) - 1)])
    return {"text": difference_words(difference)}


def difference_words(difference: float) -> str:
    """`difference` as of `mean_difference`."""
    if difference == 0:
        return "Identical: no pixel differs."
    return f"Mean difference {difference:.3g} of 255. Shown four times as bright."


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "look_state": answer_state, "look_stop": answer_stop, "look_save": answer_save, "look_difference": answer_difference,
}  # fmt: skip


def newest_look(studio: Studio) -> Job | None:
    job = studio.jobs.find("compare")
    return job if job is not None and isinstance(job.request, LookRequest) else None


def _asked_for(studio: Studio, payload: dict) -> Job:
    """The look the page shows, while it is the newest. Raises CompareError."""
    job = newest_look(studio)
    if job is None or payload.get("key") != _key(studio, job):
        raise CompareError("A newer comparison has taken the place of this one.")
    return job


def _key(studio: Studio, job: Job) -> str:
    return studio.sign("look", job.key)


def _describe(studio: Studio, row: LookRow) -> dict:
    return {"prompt": shown_prompt(row.prompt), "seed": row.seed, "images": [_addresses(studio, path) for path in row.images]}


def _addresses(studio: Studio, path: Path) -> dict[str, str] | None:
    """None for an image that was deleted since: the others are still worth showing."""
    try:
        return {kind: file_url(studio, path, kind) for kind in ("full", "thumb")}
    except PixelError:
        return None
