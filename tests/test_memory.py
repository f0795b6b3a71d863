"""Memory that goes back to the machine: each in a process of its own, whose allocator nothing has touched before."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.browser.conftest import free_port

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")

HOLES = """
    import os, time

    def held_mb():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    pieces = [bytearray(b"x" * 60_000) for _ in range(4000)]  # 240 MB
    last = bytearray(b"x" * 60_000)  # above all of them: what lies under it glibc keeps
    full = held_mb()
    del pieces
    end = time.monotonic() + seconds
    while full - held_mb() < 200 and time.monotonic() < end:
        time.sleep(0.05)
    print(full - held_mb(), flush=True)
"""


STEPS = """
    import resource

    for step in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        pieces = [bytearray(60_000) for _ in range(4000)]
        del pieces
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
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


def run(*programs: str) -> subprocess.CompletedProcess:
    """They run one after the other in one process."""
    text = "\n".join(textwrap.dedent(program) for program in ("from dpo.memory import *", *programs))
    return subprocess.run([sys.executable, "-c", text], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)


def given_back(*programs: str) -> float:
    """MB, of 240 that were freed."""
    return float(run(*programs).stdout.splitlines()[-1])


def count_pages(*programs: str) -> int:
    """Of 58,000 that a second step uses, those that the machine was asked for."""
    return int(run(*programs).stdout)


def count_arenas(*programs: str) -> int:
    return len(re.findall(r"^Arena \d+:", run(*programs).stderr, re.MULTILINE))


def test_what_was_freed_under_something_that_is_used_goes_back_to_the_machine():
    assert given_back("seconds = 1", HOLES) < 40, "glibc does this by itself: dpo/memory.py is not needed"
    assert given_back("seconds = 20; give_memory_back(lambda: False, seconds=0.1)", HOLES) > 200


def test_while_a_job_runs_it_is_left_to_the_job():
    assert given_back("seconds = 1; give_memory_back(lambda: True, seconds=0.1)", HOLES) < 40
    assert count_pages(STEPS) > 10_000, "glibc does this by itself: its thresholds need not be set"
    assert count_pages("share_one_arena()", STEPS) < 1000


def test_all_threads_share_one_arena():
    assert count_arenas(ARENAS) > 2, "they do so by themselves"
    assert count_arenas("share_one_arena()", ARENAS) == 1


def test_the_app_has_one_arena_and_gives_back_what_its_visitors_left(tmp_path):
    app = f"""
        import os, threading, time, urllib.request
        import app

        arguments = ["--project", {str(tmp_path / "project")!r}, "--port", "{(port := free_port())}"]
        threading.Thread(target=app.main, args=[arguments], daemon=True).start()
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:{port}/").read()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
        seconds = 20
    """
    assert given_back(app, HOLES, "os._exit(0)") > 200
    assert count_arenas(app, ARENAS, "os._exit(0)") == 2  # one is that of the thread it was begun in
