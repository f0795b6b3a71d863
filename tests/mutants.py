"""`python -m tests.mutants`: break the source in ways the field has shipped, one at a time, and see a test fail for each.

The mistakes: tests/mutants_of_losses.py, mutants_of_training.py, mutants_of_runs.py, mutants_of_picking.py and
mutants_of_exports.py. Works on a copy of the repository.
Exit status 1 if a mutant survives, or no longer applies because its line has changed.
`--only WORD` runs those whose name holds the word; `--json` prints one object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutants_of_exports import EXPORTS
from tests.mutants_of_losses import LOSSES
from tests.mutants_of_picking import PICKING
from tests.mutants_of_runs import RUNS
from tests.mutants_of_training import TRAINING

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """Replacing `old`, which occurs once in `file`, by `new` must make one of `tests` fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [Mutant(*row) for row in (*LOSSES, *TRAINING, *RUNS, *PICKING, *EXPORTS)]


def find_problem(mutant: Mutant) -> str:
    """Why the mutant cannot be applied, or an empty text."""
    count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
    return "" if count == 1 else f"{mutant.file} holds its line {count} times"


def run(mutant: Mutant) -> bool:
    """Whether a test fails on a copy of the repository with this mutation."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "docs", "candidates.zip"))
        target = copy / mutant.file
        target.write_text(target.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *mutant.tests.split()]
        result = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        )
    if result.returncode not in (0, 1):
        raise RuntimeError(
            f"{mutant.name}: pytest ended with {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
        )
    return result.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    outcomes = []
    for mutant in (mutant for mutant in MUTANTS if args.only in mutant.name):
        outcome = find_problem(mutant) or ("killed" if run(mutant) else "SURVIVED")
        outcomes.append({"mutant": mutant.name, "outcome": outcome, "tests": mutant.tests})
        if not args.json:
            print(f"{outcome:>9}  {mutant.name}  ({mutant.tests})", flush=True)
    if args.json:
        print(json.dumps({"mutants": outcomes}))
    return int(any(outcome["outcome"] != "killed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
