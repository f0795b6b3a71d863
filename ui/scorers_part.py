"""AI feedback: a scorer judges the images being picked from, says how often it agrees with the picks, and proposes pairs.

One gr.HTML component (scorers.js). Scoring is a job in the queue: the page asks how it is doing, and a reload sees the same.
What scorers are: `dpo.scorer_choice`; proposals wait in the review.
"""

from __future__ import annotations

from functools import partial

import gradio as gr

from dpo import StudioError
from dpo.agreement import agreement_with_person, group_scores
from dpo.groups import View
from dpo.jobs import Job
from dpo.proposals import add_proposals, discard_proposals, propose_pairs
from dpo.runs import find_run, list_runs
from dpo.scorer_choice import USUAL_MODELS, ScorerChoice
from dpo.scores import score_library
from ui.parts import read_files
from ui.session import Session, Studio, attaching, page_session, serve
from ui.train_form import check_places
from ui.words import count, duration, holder

KIND_WORDS = {
    "pickscore": "PickScore", "clip": "CLIP score", "aesthetic": "LAION aesthetic", "adapter": "What a run has learned",
}  # fmt: skip
_OPTIONS = "".join(f'<option value="{kind}" data-usual="{USUAL_MODELS[kind]}">{KIND_WORDS[kind]}</option>' for kind in KIND_WORDS)
TEMPLATE = f"""
<section class="scorers" aria-label="AI feedback">
  <p class="help">A scorer proposes; what you say goes before it. It judges the images of the folder above that you pick from.</p>
  <form>
    <label>Scorer <select class="kind" aria-label="Scorer">{_OPTIONS}</select></label>
    <input type="text" class="model" aria-label="Model: a hub id or a folder" spellcheck="false">
    <select class="run" aria-label="Run" hidden></select>
    <button type="submit" class="button">Score</button>
    <button type="button" class="stop quiet" hidden>Stop</button>
  </form>
  <p class="problem" role="alert"></p>
  <p class="job" role="status"></p><i class="bar" hidden><b></b></i>
  <p class="facts" role="status"></p>
  <div class="pairs">
    <button type="button" class="button propose" disabled>Propose pairs to confirm</button>
    <button type="button" class="button automatic" disabled>Add automatic AI pairs</button>
    <button type="button" class="quiet discard-proposed" hidden></button>
    <button type="button" class="quiet discard-used" hidden></button>
  </div>
  <p class="said" role="status"></p>
  <p class="help">Pairs are the best against the worst of each scored group that nobody has picked from. Those to confirm wait in
    the review and train nothing until you keep them; automatic ones are used as they are, marked as AI. Both give way to what
    you pick. "Least certain first" orders the list of groups, and what is picked next.</p>
</section>
"""


def create_scorers(studio: Studio, session: gr.State) -> gr.HTML:
    part = gr.HTML(
        html_template=TEMPLATE,
        css_template=read_files("scorers.css"),
        js_on_load=read_files("elements.js", "asking.js", "scorers.js"),
        server_functions=[serve(studio, name, partial(answer, studio)) for name, answer in ANSWERS.items()],
        apply_default_css=False, elem_id="scorers", session=None, revision=None,
    )  # fmt: skip
    part.attach(attaching(studio, show_scorers, "viewer"), session, part, queue=False, show_progress="hidden")
    return part


def show_scorers(studio: Studio, session: Session) -> dict:
    """Nothing for anybody but the owner: without a session the part is silent."""
    if not session.is_owner:
        return gr.skip()
    return gr.HTML(session=page_session(studio, session), revision=studio.project.picks.revision())


def tell_scores(studio: Studio, view: View, payload: dict) -> dict:
    """How everything stands with the scorer that is chosen: the last job, agreement, and the pairs that wait."""
    project, job = studio.project, studio.jobs.find("score")
    pairs = project.picks.picked_pairs()
    return {
        "job": _describe_job(studio, job) if job else None,
        "facts": "" if job and job.state == "running" else _facts(studio, view, payload),
        "runs": [run.name for run in list_runs(project.runs) if run.adapter.is_file()],
        "proposed": sum(picked.state == "proposed" for picked in pairs),
        "used": sum(picked.state == "used" and picked.pair.source.startswith("AI: ") for picked in pairs),
    }  # fmt: skip


