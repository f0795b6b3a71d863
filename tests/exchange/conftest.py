import pytest

from dpo.pairs import Pair
from dpo.project import open_project
from tests.pictures import paint_folder


@pytest.fixture
def images(tmp_path):
    return paint_folder(tmp_path / "images", prompts=12, per_prompt=2, side=16)


@pytest.fixture
def pairs(images):
    """Twelve pairs of as many prompts; confidences and sources differ."""
    return [
        Pair(
            f'a cat, no. {n} "of" many, <lora:x:1> é', str(images[2 * n]), str(images[2 * n + 1]),
            0.75 + n / 100, ("duel", "best_worst")[n % 2],
        )
        for n in range(12)
    ]  # fmt: skip


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")
