"""`python -m dpo score`: what a scorer says of a folder's groups, how often it agrees with the picks, and pairs it proposes; or
what it says of the base and the adapter of a blind test, beside the votes and never among them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from dpo.agreement import agreement_with_person, group_scores, score_comparison
from dpo.blind import find_test
from dpo.claims import add_wait_flag, device_turn
from dpo.groups import View
from dpo.library import resolve_folder
from dpo.project import DEFAULT_PROJECT, Project, open_project
from dpo.proposals import add_proposals, propose_pairs
from dpo.runs import Run, find_run
from dpo.scorer_choice import KINDS, ScorerChoice
from dpo.scores import score_view
from dpo.votes import SIDES


def score(args) -> None:
    """Score the images of a folder, and propose pairs of the best and the worst of every group that nobody has picked from."""
    project = open_project(args.project)
    choice = ScorerChoice(args.scorer, _model(project, args))
    if args.test:
        return _report_test(project, choice, args)
    view = View(resolve_folder(args.folder or project.path / "candidates"))
    project.library.scan(view.folder)
    with device_turn(project.path, f"scoring with {choice.name}", not args.no_wait):
        report = score_view(project, view, choice, _tell)
    agreement = agreement_with_person(project, choice.identity)
    groups = len(group_scores(project, view, choice.identity))
    result = {
        "scorer": choice.name, "model": choice.model, **asdict(report), "groups": groups, "agreement": asdict(agreement),
    }  # fmt: skip
    lines = [f"{report.sentence} {groups:,} groups.", f"Agreement with your picks: {agreement}."]
    if args.propose or args.automatic:
        added = add_proposals(project, propose_pairs(project, view, choice), choice, automatic=args.automatic)
        result["proposed"] = added
        lines.append(f"{added:,} pairs {'added as AI pairs' if args.automatic else 'wait in the review to be confirmed'}.")
    print(json.dumps(result) if args.json else "\n".join(lines))


def add_score_command(commands: argparse._SubParsersAction) -> None:
    """Add `score` to the commands of `python -m dpo`."""
    command = commands.add_parser("score", help=score.__doc__)
    command.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    command.add_argument("--folder", type=Path, help="of images; the project's candidates if it is not given")
    command.add_argument("--scorer", choices=KINDS, required=True)
    command.add_argument("--model", default="", help="a hub id or a folder; of adapter the name of a run; of aesthetic the head")
    pairs = command.add_mutually_exclusive_group()
    pairs.add_argument("--propose", action="store_true", help="store pairs for a person to confirm")
    pairs.add_argument("--automatic", action="store_true", help="store pairs that are used as they are, marked as AI")
    pairs.add_argument("--test", metavar="NAME", help="report on base and adapter of this blind test instead")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_wait_flag(command)
    command.set_defaults(command=score)


def _report_test(project: Project, choice: ScorerChoice, args) -> None:
    test = find_test(project, args.test)
    rows = [(item.prompt, *(str(test.image(item, side)) for side in SIDES)) for item in test.ready()]
    with device_turn(project.path, f"scoring {test.name} with {choice.name}", not args.no_wait):
        found = score_comparison(project, rows, choice)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        ends = f" [{found.interval[0]:.3g}, {found.interval[1]:.3g}]" if found.interval else ""
        print(f"{found.sentence} {found.preferred}. Mean difference {found.mean_difference:.3g}{ends}.")


def _model(project: Project, args) -> str:
    if args.scorer != "adapter" or Run(Path(args.model)).adapter.is_file():
        return args.model
    return str(find_run(project.runs, args.model).path)


def _tell(done: int, total: int, message: str) -> None:
    print(f"{message}: {done:,} of {total:,}", file=sys.stderr, flush=True)
