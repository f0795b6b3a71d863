"""What may stand in for a prompt that a file does not say itself: a text beside it, a table, its folder's name, typed words.

A text beside `cat.png` is `cat.txt`, `cat.png.txt`, `cat.json` or `cat.png.json`: a caption, the text of a generator, or
JSON with a prompt in it. A table is a CSV file with a column of file names and one of prompts. Which of them are used is
chosen per folder and holds for the folders inside it; typed words go before everything, also before what the file says.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

from dpo import StudioError
from dpo.groups import identify, normalise_prompt
from dpo.metadata import PARSERS
from dpo.metadata.containers import TextField
from dpo.metadata.records import Generation, parse_json, to_float, to_int

ENDINGS = (".txt", ".json")
MOST_TEXT, MOST_TABLE = 4 << 20, 64 << 20  # bytes
FILE_NAMES = ("file", "filename", "file_name", "file name", "path", "filepath", "image", "image_path", "name")
PROMPT_NAMES = ("prompt", "caption", "text")
_SETTINGS = re.compile(r"^(Negative prompt:|Steps: [0-9])", re.MULTILINE)
_PARTS = ("parameters", "prompt", "workflow", "invokeai_metadata", "UserComment")  # where parsers look for JSON
# Easy Diffusion's text files: one "Name: value" a line, the prompt first.
_NAMED = re.compile(
    r"^(Prompt|Negative Prompt|Seed|Steps|Guidance Scale|Sampler|Stable Diffusion model|[A-Z][\w ]{2,30}): ?", re.MULTILINE
)
# What other programs call the fields of a record.
_ALIASES = {
    "prompt": ("prompt", "positive_prompt", "positive", "caption", "text"),
    "negative_prompt": ("negative_prompt", "negative", "negativeprompt"),
    "seed": ("seed",),
    "steps": ("steps", "num_inference_steps", "sampling_steps"),
    "sampler": ("sampler", "sampler_name", "scheduler"),
    "guidance": ("cfg_scale", "guidance_scale", "cfgscale", "guidance"),
    "model": ("model", "sd_model_name", "use_stable_diffusion_model", "stable_diffusion_model", "model_name"),
}


class StandInError(StudioError):
    """A text or table that was to stand in for prompts and cannot. Says where and why."""


@dataclass(frozen=True)
class StandIns:
    """What may stand in for missing prompts in a folder. `table`: the path of a CSV file, "" for none. `pixels`: texts hidden in
    the pixels of the image itself; the next scan looks for them, which takes a hundred times as long as reading."""

    sidecar: bool = False
    folder_name: bool = False
    table: str = ""
    pixels: bool = False


class Giver:
    """Says what stands in for a file's prompt. Keeps the tables and the last folder it looked at: make one for each use."""

    def __init__(self, choices: Mapping[str, StandIns], typed: Mapping[str, str]) -> None:
        """`choices`: absolute folder -> what was chosen for it. `typed`: content key -> prompt. Raises StandInError for a
        table that cannot be used."""
        self.typed = typed
        self._choices = sorted(choices.items(), key=lambda item: -len(item[0]))
        self._tables = {
            folder: (f"{os.stat(path).st_mtime_ns}", read_table(path))
            for folder, choice in choices.items()
            if choice.table and (path := os.path.join(folder, choice.table))
        }
        self._listed: tuple[str, dict[str, str]] = "", {}

    def state(self, path: str, key: str, has_own: bool) -> str:
        """Changes whenever something else may stand in; "" if nothing can. Nothing is opened."""
        if key and key in self.typed:
            return f"typed {identify(self.typed[key]):x}"
        folder, choice = (None, None) if has_own else self._choice(path)
        if choice is None:
            return ""
        parts = [f"{name}:{print_}" for name, print_ in self._beside(path)] if choice.sidecar else []
        if choice.table:
            parts.append(f"table {identify(folder + choice.table):x} {self._tables[folder][0]}")
        if choice.folder_name:
            parts.append("folder")
        return "|".join(parts)

    def give(self, path: str, key: str, has_own: bool) -> dict:
        """Fields of the record to replace; {} if nothing stands in. Only "error" if the text beside the file is of no use."""
        if key and key in self.typed:
            return _given({"prompt": self.typed[key]}, "typed")
        folder, choice = (None, None) if has_own else self._choice(path)
        if choice is None:
            return {}
        problem = {}
        for name, _ in self._beside(path) if choice.sidecar else ():
            try:
                return _given(read_sidecar(os.path.join(os.path.dirname(path), name)), f"{name} beside it")
            except StandInError as error:
                problem = {"error": str(error)}
        if choice.table:
            prompts = self._tables[folder][1]
            relative = PurePath(os.path.relpath(path, folder)).as_posix()
            prompt = prompts.get(relative) or prompts.get(os.path.basename(path))
            if prompt:
                return _given({"prompt": prompt}, f"table {os.path.basename(choice.table)}")
        if choice.folder_name and (prompt := folder_prompt(path)):
            return _given({"prompt": prompt}, "folder name")
        return problem

    def _choice(self, path: str) -> tuple[str, StandIns] | tuple[None, None]:
        """The choice of the nearest folder that has one."""
        for folder, choice in self._choices:
            if path.startswith(folder.rstrip(os.sep) + os.sep):
                return folder, choice
        return None, None

    def _beside(self, path: str) -> list[tuple[str, str]]:
        """(name, size and time) of the texts beside a file, the first to be used first."""
        folder, name = os.path.split(path)
        if self._listed[0] != folder:
            self._listed = folder, _list_texts(folder)
        texts = self._listed[1]
        stem = os.path.splitext(name)[0]
        return [(beside, texts[beside]) for ending in ENDINGS for beside in (stem + ending, name + ending) if beside in texts]


