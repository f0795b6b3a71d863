"""Rounds: an adapter makes new candidates, and what is picked of them trains the next adapter, with itself as the reference.

Nothing of a round is kept that is not known anyway: a run says which adapter it started from and which pairs it learned from,
and a pair says of which set of candidates its images are. So the line of rounds is read from the runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.candidates import CandidatesRequest, list_candidates, start_candidates
from dpo.config import TrainConfig
from dpo.groups import View
from dpo.jobs import JobRegistry
from dpo.runs import Run, RunError, clone_config, list_runs
from dpo.scorer_choice import ScorerChoice
from dpo.scores import score_library

if TYPE_CHECKING:
    from dpo.project import Project


@dataclass(frozen=True)
class RoundRequest:
    """What a new round is picked from: `per_prompt` images of each prompt, half of them by the base model. No `prompts`: those
    that the run before learned from. `scored`: the adapter scores them, so that what it is sure of can be left out of picking."""

    prompts: tuple[str, ...] = ()
    per_prompt: int = 6
    scored: bool = True


@dataclass(frozen=True)
class Round:
    """One link of the line. `number` counts from 1, the run that started from the base model. `candidates`: the set that most of
    its pairs are from, "" for images that were made elsewhere."""

    number: int
    run: Run
    pairs: int
    candidates: str


def line_of(runs: Sequence[Run], run: Run) -> list[Round]:
    """The rounds that led to `run` and those that went on from it, the first one first. `runs`: all of the project, newest first.

    Where two runs went on from one, the newer is followed; whoever wants the other asks for its line.
    """
    parents = _parents(runs)
    line = [run]
    while (parent := parents.get(line[0])) is not None and parent not in line:
        line.insert(0, parent)
    while (child := next((each for each in runs if parents.get(each) == line[-1]), None)) is not None and child not in line:
        line.append(child)
    return [_describe(number, each) for number, each in enumerate(line, 1)]


def begin_round(project: Project, jobs: JobRegistry, run: Run, request: RoundRequest) -> Path:
    """Queue the candidates of the round after `run`, and their scoring; returns the folder they come to.

    Raises StudioError for what is wrong before a model loads.
    """
    config = next_config(run, "")  # whether there can be a next round
    if request.per_prompt < 2 or request.per_prompt % 2:
        raise RunError(f"per_prompt={request.per_prompt} cannot be halved between adapter and base. Set it to 2, 4, 6 or more.")
    name = next_name(list_runs(project.runs), run, [each.name for each in list_candidates(project)])
    candidates = CandidatesRequest(
        name=name, model=config.model, adapter=run.adapter, both=True, prompts=request.prompts or tuple(prompts_of(run)),
        per_prompt=request.per_prompt // 2, seed=len(list_candidates(project)), base=config.base,
    )  # fmt: skip
    start_candidates(project, jobs, candidates)
    folder = project.rounds / name
    if request.scored:
        score_library(project, jobs, View(str(folder)), ScorerChoice("adapter", str(run.path)))
    return folder


def prompts_of(run: Run) -> list[str]:
    """The prompts that a run learned from, in order: not those it kept for validation. Raises RunError."""
    held_out = set(run.held_out)
    return list(dict.fromkeys(item.prompt for item in run.items if item.prompt not in held_out))


def next_name(project_runs: Sequence[Run], run: Run, taken: Sequence[str]) -> str:
    """What the candidates of the round after `run` are called: "round-2", or the next such name that is free."""
    number = next(each.number for each in line_of(project_runs, run) if each.run == run) + 1
    name, again = f"round-{number}", 1
    while name in taken:
        again += 1
        name = f"round-{number}-{again}"
    return name


def next_config(run: Run, candidates: str) -> TrainConfig:
    """The settings of the round after `run`: its own, started from its adapter, on the pairs of these candidates alone.

    A starting adapter is its own reference (`TrainConfig.reference_mode`), so the next round departs from where this one ended,
    not from the base. Raises RunError if the run has no adapter, ConfigError if its settings cannot be read.
    """
    if not run.adapter.exists():
        raise RunError(f"{run.name} has no adapter to go on from. Let it finish first, or choose another run.")
    fresh = TrainConfig()
    # What is said of a fresh adapter does not go with one that is there; neither does a reference chosen for the round before.
    reset = ("adapter", "lora_modules", "layer_profile", "reference_adapter", "rater", "source")
    own = {name: getattr(fresh, name) for name in reset}
    return clone_config(run, **own, starting_adapter=str(run.adapter), round=candidates)


def _parents(runs: Sequence[Run]) -> dict[Run, Run]:
    """Run -> the run whose adapter it started from, for those that started from one of `runs`."""
    by_adapter = {run.adapter.resolve(): run for run in runs}
    found = {}
    for run in runs:
        try:
            start = run.config.starting_adapter
        except StudioError:  # a damaged run is listed under Train, with what to do; it has no place in a line
            continue
        parent = by_adapter.get(Path(start).expanduser().resolve()) if start else None
        if parent is not None and parent != run:
            found[run] = parent
    return found


def _describe(number: int, run: Run) -> Round:
    try:
        items = run.items
    except StudioError:
        items = []
    sets = Counter(item.round for item in items)
    return Round(number, run, len(items), sets.most_common(1)[0][0] if sets else "")
