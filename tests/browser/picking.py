"""What the browser tests of the picker share: how a person looks at it, presses keys, and what the store says then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from dpo.demo.world import draw, random_scene
from dpo.groups import Group, View
from dpo.progress import Asking
from dpo.project import Project
from tests.pictures import plain, write_prompted


def open_picker(page, app) -> None:
    page.goto(app.url)
    wait_for_screen(page)


def wait_for_screen(page) -> None:
    page.wait_for_selector("#picker .cell:not([hidden]) img")


def wait_until(claim: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def is_event(request) -> bool:
    """Whether a request is an event of Gradio's, and not a plain question of a part of ours."""
    return request.method == "POST" and "component_server" not in request.url


def come_to_rest(page, seen: list[str], milliseconds: int = 4000) -> None:
    """Wait until nothing comes into `seen` for that long."""
    for _ in range(10):
        seen.clear()
        page.wait_for_timeout(milliseconds)
        if not seen:
            return
    raise AssertionError(f"the page never rests: {seen[-5:]}")


def reload(page) -> None:
    """Gradio reloads a page by itself once it meets an app that was started anew; if it is first, ours is aborted."""
    from playwright.sync_api import Error

    try:
        page.reload()
    except Error as error:
        assert "ERR_ABORTED" in error.message
        page.wait_for_load_state()


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def hold(page, key: str, seconds: float) -> None:
    page.keyboard.down(key)
    time.sleep(seconds)
    page.keyboard.up(key)


def switch_to(page, mode: str, images: int) -> None:
    """Click the mode and wait for its first screen, which shows so many images."""
    page.click(f"#picker .modes [data-mode={mode}]")
    page.wait_for_function(
        "([mode, images]) => document.querySelector('#picker .picker')?.dataset.mode === mode"
        " && document.querySelectorAll('#picker .cell:not([hidden]) img').length === images",
        arg=[mode, images],
    )


def shown_prompt(page) -> str:
    return page.text_content("#picker .prompt span")


def shown_keys(page) -> list[str]:
    """The keys of the images on screen, in order."""
    sources = page.eval_on_selector_all("#picker .cell:not([hidden]) img", "images => images.map(image => image.src)")
    return [source.split("preview-")[1].split("-")[0] for source in sources]


def progress(page) -> str:
    return page.text_content("#picker .count")


def offered(page) -> str:
    """What is said of the group just answered, "" for nothing."""
    return page.text_content("#picker .offer .words") if page.is_visible("#picker .offer") else ""


def waiting_picks(page) -> int:
    return page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('image-dpo-outbox')).length")


def group_order(project: Project) -> list[Group]:
    """The groups that no page holds, in the order in which they are handed out."""
    view = View(str(project.path / "candidates"))
    asking = Asking(mode="best_worst", want=100)
    return [screen.group for screen in project.picks.next_screens(project.library, view, asking).screens]


def paths(group: Group) -> list[str]:
    return [image.path for image in group.images]


def write_hostile(folder: Path) -> list[str]:
    """Groups whose prompts set window.hacked where they are taken for code, and a file whose name does. Returns the prompts."""
    folder.mkdir(parents=True)
    hostile = [
        "<img src=x onerror=window.hacked=1>",
        "${window.hacked=1}",
        "{{constructor.constructor('window.hacked=1')()}}",
        "`${Reflect.set(window,/hacked/.source,1)}`",
        "</script><script>window.hacked=1</script>",
    ]
    rng = random.Random(0)
    for number, prompt in enumerate(hostile):
        for image in range(2):
            write_prompted(folder / f"{number}_{image}.png", prompt, Image.fromarray(draw(random_scene(rng))))
    write_prompted(folder / "<img src=x onerror=window.hacked=1> ${window.hacked=1}.png", "${window.hacked=1} alone", plain())
    return hostile