def _list_texts(folder: str) -> dict[str, str]:
    try:
        with os.scandir(folder) as entries:
            texts = [entry for entry in entries if entry.name.lower().endswith(ENDINGS)]
            found = [(entry.name, entry.stat()) for entry in texts if entry.is_file()]
    except OSError:  # gone meanwhile: nothing stands beside its files
        return {}
    return {name: f"{status.st_size}:{status.st_mtime_ns}" for name, status in found}


def _given(values: dict, where: str) -> dict:
    return {**values, "where": where, "certainty": "given", "reason": "", "error": None}


def folder_prompt(path: str) -> str:
    """The name of the folder a file is in, without the number of repeats that trainers put before it ("12_a cat")."""
    return normalise_prompt(re.sub(r"^[0-9]+_", "", os.path.basename(os.path.dirname(path))))


def read_sidecar(path: str) -> dict:
    """The fields of a record that a text or JSON file says, a prompt among them. Raises StandInError."""
    name = os.path.basename(path)
    text = _read_text(path, MOST_TEXT)
    values = _from_json(text, name) if text.lstrip()[:1] == "{" else _from_text(text, name)
    if not normalise_prompt(values.get("prompt")):
        raise StandInError(f"{name}, which could stand in for its image's prompt, says none. Write the prompt into it.")
    return values


def _from_text(text: str, name: str) -> dict:
    if text.lstrip().startswith("Prompt:"):
        pieces = _NAMED.split(text.strip())[1:]
        named = {key.lower().replace(" ", "_"): value.strip() for key, value in zip(pieces[::2], pieces[1::2], strict=True)}
        return _from_named(named)
    if _SETTINGS.search(text):
        return _from_generation(_parse([TextField("parameters", text, name)]))
    return {"prompt": text.strip()}


def _from_json(text: str, name: str) -> dict:
    data = parse_json(text)
    if not isinstance(data, dict):
        raise StandInError(f"{name} beside the image is no valid JSON. Mend it, or write the prompt into a .txt file.")
    for part in (data, *(data.get(inner) for inner in ("meta", "metadata", "params", "reqBody"))):
        values = (
            _from_named({str(key).lower().replace(" ", "_"): value for key, value in part.items()})
            if isinstance(part, dict)
            else {}
        )
        if "prompt" in values:
            return values
    if isinstance(data.get("parameters"), str):
        return _from_text(data["parameters"], name)
    inner = [TextField(part, json.dumps(data[part]), name) for part in ("prompt", "workflow") if isinstance(data.get(part), dict)]
    for fields in (inner, *([TextField(part, text, name)] for part in _PARTS)):
        if (generation := _parse(fields)) is not None:
            return _from_generation(generation)
    return {}


