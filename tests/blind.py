"""Blind tests with images that nobody had to sample, for tests: the base paints squares, the adapter circles."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from dpo.blind import BlindItem, BlindTest, write_test
from dpo.outcomes import Outcome, find_outcome
from dpo.project import Project
from tests.pictures import write_prompted


def make_test(
    project: Project, items: int = 6, prompts: int = 0, name: str = "cats-1", words: str = "a cat, number", **more
) -> BlindTest:
    """A test with all its images; `prompts` 0: one prompt an item. `words` begin each prompt."""
    found = tuple(BlindItem(number, f"{words} {number % (prompts or items)}", 100 + number) for number in range(items))
    usual = {
        "model": "demo", "adapter": str(project.path / "adapter.safetensors"), "strength": 1.0, "sampling_steps": 4,
        "guidance_scale": 3.0, "width": 64, "height": 64, "questions": ("overall",), "items": found, "made": 1_000_000.0,
    }  # fmt: skip
    test = BlindTest(project.path / "tests" / name, **usual | more)
    write_test(test)
    for item in test.items:
        paint(test, item)
    return test


def paint(test: BlindTest, item: BlindItem) -> None:
    for side in ("base", "adapter"):
        image = Image.new("RGB", (64, 64), (40 * item.number % 256, 90, 120))
        draw = ImageDraw.Draw(image)
        (draw.ellipse if side == "adapter" else draw.rectangle)((16, 16, 48, 48), fill="white")
        write_prompted(test.image(item, side), item.prompt, image, seed=item.seed)


class Voter:
    """Somebody at a page of their own. `name` "": without a name."""

    def __init__(self, project: Project, test: BlindTest, name: str = "", question: str = "overall") -> None:
        self.project, self.test, self.name, self.question = project, test, name, question
        self.client, self.number = f"{name or 'somebody'}-{question}-{test.name}", 0

    def vote(self, item: int, preferred: str) -> list:
        """`preferred`: "adapter", "base" or "" for a tie; the base is at the left of even items. Returns the vote's name."""
        left = ("base", "adapter")[item % 2]
        result = "tie" if not preferred else "left" if preferred == left else "right"
        return self.send(
            op="vote", test=self.test.name, item=item, question=self.question, left=left, result=result, rater=self.name
        )

    def undo(self, vote: list) -> list:
        return self.send(op="undo", undoes=vote)

    def send(self, **operation) -> list:
        operation = {"client": self.client, "number": self.number, **operation}
        self.number += 1
        applied = self.project.votes.apply([operation])
        assert (applied.new, applied.refused) == (1, ())
        return [operation["client"], operation["number"]]

    def outcome(self) -> Outcome:
        return find_outcome(self.project, self.test.name, self.question)


def paths(test: BlindTest) -> list[Path]:
    return [test.image(item, side) for item in test.items for side in ("base", "adapter")]
