"""Whatever a file holds, reading it ends soon and says something: broken files, texts and graphs, thought up by hypothesis.

Everything goes through `read_image`, with counters around what it reads, inflates and visits. By default this takes about 10
seconds; `STUDIO_FUZZ_SECONDS=600 python -m pytest tests/metadata/test_fuzz.py` looks for ten minutes. A failure prints the
smallest example found; the order of examples is the same in every run.
"""

import builtins
import json
import math
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import brotli
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import dpo.metadata
from dpo.metadata import boxes, comfyui, containers, read_image
from dpo.metadata.containers import MAX_PARTS, MAX_TEXT
from dpo.metadata.records import CERTAINTIES, REASONS, ImageRecord
from tests.metadata.examples import CANVASES, NAMES, RUN_GRAPHS, VALUES, damaged_files, edited_texts
from tests.metadata.files import box, chunk, exif, exif_segment, gif, heif, jpeg, jxl, png, text_chunk, user_comment, webp

SECONDS = float(os.environ.get("STUDIO_FUZZ_SECONDS", "10"))
SEARCHES = 5  # tests that share the time


class Meter:
    """Counts what is read of files, by standing in for `open`."""

    def __init__(self) -> None:
        self.opened, self.reads, self.bytes = 0, 0, 0

    def open(self, path, mode="r", *args, **options):
        self.opened += 1
        return Metered(builtins.open(path, "rb", buffering=0), self)


class Metered:
    def __init__(self, file, meter: Meter) -> None:
        self.file, self.meter = file, meter
        self.seek, self.fileno = file.seek, file.fileno

    def read(self, length: int = -1) -> bytes:
        data = self.file.read(length)
        self.meter.reads += 1
        self.meter.bytes += len(data)
        return data

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


