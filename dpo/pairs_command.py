"""`python -m dpo pairs import | export`: pairs from and to other programs' folders and tables, as the Pairs tab does it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from dpo.exchange import EXPORT_KINDS, IMPORT_KINDS, export_dataset, import_dataset
from dpo.project import DEFAULT_PROJECT, open_project


def import_pairs(args) -> None:
    """Bring pairs from elsewhere into a project; what is left out is named, with its reason."""
    report = import_dataset(open_project(args.project), args.path, args.kind, limit=args.limit)
    if args.json:
        left = [{"where": where, "reason": reason} for where, reason in report.left]
        print(json.dumps({**asdict(report), "left": left}))
        return
    for where, reason in report.left:
        print(f"{where}: {reason}", file=sys.stderr)
    print(report.sentence)


def export_pairs(args) -> None:
    """Write the pairs of a project into a new folder, for other programs. Images are copied."""
    picks = open_project(args.project).picks
    pairs = picks.pairs()
    folder = export_dataset(pairs, args.folder, args.kind, args.share, rankings=picks.rankings())
    if args.json:
        print(json.dumps({"folder": str(folder), "kind": args.kind, "pairs": len(pairs)}))
    else:
        print(f"{len(pairs):,} pairs are in {folder} now.")


def add_pairs_command(commands: argparse._SubParsersAction) -> None:
    """Add `pairs` to the commands of `python -m dpo`."""
    actions = commands.add_parser("pairs", help=__doc__).add_subparsers(required=True, metavar="import | export")

    action = actions.add_parser("import", help=import_pairs.__doc__)
    action.add_argument("path", help="a folder or a file; OWNER/NAME with --kind hub")
    action.add_argument("--kind", choices=IMPORT_KINDS, default="auto", help="what it is, if it cannot be told")
    action.add_argument("--limit", type=int, help="rows to read of parquet files or the hub")
    action.set_defaults(command=import_pairs)

    action_out = actions.add_parser("export", help=export_pairs.__doc__)
    action_out.add_argument("folder", type=Path, help="a new folder")
    action_out.add_argument("--kind", choices=EXPORT_KINDS, required=True)
    action_out.add_argument("--share", type=float, default=0.1, help="of the prompts, kept for validation")
    action_out.set_defaults(command=export_pairs)

    for each in (action, action_out):
        each.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
        each.add_argument("--json", action="store_true", help="print one JSON object")
