"""`python -m dpo project` and `diagnostics`: a project as one file and back, and what helps to see what went wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dpo.bundle import IMAGES, BundleError, pack, unpack
from dpo.diagnostics import diagnose
from dpo.project import DEFAULT_PROJECT, open_project


def pack_project(args) -> None:
    """Write a project into one zip: picks, votes, runs, exports, and the images they are about."""
    packed = pack(_project(args.folder), args.file, args.images, args.checkpoints, _tell)
    for name, reason in packed.left:
        print(f"{name}: {reason}", file=sys.stderr)
    print(f"{packed.file}: {packed.files:,} files, {packed.bytes / 1e6:,.1f} MB.")


def unpack_project(args) -> None:
    """Make a project of such a zip, in a folder that is not there yet."""
    found = unpack(args.file.expanduser(), args.folder, report=_tell)
    gone = f" Of {found.gone:,} pairs the images did not come along." if found.gone else ""
    print(f"{found.folder}: {found.pairs:,} pairs, {found.runs:,} runs.{gone}")


def diagnostics(args) -> None:
    """Print what helps somebody else see what went wrong. It names no person, machine, folder, secret or prompt."""
    print(diagnose(_project(args.project)))


def add_project_commands(commands: argparse._SubParsersAction) -> None:
    """Add `project` and `diagnostics` to the commands of `python -m dpo`."""
    command = commands.add_parser("project", help="A project as one file, and back.")
    ways = command.add_subparsers(required=True, metavar="pack | unpack")
    way = ways.add_parser("pack", help=pack_project.__doc__)
    way.add_argument("folder", type=Path, metavar="DIR")
    way.add_argument("file", type=Path, metavar="FILE.zip")
    way.add_argument("--images", choices=IMAGES, default="used", help="used: those that pairs, runs and votes are about")
    way.add_argument("--checkpoints", action="store_true", help="also what runs are resumed from")
    way.set_defaults(command=pack_project)
    way = ways.add_parser("unpack", help=unpack_project.__doc__)
    way.add_argument("file", type=Path, metavar="FILE.zip")
    way.add_argument("folder", type=Path, metavar="DIR")
    way.set_defaults(command=unpack_project)

    command = commands.add_parser("diagnostics", help=diagnostics.__doc__)
    command.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    command.set_defaults(command=diagnostics)


def _project(folder: Path):
    """Opening makes whatever is missing, and nobody wants that of a name with a slip in it."""
    if not folder.expanduser().is_dir():
        raise BundleError(f"There is no project at {folder}. Choose the folder of one.")
    return open_project(folder)


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done / total if total else 1:.0%}", end="" if done < total else "\n", file=sys.stderr, flush=True)
