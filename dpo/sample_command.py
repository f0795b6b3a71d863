"""`python -m dpo sample`: images from prompts and seeds, with adapters or without, as Compare paints them."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from dpo.compare import BASE, LookRequest, Variant, base_settings, check_look, file_stem, read_prompts
from dpo.config import TrainConfig
from dpo.metadata.writer import SUFFIXES
from dpo.model_command import add_base_flags, base_of
from dpo.runs import adapter_name
from dpo.sample_settings import SampleSettings


def sample(args) -> None:
    """Images from a model, with adapters or without, with A1111 metadata inside."""
    from dpo.grids import draw_grid
    from dpo.looks import paint_look

    prompts = list(args.prompt)
    for file in args.prompts_file:
        prompts += read_prompts(file)
    settings = SampleSettings(
        args.sampling_steps, args.guidance_scale, args.width, args.height, args.negative_prompt, args.sampler
    )
    request = LookRequest(
        args.model, _variants(args.adapter, args.strength or [1.0]), tuple(prompts), tuple(args.seed), settings,
        args.picture, args.picture_strength, args.format,
    )  # fmt: skip
    check_look(request)
    # What the adapter's run says of the model, and over it what was said here.
    said, usual = base_of(args), TrainConfig().base
    base = base_settings(request) | {name: value for name, value in said.items() if value != usual[name]}
    suffix = SUFFIXES[args.format]

    def place(row: int, seed: int, column: int) -> Path:
        more = f"-{column}-{file_stem(request.variants[column].name)}" if len(request.variants) > 1 else ""
        return args.out / f"{row:05d}-{seed}{more}{suffix}"

    rows = []
    for row in paint_look(request, base, place, lambda *told: None, threading.Event(), lambda: None):
        rows.append(row)
        for path in row.images:
            print(path, flush=True)
    if args.grid:
        draw_grid(rows, request.variants, args.grid)
        print(args.grid)


def add_sample_command(commands: argparse._SubParsersAction) -> None:
    """Add `sample` to the commands of `python -m dpo`."""
    command = commands.add_parser("sample", help=sample.__doc__)
    command.add_argument("--model", default="demo")
    add_base_flags(command)
    command.add_argument(
        "--adapter", type=Path, action="append", default=[], metavar="FILE",
        help="an adapter file, or a checkpoint in a run's folder; may be given several times; none: the base",
    )  # fmt: skip
    command.add_argument(
        "--strength",
        type=float,
        action="append",
        help="of the adapters, 1 unless given; 0 is the base; may be given several times",
    )
    command.add_argument("--prompt", action="append", default=[], help="may be given several times")
    command.add_argument("--prompts-file", type=Path, action="append", default=[], metavar="FILE", help="prompts, one a line")
    command.add_argument("--seed", type=int, action="append", required=True, help="may be given several times")
    command.add_argument("--negative-prompt", default="")
    command.add_argument("--sampler", default="", help='by name, such as "DPM++ 2M Karras"; the model\'s own unless given')
    command.add_argument("--sampling-steps", type=int, default=20)
    command.add_argument("--guidance-scale", type=float, default=3.0)
    command.add_argument("--width", type=int, default=0)
    command.add_argument("--height", type=int, default=0)
    command.add_argument("--picture", type=Path, metavar="FILE", help="start from this picture instead of noise")
    command.add_argument("--picture-strength", type=float, default=0.6, help="above 0 to 1: how far to move away from it")
    command.add_argument("--format", choices=tuple(SUFFIXES), default="png")
    command.add_argument("--grid", type=Path, metavar="FILE", help="also save all images as one PNG with labels")
    command.add_argument("--out", type=Path, default=Path("samples"))
    command.set_defaults(command=sample)


def _variants(adapters: list[Path], strengths: list[float]) -> tuple[Variant, ...]:
    """Every adapter at every strength, named after its file, and after the whole path where two have one name."""
    names = [adapter_name(adapter) for adapter in adapters]
    found = []
    for adapter, name in zip(adapters, names, strict=True):
        name = str(adapter) if names.count(name) > 1 else name
        found += [Variant(f"{name} {each:g}" if len(strengths) > 1 else name, adapter, each) for each in strengths]
    return tuple(found) or (BASE,)
