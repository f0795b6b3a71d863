"""Reading prompts beside sd-parsers, over the same files: at least 5 times its files a second; then 100,000 files indexed.

sd-parsers is no requirement of anything here: `pip install sd-parsers==0.6` before this benchmark, into the same environment.
It is measured in its fastest mode, which looks at nothing behind a PNG's pixels. One process, files in the page cache, no
index; both take turns, and medians are compared. A prompt counts as right if it is what was written, whitespace aside; for
sd-parsers also if it is one of several.

The index is measured on small files, each phase in a process of its own, so that memory is that of the phase: the first scan
with the files put out of the page cache, a scan of the unchanged folder, and what the Pairs tab asks for, from a project just
opened.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from dpo.metadata import read_image
from tests.benchmarks._generated import Written, write_folder

FILES, INDEXED_FILES = 2_000, 100_000
ROUNDS = 5
LIMIT_RATIO, LIMIT_GROUPS_MS = 5, 100
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def measure(files: int = FILES, indexed_files: int = INDEXED_FILES) -> dict:
    other = _sd_parsers()
    with tempfile.TemporaryDirectory() as folder:
        reading = _compare(write_folder(Path(folder), files, max(1, files // 5)), other)
    with tempfile.TemporaryDirectory() as folder:
        indexing = _measure_index(Path(folder), indexed_files)
    return {
        "benchmark": "scan", **reading, "limit_ratio": LIMIT_RATIO, **_compare_on_samples(other), **indexing,
        "limit_groups_ms": LIMIT_GROUPS_MS,
        "within_limit": reading["files_per_second_ratio"] >= LIMIT_RATIO and indexing["groups_ms"] < LIMIT_GROUPS_MS,
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


# --- reading


def _sd_parsers() -> Callable[[Path], list[str]]:
    """Path -> the positive prompts that sd-parsers finds, none for a file it fails on."""
    try:
        package = importlib.import_module("sd_parsers")
        eagerness = importlib.import_module("sd_parsers.extractors").Eagerness.FAST
    except ImportError:
        raise SystemExit(
            "sd-parsers is not installed. Run `pip install sd-parsers==0.6`, then start the benchmark again."
        ) from None
    manager = package.ParserManager(eagerness=eagerness)

    def read(path: Path) -> list[str]:
        try:
            found = manager.parse(path)
        except Exception:  # its mistakes are counted as a prompt not found
            return []
        return [prompt.value for prompt in found.prompts] if found else []

    return read


def _ours(path: Path) -> list[str]:
    prompt = read_image(path).prompt
    return [] if prompt is None else [prompt]


def _compare(files: list[Written], other: Callable[[Path], list[str]]) -> dict:
    """Files a second of both over all files, and over those that both get right."""
    right = {
        name: [_is_right(read(file.path), file.prompt) for file in files] for name, read in (("ours", _ours), ("other", other))
    }
    both = [file for file, ours, theirs in zip(files, right["ours"], right["other"], strict=True) if ours and theirs]
    ours, theirs = _seconds(files, other)
    ours_both, theirs_both = _seconds(both, other)
    return {
        "files": len(files),
        "megabytes": round(sum(file.path.stat().st_size for file in files) / 1e6),
        "files_per_second": round(len(files) / ours),
        "sd_parsers_files_per_second": round(len(files) / theirs),
        "files_per_second_ratio": round(theirs / ours, 2),
        "right": sum(right["ours"]),
        "sd_parsers_right": sum(right["other"]),
        "right_in_both": len(both),
        "ratio_where_both_are_right": round(theirs_both / ours_both, 2),
    }


def _seconds(files: list[Written], other: Callable[[Path], list[str]]) -> tuple[float, float]:
    """Median seconds of one pass over the files, ours and theirs, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for read, taken in zip((_ours, other), seconds, strict=True):
            started = time.perf_counter()
            for file in files:
                read(file.path)
            taken.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _is_right(found: list[str], prompt: str | None, alternatives: tuple[str, ...] = ()) -> bool:
    """Whether a text that was found is the prompt, whitespace aside; without a prompt, whether none was found."""
    if prompt is None:
        return not "".join(found).strip()
    accepted = {" ".join(text.split()) for text in (prompt, *alternatives)}
    return any(" ".join(text.split()) in accepted for text in found)


