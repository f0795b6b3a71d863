"""A live folder: the pairs of a project, copied as they are picked, for other trainers to use at any time.

    FOLDER/chosen/pair-0123456789abcdef.png + .txt    FOLDER/rejected/pair-0123456789abcdef.webp + .txt    manifest.json

A pair's stem is made of the content of its two images, so the same pair has the same files whenever it is written. The order
of every change makes a kill at any moment harmless: files come first, whole, under a name that is not theirs yet; then the
manifest; only then do files go that it does not name any more. What a kill leaves behind is found at the next change: files
that are named as ours and that no manifest names. Other files are nobody's business here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.exchange.card import CARD, card_text
from dpo.exchange.concepts import CONCEPTS, concepts_json, pattern_concepts
from dpo.exchange.dataset import Left, one_line
from dpo.exchange.exporting import check_share, export_failure
from dpo.exchange.manifest import FILE_NAME, MANIFEST, SPLITS, read_manifest, unfinished, write_manifest, write_whole
from dpo.pairs import Pair, split_pairs

if TYPE_CHECKING:
    from dpo.picks import PickedPair

SIDES = ("chosen", "rejected")
_OURS = re.compile(rf"(\.arriving-)?{FILE_NAME.pattern}")
_LAYOUT = "Files of one stem in chosen/ and rejected/ are a pair, the text beside them is its prompt; manifest.json says more."


@dataclass(frozen=True)
class LiveChange:
    """What a change did, in pairs; `left` are those that could not be copied. `files_written` counts every file, also texts
    and the manifest: 0 if the folder was as it should be."""

    added: int
    removed: int
    files_written: int
    left: tuple[Left, ...] = ()


class LiveFolder:
    """The folder at this path, which is made when something is written. One process at a time may change it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()

    def bring_up_to_date(self, pairs: Sequence[PickedPair]) -> LiveChange:
        """Make the folder hold exactly the used ones among these pairs; what is right already is not touched.

        A pair that is new and one of whose files is missing is left; one that was copied before stays without its originals.
        Raises ExchangeError if the folder cannot be written or its manifest is not ours; what it had stays whole.
        """
        wanted = {stem_of(picked.chosen, picked.rejected): picked for picked in pairs if picked.state == "used"}
        before = {entry["stem"]: entry for entry in read_manifest(self.folder)}
        try:
            return self._change(wanted, before)
        except OSError as error:
            raise export_failure(error, self.folder) from error

    def finalise(self, share: float) -> LiveChange:
        """Put the pairs that the manifest names into train and val, about `share` of the prompts into val, and write
        concepts.json and the card for OneTrainer and others. May be repeated, also with another share, after more pairs came.

        Raises ExchangeError as `bring_up_to_date`.
        """
        check_share(share)
        entries = read_manifest(self.folder)
        pairs = [_to_pair(entry, self.folder) for entry in entries]
        training, validation = split_pairs(pairs, share)
        held_out = {pair.prompt for pair in validation}
        splits = ["val" if entry["prompt"] in held_out else "train" for entry in entries]
        try:
            written = 0
            for entry, split in zip(entries, splits, strict=True):
                self._move(entry, split)
            if any(entry["split"] != split for entry, split in zip(entries, splits, strict=True)):
                entries = [{**entry, "split": split} for entry, split in zip(entries, splits, strict=True)]
                write_manifest(self.folder, entries)
                written += 1
            if entries:
                names = [split for split in ("train", "val") if split in splits]
                write_whole(self.folder / CONCEPTS, concepts_json(pattern_concepts(self.folder, names)))
                card = card_text(self.folder.name, training, validation, share, {}, _LAYOUT)
                write_whole(self.folder / CARD, card)
                written += 2
        except OSError as error:
            raise export_failure(error, self.folder) from error
        return LiveChange(0, 0, written)

    def _change(self, wanted: dict[str, PickedPair], before: dict[str, dict]) -> LiveChange:
        ours = list(self._ours())
        places = {(side, name): split for side, split, name in ours}
        entries, left, added, written = [], [], 0, 0
        for stem, picked in wanted.items():
            entry = _to_entry(stem, picked, before.get(stem))
            is_renamed = stem in before and before[stem]["prompt"] != entry["prompt"]
            missing = [
                (side, name) for side, name in _files(entry)
                if places.get((side, name)) != entry["split"] or (is_renamed and name.endswith(".txt"))
            ]  # fmt: skip
            try:
                written += self._write(entry, picked, missing, places)
            except _Unreadable as reason:
                left.append(Left(stem, str(reason)))
                continue
            added += stem not in before
            entries.append(entry)
        if entries != list(before.values()):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(self.folder, entries)
            written += 1
        kept = {(side, entry["split"], name) for entry in entries for side, name in _files(entry)}
        for side, split, name in set(ours) - kept:
            (self.folder / side / split / name).unlink(missing_ok=True)
        for name in (MANIFEST, CONCEPTS, CARD):
            unfinished(self.folder / name).unlink(missing_ok=True)
        removed = len(before.keys() - {entry["stem"] for entry in entries})
        return LiveChange(added, removed, written, tuple(left))

    def _write(self, entry: dict, picked: PickedPair, missing: list[tuple[str, str]], places: dict) -> int:
        """Put files of a pair where they belong; returns how many were written. Raises _Unreadable for a missing original."""
        written = 0
        originals = {"chosen": picked.pair.chosen, "rejected": picked.pair.rejected}
        for side, name in missing:
            target = self.folder / side / entry["split"] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if places.get((side, name), entry["split"]) != entry["split"]:  # a kill while finalising left it elsewhere
                (self.folder / side / places[side, name] / name).replace(target)
                continue
            arriving = target.with_name(f".arriving-{name}")
            if name.endswith(".txt"):
                arriving.write_text(one_line(entry["prompt"]), encoding="utf-8")
            else:
                _copy(originals[side], arriving)
            arriving.replace(target)
            written += 1
        return written

    def _move(self, entry: dict, split: str) -> None:
        for side, name in _files(entry):
            target = self.folder / side / split / name
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            for other in SPLITS:
                with suppress(FileNotFoundError):
                    (self.folder / side / other / name).replace(target)
                    break

    def _ours(self) -> Iterator[tuple[str, str, str]]:
        """(side, split, name) of the files that are named as ours."""
        for side in SIDES:
            for split in SPLITS:
                with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder / side / split) as listing:
                    yield from [(side, split, entry.name) for entry in listing if _OURS.fullmatch(entry.name)]


