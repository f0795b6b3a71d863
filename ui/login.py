"""Gradio's `auth`: whether a name and a password belong together, and no more than so many guesses a minute.

Ten wrong passwords within a minute close a name until the minute is over, to the right password too; other names, and those who
are in, notice nothing. All names that nobody has share a bound of their own, so that there is one on all guesses together: ten
for each user, a hundred for everybody else. Unthrottled, Gradio takes 900 guesses a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable

from dpo.users import Users

WRONG_PASSWORDS, WRONG_NAMES, WINDOW_SECONDS = 10, 100, 60.0
_NO_NAME = ""  # stands for all names that nobody has


class Login:
    """Of the users of a page."""

    def __init__(self, users: Users, clock: Callable[[], float] = time.monotonic) -> None:
        self.users = users
        self._clock = clock
        self._wrong: dict[str, deque[float]] = defaultdict(deque)  # by name, when: only of those that are users
        self._checking = asyncio.Semaphore(2)  # a check takes 50 ms of a core, and 16 MB

    async def check(self, name: str, password: str) -> bool:
        """Gradio asks in its event loop, where a hash that is made on purpose slowly would hold up every page."""
        counted = name if self.users.find(name) else _NO_NAME
        if self._is_closed(counted):
            return False
        wrong = self._wrong[counted]
        wrong.append(self._clock())  # before the check: guesses that come at once count at once
        async with self._checking:
            is_right = await asyncio.to_thread(self.users.is_password, name, password)
        if is_right:
            wrong.pop()
        return is_right

    def _is_closed(self, name: str) -> bool:
        wrong, now = self._wrong[name], self._clock()
        while wrong and now - wrong[0] >= WINDOW_SECONDS:
            wrong.popleft()
        return len(wrong) >= (WRONG_NAMES if name == _NO_NAME else WRONG_PASSWORDS)