@pytest.fixture
def meter(monkeypatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(dpo.metadata, "open", meter.open, raising=False)
    return meter


@pytest.fixture
def check(tmp_path: Path, meter: Meter) -> Callable[[bytes], ImageRecord]:
    """Reads bytes as a file. Fails where the record says nothing, cannot be kept, or took more than three readings of it."""

    def check_bytes(data: bytes) -> ImageRecord:
        (tmp_path / "image").write_bytes(data)
        meter.bytes = 0
        record = read_image(tmp_path / "image")
        assert (record.prompt is None) == (record.error is not None) == (record.reason != "")
        assert record.reason in REASONS or record.prompt
        assert record.certainty in CERTAINTIES or not record.prompt
        assert meter.bytes <= 3 * len(data) + 64
        json.dumps(asdict(record), ensure_ascii=False).encode()
        return record

    return check_bytes


def search(check_one: Callable, examples: st.SearchStrategy) -> None:
    """Check examples for this test's share of the time, in batches that each begin from their own seed."""
    end, batch = time.monotonic() + SECONDS / SEARCHES, 0
    options = settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    while time.monotonic() < end:

        @seed(batch)
        @options
        @given(examples)
        def check_examples(example):
            check_one(example)

        check_examples()
        batch += 1


# --- files


def test_no_damage_to_a_file_raises(check):
    search(check, damaged_files())


def test_no_exif_block_raises(check):
    """Directories of any entries, comments of any bytes: UTF-16 that is cut, or half of a pair, or none."""
    comment = st.builds(
        bytes.__add__, st.sampled_from([b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b""]), st.binary(max_size=60)
    )
    number = st.integers(0, 0xFFFF)
    entries = st.dictionaries(st.sampled_from([0x010E, 0x010F, 0x0110, 0x9286, 0x927C, 0x9C9C]), comment, max_size=4)
    block = st.builds(exif, entries, entries, st.sampled_from("<>"))
    broken = st.builds(
        lambda data, at, value: data[: at % len(data)] + value + data[at % len(data) + 2 :], block, number, st.binary(max_size=2)
    )

    def check_block(data: bytes) -> None:
        for file in (jpeg(exif_segment(data)), png(chunk(b"eXIf", data)), heif((b"Exif", data)), jxl((b"Exif", data))):
            check(file)

    search(check_block, block | broken)


# --- texts


def test_no_text_raises(check):
    """Under every name that some parser looks for: any words, any JSON, and texts of generators with something changed."""
    texts = (
        st.text(max_size=40)
        | edited_texts()
        | VALUES.map(json.dumps)
        | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
    )
    fields = st.lists(st.tuples(st.sampled_from(NAMES), texts), max_size=4)

    def check_texts(fields: list[tuple[str, str]]) -> None:
        data = [(name, text.encode("utf-8", "surrogatepass")) for name, text in fields]
        check(png(b"".join(chunk(b"tEXt", name.encode() + b"\0" + text) for name, text in data)))
        for _, text in data[:1]:
            check(webp((b"EXIF", exif({0x9286: text, 0x010F: text}, {0x9286: b"UNICODE\0" + text}))))

    search(check_texts, fields)


# --- graphs


def test_no_graph_that_was_run_raises(check):
    search(lambda graph: check(png(text_chunk("prompt", json.dumps(graph)))), RUN_GRAPHS)


def test_no_canvas_raises(check):
    search(lambda workflow: check(png(text_chunk("workflow", json.dumps(workflow)))), CANVASES)


class CountedGraph(dict):
    lookups = 0

    def __getitem__(self, key):
        CountedGraph.lookups += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        CountedGraph.lookups += 1
        return super().get(key, default)


@pytest.fixture
def count_lookups(monkeypatch):
    """Has graphs count how often a node of theirs is asked for."""
    load_graphs = comfyui.load_graphs
    monkeypatch.setattr(
        comfyui, "load_graphs", lambda fields: ((CountedGraph(graph), where) for graph, where in load_graphs(fields))
    )
    monkeypatch.setattr(CountedGraph, "lookups", 0)


def run(*nodes: tuple[str, dict]) -> dict:
    return {str(number): {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in enumerate(nodes)}


COUNT = 10_000
SAMPLER = ("KSampler", {"positive": ["1", 0], "negative": ["1", 0], "steps": 20, "latent_image": ["1", 0], "model": ["1", 0]})


def wired(kind: str, *names: str, count: int = COUNT) -> list[tuple[str, dict]]:
    """Nodes from number 1 on, each with every named input wired to the next, the last to number 1."""
    return [(kind, {name: [str(number % count + 1), 0] for name in names}) for number in range(1, count + 1)]


LARGE_GRAPHS = {
    "a ring": run(SAMPLER, *wired("ConditioningCombine", "conditioning_1")),
    "a ring that doubles": run(SAMPLER, *wired("ConditioningCombine", "conditioning_1", "conditioning_2")),
    "a doubling at every node": run(
        SAMPLER, *wired("ConditioningCombine", "conditioning_1", "conditioning_2")[:-1], ("CLIPTextEncode", {"text": "a cat"})
    ),
    "a chain of texts": run(SAMPLER, *wired("Text Concatenate", "text_a")[:-1], ("Text", {"text": "a cat"})),
    "a doubling of texts": run(SAMPLER, *wired("StringConcatenate", "string_a", "string_b")[:-1], ("Text", {"text": "a cat"})),
    "a chain of reroutes": run(SAMPLER, *wired("Reroute", "")[:-1], ("CLIPTextEncode", {"text": "a cat"})),
    "a ring of reroutes": run(SAMPLER, *wired("Reroute", "")),
    "a ring of switches": run(SAMPLER, *wired("Any Switch", "any_01", "any_02")),
    "only samplers": run(*wired("KSampler", "positive", "latent_image", "model", "seed", "steps")),
    "only outputs": run(*wired("SaveImage", "images", "filename_prefix")),
    "all wired to a hundred": run(
        SAMPLER,
        *[("ConditioningCombine", {f"conditioning_{j}": [str(i * j % 199 + 1), 0] for j in range(100)}) for i in range(199)],
    ),
    "itself": run(("KSampler", {"positive": ["0", 0], "latent_image": ["0", 0], "seed": ["0", 0], "steps": ["0", 0]})),
}


@pytest.mark.parametrize("name", LARGE_GRAPHS)
def test_a_large_or_endless_graph_is_given_up_soon(tmp_path, count_lookups, name):
    (tmp_path / "a.png").write_bytes(png(text_chunk("prompt", json.dumps(LARGE_GRAPHS[name]))))
    start = time.perf_counter()
    read_image(tmp_path / "a.png")
    assert CountedGraph.lookups <= 200_000
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("depth", [100, 500, 900, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"prompt":', "}"), ('[{"inputs":', "}]"), ("<a>", "</a>")]
)
def test_deep_nesting_is_given_up(check, opening, closing, depth):
    for name in NAMES:
        check(png(text_chunk(name, opening * depth + "0" + closing * depth)))


def test_numbers_that_are_none_do_not_hide_the_prompt(check):
    sampler = {"positive": ["1", 0], "steps": math.nan, "cfg": math.inf, "seed": math.nan, "is_changed": [math.nan]}
    graph = run(("KSampler", sampler), ("CLIPTextEncode", {"text": "a cat", "is_changed": math.nan}))
    assert "NaN" in json.dumps(graph)
    assert check(png(text_chunk("prompt", json.dumps(graph)))).prompt == "a cat"


@pytest.mark.parametrize("name", ["parameters", "invokeai_metadata", "generation_data", "prompt"])
def test_half_an_emoji_does_not_reach_the_record(check, name):
    """JSON can say it with escapes; no file and no database can hold it."""
    half = json.dumps("a cat \ud83d")
    texts = {
        "parameters": f'{{"sui_image_params": {{"prompt": {half}}}}}',
        "prompt": json.dumps(run(SAMPLER, ("CLIPTextEncode", {"text": "a cat \ud83d"}))),
    }
    text = texts.get(name, f'{{"positive_prompt": {half}, "prompt": {half}}}')
    assert check(png(text_chunk(name, text))).prompt == "a cat ?"


# --- what a crafted file costs, however large it is


def sparse(path: Path, head: bytes, size: int = 1 << 30) -> Path:
    """A file of a gigabyte that takes no place: zeros after `head`."""
    with builtins.open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path


HUGE = {
    "png pixels": png()[:33] + struct.pack(">I4s", 900 << 20, b"IDAT"),
    "png text": png()[:33] + struct.pack(">I4s", 900 << 20, b"tEXt") + b"parameters\0",
    "png of empty chunks": png()[:33],
    "jpeg without an end": jpeg()[:-2],
    "jpeg padding": jpeg()[:2] + b"\xff\xe1\0\2",
    "webp text": webp((b"EXIF", user_comment("a")))[:-60] + struct.pack("<4sI", b"EXIF", 900 << 20),
    "webp of empty chunks": webp(),
    "gif of small blocks": gif()[:19] + b"!\xfe" + b"\1a" * 5_000,
    "avif text": heif((b"Exif", b"x" * 5_000))[:-5_000],
    "avif of empty boxes": heif() + box(b"free", b"") * 5_000,
    "jpeg xl text": jxl()[:32] + struct.pack(">I4s", 900 << 20, b"xml "),
    "jpeg xl codestream": jxl()[:32] + struct.pack(">I4s", 900 << 20, b"jxlc") + b"\xff\x0a",
}
JPEG_PIXELS = 32 << 20  # the one thing looked for among pixels: whether a JPEG ends


class Inflation:
    """Counts what is inflated, by standing in for `zlib` and `brotli`."""

    def __init__(self) -> None:
        self.bytes, self.error = 0, (zlib.error, brotli.error)

    def counted(self, inflate: Callable[..., bytes]) -> Callable[..., bytes]:
        def inflate_and_count(*args, **options) -> bytes:
            data = inflate(*args, **options)
            self.bytes += len(data)
            return data

        return inflate_and_count

    def decompressobj(self) -> SimpleNamespace:
        return SimpleNamespace(decompress=self.counted(zlib.decompressobj().decompress))

    def Decompressor(self) -> SimpleNamespace:
        stream = brotli.Decompressor()
        return SimpleNamespace(process=self.counted(stream.process), is_finished=stream.is_finished)


ZEROS = bytes(64 << 20)
DEFLATED, SMALLER = zlib.compress(ZEROS, 9), brotli.compress(ZEROS, quality=1)
BOMBS = {
    "zTXt": png(chunk(b"zTXt", b"parameters\0\0" + DEFLATED) * 50),
    "iTXt": png(chunk(b"iTXt", b"parameters\0\1\0\0\0" + DEFLATED) * 50),
    "zTXt with an end that is missing": png(chunk(b"zTXt", b"parameters\0\0" + DEFLATED[:-9]) * 50),
    "zTXt of ImageMagick": png(chunk(b"zTXt", b"Raw profile type exif\0\0" + DEFLATED) * 50),
    "brob": jxl(*[(b"brob", b"Exif" + SMALLER)] * 50),
    "brob with an end that is missing": jxl(*[(b"brob", b"xml " + SMALLER[:-9])] * 50),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_inflated_to_four_megabytes_at_most(check, monkeypatch, name):
    inflation = Inflation()
    monkeypatch.setattr(containers, "zlib", inflation)
    monkeypatch.setattr(boxes, "brotli", inflation)
    start = time.perf_counter()
    check(BOMBS[name])
    assert 1 << 20 < inflation.bytes <= MAX_TEXT + boxes.INFLATE_BLOCK
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("name", HUGE)
def test_of_a_huge_file_little_is_read(tmp_path, meter, name):
    start = time.perf_counter()
    read_image(sparse(tmp_path / "image", HUGE[name]))
    assert meter.opened == 1
    assert meter.reads <= 2 * MAX_PARTS + 100
    assert meter.bytes <= MAX_TEXT + 16 * MAX_PARTS + (JPEG_PIXELS if name == "jpeg without an end" else 0)
    assert time.perf_counter() - start < 30
