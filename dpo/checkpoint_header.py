"""What stands at the front of a file of weights: the names, types and shapes of its tensors. No weight is read, and no torch.

.safetensors: 8 bytes with the length of a JSON object, the object, the weights. .gguf: counts, settings, descriptions of tensors,
the weights (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). A file may come from anywhere: every length and place in
it is checked against the file before it is believed. Every door through which weights come in asks here first: models, adapters,
the heads of scorers, the cache.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dpo import StudioError

LONGEST = 32 << 20  # bytes of a header; those of the largest models have a few million
MOST_TENSORS = 1 << 18  # as JSON they take some 300 MB of memory; the largest models have some ten thousand
DEEPEST = 8  # dimensions of a tensor
LONGEST_NAME = 100  # characters of one in a sentence
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
CONVERT = (
    "Get the same weights as .safetensors, or convert them where nothing can be harmed: a model with diffusers' own "
    "scripts/convert_original_stable_diffusion_to_diffusers.py --checkpoint_path FILE --dump_path FOLDER --to_safetensors, an "
    'adapter with python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('FILE', weights_only=True), 'FILE.safetensors')\"."
)

# Bits of one value.
SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64,
    "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
# Number in the file -> (name, values of a block, bytes of a block): what diffusers unpacks, and plain numbers.
GGUF_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18), 23: ("IQ4_XS", 256, 136), 30: ("BF16", 1, 2),
}  # fmt: skip
GGUF_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
GGUF_STRING, GGUF_ARRAY = 8, 9


class HeaderError(StudioError):
    """A file whose header cannot be read or believed."""


@dataclass(frozen=True)
class TensorInfo:
    """kind: its numbers, such as "F16" or "Q8_0". shape: as torch counts, slowest dimension first."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """metadata: texts that whoever wrote the file put beside the tensors."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Of a .safetensors or .gguf file. Raises HeaderError for every other, and for one that is damaged."""
    if path.suffix.lower() in PICKLES:
        raise HeaderError(f"{path} is a pickle, which can run any program when it is opened, and is never loaded here. {CONVERT}")
    if path.suffix.lower() not in (".safetensors", ".gguf"):
        raise HeaderError(f"{path} is neither .safetensors nor .gguf. Choose such a file, a diffusers folder, or a hub id.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _read_gguf(file, size) if path.suffix.lower() == ".gguf" else _read_safetensors(file, size)
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror}.") from error
    except _Damaged as error:
        raise HeaderError(f"{path} is damaged or not what its name says: {error}. Get it again.") from error


def check_folder(folder: Path) -> None:
    """Read the headers of all .safetensors in a folder of a model and the folders in it. Raises HeaderError for the first that
    cannot be believed."""
    for path in sorted(folder.rglob("*.safetensors")):
        read_header(path)


def check_data(data: bytes) -> None:
    """Of a .safetensors file that is in memory. Raises HeaderError."""
    try:
        _read_safetensors(io.BytesIO(data), len(data))
    except _Damaged as error:
        raise HeaderError(f"These tensors are damaged: {error}.") from error


class _Damaged(Exception):
    pass


def _said(name: str) -> str:
    """A name out of the file as part of a sentence: it may be as long as the header."""
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")


# ------------------------------------------------------------------------------------------------ safetensors


