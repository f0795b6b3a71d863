"""A process that has imported all that the app imports, and becomes the app whenever it is asked to: in a fork of its own, which
can be killed as any app can. Starting the app by itself takes seconds, and a hundred tests do it.

Run by `Nursery`, which sends one JSON line per app and reads one with its process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Nursery:
    """Started with the first app that is wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def give_birth(self, arguments: list[str], log: Path) -> Child:
        """An app with these arguments; what it prints is added to the log."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.browser.nursery"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return ask_fork(self._process, arguments, log)

    def close(self) -> None:
        if self._process:
            self._process.stdin.close()
            self._process.wait()


class Child:
    """As much of a `subprocess.Popen` as is needed."""

    def __init__(self, pid: int) -> None:
        # Stays true to this very process, also when another one gets its number.
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        try:
            signal.pidfd_send_signal(self._handle, 0)
            return None
        except ProcessLookupError:
            return 0

    def kill(self) -> None:
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself

    def wait(self) -> None:
        import select

        select.select([self._handle], [], [])


def ask_fork(process: subprocess.Popen, what: list, log: Path) -> Child:
    """A fork of a process that is in `serve_forks`, which does `what`."""
    process.stdin.write(json.dumps([what, str(log)]).encode() + b"\n")
    process.stdin.flush()
    return Child(int(process.stdout.readline()))


def serve_forks(become: Callable[[list], int | None]) -> None:
    """Until there is nobody to ask: for each of `ask_fork` a fork that does it, writes what it prints into the log, and ends with
    the status it returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        what, log = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            status = become(what)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def main() -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import app
    import ui  # noqa: F401  (what the app imports once it runs)

    serve_forks(app.main)


if __name__ == "__main__":
    main()
