"""Whether the images of a run were made by the model that it trains: an adapter also learns to look like whatever made them.

Models are known by their names, and a checkpoint file also by its hash, as A1111 and others write it into images: then a renamed
file is no stranger. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.contents import Contents
from dpo.metadata import read_texts

if TYPE_CHECKING:
    from dpo.config import TrainConfig
    from dpo.pairs import Item
    from dpo.project import Project

ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
HASH = re.compile(r'Model hash"?: "?([0-9a-f]{10,64})|"model": ?"([0-9a-f]{10,64})"', re.IGNORECASE)  # "model": among "Hashes"
NAMED = 2  # models in the sentence


def foreign_models(project: Project, config: TrainConfig, items: Iterable[Item], *, hashes: bool) -> list[str]:
    """A sentence if images of the items were made by another model than the run's, or nothing.

    hashes: also compare the hash of a checkpoint file, which takes seconds the first time, with those in images by models of
    other names.
    """
    paths = dict.fromkeys(path for item in items for path in item.images)
    models, is_same, file = project.library.models(paths), None, Path(config.model).expanduser()
    if hashes and file.is_file():
        is_same = partial(_is_made_by, model=file, contents=Contents(project.cache / "model-hashes", read_sha256))
    sentence = describe_foreign({path: models.get(path, "") for path in paths}, config.model, is_same)
    return [sentence] if sentence else []


def describe_foreign(models: Mapping[str, str], model: str, is_same: Callable[[str], bool] | None = None) -> str:
    """models: what each image says of its model, by its path; "" if nothing. is_same: whether the image at a path was made by
    `model` after all, asked of one image for each name that is not its."""
    wanted = model_stem(model)
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for path, name in models.items():
        stem = model_stem(name)
        if stem and stem != wanted:
            counts[stem] += 1
            examples.setdefault(stem, path)
    if is_same is not None:
        counts = Counter({stem: number for stem, number in counts.items() if not is_same(examples[stem])})
    if not counts:
        return ""
    names = [name[:60] for name, _ in counts.most_common(NAMED)]
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    by = f"{', '.join(names)}{more}" if more else " and ".join(names)
    are = "was" if counts.total() == 1 else "were"
    return (
        f"{counts.total():,} of {len(models):,} images {are} made by {by}, and this run trains {wanted}: the adapter also learns "
        "to look like what made them. Names are compared: if it is the same model under another name, all is well. If not, train "
        "that one, or pick among images of this one."
    )


def model_stem(model: str) -> str:
    """What a model is called by: no folder, no ending, no hash in brackets; "owner/name" of a hub is name. Case and what
    stands between words do not count."""
    name = model.strip().casefold().partition(" [")[0].replace("\\", "/").rstrip("/").rpartition("/")[2]
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name.replace(" ", "-").replace("_", "-")


def read_sha256(path: str) -> str:
    """Of a file's bytes: 64 hex characters, of which A1111 writes ten. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_made_by(image: str, model: Path, contents: Contents) -> bool:
    """Whether a hash in the image is the model file's."""
    told = {found[1] or found[2] for field in read_texts(image) for found in HASH.finditer(field.text)}
    if not told:
        return False
    found = contents.digest(str(model))
    contents.flush()
    return any(found.startswith(part.lower()) for part in told)
