"""Memory that goes back to the machine: each in a process of its own, whose allocator nothing has touched before."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")


def run(given: str, program: str) -> subprocess.CompletedProcess:
    """The program in a fresh process, after `given`."""
    text = f"from dpo.memory import give_memory_back\n{given}\n{textwrap.dedent(program)}"
    return subprocess.run([sys.executable, "-c", text], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)


HOLES = """
    import os, time

    def held_mb():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    pieces = [bytearray(b"x" * 60_000) for _ in range(4000)]  # 240 MB
    last = bytearray(b"x" * 60_000)  # above all of them: what lies under it glibc keeps
    full = held_mb()
    del pieces
    end = time.monotonic() + (20 if {waits} else 1)
    while full - held_mb() < 200 and time.monotonic() < end:
        time.sleep(0.05)
    print(full - held_mb())
"""


def test_what_was_freed_under_something_that_is_used_goes_back_to_the_machine():
    kept = float(run("", HOLES.format(waits=False)).stdout)
    assert kept < 40, "glibc gives this back by itself: dpo/memory.py is not needed"
    given_back = float(run("give_memory_back(seconds=0.1)", HOLES.format(waits=True)).stdout)
    assert given_back > 200


ARENAS = """
    import ctypes, threading

    barrier = threading.Barrier(12)

    def allocate():
        held = [bytearray(5000) for _ in range(100)]
        barrier.wait()

    threads = [threading.Thread(target=allocate) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctypes.CDLL(None).malloc_stats()
"""


def count_arenas(given: str) -> int:
    return len(re.findall(r"^Arena \d+:", run(given, ARENAS).stderr, re.MULTILINE))


def test_all_threads_share_one_arena():
    assert (count_arenas("give_memory_back()"), count_arenas("") > 2) == (1, True)


def test_the_app_begins_with_it_before_any_library_has_threads():
    refused = """
        import app

        try:
            app.main(["--host", "0.0.0.0"])  # without a login
        except SystemExit as end:
            assert end.code == 2
    """
    assert count_arenas(textwrap.dedent(refused)) == 1
