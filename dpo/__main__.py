"""`python -m dpo scan | model | pairs | train | candidates | sample | score | export | merge | users | project | diagnostics |
demo`: what the tabs do, without them.

`--help` after each says more.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path

from dpo import StudioError
from dpo.candidates_command import add_candidates_command
from dpo.export_command import add_export_commands
from dpo.log import keep_log, visible
from dpo.model_command import add_model_command
from dpo.pairs_command import add_pairs_command
from dpo.project_command import add_project_commands
from dpo.sample_command import add_sample_command
from dpo.score_command import add_score_command
from dpo.train_command import add_train_command
from dpo.users_command import add_users_command

log = logging.getLogger("dpo")  # run as a program this module has another name
# What `scan --json` says of a file, in this order: fields of an ImageRecord.
ROW = ("path", "prompt", "negative_prompt", "generator", "seed", "width", "height", "error", "reason", "certainty")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a mistake a person can mend, which is said in one sentence on stderr.

    Also 1: of `train`, for a run that failed or was damaging the images; of all, for a mistake of the program. 130:
    interrupted. 141: nobody reads the output.
    """
    args = _parser().parse_args(arguments)
    project = args.project.expanduser() if getattr(args, "project", None) else None
    keep_log(project if project and project.is_dir() else None, args.verbose)
    try:
        status = args.command(args) or 0
        sys.stdout.flush()
        return status
    except StudioError as error:
        log.warning("refused: %s", type(error).__name__)  # the sentence may quote a prompt
        print(visible(str(error), "\n"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written has nowhere to go
        return 141
    except Exception:
        log.exception("ended unexpectedly")  # which the terminal shows too
        return 1


def scan(args) -> None:
    """Read every image of a folder; with --json one object per file, readable or not."""
    from dpo.library import resolve_folder
    from dpo.metadata import ImageRecord, read_image
    from dpo.scan import list_folder

    sys.stdout.reconfigure(encoding="utf-8")  # JSON has no other, whatever the terminal is set to
    counts: Counter[tuple[str, str]] = Counter()
    for found in list_folder(resolve_folder(args.folder)):
        if found.problem:
            image = ImageRecord(found.path, reason="unreadable", error=found.problem)
        else:
            image = read_image(found.path, stealth=args.stealth)
        counts[image.generator, image.reason] += 1
        if args.json:
            print(json.dumps({name: getattr(image, name) for name in ROW}, ensure_ascii=False, allow_nan=False))
        elif image.error and not args.stats:
            print(visible(image.error))
    if args.stats:
        print(_table(counts))
    elif not args.json:
        print(f"{counts.total()} images, {sum(count for (_, reason), count in counts.items() if not reason)} with a prompt.")


def demo(args) -> None:
    """The whole loop on the demo with a measured preference, and a verdict by another measure."""
    from dpo.demo.loop import DemoOptions, default_folder, run_demo

    options = DemoOptions(preference=args.preference, steps=args.steps, pairs=args.pairs, swap=args.swap, seed=args.seed)
    result = run_demo(options, args.project or default_folder(), lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['preference']}: the adapter wins {result['win_rate']:.0%} of {result['samples']} "
            f"({result['win_rate_low']:.0%} to {result['win_rate_high']:.0%}), prompts followed {result['following']:.0%} "
            f"(base {result['following_base']:.0%}). Images: {result['images']}"
        )


def _table(counts: Counter[tuple[str, str]]) -> str:
    """Lines by generator and reason, most files first."""
    from dpo.metadata.records import REASONS

    total = counts.total()
    rows = [("generator", "found", "files", "share")]
    for (generator, reason), count in counts.most_common():
        rows.append((generator or "none", REASONS[reason] if reason else "a prompt", f"{count:,}", f"{count / total:.1%}"))
    rows.append(("all", "", f"{total:,}", "100.0%" if total else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dpo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("scan", help=scan.__doc__)
    command.add_argument("folder", type=Path)
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object per file")
    output.add_argument(
        "--stats", action="store_true", help="a table of how many files of which generator have a prompt, or why not"
    )
    command.add_argument("--stealth", action="store_true", help="also look for texts hidden in pixels: slow")
    command.set_defaults(command=scan)

    add_model_command(commands)

    add_pairs_command(commands)

    add_train_command(commands)

    add_candidates_command(commands)

    add_sample_command(commands)

    add_score_command(commands)

    add_export_commands(commands)

    add_users_command(commands)

    add_project_commands(commands)

    command = commands.add_parser("demo", help=demo.__doc__)
    command.add_argument("--preference", choices=("larger", "centred", "warm", "sharp"), default="larger")
    command.add_argument("--steps", type=int)
    command.add_argument("--pairs", type=int, default=160)
    command.add_argument("--swap", action="store_true", help="train the opposite")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--project", type=Path, help="a new folder for everything the loop makes")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=demo)

    for command in commands.choices.values():
        command.add_argument("--verbose", action="store_true", help="say on the terminal what goes into the log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
