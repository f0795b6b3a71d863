"""Memory that was freed goes back to the machine, which by itself it does not. Loads nothing heavy.

glibc gives the threads of a process up to eight arenas for each core, and of an arena only what lies on top of all that is used.
An app of many visitors then holds twice what it uses, and more every hour: a page is made of large short texts, each cut out of
another arena. With two arenas, and the holes in them given back now and then, it holds the same after a thousand visits as after
a hundred.
"""

from __future__ import annotations

import ctypes
import threading
import time

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
ARENAS = 2
SECONDS = 10.0  # from one giving back to the next, which takes four milliseconds


def give_memory_back(seconds: float = SECONDS) -> None:
    """From now on, every so many seconds. Before the process has threads: their arenas are counted once. Does nothing where the C
    library is not glibc: others keep less."""
    try:
        libc = ctypes.CDLL(None)
        choose, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows, which has no library without a name
        return
    choose(_ARENA_MAX, ARENAS)
    threading.Thread(target=_trim, args=(trim, seconds), name="trim", daemon=True).start()


def _trim(trim, seconds: float) -> None:
    while True:
        time.sleep(seconds)
        trim(0)