def _read_safetensors(file: BinaryIO, size: int) -> Header:
    start = file.read(8)
    if len(start) < 8:
        raise _Damaged(f"it has {size} bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(LONGEST, size - 8):
        raise _Damaged(f"its header would be {length:,} bytes long, and the file has {size:,}")
    raw = file.read(length)
    # Each tensor is an object with two lists: whatever is built of more would take far more memory than it has bytes.
    if raw.count(b"{") + raw.count(b"[") > 3 * MOST_TENSORS:
        raise _Damaged(f"its header would describe more than {MOST_TENSORS:,} tensors")
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _Damaged("its header is not JSON") from error
    if not isinstance(found, dict):
        raise _Damaged("its header is not a JSON object")
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Damaged("its metadata are not texts")
    places: list[tuple[int, int, str]] = []
    tensors = {name: _safetensors_tensor(name, entry, places) for name, entry in found.items()}
    end = 0
    for first, last, name in sorted(places):
        if first < end or last > size - 8 - length:
            raise _Damaged(f"the weights of {_said(name)} lie over others or outside of it")
        if first > end:
            raise _Damaged(f"{first - end:,} bytes before the weights of {_said(name)} belong to nothing")
        end = last
    if end != size - 8 - length:
        raise _Damaged(f"{size - 8 - length - end:,} bytes at its end belong to nothing")
    return Header(tensors, metadata)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _safetensors_tensor(name: str, entry: object, places: list[tuple[int, int, str]]) -> TensorInfo:
    try:
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise TypeError
        is_right = (last - first) * 8 == math.prod(shape) * SAFETENSORS_BITS[kind]
    except (KeyError, TypeError, ValueError) as error:
        raise _Damaged(f"what it says of {_said(name)} is not understood") from error
    if not is_right or len(shape) > DEEPEST:
        raise _Damaged(f"shape and length of {_said(name)} do not agree")
    places.append((first, last, name))
    return TensorInfo(kind, shape)


# ------------------------------------------------------------------------------------------------ GGUF


def _read_gguf(file: BinaryIO, size: int) -> Header:
    reader = _Reader(file)
    if reader.bytes(4) != b"GGUF":
        raise _Damaged("it does not begin with GGUF")
    version = reader.number("I")
    if version not in (2, 3):
        raise _Damaged(f"its version is {version}, and 2 and 3 are known")
    num_tensors, num_settings = reader.number("Q"), reader.number("Q")
    if max(num_tensors, num_settings) > MOST_TENSORS:
        raise _Damaged(f"it would hold {num_tensors:,} tensors and {num_settings:,} settings")
    settings = {}
    for _ in range(num_settings):
        name = reader.text()
        settings[name] = reader.value(reader.number("I"))
    tensors: dict[str, TensorInfo] = {}
    places: list[tuple[int, int, str]] = []
    for _ in range(num_tensors):
        name, deep = reader.text(), reader.number("I")
        if deep > DEEPEST or name in tensors:
            raise _Damaged(f"what it says of {_said(name)} is not understood")
        shape = tuple(reader.number("Q") for _ in range(deep))[::-1]
        kind, values, length = _gguf_type(name, reader.number("I"))
        place, count = reader.number("Q"), math.prod(shape)
        if count % values:
            raise _Damaged(f"shape and type of {_said(name)} do not agree")
        tensors[name] = TensorInfo(kind, shape)
        places.append((place, place + count // values * length, name))
    end = 0
    for first, last, name in sorted(places):  # gaps are usual: weights begin at multiples of 32 bytes
        if first < end:
            raise _Damaged(f"the weights of {_said(name)} lie over others")
        end = last
    if reader.done + end > size:
        raise _Damaged(f"it ends before its weights do: they need {reader.done + end:,} bytes, and it has {size:,}")
    return Header(tensors, {name: value for name, value in settings.items() if isinstance(value, str)})


def _gguf_type(name: str, number: int) -> tuple[str, int, int]:
    if number not in GGUF_TYPES:
        known = ", ".join(kind for kind, _, _ in GGUF_TYPES.values())
        raise _Damaged(f"{_said(name)} is packed as type {number}, and those that can be read are {known}")
    return GGUF_TYPES[number]


class _Reader:
    """Takes a GGUF header apart, and never more than LONGEST bytes of it."""

    def __init__(self, file: BinaryIO):
        self._file, self.done = file, 0

    def bytes(self, count: int) -> bytes:
        self.done += count
        if self.done > LONGEST:
            raise _Damaged(f"its header is longer than {LONGEST:,} bytes")
        found = self._file.read(count)
        if len(found) < count:
            raise _Damaged("it ends within its header")
        return found

    def number(self, kind: str):
        return struct.unpack(f"<{kind}", self.bytes(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        try:
            return self.bytes(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise _Damaged("a name in it is no text") from error

    def value(self, kind: int, depth: int = 0) -> object:
        """A number, a text, or None for an array, which is passed over."""
        if kind in GGUF_NUMBERS:
            return self.number(GGUF_NUMBERS[kind])
        if kind == GGUF_STRING:
            return self.text()
        if kind != GGUF_ARRAY or depth > DEEPEST:
            raise _Damaged(f"it has a setting of type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in GGUF_NUMBERS:
            self.bytes(count * struct.calcsize(f"<{GGUF_NUMBERS[inner]}"))
        else:
            for _ in range(count):
                self.value(inner, depth + 1)
        return None
