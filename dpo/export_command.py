"""`python -m dpo export` and `merge`: adapters for other programs, and two of them as one."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from dpo.claims import add_wait_flag, device_turn
from dpo.formats import FORMATS, PRECISIONS, ExportError
from dpo.formats.jobs import export_file, export_run
from dpo.formats.origin import Origin
from dpo.project import DEFAULT_PROJECT, open_project
from dpo.runs import Run, find_run


def export(args) -> None:
    """Write the adapter of a run, or of a file, in another program's format, and see that its image stays the same."""
    path = Path(args.adapter).expanduser()
    where = {"format": args.format, "precision": args.dtype, "folder": args.out, "report": _tell}
    if path.suffix == ".safetensors":
        model = args.model or Origin.of_file(path).model
        if not model:
            raise ExportError(f"{path} does not name its base model. Name it with --model.")
        result = export_file(path, model, **where)
    else:
        run = Run(path.resolve()) if Run(path).adapter.is_file() else find_run(open_project(args.project).runs, args.adapter)
        with device_turn(run.path.parent.parent, f"exporting {run.name}", not args.no_wait):
            result = export_run(run, **where)
    if args.json:
        print(json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()}))
    else:
        print(f"{result.file}. {result.sentence()}")


def merge(args) -> None:
    """Two LoRAs as one that does what both do, at a weight each: exact, its rank the sum of theirs."""
    from dpo.formats.merging import merge_adapters

    ranks = merge_adapters(args.first.expanduser(), args.second.expanduser(), tuple(args.weights), args.out)
    print(f"{args.out}. {len(ranks)} layers, rank {max(ranks.values())}.")


def add_export_commands(commands: argparse._SubParsersAction) -> None:
    """Add `export` and `merge` to the commands of `python -m dpo`."""
    command = commands.add_parser("export", help=export.__doc__)
    command.add_argument("adapter", metavar="RUN_OR_FILE", help="a run's name or folder, or a .safetensors file")
    command.add_argument("--format", choices=FORMATS, required=True)
    command.add_argument("--dtype", choices=PRECISIONS, default="fp16")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--project", type=Path, default=DEFAULT_PROJECT, help="where a run of that name is looked for")
    command.add_argument("--model", help="base model of a file that does not name it")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_wait_flag(command)
    command.set_defaults(command=export)

    command = commands.add_parser("merge", help=merge.__doc__)
    command.add_argument("first", type=Path)
    command.add_argument("second", type=Path)
    command.add_argument("--weights", type=float, nargs=2, required=True, metavar=("W1", "W2"))
    command.add_argument("--out", type=Path, required=True, metavar="FILE")
    command.set_defaults(command=merge)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
