"""Memory that was freed goes back to the machine while no job runs, and stays with the job while one does. Loads nothing heavy.

By itself glibc gives the threads of a process up to eight arenas for each core, and gives back of each only what lies above all
that is used. The app of many visitors then holds twice what it uses, and more with each: a page is made of long texts, cut out of
whatever arena its thread has. A run, though, that takes at each step what the one before has freed pays for whatever went back.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

SECONDS = 3.0  # from one giving back to the next, which takes some milliseconds
# Of malloc.h. Where the second is set, glibc does not find out the third by itself any more: it is the most that it would find.
_SETTINGS = {
    -8: 1,  # M_ARENA_MAX
    -1: 512 << 20,  # M_TRIM_THRESHOLD, in bytes: so much may lie above what is used, until it is given back as below
    -3: 32 << 20,  # M_MMAP_THRESHOLD, in bytes: from here on every piece is the machine's, and goes back by itself
}


def share_one_arena() -> None:
    """For all threads. To be called before there are any: the arenas are counted but once. Without glibc it does nothing."""
    glibc = _find_glibc()
    for name, value in _SETTINGS.items() if glibc else ():
        glibc.mallopt(name, value)


def give_memory_back(is_working: Callable[[], bool], seconds: float = SECONDS) -> None:
    """From now on, every so many seconds at which not `is_working`. Without glibc it does nothing."""
    glibc = _find_glibc()
    if glibc:
        threading.Thread(target=_trim, args=(glibc.malloc_trim, is_working, seconds), name="trim", daemon=True).start()


def _find_glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows: its libraries have names
        return None
    return libc if hasattr(libc, "malloc_trim") else None  # which musl and macOS do not have


def _trim(trim: Callable[[int], int], is_working: Callable[[], bool], seconds: float) -> None:
    while True:
        time.sleep(seconds)
        if not is_working():
            trim(0)
