"""The library: what is known of the images in folders. Rebuildable: a scan reads everything again.

A scan lists the folder first and opens only files whose size or time changed since the last scan. A file that cannot be
read, or says no prompt, is a row with its reason, never a crash. What is known of pixels is kept by content, so it outlives
a move; what people said (typed prompts, what may stand in for missing ones) is with their picks.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.catalogue import (
    IN_FOLDER,
    Catalogue,
    ImageFacts,
    LeftOut,
    count_facets,
    find_faces,
    find_facts,
    find_group,
    find_members,
    find_models,
    list_left_out,
    make_catalogue,
    range_of,
)  # fmt: skip
from dpo.groups import Face, Group, GroupLine, IndexedImage, View, identify
from dpo.index import (
    INDEX_MIGRATIONS,
    count_change,
    give_again,
    give_prompts,
    mark_broken,
    mark_shared,
    read_files,
    remove_files,
)
from dpo.metadata import content_key
from dpo.metadata.records import NO_IMAGE
from dpo.rows import to_image
from dpo.scan import IMAGE_ENDINGS, LibraryError, Scan, ScanReport, is_known, list_folder, look_at, to_search
from dpo.standins import Giver, StandIns

if TYPE_CHECKING:
    from dpo.given import GivenPrompts
    from dpo.project import Database

__all__ = [
    "IMAGE_ENDINGS", "INDEX_MIGRATIONS", "Library", "LibraryError", "Scan", "ScanReport", "StandIns", "content_key",
    "resolve_folder",
]  # fmt: skip

NEAR = 4  # bits of 64 in which the hashes of near-duplicates differ at most
MOST_KEPT = 16  # answers for views; a page asks for one or two


class Library:
    """The index of a project's images. Any thread may ask; one scan runs at a time."""

    def __init__(self, database: Database, given: GivenPrompts) -> None:
        self._database = database
        self._given = given
        self._lock = threading.Lock()
        self._scan: Scan | None = None
        # A page asks for the same few things at every pick and every look, so the last answers are kept: what was asked ->
        # (revision, answer), the oldest first.
        self._answers: dict[tuple, tuple[int, object]] = {}
        self._answering = threading.Lock()
        # What scorers are sure of, only the project knows: it puts here who is asked for the catalogue without those groups.
        self.leave_out_sure: Callable[[View], Catalogue] = self.catalogue

    # --- scanning

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
        processes: int | None = None,
    ) -> ScanReport:
        """Bring the index up to date with a folder and the folders in it, hidden ones left out.

        `report(done, total)` counts files. `processes`: how many read files, 0 for this one; None decides by their number.
        Raises LibraryError for a folder that is not there or holds no image files, and when a reading process dies; what was
        read is kept. Files that vanish or change meanwhile are taken as they were met.
        """
        folder, stop = resolve_folder(folder), stop or threading.Event()
        rows = self._database.tuples(f"SELECT path, fingerprint, has_own FROM images WHERE {IN_FOLDER}", range_of(folder))
        known = {path: (fingerprint, bool(has_own)) for path, fingerprint, has_own in rows}
        stealth = self.stand_ins(folder).pixels
        changed, total = [], 0
        for found in list_folder(folder):
            total += 1
            found = to_search(found) if stealth else found
            if not is_known(found, *known.pop(found.path, ("", False))):
                changed.append(found)
        gone = remove_files(self._database, known)
        if not total:
            raise LibraryError(
                f"{folder}: no image files found (looked for {', '.join(IMAGE_ENDINGS)}, also in the folders inside it). "
                "Choose the folder your images are in."
            )
        giver = self._giver(folder)
        unchanged = total - len(changed)
        report(unchanged, total)
        read, moved = read_files(
            self._database, changed, giver, gone, lambda done: report(unchanged + done, total), stop, processes
        )
        give_again(self._database, folder, giver)
        return ScanReport(total, read, unchanged, sum(map(len, gone.values())), unchanged + read < total, moved)

    def add_files(
        self, paths: Iterable[str | Path], report: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, str]:
        """Index these files wherever they lie; what lies beside them is not looked at. Returns path, as it was given -> key of
        those that are images; what is wrong with another, `images_at` says.

        `report(done, total)` counts files. Raises StandInError for a table of their folders that cannot be used.
        """
        given = {str(path): _place(path) for path in paths}
        places = sorted(set(given.values()))
        known = {path: (fingerprint, bool(has_own)) for path, fingerprint, has_own in self._database.tuples(
            "SELECT path, fingerprint, has_own FROM images WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(places),)
        )}  # fmt: skip
        found = [item for item in map(look_at, places) if not item.problem]
        changed = [item for item in found if not is_known(item, *known.get(item.path, ("", False)))]
        choices: dict[str, StandIns] = {}
        for folder in {os.path.dirname(path) for path in places}:
            choices |= self._choices(folder)
        others = len(places) - len(changed)
        report(others, len(places))
        giver = Giver(choices, self._given.typed())
        read_files(self._database, changed, giver, {}, lambda done: report(others + done, len(places)))
        images = self.images_at(places)
        good = {path: image.key for path, image in images.items() if image.record.reason not in NO_IMAGE}
        return {path: good[place] for path, place in given.items() if place in good}

    # --- asking

    def images_at(self, paths: Iterable[str | Path]) -> dict[str, IndexedImage]:
        """What is known of the files at these paths, by path as it was given; those that were never read are missing."""
        given = {str(path): _place(path) for path in paths}
        listed = json.dumps(list(given.values()))
        images = {image.path: image for image in self._images("path IN (SELECT value FROM json_each(?))", (listed,))}
        return {path: images[place] for path, place in given.items() if place in images}

    def revision(self) -> int:
        """Grows whenever the index changed: cheap to ask."""
        return self._database.read("SELECT value FROM facts WHERE name = 'revision'")[0]["value"]

    def catalogue(self, view: View) -> Catalogue:
        """The groups of a view and what is left out of them. Raises LibraryError for a filter we do not understand."""
        view = _absolute_view(view)
        if view.unsure:
            return self.leave_out_sure(replace(view, unsure=False))
        return self._kept(("catalogue", view), lambda: make_catalogue(self._database, view))

    def faces(self, view: View, lines: Iterable[GroupLine]) -> dict[str, Face]:
        """What is shown of these groups of the view, by their keys; one that changed since may be missing."""
        return find_faces(self._database, _absolute_view(view), lines)

    def group(self, view: View, key: str) -> Group | None:
        """A group of two images or more of the view, with what is known of its images."""
        return find_group(self._database, _absolute_view(view), key)

    def members(self, view: View, keys: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
        """The groups of two or more that hold any of these images: each group's images in order, each as the keys of its
        copies."""
        return find_members(self._database, _absolute_view(view), keys)

    def groups(self, folder: str | Path) -> list[Group]:
        """All groups of a folder that can be picked from, with their images; slow for many."""
        view = View(str(folder))
        found = (self.group(view, line.key) for line in self.catalogue(view).lines)
        return [group for group in found if group]

    def facets(self, folder: str | Path) -> dict[str, list[tuple[str, int]]]:
        """What a view of the folder can be filtered by: "generator", "model" and "size" -> (value, images), most first."""
        folder = _absolute_view(View(str(folder))).folder
        return self._kept(("facets", folder), lambda: count_facets(self._database, folder))

    def left_out(self, folder: str | Path | View, reason: str, start: int, count: int) -> list[LeftOut]:
        """Files `start` to `start + count` of those left out for one of REASONS, by path: of a folder, or of a view."""
        view = _absolute_view(folder if isinstance(folder, View) else View(str(folder)))
        alone = self.catalogue(view).alone if reason == "alone" else ()
        return list_left_out(self._database, view, reason, start, count, alone)

    def images(self, folder: str | Path) -> list[IndexedImage]:
        """Every image of a folder that was scanned, readable or not, by path."""
        return self._images(f"{IN_FOLDER} ORDER BY path", range_of(str(_absolute(folder))))

    def image(self, key: str) -> IndexedImage | None:
        """The image with this content, at a path where it still is if there is one."""
        found = self._images("key = ?", (key,))
        return next((image for image in found if os.path.exists(image.path)), found[0] if found else None)

    def image_facts(self, keys: Iterable[str]) -> dict[str, ImageFacts]:
        """What pairs of these images are judged by, in one question; an image that no scan has seen is missing."""
        return find_facts(self._database, keys)

    def models(self, paths: Iterable[str]) -> dict[str, str]:
        """What each of these files says of the model that made it, "" for nothing; a file that no scan has seen is missing."""
        return find_models(self._database, paths)

    # --- pixels

    def note_pixels(self, rows: list[tuple[str, str, str]]) -> None:
        """What decoding found out: (key, digest of the pixels, difference hash as 16 hex digits). Files with the same pixels
        are copies from then on."""
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO pixels VALUES (?, ?, ?)", rows)
            connection.executemany(
                "UPDATE images SET content = ?, prepared = 1 WHERE key = ?", [(identify(digest), key) for key, digest, _ in rows]
            )
            if mark_shared(connection, [key for key, _, _ in rows]):  # nothing else changes what anybody sees
                count_change(connection)

    def note_broken(self, rows: list[tuple[str, str]]) -> None:
        """(key, sentence) of images that turned out to have no readable pixels: they leave their groups, with that reason."""
        mark_broken(self._database, rows)

    def unprepared(self, folder: str | Path, count: int) -> list[tuple[str, str]]:
        """(key, path) of up to `count` images in groups whose pixels nobody has noted yet, by path."""
        folder = str(_absolute(folder))
        alone = self.catalogue(View(folder)).alone
        found: dict[str, str] = {}
        for key, path in self._database.each(
            f"SELECT key, path FROM images INDEXED BY images_unprepared WHERE prepared = 0 AND reason = '' AND {IN_FOLDER} "
            "ORDER BY path",
            range_of(folder),
        ):
            place = bisect_left(alone, path)
            if place == len(alone) or alone[place] != path:
                found.setdefault(key, path)
                if len(found) == count:
                    break
        return list(found.items())

    def near(self, keys: Iterable[str]) -> dict[str, int]:
        """A number for each of these images that looks nearly like another of them; the same for those that look alike."""
        rows = self._database.tuples(
            "SELECT key, dhash FROM pixels WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key", (json.dumps(list(keys)),)
        )
        hashes = [int(dhash, 16) for _, dhash in rows]
        cluster = list(range(len(rows)))
        for one, mine in enumerate(hashes):
            for other in range(one):
                if (mine ^ hashes[other]).bit_count() <= NEAR and cluster[one] != cluster[other]:
                    old, new = cluster[one], cluster[other]
                    cluster = [new if number == old else number for number in cluster]
        return {key: number for (key, _), number in zip(rows, cluster, strict=True) if cluster.count(number) > 1}

    # --- what stands in for prompts

    def stand_ins(self, folder: str | Path) -> StandIns:
        """What was chosen for a folder, or for the nearest folder around it."""
        folder = str(_absolute(folder))
        around = [(place, choice) for place, choice in self._given.choices().items() if is_inside(folder, place)]
        return max(around, key=lambda item: len(item[0]), default=("", StandIns()))[1]

    def set_stand_ins(self, folder: str | Path, stand_ins: StandIns) -> None:
        """Choose, and apply it at once; no image is opened. Raises StandInError for a table that cannot be used: then nothing
        was changed."""
        folder = str(_absolute(folder))
        giver = Giver({**self._choices(folder), folder: stand_ins}, self._given.typed())
        self._given.choose(folder, stand_ins)
        give_again(self._database, folder, giver)

    def give_prompt(self, key: str, prompt: str) -> None:
        """A prompt that somebody typed for an image; it goes before what the file says. "" takes it back. Raises
        StandInError for a table of its folder that cannot be used: then nothing was changed."""
        rows = self._database.tuples("SELECT id, path, key, has_own FROM images WHERE key = ? AND width > 0", (key,))
        folders = {os.path.dirname(path) for _, path, _, _ in rows}
        choices = {place: choice for folder in folders for place, choice in self._choices(folder).items()}
        giver = Giver(choices, {})  # before anything is stored: it refuses a table that cannot be used
        self._given.give(key, prompt)
        giver.typed = self._given.typed()
        give_prompts(self._database, rows, giver)

    # --- inside

    def _run(self, scan: Scan) -> None:
        def report(done: int, total: int) -> None:
            if not scan.total:
                scan.unchanged, scan.started = done, time.monotonic()
            scan.done, scan.total = done, total

        try:
            scan.report = self.scan(scan.folder, report, scan.stop)
        except StudioError as error:
            scan.error = str(error)
        except Exception as error:  # the page must hear of it: nobody else watches this thread
            scan.error = f"The scan of {scan.folder} ended unexpectedly: {error!r}. Scan again; what was read is kept."
        finally:
            scan.finished.set()

    def _kept(self, question: tuple, answer: Callable[[], object]):
        with self._answering:  # two pages that ask the same wait for one answer
            revision = self.revision()
            kept = self._answers.pop(question, None)
            if kept is None or kept[0] != revision:
                kept = revision, answer()
            self._answers[question] = kept
            while len(self._answers) > MOST_KEPT:
                del self._answers[next(iter(self._answers))]
            return kept[1]

    def _images(self, where: str, values: tuple) -> list[IndexedImage]:
        rows = self._database.tuples(
            f"SELECT key, path, record, given FROM images JOIN records ON records.id = images.id WHERE {where}", values
        )
        return [to_image(*row) for row in rows]

    def _choices(self, folder: str) -> dict[str, StandIns]:
        """Those that matter for the files of a folder."""
        return {
            place: choice
            for place, choice in self._given.choices().items()
            if is_inside(folder, place) or is_inside(place, folder)
        }

    def _giver(self, folder: str) -> Giver:
        return Giver(self._choices(folder), self._given.typed())


def resolve_folder(folder: str | Path) -> str:
    """The absolute path of an existing folder. Raises LibraryError with what is wrong."""
    if not str(folder).strip():
        raise LibraryError("No folder was given. Write the path of the folder your images are in.")
    path = _absolute(folder)
    if not _is_text(str(path)):
        raise LibraryError(f"{str(path)!r}: its name is no valid text. Rename the folder, then choose it again.")
    if not path.exists():
        raise LibraryError(f"{path} does not exist. Check the spelling, or choose another folder.")
    if not path.is_dir():
        raise LibraryError(f"{path} is a file. Choose the folder it is in.")
    return str(path)


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it; both absolute."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absolute(folder: str | Path) -> Path:
    return Path(str(folder).strip()).expanduser().resolve()


def _place(path: str | Path) -> str:
    """The path by which a scan would know a file: its folder resolved, its own name as it is."""
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
    return os.path.join(os.path.realpath(folder), name)


def _absolute_view(view: View) -> View:
    return replace(view, folder=str(_absolute(view.folder)))
