"""`python -m tests.families [NAME ...]`: what holds for which family, as the table in the README."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.families import families
from tests.families.checks import CHECKS


def main() -> None:
    known = {tiny.name: tiny for tiny in families()}
    parser = argparse.ArgumentParser(prog="python -m tests.families", description="Print what holds for which model family.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(known)}; without one, all")
    names = parser.parse_args().names
    strangers = [name for name in names if name not in known]
    if strangers:
        parser.error(f"{strangers[0]!r} is not known. Choose some of: {', '.join(known)}.")
    print("| Family |", " | ".join(CHECKS), "|")
    print("|---" * (len(CHECKS) + 1) + "|")
    failures = []
    for tiny in [known[name] for name in names or known]:
        words = []
        for name, check in CHECKS.items():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    words.append(check(tiny, Path(folder)))
                except AssertionError as error:
                    words.append("**no**")
                    failures.append(f"{tiny.title}, {name}: {error}")
        print(f"| {tiny.title} |", " | ".join(words), "|", flush=True)
    raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
