"""Pages that ask for screens and answer them, as a browser tab does, over a real store and real files; for tests."""

from __future__ import annotations

from pathlib import Path

from dpo.groups import Screen, View
from dpo.progress import Asking, Held, Progress
from dpo.project import Project, open_project
from tests.pictures import paint_folder, plain, write_prompted


def open_painted(place: Path) -> Project:
    """Three groups of four images."""
    paint_folder(place / "images", prompts=3, per_prompt=4)
    project = open_project(place / "project")
    project.library.scan(place / "images")
    return project


class Clock:
    """A time that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Page:
    """A browser tab: what it holds, and what it says. Without a name it takes no leases."""

    def __init__(self, project, view, mode="best_worst", client="", rater="", leases=None) -> None:
        self.project, self.view, self.mode, self.client, self.rater = project, view, mode, client, rater
        self.queue: list[Screen] = []
        self.number = 0
        self.progress = Progress(view, mode, project.id, leases) if leases else None

    def ask(self, want=99, **more):
        have = tuple(Held(screen.group.key, keys(screen), screen.mode) for screen in self.queue)
        asking = Asking(self.mode, want, have, client=self.client, rater=self.rater, **more)
        if self.progress:
            found = self.progress.next_screens(self.project.library, self.project.picks.book(), asking)
        else:
            found = self.project.picks.next_screens(self.project.library, self.view, asking)
        self.queue = [screen for screen in self.queue if screen.group.key not in found.over] + found.screens
        return found

    def say(self, op, **more) -> list:
        operation = {"client": self.client or "page", "number": self.number, "op": op, "rater": self.rater, **more}
        self.number += 1
        applied = self.project.picks.apply([operation])
        assert (applied.new, applied.refused) == (1, ())
        return [operation["client"], operation["number"]]

    def answer(self, result=None, op="") -> list:
        """The foremost screen; of a grid the first image is best and the last one worst. Returns the name of the pick."""
        screen = self.queue.pop(0)
        shown = list(keys(screen))
        usual = {"best_worst": [shown[0], shown[-1]], "duel": "left", "triage": "good"}[screen.mode]
        more = {} if op else {"size": len(screen.group.images)}
        if screen.is_second:
            more["second"] = True
        return self.say(op or screen.mode, group=screen.group.key, images=shown, result=result or usual, **more)

    def pick(self, group, count=2) -> list:
        """Best and worst of the first `count` images of a group, 0 for all: the first of them and the last."""
        shown = [image.key for image in group.images][: count or None]
        return self.say("best_worst", group=group.key, images=shown, result=[shown[0], shown[-1]])

    def skip(self, group, mode="best_worst") -> list:
        return self.say("skip", group=group.key, images=[image.key for image in group.images], result=mode)


def keys(screen: Screen) -> tuple[str, ...]:
    return tuple(image.key for image in screen.images)


def names(screens) -> list[str]:
    return [screen.group.key for screen in screens]


def add_group(folder: Path, prompt: str, count: int) -> None:
    """Small images of one prompt, all different."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        write_prompted(folder / f"{prompt} {number}.png", prompt, plain(f"#0000{number:02x}", (8, 8)))


def one_group(place: Path, count: int) -> tuple[Project, View]:
    """A project of one group of `count` images, and the view of it."""
    add_group(place / "one", "a cat", count)
    project = open_project(place / "project of one")
    project.library.scan(place / "one")
    return project, View(str(place / "one"))
