"""Uploads: files and zips become files in a folder of the project, for the library to scan like any other.

Every image arrives byte for byte, for its metadata is what it is wanted for: that is read from the very file that was sent,
and nothing encodes it anew. What a person would not recognise as theirs is avoided: names stay as they were as far as every
system can have them, folders stay folders, and a text beside an image stays beside it under the image's name.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dpo import StudioError, archive
from dpo.archive import ArchiveError, Entry
from dpo.metadata import read_file
from dpo.metadata.records import NO_IMAGE
from dpo.pixels import MOST_PIXELS
from dpo.scan import IMAGE_ENDINGS

TEXT_ENDINGS, TABLE_ENDING = (".txt", ".json"), ".csv"
MOST_FILES = 20_000
LARGEST_TOTAL = 8 << 30  # bytes, unpacked
LARGEST_IMAGE, LARGEST_TEXT, LARGEST_TABLE = 256 << 20, 4 << 20, 64 << 20  # bytes
LONGEST_STEM, LONGEST_FOLDER = 150, 100  # bytes of UTF-8; systems end at 255, endings and numbers are added
DEEPEST = 8
_WAITING = ".arriving"  # a scan passes over what is in here
_ENDING = re.compile(
    rf"((?:{'|'.join(map(re.escape, IMAGE_ENDINGS))})?(?:\.txt|\.json)|\.csv|{'|'.join(map(re.escape, IMAGE_ENDINGS))})$",
    re.IGNORECASE,
)
_FORBIDDEN = set('<>:"/\\|?*')
_REVERSING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)


class IntakeError(StudioError):
    """An upload of which nothing could be taken."""


@dataclass(frozen=True)
class IntakeReport:
    """What became of an upload. `kept`: images that are in `folder` now. `skipped`: (name, reason) of everything that is not;
    if it ended early, the last row speaks for all that was left. Without anything taken, there is no folder either."""

    kept: int
    skipped: list[tuple[str, str]]
    folder: Path


@dataclass
class _Item:
    """A file on its way in: the file at `path`, or an entry of a zip."""

    shown: str  # what it is called in a report
    named: tuple[str, ...]  # its folders and its stem, as they were
    parts: tuple[str, ...]  # the folders it goes into: safe names
    stem: str  # a safe name
    ending: str
    size: int
    path: Path | None = None
    entry: Entry | None = None
    zip: zipfile.ZipFile | None = None

    @property
    def is_image(self) -> bool:
        return self.ending.lower() in IMAGE_ENDINGS

    @property
    def is_table(self) -> bool:
        return self.ending.lower() == TABLE_ENDING


class _Refused(Exception):
    """This one file is not taken: the reason."""


def take_in(
    files: Sequence[Path],
    target: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    largest_total: int = LARGEST_TOTAL,
) -> IntakeReport:
    """Put uploaded images, and the texts and tables beside them, into `target`; zips unpacked, with the folders in them.

    `files` are left where they are; on the same disk both may then be one file under two names, so they should be nobody's
    originals. `largest_total`: bytes, unpacked. `progress(done, total)` counts files. Files with equal names are numbered:
    cat.png, cat-2.png. What is not taken is a row in the report; so is a full disk, or `stop`, and what was taken until then
    stays.

    Raises IntakeError if `target` cannot be made.
    """
    target = Path(target)
    try:
        (target / _WAITING).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IntakeError(f"{target} cannot be written: {error.strerror}. Free some space, then upload again.") from error
    skipped: list[tuple[str, str]] = []
    with ExitStack() as opened:
        items = list(_bounded(_list(files, opened, skipped), skipped, min(largest_total, LARGEST_TOTAL)))
        groups = _name_groups(items, target, skipped)
        kept = _take_groups(groups, target, skipped, progress, stop)
    shutil.rmtree(target / _WAITING, ignore_errors=True)
    with suppress(OSError):  # not empty, as it should be
        target.rmdir()
    return IntakeReport(kept, skipped, target)


# ------------------------------------------------------------------------------------------------ what came


def _list(files: Sequence[Path], opened: ExitStack, skipped: list) -> Iterator[_Item]:
    """Everything that may be taken, by name and size; the rest goes into `skipped`."""
    for path in map(Path, files):
        name = path.name
        try:
            if path.is_symlink() or not path.is_file():
                raise _Refused("It is not a file. Send the file itself.")
            if name.lower().endswith(".zip"):
                yield from _list_zip(path, opened, skipped)
            else:
                yield _item(name, (name,), path.stat().st_size, path=path)
        except (_Refused, ArchiveError) as reason:
            skipped.append((_printable(name), str(reason)))
        except OSError as error:
            skipped.append((_printable(name), f"It cannot be read: {error.strerror}. Upload it again."))


def _list_zip(path: Path, opened: ExitStack, skipped: list) -> Iterator[_Item]:
    file = opened.enter_context(archive.open_archive(path))
    items = []
    for entry in archive.list_entries(file, path.stat().st_size):
        if not isinstance(entry, Entry):
            skipped.append((_printable(f"{path.name}/{entry[0]}"), entry[1]))
            continue
        shown = f"{path.name}/{'/'.join(entry.parts)}"
        try:
            items.append(_item(shown, entry.parts, entry.size, entry=entry, zip=file))
        except _Refused as reason:
            skipped.append((_printable(shown), str(reason)))
    yield from items  # only now: a list that turns out to be a bomb is refused whole


def _item(shown: str, parts: tuple[str, ...], size: int, **where) -> _Item:
    *folders, name = parts
    found = _ENDING.search(name)
    if name.lower().endswith(archive.ENDINGS):
        raise _Refused("It is an archive that cannot be unpacked here. Unpack it, or send a zip.")
    if not found or not found.start():
        raise _Refused(f"It is not an image: the name ends with none of {', '.join(IMAGE_ENDINGS)}.")
    if len(folders) > DEEPEST:
        raise _Refused(f"It lies in more than {DEEPEST} folders inside each other. Send the inner folder by itself.")
    ending = found[0]
    largest = LARGEST_TABLE if ending.lower() == TABLE_ENDING else LARGEST_TEXT
    if ending.lower() in IMAGE_ENDINGS:
        largest = LARGEST_IMAGE
    if size > largest:
        raise _Refused(f"It has {size:,} bytes; the most that is taken of one such file is {largest:,}.")
    stem = name[: found.start()]
    safe = tuple(safe_name(folder, LONGEST_FOLDER) for folder in folders)
    return _Item(_printable(shown), (*folders, stem), safe, safe_name(stem, LONGEST_STEM), ending, size, **where)


def _bounded(items: Iterator[_Item], skipped: list, largest_total: int) -> Iterator[_Item]:
    """As many as are taken at once; the rest is counted in one row."""
    count = total = left = 0
    for item in items:
        if count == MOST_FILES or total + item.size > largest_total:
            left += 1
            continue
        count, total = count + 1, total + item.size
        yield item
    if left:
        limits = f"{MOST_FILES:,} files and {largest_total / (1 << 30):.3g} GB"
        skipped.append((_more(left), f"At most {limits} are taken at once. Send the rest in another upload."))


def _more(count: int) -> str:
    return f"{count:,} more file{'s' if count > 1 else ''}"


def safe_name(text: str, longest: int) -> str:
    """A name that every system can have, as close to `text` as may be and at most `longest` bytes long."""
    text = unicodedata.normalize("NFC", text)
    is_bad = {
        letter: letter in _FORBIDDEN or letter in _REVERSING or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        for letter in set(text)
    }
    text = "".join("_" if is_bad[letter] else letter for letter in text).strip(". ")  # a leading dot would hide it
    if _RESERVED.match(text):
        text = f"_{text}"
    return text.encode()[:longest].decode(errors="ignore").rstrip(". ") or "_"


def _printable(name: str) -> str:
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return name if len(name) <= 200 else f"{name[:100]}...{name[-90:]}"


# ------------------------------------------------------------------------------------------------ what it is called


@dataclass
class _Group:
    """An image and the texts beside it (or images that share them): one new stem for all, so that they stay together."""

    items: list[_Item] = field(default_factory=list)
    stem: str = ""


def _name_groups(items: list[_Item], target: Path, skipped: list) -> list[_Group]:
    """Put together what belongs together, in the order it came. A stem is used once per folder, whatever the ending: else an
    image would find itself beside the text of another."""
    groups: dict[tuple, _Group] = {}
    met: Counter = Counter()
    alike: dict[tuple, Counter] = defaultdict(Counter)
    for item in items:
        place = item.zip, _folded(item.named)  # what came loose came together
        number = met[place, item.ending.lower()]
        met[place, item.ending.lower()] += 1
        alike[place][item.ending.lower()] += 1
        groups.setdefault((place, number), _Group()).items.append(item)
    for (place, _), group in groups.items():
        images = max((count for ending, count in alike[place].items() if ending in IMAGE_ENDINGS), default=0)
        for item in [item for item in group.items if not item.is_image and not item.is_table]:
            if images > 1 and alike[place][item.ending.lower()] != images:
                group.items.remove(item)
                skipped.append((item.shown, "Several images have its name, so it is not clear which it belongs to. Rename them."))
    used = _stems_in(target)
    for group in (group for group in groups.values() if group.items):
        first = group.items[0]
        number, group.stem = 1, first.stem
        while (_folded(first.parts), group.stem.casefold()) in used:
            number += 1
            group.stem = f"{first.stem}-{number}"
        used.add((_folded(first.parts), group.stem.casefold()))
    return [group for group in groups.values() if group.items]


def _folded(parts: Sequence[str]) -> tuple[str, ...]:
    """Names as systems compare them that take capital and small letters for the same."""
    return tuple(part.casefold() for part in parts)


def _stems_in(target: Path) -> set[tuple[tuple[str, ...], str]]:
    return {
        (_folded(Path(folder).relative_to(target).parts), _ENDING.sub("", name).casefold())
        for folder, _, names in os.walk(target)
        for name in names
    }


# ------------------------------------------------------------------------------------------------ taking it


def _take_groups(groups: list[_Group], target: Path, skipped: list, progress: Callable, stop: Callable) -> int:
    """The number of images that were put into `target`."""
    kept, done, total = 0, 0, sum(len(group.items) for group in groups)
    for group in groups:
        has_image = False
        for item in sorted(group.items, key=lambda item: not item.is_image):
            if stop():
                return _left(skipped, kept, total - done, "The upload was stopped.")
            try:
                if not (item.is_image or item.is_table or has_image):
                    raise _Refused("No image of its name was taken.")
                _take(item, target, f"{group.stem}{item.ending}")
                has_image = has_image or item.is_image
                kept += item.is_image
            except (_Refused, ArchiveError) as reason:
                skipped.append((item.shown, str(reason)))
            except OSError as error:
                return _left(skipped, kept, total - done, f"{target} cannot be written: {error.strerror}. Free some space.")
            done += 1
            progress(done, total)
    return kept


def _left(skipped: list, kept: int, left: int, why: str) -> int:
    skipped.append((_more(left), f"{why} The {kept:,} images taken before are kept; send the rest again."))
    return kept


def _take(item: _Item, target: Path, name: str) -> None:
    """Raises _Refused or ArchiveError for what is no image after all, OSError if the target cannot be written."""
    arrived = target / _WAITING / name
    try:
        if item.path is not None:
            _check_image(item, item.path)
            _link_or_copy(item.path, arrived)
        else:
            with arrived.open("wb") as file:
                for piece in archive.read_entry(item.zip, item.entry):
                    file.write(piece)
            _check_image(item, arrived)
            if item.entry.made is not None:
                os.utime(arrived, (item.entry.made, item.entry.made))
        folder = target.joinpath(*item.parts)
        folder.mkdir(parents=True, exist_ok=True)
        arrived.replace(folder / name)
    finally:
        arrived.unlink(missing_ok=True)


def _check_image(item: _Item, path: Path) -> None:
    if item.is_image:
        _, record = read_file(path)
        if record.reason in NO_IMAGE:
            raise _Refused(record.error)
        if record.width * record.height > MOST_PIXELS:
            raise _Refused(f"It has {record.width} x {record.height} pixels; {MOST_PIXELS:,} are the most. Make it smaller.")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)
