"""Who somebody is, and as what they come: by a password, or, on a Space, by their account at Hugging Face.

Both are asked by the gate at every request (`find_caller`), so that who is taken out is out at once.
"""

from __future__ import annotations

import asyncio
import html
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from gradio.oauth import _get_valid_oauth_info_from_session as valid_account
from starlette.requests import Request

from dpo import StudioError
from dpo.users import Users
from ui.rights import OWNER, Caller

log = logging.getLogger(__name__)
WRONG_PASSWORDS, WRONG_NAMES, WINDOW_SECONDS = 10, 100, 60.0
VISITORS = ("none", "viewer", "rater")
_NO_NAME = ""  # stands for all names that nobody has


class LoginError(StudioError):
    """A way of logging in that cannot be."""


class Login:
    """Passwords, of the users of a page: Gradio's `auth` and its cookie, and no more than so many guesses a minute.

    Ten wrong passwords within a minute close a name until the minute is over, to the right password too; other names, and those
    who are in, notice nothing. All names that nobody has share a bound of their own, so that there is one on all guesses
    together: ten for each user, a hundred for everybody else. Unthrottled, Gradio takes 900 guesses a second.
    """

    has_own_page = False  # Gradio has one that asks for name and password

    def __init__(self, users: Users, clock: Callable[[], float] = time.monotonic) -> None:
        self.users = users
        self._clock = clock
        self._wrong: dict[str, deque[float]] = defaultdict(deque)  # by name, when: only of those that are users
        self._hashes: dict[str, str] = {}  # by cookie, that of the password its login was made with
        self._checking = asyncio.Semaphore(2)  # a check takes 50 ms of a core, and 16 MB

    @property
    def settings(self) -> dict:
        """For `Blocks.launch`."""
        return {"auth": self.check}

    def find_caller(self, request: Request) -> Caller | None:
        """None: somebody who has yet to log in. Who they are is read where Gradio keeps it; what they may, from the users. A
        login ends with its password."""
        app = request.app
        names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
        token = next((token for name in names if (token := request.cookies.get(name)) in app.tokens), None)
        user = self.users.find(app.tokens[token]) if token else None
        if user is None or self._hashes.setdefault(token, user.hash) != user.hash:
            return None
        return Caller(user.name, user.role)

    async def check(self, name: str, password: str) -> bool:
        """Gradio asks in its event loop, where a hash that is slow on purpose would hold up every page."""
        counted = name if self.users.find(name) else _NO_NAME
        if self._is_closed(counted):
            log.warning("no login for a minute, after too many wrong passwords")
            return False
        wrong = self._wrong[counted]
        wrong.append(self._clock())  # before the check: guesses that come at once count at once
        async with self._checking:
            is_right = await asyncio.to_thread(self.users.is_password, name, password)
        if is_right and wrong:
            wrong.pop()
        if not is_right:
            log.warning("a wrong password, or a name that nobody has")
        return is_right

    def _is_closed(self, name: str) -> bool:
        wrong, now = self._wrong[name], self._clock()
        while wrong and now - wrong[0] >= WINDOW_SECONDS:
            wrong.popleft()
        return len(wrong) >= (WRONG_NAMES if name == _NO_NAME else WRONG_PASSWORDS)


class SpaceLogin:
    """Accounts at Hugging Face: Gradio's OAuth. Whoever made the Space is its owner; `visitors` says what all others may."""

    has_own_page = True

    def __init__(self, author: str, creator: str, visitors: str) -> None:
        """`author`: the account or organisation that has the Space, `creator`: the id of whoever made it. Raises LoginError."""
        if visitors not in VISITORS:
            raise LoginError(f"STUDIO_VISITORS={visitors!r} is not known. Choose one of: {', '.join(VISITORS)}.")
        self.author, self.creator, self.visitors = author, creator, visitors

    @property
    def settings(self) -> dict:
        """For `Blocks.launch`."""
        return {"auth_dependency": self.find_name}

    def find_name(self, request: Request) -> str | None:
        caller = self.find_caller(request)
        return caller.login if caller else None

    def find_caller(self, request: Request) -> Caller | None:
        """None: somebody who has yet to sign in, or may nothing here."""
        account = self._account(request)
        if account is None:
            return None
        name = str(account.get("preferred_username", ""))
        if name and (name == self.author or (self.creator and account.get("sub") == self.creator)):
            return Caller(name, OWNER)
        return Caller(name, self.visitors) if name and self.visitors != "none" else None

    def page(self, request: Request) -> str:
        """What whoever may not see the page is shown. It leads to a new tab: the Hub shows a Space in a frame, where nobody can
        sign in."""
        account = self._account(request)
        if account is None:
            said, link, words = "This Space is not open to everybody.", "/login/huggingface", "Sign in with Hugging Face"
        else:
            name = html.escape(str(account.get("preferred_username", "")))
            said, link, words = f"You are signed in as {name}, and this Space is for whoever made it.", "/logout", "Sign out"
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Image DPO Studio</title>'
            '<body style="font-family: system-ui, sans-serif; margin: 4rem auto; max-width: 32rem; line-height: 1.5">'
            f'<h1>Image DPO Studio</h1><p>{said}</p><p><a href="{link}" target="_blank">{words}</a></p></body></html>'
        )

    def _account(self, request: Request) -> dict | None:
        info = valid_account(request.session)
        return info.get("userinfo") if info else None


def find_space_login(environment: Mapping[str, str]) -> SpaceLogin | None:
    """The login of a Space whose README says `hf_oauth: true`; None elsewhere. Raises LoginError."""
    if not environment.get("OAUTH_CLIENT_ID"):
        return None
    return SpaceLogin(
        environment.get("SPACE_AUTHOR_NAME", ""),
        environment.get("SPACE_CREATOR_USER_ID", ""),
        environment.get("STUDIO_VISITORS", VISITORS[0]),
    )
