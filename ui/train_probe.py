"""Beside the strength: a button that measures what a strength does on these pairs, before a run is spent on a wrong one.

The probe is a job like any other (dpo/probe.py): it waits its turn for the device, and a reload finds it again.
"""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from dpo.diagnosis import SEPARATED
from dpo.jobs import Job, JobRegistry
from ui.train_parts import list_part
from ui.words import holder


class Probe(NamedTuple):
    """`seen` says what stands in the report now, and is kept by the page (see `Seen` in train_view.py)."""

    measure: gr.Button
    report: gr.HTML
    use: gr.Button
    seen: gr.Textbox


def create_probe() -> Probe:
    with gr.Row(elem_classes="probe-row"):
        measure = gr.Button("Measure", size="sm", elem_id="measure-beta")
        use = gr.Button("Use it", size="sm", visible=False, elem_id="use-beta")
    return Probe(measure, list_part("probe-report"), use, gr.Textbox("", visible=False))


def draw_probe(jobs: JobRegistry, seen: str) -> tuple:
    """Updates for a Probe, in its order; all skipped if nothing changed since `seen`."""
    job = jobs.find("probe")
    standing = f"{id(job)} {job.state} {job.done} {job.message}" if job else ""
    if standing == seen:
        return tuple(gr.skip() for _ in Probe._fields)
    suggested = suggestion(job)
    is_active = job is not None and job.is_active
    return Probe(
        measure=gr.Button("Measuring" if is_active else "Measure", interactive=not is_active),
        report=gr.HTML(lines=probe_lines(job, jobs)),
        use=gr.Button(f"Use {suggested:g}" if suggested else "Use it", visible=suggested is not None),
        seen=standing,
    )


def suggestion(job: Job | None) -> float | None:
    """The strength a finished probe suggests."""
    return job.result.get("probe/suggested_beta") if job is not None and job.state == "done" else None


def probe_lines(job: Job | None, jobs: JobRegistry) -> list[dict[str, str]]:
    """How the probe is doing, or what it found."""
    if job is None or job.state == "stopped":
        return []
    if job.state == "failed":
        return [{"text": job.message, "tone": "bad"}]
    if job.state == "queued":
        return [{"text": f"{holder(jobs)} has the device; the measurement is next in line."}]
    if job.is_active:
        amount = f", {job.done:,} of {job.total:,}" if job.total else ""
        return [{"text": f"{job.message.rstrip('.') or 'Getting ready'}{amount}."}]
    return _findings(job.result)


def _findings(metrics: dict[str, float]) -> list[dict[str, str]]:
    lines = []
    if "probe/suggested_beta" in metrics:
        lines.append(
            {
                "text": f"One step moves the margin by {metrics['probe/margin_p50']:.2g} or more for half the pairs, by "
                f"{metrics['probe/margin_p90']:.2g} or more for a tenth; {metrics['probe/saturated']:.0%} of the pairs are "
                f"saturated. Suggested: {metrics['probe/suggested_beta']:g}.",
                "tone": "calm",
            }
        )
    else:
        lines.append({"text": "With this loss and optimizer one step says nothing of the strength."})
    if metrics.get("probe/base_separates", 0.0) >= SEPARATED:
        told = f"The base model tells {metrics['probe/base_separates']:.0%} of the pairs apart by itself"
        lines.append({"text": f"{told}: there is little left to learn from them.", "tone": "warn"})
    return lines