def begin_scoring(studio: Studio, view: View, payload: dict) -> dict:
    """`kind` and `model`, as of a `ScorerChoice`; of "adapter" the name of a run."""
    score_library(studio.project, studio.jobs, view, _choice(studio, payload))
    return tell_scores(studio, view, payload)


def stop_scoring(studio: Studio, view: View, payload: dict) -> dict:
    job = studio.jobs.find("score")
    if job and not studio.jobs.cancel(job):
        job.stop.set()
    return tell_scores(studio, view, payload)


def add_pairs(studio: Studio, view: View, payload: dict) -> dict:
    """Propose pairs, to be confirmed or, with `automatic`, used as they are."""
    choice, is_automatic = _choice(studio, payload), payload.get("automatic") is True
    added = add_proposals(studio.project, propose_pairs(studio.project, view, choice), choice, automatic=is_automatic)
    where = "are used now, marked as AI" if is_automatic else "wait in the review for you to keep or delete"
    said = f"{count(added, 'pair')} {where}." if added else "No scored group is left that nobody has said anything of."
    return tell_scores(studio, view, payload) | {"said": said}


def discard_pairs(studio: Studio, view: View, payload: dict) -> dict:
    """Take back what nobody has confirmed: the proposals, or with `automatic` the automatic pairs."""
    taken = discard_proposals(studio.project, automatic=payload.get("automatic") is True)
    return tell_scores(studio, view, payload) | {"said": f"{count(taken, 'pair')} taken back."}


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "tell_scores": tell_scores, "begin_scoring": begin_scoring, "stop_scoring": stop_scoring, "add_pairs": add_pairs,
    "discard_pairs": discard_pairs,
}  # fmt: skip


def _choice(studio: Studio, payload: dict) -> ScorerChoice:
    """Raises StudioError for a scorer that is not there, or that the page may not reach."""
    kind, model = str(payload.get("kind")), str(payload.get("model") or "").strip()
    if kind == "adapter":
        run = find_run(studio.project.runs, model)
        check_places(studio, run.config)
        return ScorerChoice(kind, str(run.path))
    studio.check_place(model)
    return ScorerChoice(kind, model)


def _facts(studio: Studio, view: View, payload: dict) -> str:
    """What the chosen scorer has said so far, as sentences; "" for one that is not there."""
    project = studio.project
    try:
        choice = _choice(studio, payload)
        groups = len(project.library.catalogue(view).lines)
    except StudioError:  # said when somebody presses Score
        return ""
    standing = project.library.revision(), project.scores.revision()
    scored = len(
        project.scores.kept(("groups", view, choice.identity), standing, lambda: group_scores(project, view, choice.identity))
    )
    if not scored:
        return ""
    standing = *standing, project.picks.revision()
    share = project.scores.kept(("agreement", choice.identity), standing, lambda: agreement_with_person(project, choice.identity))
    agrees = f"Agrees with your picks in {share}." if share.count else "No pair that you picked is scored yet."
    return f"{scored:,} of {count(groups, 'group')} scored. {agrees}"


def _describe_job(studio: Studio, job: Job) -> dict:
    if job.state == "queued":
        text = f"{holder(studio.jobs)} has the device; scoring is next in line."
    elif job.is_active and job.stop.is_set():
        text = "Stopping. What is scored is kept."
    elif job.is_active and not job.total:
        text = f"{(job.message or 'getting ready').capitalize()}."
    elif job.is_active:
        left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        text = f"{job.done:,} of {count(job.total, 'image')} scored{left}. Stop keeps what is done."
    elif job.state == "failed":
        text = ""
    else:
        text = job.result.sentence if job.result else "Stopped."
    error = job.message if job.state == "failed" else ""
    return {"text": text, "error": error, "done": job.done, "total": job.total, "is_active": job.is_active}
