"""The library: what is known of the images in folders. Rebuildable: a scan reads everything again.

A scan lists the folder first and opens only files whose size or time changed since the last scan. A file that cannot be
read, or says no prompt, is a row with its reason, never a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.groups import Group, IndexedImage, group_images, normalise_prompt
from dpo.metadata import ImageRecord, read_image

if TYPE_CHECKING:
    from dpo.project import Database

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
BATCH = 64  # files per transaction: what a stopped or killed scan loses at most
_SAMPLE = 1 << 16  # bytes of head and of tail that go into a key
_RECORD_FIELDS = ",".join(entry.name for entry in fields(ImageRecord))


class LibraryError(StudioError):
    """A folder that cannot be scanned, or holds nothing to use."""


@dataclass(frozen=True)
class ScanReport:
    """What a scan did, in files. `stopped`: it was asked to stop, and what it had read is kept."""

    total: int
    read: int
    unchanged: int
    gone: int
    stopped: bool


@dataclass(frozen=True)
class FolderSummary:
    """What a folder holds. `prompts` counts different prompts, `groups` those that can be picked from."""

    images: int
    prompts: int
    groups: int
    without_prompt: int
    unreadable: int
    alone: int  # images with a prompt, and no other image to compare with
    example: str  # the reason of one image that is not used, for when none is


@dataclass
class Scan:
    """A scan in its thread. Pages read it as they like; closing a page changes nothing."""

    folder: str
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)
    report: ScanReport | None = None
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def rate(self) -> float:
        """Files a second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while there is no pace."""
        return (self.total - self.done) / self.rate if self.done else None


class Library:
    """The index of a project's images. Any thread may ask; one scan runs at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._scan: Scan | None = None
        # Grouping ten thousand images takes a tenth of a second and is asked for at every pick, so the last answer is kept.
        self._grouped: tuple[str, int, list[Group]] | None = None
        self._forget_records_of_another_version()

    def start_scan(self, folder: str | Path) -> Scan:
        """Scan in a thread. Returns the running scan if it is of this folder. Raises LibraryError if another runs, or for a
        folder that is not there."""
        folder = resolve_folder(folder)
        with self._lock:
            if self._scan and not self._scan.finished.is_set():
                if self._scan.folder == folder:
                    return self._scan
                raise LibraryError(f"{self._scan.folder} is being scanned. Wait for it, or stop it first.")
            self._scan = Scan(folder)
            threading.Thread(target=self._run, args=(self._scan,), name="scan", daemon=True).start()
            return self._scan

    def current_scan(self) -> Scan | None:
        """The running or last scan of this process."""
        return self._scan

    def scan(
        self,
        folder: str | Path,
        report: Callable[[int, int], None] = lambda done, total: None,
        stop: threading.Event | None = None,
    ) -> ScanReport:
        """Bring the index up to date with a folder and the folders in it, hidden ones left out.

        `report(done, total)` counts files. Raises LibraryError for a folder that is not there or holds no image files.
        Files that vanish or change meanwhile are taken as they were met.
        """
        folder = resolve_folder(folder)
        found = dict(list_images(folder))
        known = {row["path"]: row["fingerprint"] for row in self._rows(folder, "path, fingerprint")}
        self._remove(known.keys() - found.keys())
        gone = len(known.keys() - found.keys())
        if not found:
            raise LibraryError(
                f"{folder}: no image files found (looked for {', '.join(IMAGE_ENDINGS)}, also in the folders inside it). "
                "Choose the folder your images are in."
            )
        changed = [path for path, fingerprint in found.items() if known.get(path) != fingerprint]
        unchanged = len(found) - len(changed)
        report(unchanged, len(found))
        read = 0
        for start in range(0, len(changed), BATCH):
            batch = []
            for path in changed[start : start + BATCH]:
                if stop is not None and stop.is_set():
                    break
                batch.append((path, found[path], *_read(path)))
                report(unchanged + read + len(batch), len(found))
                # Parsing is pure Python: give way, or every answer to a page waits for the interpreter's lock.
                time.sleep(0.0005)
            self._save(batch)
            read += len(batch)
        return ScanReport(len(found), read, unchanged, gone, stopped=unchanged + read < len(found))

    def images(self, folder: str | Path) -> list[IndexedImage]:
        """Every image of a folder that was scanned, readable or not, by path."""
        return [_to_image(row) for row in self._rows(folder, "key, path, record")]

    def image(self, key: str) -> IndexedImage | None:
        """The image with this content, at a path where it still is if there is one."""
        found = [_to_image(row) for row in self._database.read("SELECT key, path, record FROM images WHERE key = ?", (key,))]
        return next((image for image in found if os.path.exists(image.path)), found[0] if found else None)

    def groups(self, folder: str | Path) -> list[Group]:
        """The groups of a folder that can be picked from: those of two images or more."""
        return [group for group in self._all_groups(folder) if len(group.images) > 1]

    def problems(self, folder: str | Path) -> list[tuple[str, str]]:
        """(path, reason) of every image that cannot be picked: unreadable, without a prompt, or the only one of its group."""
        rows = [(image.path, reason) for image in self.images(folder) if (reason := _reason(image.record))]
        for group in self._all_groups(folder):
            if len(group.images) == 1:
                rows.append(
                    (group.images[0].path, "No other image has its prompt and shape, so there is nothing to compare it with.")
                )
        return sorted(rows)

    def summary(self, folder: str | Path) -> FolderSummary:
        images, groups = self.images(folder), self._all_groups(folder)
        unreadable = [image for image in images if not image.record.width]
        silent = [image for image in images if image.record.width and _reason(image.record)]
        return FolderSummary(
            images=len(images), prompts=len({group.prompt for group in groups}),
            groups=sum(len(group.images) > 1 for group in groups), without_prompt=len(silent), unreadable=len(unreadable),
            alone=sum(len(group.images) == 1 for group in groups),
            example=next((_reason(image.record) for image in (*silent, *unreadable)), ""),
        )  # fmt: skip

    def revision(self) -> int:
        """Grows whenever the index changed: cheap to ask."""
        return self._database.read("SELECT value FROM facts WHERE name = 'revision'")[0]["value"]

    def _run(self, scan: Scan) -> None:
        def report(done: int, total: int) -> None:
            scan.done, scan.total = done, total

        try:
            scan.report = self.scan(scan.folder, report, scan.stop)
        except StudioError as error:
            scan.error = str(error)
        except Exception as error:  # the page must hear of it: nobody else watches this thread
            scan.error = f"The scan of {scan.folder} ended unexpectedly: {error!r}. Scan again; what was read is kept."
        finally:
            scan.finished.set()

    def _all_groups(self, folder: str | Path) -> list[Group]:
        folder, revision = str(_absolute(folder)), self.revision()
        kept = self._grouped
        if kept is None or kept[:2] != (folder, revision):
            usable = [image for image in self.images(folder) if not _reason(image.record)]
            kept = self._grouped = (folder, revision, group_images(usable))
        return kept[2]

    def _rows(self, folder: str | Path, columns: str) -> list[sqlite3.Row]:
        # A range instead of LIKE: it uses the index, and % or _ in a folder's name mean themselves.
        prefix = str(_absolute(folder)).rstrip(os.sep) + os.sep
        return self._database.read(
            f"SELECT {columns} FROM images WHERE path > ? AND path < ? ORDER BY path",
            (prefix, prefix[:-1] + chr(ord(os.sep) + 1)),
        )

    def _save(self, batch: list[tuple[str, str, str, ImageRecord]]) -> None:
        if batch:
            rows = [(path, fingerprint, key, json.dumps(asdict(record))) for path, fingerprint, key, record in batch]
            with self._database.write() as connection:
                connection.executemany("INSERT OR REPLACE INTO images (path, fingerprint, key, record) VALUES (?, ?, ?, ?)", rows)
                _count_change(connection)

    def _remove(self, paths) -> None:
        if paths:
            with self._database.write() as connection:
                connection.executemany("DELETE FROM images WHERE path = ?", [(path,) for path in paths])
                _count_change(connection)

    def _forget_records_of_another_version(self) -> None:
        with self._database.write() as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = 'record'").fetchone()
            if row is None or row["value"] != _RECORD_FIELDS:
                connection.execute("DELETE FROM images")
                connection.execute("INSERT OR REPLACE INTO facts VALUES ('record', ?)", (_RECORD_FIELDS,))
                _count_change(connection)