def _compare_on_samples(other: Callable[[Path], list[str]]) -> dict:
    """The same over real files, where a checkout has them beside it."""
    if not (SAMPLES / "INDEX.json").is_file():
        return {"samples": 0}
    rows = json.loads((SAMPLES / "INDEX.json").read_text(encoding="utf-8"))
    files = [Written(SAMPLES / row["path"], row["generator"], row["prompt"] or None) for row in rows]
    accepted = [tuple(row["also_accept"]) for row in rows]
    counts = [
        sum(_is_right(read(file.path), file.prompt, texts) for file, texts in zip(files, accepted, strict=True))
        for read in (_ours, other)
    ]
    ours, theirs = _seconds(files, other)
    return {
        "samples": len(files), "samples_ratio": round(theirs / ours, 2), "samples_right": counts[0],
        "samples_sd_parsers_right": counts[1],
    }  # fmt: skip


# --- the index


def _measure_index(folder: Path, files: int) -> dict:
    images, project = folder / "images", folder / "project"
    written = write_folder(images, files, max(1, files // 5), full_size=False)
    _put_out_of_memory([file.path for file in written])
    cold, cold_mb = _in_own_process(_scan, project, images)
    warm, warm_mb = _in_own_process(_scan, project, images)
    asked, asked_mb = _in_own_process(_ask, project, images)
    return {
        "indexed_files": files,
        "scan_cold_s": round(cold, 1), "scan_cold_files_per_second": round(files / cold), "scan_cold_peak_mb": cold_mb,
        "scan_warm_s": round(warm, 2), "scan_warm_files_per_second": round(files / warm), "scan_warm_peak_mb": warm_mb,
        "groups_peak_mb": asked_mb, **asked,
    }  # fmt: skip


def _scan(project: Path, images: Path) -> float:
    from dpo.project import open_project

    library = open_project(project).library
    started = time.perf_counter()
    library.scan(images)
    return time.perf_counter() - started


def _ask(project: Path, images: Path) -> dict:
    """Milliseconds of what the Pairs tab asks for: its groups and counts, once more, and a search."""
    from dpo.groups import View
    from dpo.project import open_project

    times: dict[str, list[float]] = {"groups_ms": [], "groups_cached_ms": [], "search_ms": []}
    for _ in range(ROUNDS):
        library, view = open_project(project).library, View(str(images))
        for name, asked in (("groups_ms", view), ("groups_cached_ms", view), ("search_ms", View(str(images), search="aurora"))):
            started = time.perf_counter()
            library.catalogue(asked)
            times[name].append((time.perf_counter() - started) * 1000)
    catalogue = library.catalogue(view)
    medians = {name: round(statistics.median(taken), 2) for name, taken in times.items()}
    return medians | {"groups": len(catalogue.lines), "prompts": catalogue.prompts}


def _put_out_of_memory(paths: list[Path]) -> None:
    """Ask the system to forget what it holds of these files; where it cannot be asked, the first scan finds them in memory."""
    if hasattr(os, "posix_fadvise"):
        os.sync()  # only pages that are on the disk can be dropped
        for path in paths:
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _in_own_process(function: Callable, *arguments: Path) -> tuple:
    """(result, highest megabytes in memory of the process and those it started together, None where /proc is missing)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future, peak = pool.submit(function, *arguments), 0
        (process,) = multiprocessing.active_children()
        while not future.done():
            peak = max(peak, _resident_bytes(process.pid))
            time.sleep(0.1)
        return future.result(), round(peak / 1e6) or None


def _resident_bytes(process: int) -> int:
    """Of a process and its descendants, shared pages once each. 0 where /proc is missing."""
    parents, resident = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            resident[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * PAGE
        except OSError:  # it ended meanwhile
            continue
    family = {process}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(resident.get(member, 0) for member in family)
