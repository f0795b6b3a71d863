"""`python -m tests.benchmarks [NAME] [--json]`: list the benchmarks, or run one."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil

import tests.benchmarks


def main() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__) if not module.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Run one benchmark, or list them all.")
    parser.add_argument("name", nargs="?", choices=names, help="which one; without it, all are listed")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    flags = parser.parse_args()
    modules = {name: importlib.import_module(f"tests.benchmarks.{name}") for name in names}
    if flags.name is None:
        for name, module in modules.items():
            print(f"{name:12} {module.__doc__.splitlines()[0]}")
        return
    result = modules[flags.name].measure()
    if flags.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
