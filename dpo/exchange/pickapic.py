"""Pairs with the columns of Pick-a-Pic (Kirstain et al. 2023): jpg_0 and jpg_1 are the bytes of two images of any format,
label_0 is 1 where the first is preferred, 0 where the second is, and 0.5 for a tie; caption is the prompt.

Read from parquet files, or streamed from the Hugging Face hub. Written with two columns more, confidence and source.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.exchange.dataset import DatasetPair, ExchangeError, Left, one_line, read_confidence, shown
from dpo.pairs import Pair

if TYPE_CHECKING:
    import datasets

COLUMNS = ("jpg_0", "jpg_1", "label_0", "caption")
EXTRA = ("confidence", "source")
LARGEST_FILE = 256 << 20  # bytes of images in a parquet file we write, which is also what that takes of memory
_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "AVIF": ".avif", "GIF": ".gif"}


def read_parquet(files: Sequence[Path], images: Path, limit: int | None = None) -> tuple[list[DatasetPair], list[Left]]:
    """The pairs in parquet files, at most `limit` rows of them; their images are put into the folder `images`.

    Raises ExchangeError if a file is no parquet or lacks a column, or the folder cannot be written.
    """
    return _take(_stream_files(files), shown(files[0]), images, limit)


def stream_hub(name: str, images: Path, limit: int) -> tuple[list[DatasetPair], list[Left]]:
    """The pairs among the first `limit` rows of the training split of a dataset on the hub; no more than that is fetched.

    Raises ExchangeError if it cannot be reached, is no such dataset or lacks a column.
    """
    return _take(_stream_hub(name), f"the dataset {shown(name)}", images, limit)


def write_parquet(pairs: Iterable[Pair], folder: Path, split: str) -> list[Path]:
    """Write SPLIT-0001.parquet, ... into the folder. Which side is first is drawn by the images' content, so that nothing can
    be learned from it. Raises OSError for an image that cannot be read, or a folder that cannot be written."""
    import datasets

    datasets.disable_progress_bars()
    kinds = {"jpg_0": "binary", "jpg_1": "binary", "label_0": "float64", "label_1": "float64", "caption": "string",
             "confidence": "float64", "source": "string"}  # fmt: skip
    features = datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()})
    written = []
    for rows in _portions(map(_to_row, pairs)):
        written.append(folder / f"{split}-{len(written) + 1:04}.parquet")
        datasets.Dataset.from_list(rows, features).to_parquet(written[-1])
    return written


def keep_image(data: bytes, folder: Path) -> Path:
    """Put the bytes of an image into a folder under a name made of their content, unless it is there. Raises ValueError with a
    sentence for what is no image, OSError if the folder cannot be written."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            ending = _ENDINGS.get(image.format or "")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        ending = None
    if ending is None:
        raise ValueError(f"One of its images is none ({len(data):,} bytes).")
    path = folder / f"{hashlib.blake2b(data, digest_size=12).hexdigest()}{ending}"
    if not path.exists():
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def _stream_files(files: Sequence[Path]) -> Generator[dict]:
    import datasets

    # Not load_dataset: it counts every use of a reader on the hub, also of local files.
    with tempfile.TemporaryDirectory(prefix="image-dpo-") as scratch:
        yield from _rows(datasets.IterableDataset.from_parquet([str(path) for path in files], cache_dir=scratch))


def _stream_hub(name: str) -> Generator[dict]:
    import datasets

    # A stream stores nothing but locks; those need not outlive it.
    with tempfile.TemporaryDirectory(prefix="image-dpo-") as scratch:
        yield from _rows(datasets.load_dataset(name, split="train", streaming=True, cache_dir=scratch))


def _rows(stream: datasets.IterableDataset) -> Iterator[dict]:
    """Rows with images as bytes."""
    if stream.column_names:  # then only what is needed is fetched
        stream = stream.select_columns([column for column in stream.column_names if column in COLUMNS + EXTRA])
    yield from stream.decode(False) if stream.features else stream


def _take(stream: Generator[dict], name: str, images: Path, limit: int | None) -> tuple[list[DatasetPair], list[Left]]:
    from datasets.exceptions import DatasetsError

    rows, left, number = [], [], 0
    try:
        for number, values in enumerate(islice(stream, limit), start=1):
            where = f"row {number}"
            missing = [column for column in COLUMNS if column not in values]
            if missing:
                raise ExchangeError(
                    f"{name} has no column {' and no '.join(missing)}; Pick-a-Pic's are {', '.join(COLUMNS)}. "
                    "Choose another dataset."
                )
            try:
                rows.append(_to_pair(values, images, where))
            except ValueError as reason:
                left.append(Left(where, str(reason)))
    except (OSError, ValueError, DatasetsError) as error:
        if not rows:
            raise ExchangeError(f"{name} cannot be read: {shown(error)} Check its name, the connection and the disk.") from error
        left.append(Left(f"after row {number}", f"The rest cannot be read: {shown(error)} Import again for it."))
    finally:
        stream.close()
    return rows, left


def _to_pair(values: dict, images: Path, where: str) -> DatasetPair:
    label = values["label_0"]
    if label is None or label not in (0, 0.5, 1):
        raise ValueError(f"Its label_0 is {shown(label)}, not 0, 0.5 or 1.")
    if label == 0.5:
        raise ValueError("A tie: neither image is preferred.")
    confidence = read_confidence(values.get("confidence"))
    paths = []
    for column in ("jpg_0", "jpg_1"):
        data = values[column]
        data = data.get("bytes") if isinstance(data, dict) else data
        if not isinstance(data, bytes) or not data:
            raise ValueError(f"{column} holds no bytes of an image.")
        paths.append(keep_image(data, images))
    chosen, rejected = paths if label == 1 else reversed(paths)
    source = one_line(values.get("source") or "")
    return DatasetPair(one_line(values["caption"] or ""), chosen, rejected, confidence, source, where)


def _to_row(pair: Pair) -> dict:
    chosen, rejected = Path(pair.chosen).read_bytes(), Path(pair.rejected).read_bytes()
    is_first = hashlib.blake2b(chosen + rejected).digest()[0] % 2 == 0
    return {
        "jpg_0": chosen if is_first else rejected,
        "jpg_1": rejected if is_first else chosen,
        "label_0": float(is_first),
        "label_1": float(not is_first),
        "caption": one_line(pair.prompt),
        "confidence": pair.confidence,
        "source": pair.source,
    }


def _portions(rows: Iterable[dict]) -> Iterator[list[dict]]:
    portion, size = [], 0
    for row in rows:
        portion.append(row)
        size += len(row["jpg_0"]) + len(row["jpg_1"])
        if size >= LARGEST_FILE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
