"""The demo project's candidates: several seeds of each prompt, painted by the demo model.

They are ordinary PNG files with ordinary A1111 metadata; once unpacked, nothing treats them differently from a user's own.
`python -m dpo.demo.candidates` makes the archive anew after the model was trained further.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

from dpo import StudioError
from dpo.candidates import UNFINISHED, Planned, paint_files
from dpo.config_files import PRESETS
from dpo.demo import world
from dpo.project import Project
from dpo.sample_settings import SampleSettings

ARCHIVE = PRESETS / "demo" / "candidates.zip"
SEEDS = 6
PROMPTS = 60


def prepare_demo(project: Project) -> Path:
    """The project's folder of demo candidates, unpacked on the first call. Raises StudioError if the disk refuses."""
    folder = project.path / "candidates"
    if not folder.exists():
        partial = project.path / "candidates.partial"
        try:
            with zipfile.ZipFile(ARCHIVE) as archive:
                archive.extractall(partial)
            partial.rename(folder)
        except OSError as error:
            raise StudioError(
                f"The demo images cannot be written to {project.path}: {error.strerror}. Free some space."
            ) from error
    return folder


def demo_prompts(count: int, seed: int, *, named: bool = True, exclude: frozenset[str] = frozenset()) -> list[str]:
    """`count` different prompts that leave size, place and softness open; the colour too unless `named`."""
    rng = random.Random(seed)
    prompts: list[str] = []
    while len(prompts) < count:
        color = rng.choice(list(world.COLORS)) if named else None
        # Without a colour there are too few combinations; a size tells prompts apart without taking the freedom away.
        size = None if named else rng.choice((None, "small", "large"))
        prompt = world.describe(rng.choice(world.OBJECTS), color, rng.choice(world.BACKGROUNDS), size)
        if prompt not in exclude and prompt not in prompts:
            prompts.append(prompt)
    return prompts


def make_candidates(
    prompts: list[str], seeds: int, folder: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Sample every prompt with seeds of its own and save the images in `folder`."""
    from dpo.models import load_pipeline
    from dpo.sampling import Sampler

    rows = [(prompt, 1000 * number + seed) for number, prompt in enumerate(prompts) for seed in range(seeds)]
    files = [
        Planned(folder / f"{place:05d}-{seed}.png", prompt, seed, is_base=True, course=0)
        for place, (prompt, seed) in enumerate(rows)
    ]
    done = 0
    for batch in paint_files(Sampler(load_pipeline("demo"), "demo"), files, SampleSettings()):
        done += len(batch)
        report(done, len(files))
    (folder / UNFINISHED).rmdir()


def build_archive(archive: Path = ARCHIVE) -> None:
    """Most prompts name a colour; some leave it open, so that a taste for colours can be picked too."""
    import tempfile

    prompts = demo_prompts(PROMPTS * 3 // 4, 1) + demo_prompts(PROMPTS // 4, 2, named=False)
    random.Random(3).shuffle(prompts)
    with tempfile.TemporaryDirectory() as scratch:
        make_candidates(prompts, SEEDS, Path(scratch), lambda done, total: print(f"\r{done} of {total}", end="", flush=True))
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(Path(scratch).iterdir()):
                # A fixed date: the same images give the same archive.
                packed.writestr(zipfile.ZipInfo(path.name, (2026, 1, 1, 0, 0, 0)), path.read_bytes())
    print(f"\n{archive}: {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    build_archive()
