"""`python -m tests.benchmarks [NAME] [--json] [--folder FOLDER]`: list the benchmarks, or run one."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import tests.benchmarks


def main() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__) if not module.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Run one benchmark, or list them all.")
    parser.add_argument("name", nargs="?", choices=names, help="which one; without it, all are listed")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--folder", type=Path, help="keep what is finished there, and do not do it again")
    flags = parser.parse_args()
    if flags.name is None:
        for name in names:
            print(f"{name:12} {importlib.import_module(f'tests.benchmarks.{name}').__doc__.splitlines()[0]}")
        return
    measure = importlib.import_module(f"tests.benchmarks.{flags.name}").measure
    if flags.folder and "folder" not in inspect.signature(measure).parameters:
        parser.error(f"{flags.name} keeps nothing. Leave --folder away.")
    result = measure(flags.folder) if flags.folder else measure()
    if flags.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
