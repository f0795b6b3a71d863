"""Errors of the reference, kept across epochs, runs and sweeps: of one image at one draw of timestep and noise they are always
the same numbers, and each costs a forward pass.

On disk: one file per fingerprint, only ever appended to, of records of 24 bytes: the key's digest (16), the error as a
float32 (4), and a check (4) that makes the six words of a record xor to a constant. A record that was torn by a crash, or by two
processes writing at once where the file system allows that, is skipped, and what follows it is found again. The file may be
deleted at any moment.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpo import StudioError
from dpo.fingerprints import digest, weights_digest

if TYPE_CHECKING:
    from dpo.config import TrainConfig
    from dpo.families import Family

DIGEST = 16  # bytes
RECORD = np.dtype([("key", f"V{DIGEST}"), ("error", "<f4"), ("check", "<u4")])
WORDS = RECORD.itemsize // 4
SEAL = 0x52454631  # what the words of a record xor to; not 0, so that a stretch of zeros is none


class RememberedError(StudioError):
    """A file of errors that cannot be read or written."""


class RememberedErrors:
    """Errors by key, in memory and in a file that other processes and later runs add to and read.

    Raises RememberedError for a file that is there and cannot be read.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self._path = folder / f"{fingerprint}.errors"
        self._known: dict[bytes, float] = {}
        self._unwritten: list[tuple[bytes, float]] = []
        self._end = 0  # up to where the file was read
        self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, keys: Sequence[str]) -> list[float] | None:
        """The errors of `keys`, the very float32 values that were put; None unless all are known."""
        found = [self._known.get(_short(key)) for key in keys]
        return None if None in found else found

    def put(self, keys: Sequence[str], values: Sequence[float]) -> None:
        """Remember; on disk after the next `flush`. An error that is not finite is a mishap, not a fact, and is left out."""
        for key, value in zip(keys, values, strict=True):
            if math.isfinite(value):
                self._unwritten.append((_short(key), float(np.float32(value))))
        self._known.update(self._unwritten)

    def flush(self) -> None:
        """Append what is new in one write, and read what other processes have appended. Raises RememberedError."""
        if self._unwritten:
            data = _pack(self._unwritten)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "ab", buffering=0) as file:
                    while data:  # as a rule once: a full disk takes a part, and says so when asked to take the rest
                        data = data[file.write(data) :]
            except OSError as error:
                raise RememberedError(
                    f"{self._path} cannot be written: {error.strerror}. Free some space, or set reference_draws to 0."
                ) from error
            self._unwritten = []
        self._read()

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                if file.seek(0, 2) < self._end:  # deleted, and begun anew by another process
                    self._end = 0
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            self._end = 0
            return
        except OSError as error:
            raise RememberedError(f"{self._path} cannot be read: {error.strerror}. Delete it: it is computed again.") from error
        found, read = _unpack(data)
        self._known.update(found)
        self._end += read


def fingerprint(family: Family, reference_hash: str, config: TrainConfig) -> str:
    """32 hex characters from all that a reference error follows from, besides the rows and their draw.

    The denoiser's weights and dtypes, the noise schedule, the adapter that is the reference (`reference_hash`, "" for none), the
    kind of device, and the settings that decide how its numbers come about: the last digits of an error depend on the precision,
    the attention, compilation, and how many rows run together.
    """
    denoiser = family.denoiser
    schedule = {name: value for name, value in family.pipeline.scheduler.config.items() if not name.startswith("_")}
    together = config.batch_size if config.execution == "full_concurrent" else 0
    computing = f"{config.precision} {config.attention} {config.compile} {together}"
    parts = [type(family).__name__, reference_hash, computing, str(denoiser.dtype), denoiser.device.type]
    return digest(*parts, json.dumps(schedule, sort_keys=True, default=str), weights_digest(denoiser))


def _short(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=DIGEST).digest()


def _pack(entries: list[tuple[bytes, float]]) -> bytes:
    records = np.zeros(len(entries), RECORD)
    records["key"] = [key for key, _ in entries]
    records["error"] = [error for _, error in entries]
    records["check"] = _seal(records)
    return records.tobytes()


def _unpack(data: bytes) -> tuple[dict[bytes, float], int]:
    """(what whole records say, bytes up to the end of the last of them). After damage, goes on with the next whole record."""
    found: dict[bytes, float] = {}
    start, end = 0, 0
    while start is not None:
        records = _records(data, start)
        broken = np.flatnonzero(_seal(records))
        whole = records[: broken[0]] if len(broken) else records
        found.update(zip((key.tobytes() for key in whole["key"]), whole["error"].tolist(), strict=True))
        end = start + len(whole) * RECORD.itemsize
        start = _next_whole(data, end)
    return found, end


def _next_whole(data: bytes, start: int) -> int | None:
    """Where the first whole record at or after `start` begins, if there is one: it need not be in line with those before."""
    starts = []
    for shift in range(RECORD.itemsize):
        whole = np.flatnonzero(_seal(_records(data, start + shift)) == 0)
        starts += [start + shift + int(place) * RECORD.itemsize for place in whole[:1]]
    return min(starts, default=None)


def _records(data: bytes, start: int) -> np.ndarray:
    return np.frombuffer(data, RECORD, max(0, len(data) - start) // RECORD.itemsize, min(start, len(data)))


def _seal(records: np.ndarray) -> np.ndarray:
    """(N,) what the words of each record, its check included, xor to, against SEAL: 0 for a whole one."""
    return np.bitwise_xor.reduce(records.view("<u4").reshape(-1, WORDS), axis=1) ^ np.uint32(SEAL)