def _from_named(data: dict) -> dict:
    """Fields of a record out of what a program called them, strings and numbers only."""
    values = {}
    for field, names in _ALIASES.items():
        found = next((data[name] for name in names if isinstance(data.get(name), str | int | float) and data[name] != ""), None)
        convert = {"seed": to_int, "steps": to_int, "guidance": to_float}.get(field)
        if found is not None and (convert or isinstance(found, str)):
            values[field] = convert(found) if convert else found.strip()
    return values


def _parse(fields: list[TextField]) -> Generation | None:
    found = (parse(fields) for parse in PARSERS)
    return next((generation for generation in found if generation and generation.prompt), None)


def _from_generation(generation: Generation | None) -> dict:
    values = asdict(generation) if generation else {}
    return {name: value for name, value in values.items() if value not in ("", None, ())}


def read_table(path: str | Path) -> dict[str, str]:
    """File name, or path relative to the table's folder with "/", -> prompt. Raises StandInError naming row and column."""
    name = os.path.basename(path)
    text = _read_text(path, MOST_TABLE)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    prompts: dict[str, str] = {}
    seen: dict[str, int] = {}
    columns = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns, is_header = _find_columns(row, name)
                if is_header:
                    continue
            file, prompt = (_cell(row, column, rows.line_num, name) for column in columns)
            file = file.replace("\\", "/").removeprefix("./")
            if not file:
                raise StandInError(
                    f"{name}, row {rows.line_num}, column {columns[0] + 1}: no file name. Write one, or remove the row."
                )
            if prompts.get(file, prompt) != prompt:
                raise StandInError(
                    f"{name}, row {rows.line_num}, column {columns[0] + 1}: {file} has another prompt in row {seen[file]}. "
                    "Keep one of them."
                )
            if normalise_prompt(prompt):
                prompts[file], seen[file] = prompt, rows.line_num
    except csv.Error as error:
        raise StandInError(f"{name}, row {rows.line_num}: {error}. Save the table as CSV with quotes around texts.") from error
    if not prompts:
        raise StandInError(f"{name} has no row with a prompt. Write a file name and a prompt in each row.")
    return prompts


def _find_columns(row: list[str], table: str) -> tuple[tuple[int, int], bool]:
    """The columns of file names and prompts, and whether the row names them."""
    names = [cell.strip().casefold() for cell in row]
    files, prompts = ([names.index(name) for name in known if name in names] for known in (FILE_NAMES, PROMPT_NAMES))
    if files and prompts:
        return (files[0], prompts[0]), True
    if len(row) == 2 and os.path.splitext(row[0].strip())[1] and not files and not prompts:
        return (0, 1), False
    raise StandInError(
        f"{table}, row 1: its columns are {', '.join(row)[:200]}. Name one {FILE_NAMES[0]} (or {', '.join(FILE_NAMES[1:])}) "
        f"and one {PROMPT_NAMES[0]} (or {', '.join(PROMPT_NAMES[1:])})."
    )


def _cell(row: list[str], column: int, number: int, table: str) -> str:
    if column >= len(row):
        raise StandInError(f"{table}, row {number}: has {len(row)} columns, so column {column + 1} is missing. Add it.")
    return row[column].strip()


def _read_text(path: str | Path, most: int) -> str:
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise StandInError(f"{name} cannot be read: {error.strerror}. Check the file, or choose another.") from error
    if len(data) > most:
        raise StandInError(f"{name} is larger than {most >> 20} MB, too large for texts. Choose another file.")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise StandInError(f"{name}, row {row}: no valid UTF-8 text. Save the file as UTF-8.") from error