class _Unreadable(Exception):
    """An original that cannot be copied; the sentence says why."""


def stem_of(chosen: str, rejected: str) -> str:
    """The name of a pair by the keys of its images; the other way round it has another."""
    return f"pair-{hashlib.blake2b(f'{chosen} {rejected}'.encode(), digest_size=8).hexdigest()}"


def _copy(source: str, target: Path) -> None:
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open(source, "rb"))
        except OSError as error:
            raise _Unreadable(f"{source} cannot be read: {error.strerror}. Restore it, or relink it in the review.") from error
        shutil.copyfileobj(file, opened.enter_context(target.open("wb")), 1 << 20)


def _to_entry(stem: str, picked: PickedPair, before: dict | None) -> dict:
    """The pair as the manifest has it; its files stay where they were `before`."""
    pair = picked.pair
    files = before or {
        "split": "", "chosen_file": _file_name(stem, pair.chosen), "rejected_file": _file_name(stem, pair.rejected)
    }  # fmt: skip
    return {
        "stem": stem, "split": files["split"], "prompt": pair.prompt, "group": picked.group,
        "chosen_file": files["chosen_file"], "rejected_file": files["rejected_file"],
        "chosen_key": picked.chosen, "rejected_key": picked.rejected,
        "chosen_source": pair.chosen, "rejected_source": pair.rejected,
        "confidence": pair.confidence, "source": pair.source, "rater": picked.rater, "made": picked.made,
    }  # fmt: skip


def _file_name(stem: str, path: str) -> str:
    name = stem + Path(path).suffix.lower()
    return name if FILE_NAME.fullmatch(name) else f"{stem}.png"


def _files(entry: dict) -> list[tuple[str, str]]:
    """(side, name) of the files of a pair."""
    return [(side, name) for side in SIDES for name in (entry[f"{side}_file"], f"{entry['stem']}.txt")]


def _to_pair(entry: dict, folder: Path) -> Pair:
    chosen, rejected = (str(folder / side / entry["split"] / entry[f"{side}_file"]) for side in SIDES)
    return Pair(entry["prompt"], chosen, rejected, entry["confidence"], entry["source"])
