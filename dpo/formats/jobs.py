"""Exports as the page and the command line ask for them: of a run, or of a file. Imports nothing heavy before it must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.formats import ExportError, check_offer
from dpo.formats.origin import Origin, described
from dpo.jobs import Job, JobRegistry
from dpo.runs import Run

if TYPE_CHECKING:
    from dpo.families import Family
    from dpo.formats.writing import Exported
    from dpo.project import Project


def start_export(project: Project, jobs: JobRegistry, run: Run, format: str, precision: str) -> Job:
    """Queue the export of a run into the project's exports; the job's result becomes an `Exported`.

    Raises ExportError for what can be known to be wrong before a model loads, and AlreadyRunning.
    """
    check_run(run, format)

    def work(job: Job) -> Exported:
        folder = project.exports / f"{run.name}-{format}-{precision}"
        return export_run(run, format, precision, folder, lambda text: job.report(0, 0, text))

    return jobs.submit("export", f"exporting {run.name}", run.name, work)


def check_run(run: Run, format: str) -> None:
    """Raises ExportError if the run has learned nothing yet, or what it learned is not offered in this format."""
    if not run.adapter.is_file():
        raise ExportError(f"{run.name} has no adapter yet. Let it finish, or stop it: what it learned is kept.")
    pipeline, kind = described(run.adapter)
    if pipeline and kind:  # runs of older versions do not say
        check_offer(pipeline, kind, format)


def export_run(run: Run, format: str, precision: str, folder: Path, report: Callable[[str], None]) -> Exported:
    """Into `folder`: the run's adapter in that format, and its card."""
    from dpo.formats.writing import export_adapter

    check_run(run, format)
    config = run.config
    open_family = _opener(config.model, config.precision, config.base)
    return export_adapter(open_family, run.adapter, Origin.of_run(run), format, precision, folder, report)


def export_file(path: Path, model: str, format: str, precision: str, folder: Path, report: Callable[[str], None]) -> Exported:
    """Into `folder`: an adapter file of any origin in that format, and a card with what its header tells. model: its base."""
    from dpo.formats.writing import export_adapter

    return export_adapter(_opener(model, "auto", {}), path, Origin.of_file(path, model), format, precision, folder, report)


def _opener(model: str, precision: str, base: dict[str, object]) -> Callable[[], Family]:
    def open_family() -> Family:
        from dpo.families import load_family
        from dpo.models import load_pipeline

        return load_family(load_pipeline(model, precision, **base))

    return open_family
