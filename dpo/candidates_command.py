"""`python -m dpo candidates`: images to pick from, made into a project, as the Pairs tab makes them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dpo.candidates import CandidatesError, CandidatesRequest, make_candidates_of
from dpo.claims import add_wait_flag, device_turn
from dpo.compare import read_prompts
from dpo.config import TrainConfig
from dpo.model_command import add_base_flags, base_of
from dpo.project import DEFAULT_PROJECT, open_project
from dpo.rejects import RejectsRequest, make_rejects_of

SET_ONLY = ("name", "adapter", "both", "prompt", "prompts_file", "branch")


def candidates(args) -> None:
    """Make several images of each prompt into a project, to be picked from. Asked for again, a set goes on where it was."""
    project = open_project(args.project)
    base = {name: value for name, value in base_of(args).items() if value != TrainConfig().base[name]}
    how = {"sampling_steps": args.sampling_steps, "guidance_scale": args.guidance_scale, "seed": args.seed, "base": base}
    how |= {"model": args.model, "negative_prompt": args.negative_prompt}
    if args.rejects:
        given = [f"--{name.replace('_', '-')}" for name in SET_ONLY if getattr(args, name)]
        if given:
            raise CandidatesError(f"--rejects takes prompts and sizes from the pairs: leave out {', '.join(given)}.")
        with device_turn(project.path, "generating rejected images", not args.no_wait):
            made = make_rejects_of(project, RejectsRequest(**how), _tell)
        said = {"pairs": made}
        sentence = f"{made} pairs have a rejected image by the base model now."
    else:
        if not args.name:
            raise CandidatesError("The set has no name. Give it one with --name.")
        prompts = [*args.prompt, *(prompt for file in args.prompts_file for prompt in read_prompts(file))]
        request = CandidatesRequest(
            args.name, adapter=args.adapter, strength=args.strength, both=args.both, prompts=tuple(prompts),
            per_prompt=args.per_prompt, width=args.width, height=args.height, branch=args.branch, **how,
        )  # fmt: skip
        with device_turn(project.path, f"generating {request.name}", not args.no_wait):
            found = make_candidates_of(project, request, _tell)
        said = {"folder": str(found.folder), "done": found.done, "total": found.total}
        sentence = f"{found.done} of {found.total} images are in {found.folder}."
    print(json.dumps(said) if args.json else sentence)


def add_candidates_command(commands: argparse._SubParsersAction) -> None:
    """Add `candidates` to the commands of `python -m dpo`."""
    usual = CandidatesRequest("")
    command = commands.add_parser("candidates", help=candidates.__doc__)
    command.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    command.add_argument("--name", default="", help="of the set: its folder in PROJECT/rounds")
    command.add_argument("--model", default=usual.model)
    add_base_flags(command)
    command.add_argument("--adapter", type=Path, metavar="FILE", help="an adapter file, or a checkpoint in a run's folder")
    command.add_argument("--strength", type=float, default=usual.strength, help="of the adapter")
    command.add_argument("--both", action="store_true", help="as many images from the base model, too")
    command.add_argument("--prompt", action="append", default=[], help="may be given several times")
    command.add_argument("--prompts-file", type=Path, action="append", default=[], metavar="FILE", help="a prompt a line")
    command.add_argument("--per-prompt", type=int, default=usual.per_prompt, metavar="N", help="images of each prompt")
    command.add_argument(
        "--branch", type=float, metavar="SHARE",
        help="the share of the steps, above 0 and below 1, that the images of a prompt have in common: only details differ",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=usual.seed, help="of the set; the images' own follow from it and the prompt")
    command.add_argument("--negative-prompt", default=usual.negative_prompt)
    command.add_argument("--sampling-steps", type=int, default=usual.sampling_steps)
    command.add_argument("--guidance-scale", type=float, default=usual.guidance_scale)
    command.add_argument("--width", type=int, default=usual.width, help="0: the model's own")
    command.add_argument("--height", type=int, default=usual.height)
    command.add_argument(
        "--rejects", action="store_true", help="instead: rejected images by the base model for pairs that have only a chosen one"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_wait_flag(command)
    command.set_defaults(command=candidates)


def _tell(done: int, total: int, words: str) -> None:
    print(f"\r{words}, {done / total:.0%}" if total else words, end="\n" if done == total else "", file=sys.stderr, flush=True)
