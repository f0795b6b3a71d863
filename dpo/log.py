"""The log of a project, PROJECT/log/studio.log: what the app and its jobs report, a line each, and how failures came about.

Modules speak through the standard `logging` under their own names, so this program is told from gradio, uvicorn and diffusers,
which are not kept. What is written says what was done, never what a prompt says; secrets of this machine are struck out wherever
they come from. A disk that refuses costs lines and nothing else.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

SPEAKERS = ("dpo", "ui")  # the packages whose words are kept
FOLDER, FILE = "log", "studio.log"
LARGEST, OLD_FILES = 1 << 20, 2  # bytes of one file; so many older ones beside it
SHORTEST_SECRET = 6  # characters; a shorter one would strike out half the words
STRUCK = "***"
PACKAGES = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "gradio", "starlette", "pillow", "bitsandbytes",
    "torchao", "gguf",
)  # fmt: skip
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSW|AUTH|API_?KEY|CREDENTIAL", re.IGNORECASE)
_TOKENS = re.compile(r"\b(hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{10,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")

log = logging.getLogger(__name__)


def log_file(project: Path) -> Path:
    return project / FOLDER / FILE


def keep_log(project: Path | None, verbose: bool = False, secrets: Iterable[str] = ()) -> None:
    """From now on, write what this program says to the project's log, if there is a project; and to the terminal its errors, or
    with `verbose` everything. `secrets`: texts that are struck out, besides those of the environment."""
    terminal = _Terminal()
    terminal.setLevel(logging.DEBUG if verbose else logging.ERROR)
    handlers: list[logging.Handler] = [terminal]
    if project is not None:
        with suppress(OSError):  # writing will find out again, and say nothing
            log_file(project).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_QuietFile(log_file(project), maxBytes=LARGEST, backupCount=OLD_FILES, encoding="utf-8", delay=True))
    lines = _Lines(_with_passwords(secrets) | secrets_here())
    for handler in handlers:
        handler.setFormatter(lines)
    for name in SPEAKERS:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    log.info("%s begins as process %d: %s", Path(sys.argv[0]).name, os.getpid(), versions())


def versions() -> str:
    """Of Python and of the packages that matter, as they are installed: none of them is loaded for it."""
    found = [f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is not installed")
    return ", ".join(found)


def last_errors(project: Path, count: int) -> list[str]:
    """The last warnings and errors of the log, oldest first, each with the lines that follow it."""
    try:
        lines = log_file(project).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    is_wanted = False
    for line in lines:
        if not line.startswith(" "):
            is_wanted = " WARNING " in line[:40] or " ERROR " in line[:40]
            if is_wanted:
                found.append(line)
        elif is_wanted:
            found[-1] += f"\n{line}"
    return found[-count:]


def secrets_here() -> set[str]:
    """What the environment keeps under names of secrets; of user:password also the password alone."""
    return _with_passwords(value for name, value in os.environ.items() if _SECRET_NAMES.search(name))


def _with_passwords(secrets: Iterable[str]) -> set[str]:
    found = set(secrets)
    found |= {value.partition(":")[2] for value in found}
    return {value for value in found if len(value) >= SHORTEST_SECRET}


def strike_out(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, and without what looks like a token or a login in an address."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, STRUCK)
    return _TOKENS.sub(STRUCK, text)


def visible(text: str, kept: str = "") -> str:
    """The text with what does something instead of being seen written out: control characters, and marks that turn the direction
    of text, which a name or a prompt may hold. `kept`: those that stay."""
    return "".join(char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text)


class _Terminal(logging.StreamHandler):
    @property
    def stream(self) -> TextIO:
        """Whatever the terminal is when something is said."""
        return sys.stderr

    @stream.setter
    def stream(self, other: TextIO) -> None:
        """Handlers keep one; this one does not."""


class _QuietFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk, a folder that is gone: whoever reported something has better things to do than to hear of it."""


class _Lines(logging.Formatter):
    """A line for a record, whatever is in it; what follows of a traceback is indented, so that no text can pass for a record."""

    def __init__(self, secrets: set[str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:
        return self._clean(super().formatMessage(record))

    def formatException(self, info) -> str:
        return "\n".join(f"    {self._clean(line)}" for line in super().formatException(info).splitlines())

    def _clean(self, text: str) -> str:
        return visible(strike_out(text, self._secrets))
