"""Who may come to a shared page, and what they may do there: a file of users, one `name:role:hash` a line.

`python -m dpo users FILE add | list | remove` writes it; an empty line and one that begins with `#` count for nothing. A hash
is scrypt's (RFC 7914) with its own salt: the file holds no password, and costs a guesser 50 ms a guess.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dpo import StudioError

ROLES = ("viewer", "rater", "owner")  # each may do what those before it may: look; pick and vote; everything
NAME = re.compile(r"[\w.@+-]{1,60}")
SHORTEST_PASSWORD = 8  # characters
_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1  # scrypt's N, r and p: 16 MiB a password
_HASH = re.compile(r"scrypt\$(\d{1,8})\$(\d{1,3})\$(\d{1,3})\$([0-9a-f]{32})\$([0-9a-f]{64})")
_MOST_MEMORY = 64 << 20  # bytes of one check: a line of the file may not ask for more


class UsersError(StudioError):
    """A users file that cannot be read, or a name, role or password that cannot be."""


@dataclass(frozen=True)
class User:
    """`role`: one of ROLES. `hash`: as `hash_password` writes it."""

    name: str
    role: str
    hash: str = field(repr=False)


class Users:
    """Those who may log in: the ones that were `given`, and those of the file, which is read again whenever it changes, so that
    one who is taken out of it is out at once. Raises UsersError for a file that cannot be read."""

    def __init__(self, given: Iterable[User] = (), path: Path | None = None) -> None:
        self._given = {user.name: user for user in given}
        self._path = path
        self._standing: tuple = ()
        self._filed: dict[str, User] = {}
        if path is not None:
            self._standing, self._filed = _standing(path), read_users(path)

    def find(self, name: str) -> User | None:
        """The user of this name. A file that was broken meanwhile lets nobody of it in, and that is printed."""
        if self._path is not None and (now := _standing(self._path)) != self._standing:
            self._standing = now
            try:
                self._filed = read_users(self._path)
            except UsersError as error:
                self._filed = {}
                print(f"Nobody of the users file is let in: {error}", flush=True)
        return self._given.get(name) or self._filed.get(name)

    def is_password(self, name: str, password: str) -> bool:
        """Whether the two belong together. A name that nobody has takes as long as one that somebody has."""
        user = self.find(name)
        return check_password(password, user.hash if user else _NOBODY) and user is not None


def hash_password(password: str) -> str:
    """Raises UsersError for a password that is soon guessed."""
    if len(password) < SHORTEST_PASSWORD:
        raise UsersError(f"This password has {len(password)} characters. Use {SHORTEST_PASSWORD} or more.")
    return _hashed(password)


def check_password(password: str, written: str) -> bool:
    """Whether a hash was made of this password, in a time that does not depend on where they differ."""
    cost, block, parallel, salt, key = _HASH.fullmatch(written).groups()
    found = _scrypt(password, bytes.fromhex(salt), int(cost), int(block), int(parallel))
    return hmac.compare_digest(found, bytes.fromhex(key))


def read_users(path: Path) -> dict[str, User]:
    """The users of a file, by name. Raises UsersError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsersError(f"There is no users file {path}. Make one: python -m dpo users {path} add NAME --role owner") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsersError(f"The users file {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    users: dict[str, User] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user = _read_line(line.strip(), f"{path}, line {number}")
        if user.name in users:
            raise UsersError(f"{path}, line {number}: {user.name} is there already. Remove one of the two lines.")
        users[user.name] = user
    return users


def write_users(path: Path, users: Iterable[User]) -> None:
    """Replace the file by one that its owner alone can read. Raises UsersError."""
    lines = "".join(f"{user.name}:{user.role}:{user.hash}\n" for user in users)
    try:
        handle, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")  # readable by its owner alone
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(lines)
            os.replace(written, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(written)
            raise
    except OSError as error:
        raise UsersError(f"The users file {path} cannot be written: {error.strerror}.") from error


def check_name(name: str) -> str:
    """Raises UsersError for what cannot be a user's name."""
    if not NAME.fullmatch(name):
        raise UsersError(f"{name!r} cannot be a user's name. Use 1 to 60 letters, digits and . _ @ + -")
    return name


def is_open_to_others(path: Path) -> bool:
    """Whether other accounts of this machine can read the file."""
    return os.name == "posix" and bool(path.stat().st_mode & 0o077)


def _read_line(line: str, where: str) -> User:
    name, _, rest = line.partition(":")
    role, _, written = rest.partition(":")
    if not NAME.fullmatch(name) or role not in ROLES:
        raise UsersError(f"{where}: this is not name:role:hash with one of the roles {', '.join(ROLES)}.")
    parts = _HASH.fullmatch(written)
    if parts is None or not _is_sane(*map(int, parts.groups()[:3])):
        raise UsersError(f"{where}: the hash of {name} is none of scrypt's. Remove the line, and add {name} anew.")
    return User(name, role, written)


def _is_sane(cost: int, block: int, parallel: int) -> bool:
    is_power = cost > 1 and cost & (cost - 1) == 0
    return is_power and block > 0 and parallel > 0 and 128 * block * (cost + parallel) <= _MOST_MEMORY and parallel <= 4


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, _COST, _BLOCK, _PARALLEL)
    return "$".join(("scrypt", *map(str, (_COST, _BLOCK, _PARALLEL)), salt.hex(), key.hex()))


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=cost, r=block, p=parallel, maxmem=2 * _MOST_MEMORY, dklen=32)


def _standing(path: Path) -> tuple:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


_NOBODY = _hashed(secrets.token_hex(8))  # what a name that nobody has is checked against
