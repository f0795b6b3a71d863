"""Who may do what: every function that a page can call carries the least role that may call it.

A function says so where it is made: `@open_to("rater")` above an event's handler or a route's endpoint, `role="rater"` for a
server function of `ui.session.serve`. One that says nothing is the owner's alone, so that what somebody adds and forgets is
closed. Roles: `dpo.users.ROLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dpo.users import ROLES

OWNER = ROLES[-1]


@dataclass(frozen=True)
class Caller:
    """Who asks for something. `login`: "" where nobody has to log in. `role`: one of `dpo.users.ROLES`, "" for none."""

    login: str
    role: str


HOST = Caller("", OWNER)  # the one whose machine it is


def open_to(role: str) -> Callable[[Callable], Callable]:
    """Let those of this role, and of those above it, call the function."""
    assert role in ROLES, role

    def mark(function: Callable) -> Callable:
        function.least_role = role
        return function

    return mark


def least_role(function: Callable | None) -> str:
    """The least role that may call it: as it is marked, else the owner's."""
    while isinstance(function, partial) and not hasattr(function, "least_role"):
        function = function.func
    return getattr(function, "least_role", OWNER)


def may(role: str, least: str) -> bool:
    """Whether somebody of `role`, "" for nobody, may do what `least` may."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)
