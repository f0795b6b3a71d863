"""Memory that was freed goes back to the machine, which by itself it does not. Loads nothing heavy.

glibc gives the threads of a process up to eight arenas for each core, and gives back of each only what lies above all that is
used. An app of many visitors then holds twice what it uses, and more with each: a page is made of long texts, each cut out of the
arena that its thread has. With a single arena, the holes in it given back every few seconds, it holds after a thousand visits
what it held after a hundred.
"""

from __future__ import annotations

import ctypes
import threading
import time

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
SECONDS = 3.0  # from one giving back to the next, which takes four milliseconds


def give_memory_back(seconds: float = SECONDS) -> None:
    """From now on, every so many seconds. To be called before the process has threads, for the arenas are counted but once. Where
    the C library is not glibc it does nothing."""
    try:
        libc = ctypes.CDLL(None)
        choose, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows, which has no library without a name
        return
    choose(_ARENA_MAX, 1)
    threading.Thread(target=_trim, args=(trim, seconds), name="trim", daemon=True).start()


def _trim(trim, seconds: float) -> None:
    while True:
        time.sleep(seconds)
        trim(0)