def resolve_folder(folder: str | Path) -> str:
    """The absolute path of an existing folder. Raises LibraryError with what is wrong."""
    if not str(folder).strip():
        raise LibraryError("No folder was given. Write the path of the folder your images are in.")
    path = _absolute(folder)
    if not path.exists():
        raise LibraryError(f"{path} does not exist. Check the spelling, or choose another folder.")
    if not path.is_dir():
        raise LibraryError(f"{path} is a file. Choose the folder it is in.")
    return str(path)


def content_key(path: str | Path) -> str:
    """Identify a file by its size, head and tail: 24 hex characters, the same wherever the file lies. Raises OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=12)
        digest.update(file.read(_SAMPLE))
        file.seek(max(_SAMPLE, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _absolute(folder: str | Path) -> Path:
    return Path(str(folder).strip()).expanduser().resolve()


def list_images(folder: str) -> Iterator[tuple[str, str]]:
    """(path, fingerprint) of each image file. A fingerprint is its size and time, which the listing tells for nothing."""
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                entries = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:  # removed meanwhile, or not ours to read: its images are not there for us
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.lower().endswith(IMAGE_ENDINGS) and entry.is_file():
                    # A name that is no valid text cannot be kept; made valid it cannot be opened, and its row says so.
                    path = entry.path.encode("utf-8", "replace").decode()
                    status = entry.stat()
                    yield path, f"{status.st_size}:{status.st_mtime_ns}"
            except OSError:  # removed between listing and asking
                continue


def _read(path: str) -> tuple[str, ImageRecord]:
    """The key and record of a file; a file without a key has "", and its record says why."""
    record = read_image(path)
    try:
        return content_key(path), record
    except OSError as error:
        reason = f"{os.path.basename(path)} cannot be opened: {error.strerror}. Check the file and scan again."
        return "", replace(record, error=record.error or reason)


def _reason(record: ImageRecord) -> str:
    """Why an image cannot be picked, or ""."""
    if record.error:
        return record.error
    if not normalise_prompt(record.prompt):
        return f"{os.path.basename(record.path)}: its prompt is only commas and spaces. Skip the file, or give it a prompt."
    return ""


def _to_image(row: sqlite3.Row) -> IndexedImage:
    values = json.loads(row["record"])
    return IndexedImage(row["key"], row["path"], ImageRecord(**{**values, "warnings": tuple(values["warnings"])}))


def _count_change(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'revision'")


def _create_images(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL)")
    connection.execute("INSERT INTO facts VALUES ('revision', 0)")
    connection.execute(
        "CREATE TABLE images (path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, key TEXT NOT NULL, record TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX images_by_key ON images (key)")


INDEX_MIGRATIONS = [_create_images]
