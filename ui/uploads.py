"""Files on their way from a browser into the project: taken in by a thread, then scanned. One lot at a time."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gradio.utils import get_upload_folder

from dpo import StudioError
from dpo.intake import LARGEST_TOTAL, IntakeReport, take_in

if TYPE_CHECKING:
    from dpo.project import Project

log = logging.getLogger(__name__)
MOST_UPLOADED = 32 << 30  # bytes of all uploads together, of a project that others may be at
WAIT_SECONDS = 0.5  # between looks at a scan that has to end first


class UploadError(StudioError):
    """Files that cannot be taken now."""


@dataclass
class Upload:
    """One lot of files. Pages read it as they like; `refused` never reached the app: (name, reason)."""

    files: int  # sent; a zip is one
    folder: Path
    done: int = 0  # files looked at, those in zips too
    total: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    refused: tuple[tuple[str, str], ...] = ()
    report: IntakeReport | None = None
    error: str = ""
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def problem(self) -> str:
        """What to say of a lot that brought nothing; "" for one that did, or is on its way."""
        if self.error or not self.finished.is_set() or (self.report and self.report.kept):
            return self.error
        return "Nothing of this upload could be taken: see why under Not taken. Send images, or a zip of images."

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return [*self.refused, *(self.report.skipped if self.report else ())]


@dataclass
class Uploads:
    """The last lot of this process, running or done."""

    current: Upload | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self, project: Project, files: Sequence[Path], refused: Sequence[tuple[str, str]] = (), is_shared: bool = False
    ) -> Upload:
        """Take files into a new folder of the project's uploads, in a thread, and scan all uploads: images of one prompt
        meet also when they came on different days. The files are deleted; they are copies. Raises UploadError while another
        lot is on its way, and on a shared page once there are MOST_UPLOADED."""
        room = MOST_UPLOADED - _size(uploads_folder(project)) if is_shared else LARGEST_TOTAL
        if room <= 0:
            raise UploadError(
                f"The uploads of this project have reached {MOST_UPLOADED >> 30} GB, the most that a shared page takes. Delete "
                f"some of {uploads_folder(project)} on the machine itself."
            )
        with self.lock:
            if self.current and not self.current.finished.is_set():
                raise UploadError(f"{self.current.files} files are being taken in. Wait for them, then upload again.")
            folder = uploads_folder(project) / datetime.now().strftime("%Y-%m-%d %H.%M.%S")
            self.current = upload = Upload(len(files), folder, refused=tuple(refused))
        threading.Thread(target=_run, args=(project, upload, list(files), room), name="upload", daemon=True).start()
        return upload


def uploaded_file(path: str) -> Path:
    """The file a page says it uploaded. Raises UploadError for one that Gradio did not put there: pages lie."""
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()) or not place.is_file():
        raise UploadError("This file did not arrive. Upload it again.")
    return place


def keep_table(project: Project, path: str) -> Path:
    """Where an uploaded table lies from now on: Gradio deletes its own copy after a day."""
    source = uploaded_file(path)
    kept = project.path / "tables" / f"{datetime.now():%Y-%m-%d %H.%M.%S} {source.name}"
    try:
        kept.parent.mkdir(exist_ok=True)
        shutil.move(source, kept)
    except OSError as error:
        raise UploadError(f"The table could not be kept in {kept.parent}: {error.strerror}. Free some space.") from error
    return kept


def uploads_folder(project: Project) -> Path:
    return project.path / "uploads"


def _size(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _run(project: Project, upload: Upload, files: list[Path], room: int) -> None:
    def progress(done: int, total: int) -> None:
        upload.done, upload.total = done, total

    try:
        if files:
            upload.report = take_in(files, upload.folder, progress, upload.stop.is_set, room)
        if upload.report and upload.report.kept:
            while (running := project.library.current_scan()) and not running.finished.wait(WAIT_SECONDS):
                pass
            project.library.start_scan(uploads_folder(project))
    except StudioError as error:
        upload.error = str(error)
    except OSError as error:
        upload.error = f"The files could not be kept in {upload.folder}: {error.strerror}. Free some space, then upload again."
    except Exception as error:  # the page must hear of it: nobody else watches this thread
        log.exception("the upload ended unexpectedly")
        upload.error = f"The upload ended unexpectedly: {error!r}. Upload again."
    finally:
        for path in files:
            path.unlink(missing_ok=True)
        upload.finished.set()
