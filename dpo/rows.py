"""An image as the index keeps it: a row of plain values, made wherever the file is read, and the way back to a record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from pathlib import PurePath
from typing import NamedTuple

from dpo.groups import IndexedImage, PromptForms, identify, prompt_forms
from dpo.metadata import ImageRecord
from dpo.metadata.records import Course, Lora

_DEFAULTS = {entry.name: entry.default for entry in fields(ImageRecord) if entry.default is not MISSING}
_TUPLES = {
    "alternatives": tuple,
    "warnings": tuple,
    "written_size": tuple,
    "course": lambda values: Course(*values),
    "loras": lambda values: tuple(Lora(*value) for value in values),
}


class Facts(NamedTuple):
    """What groups and filters ask of an image. `prompt` is `PromptForms.exact`, or None; `seed` is text, as seeds reach
    2^64 - 1; `reason` is one of REASONS, "" for an image that can be used."""

    prompt: int | None
    width: int
    height: int
    generator: str
    model: str
    seed: str | None
    reason: str


class ImageRow(NamedTuple):
    """A file that was read. `made` is the file's unix time; `has_own` is 1 if the file itself says its prompt."""

    path: str
    fingerprint: str
    made: float
    key: str
    content: int  # what its pixels are known by until they were decoded
    has_own: int
    facts: Facts
    record: str  # JSON


class Batch(NamedTuple):
    """Rows and the prompts they name, each once."""

    rows: list[ImageRow]
    prompts: list[PromptForms]


def make_batch(read: Iterable[tuple[str, str, float, str, ImageRecord]]) -> Batch:
    """Rows of (path, fingerprint, made, key, record)."""
    rows, prompts = [], {}
    for path, fingerprint, made, key, record in read:
        forms = prompt_forms(record.prompt)
        problem = _problem(record, forms)
        if problem:
            forms, record = None, replace(record, prompt=None, certainty="", reason=problem[0], error=problem[1])
        if forms:
            prompts[forms.exact] = forms
        row = path, fingerprint, made, key, identify(key), int(forms is not None), make_facts(record, forms)
        rows.append(ImageRow(*row, record_to_json(record)))
    return Batch(rows, list(prompts.values()))


def make_facts(record: ImageRecord, forms: PromptForms | None) -> Facts:
    """`forms`: of the record's prompt, None if it has none."""
    return Facts(
        forms.exact if forms else None, record.width, record.height, _storable(record.generator), _storable(record.model),
        None if record.seed is None else str(record.seed), record.reason,
    )  # fmt: skip


def _problem(record: ImageRecord, forms: PromptForms | None) -> tuple[str, str] | None:
    """Reason and sentence for an image whose prompt cannot be used for all that it is one."""
    name = PurePath(record.path).name
    if record.prompt is not None and forms is None:
        return "no_prompt", f"{name}: its prompt is only commas and spaces. Skip the file, or give it a prompt."
    if forms and not (record.width > 0 and record.height > 0):
        return "damaged", f"{name}: the image has no size ({record.width} x {record.height} pixels). Save the file again."
    return None


def record_to_json(record: ImageRecord) -> str:
    """Only what differs from a record of nothing; without the path, which the row has."""
    values = {name: value for name, value in vars(record).items() if name != "path" and value != _DEFAULTS[name]}
    return json.dumps(values)


def values_from_json(text: str) -> dict:
    """Fields of a record. Those that a record does not have any more are left out: the file is read again at its next scan."""
    values = json.loads(text)
    return {
        name: _TUPLES[name](value) if name in _TUPLES and value is not None else value
        for name, value in values.items()
        if name in _DEFAULTS
    }


def to_image(key: str, path: str, record: str, given: str) -> IndexedImage:
    """`given`: JSON of the fields that something else stands in for, or ""."""
    values = values_from_json(record)
    if given:
        values |= values_from_json(given)
    return IndexedImage(key, path, ImageRecord(path=path, **values))


def batch_to_json(batch: Batch) -> str:
    return json.dumps(batch)


def batch_from_json(text: str | bytes) -> Batch:
    rows, prompts = json.loads(text)
    return Batch([ImageRow(*row[:6], Facts(*row[6]), row[7]) for row in rows], [PromptForms(*forms) for forms in prompts])


def _storable(text: str) -> str:
    """Broken metadata can hold halves of surrogate pairs, which SQLite does not take."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
