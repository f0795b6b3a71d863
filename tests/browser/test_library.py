"""The shelf in a real browser: finding groups among many, what was left out and why, and files that arrive by upload."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dpo.groups import View
from dpo.metadata import format_parameters
from dpo.metadata.writer import write_png
from dpo.project import open_project
from tests.browser.picking import come_to_rest, is_event, press, reload, shown_prompt, wait_until
from tests.metadata.files import hide
from tests.pictures import plain, write_prompted

pytestmark = pytest.mark.browser

HOSTILE = "${window.hacked=1} <img src=x onerror=window.hacked=1> {{constructor.constructor('window.hacked=1')()}}"
MANY = 3000  # groups
MOST_ROWS = 40  # in the document at once, whatever the list's length


def write_image(path: Path, prompt: str, number: int, model: str = "", size: tuple[int, int] = (32, 32)) -> Path:
    """An image that no other equals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = plain(f"#{number % 0xFFFFFF:06x}", size)
    settings = {"model": model} if model else {}
    write_png(picture, path, format_parameters(prompt, steps=20, seed=number, size=f"{size[0]}x{size[1]}", **settings))
    return path


@pytest.fixture
def project(tmp_path):
    """Four prompts with three images each, two models; two images without a prompt, and one that nothing compares with."""
    folder = tmp_path / "project" / "candidates"
    prompts = ["a red fox, forest", "a red fox, snow", "a grey cat", "a blue boat"]
    for number, prompt in enumerate(prompts):
        for image in range(3):
            write_image(folder / f"{number}_{image}.png", prompt, 10 * number + image, model="sdxl" if number % 2 else "flux")
    write_image(folder / "alone.png", "a lonely tree", 90)
    for name in ("silent_1.png", "silent_2.png"):
        plain("#123456" if "1" in name else "#654321").save(folder / name)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    return project


@pytest.fixture
def shelf(page, start_app, project):
    """The page of that project with step 1 unfolded."""
    open_shelf(page, start_app(project.path))
    return page


def open_shelf(page, app) -> None:
    page.goto(app.url)
    page.wait_for_selector("#picker .cell:not([hidden]) img")
    unfold(page)


def unfold(page) -> None:
    """A page that has just been loaded may fold the step once more: it learns only then what its browser remembers."""
    page.wait_for_timeout(300)
    while not page.is_visible("#shelf .row:not(.loading)"):
        if not page.is_visible("#shelf"):
            page.click("#images-step .label-wrap, #images-step > button")
        page.wait_for_timeout(300)


def shown_prompts(page) -> list[str]:
    return page.eval_on_selector_all(
        "#shelf .row:not(.loading)",
        "rows => rows.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map(row => row.querySelector('.prompt').textContent)",
    )


def amount(page) -> str:
    return page.text_content("#shelf .amount span")


def folder_of(project) -> str:
    return str(project.path / "candidates")


def test_search_and_filters_narrow_the_list_and_what_is_picked(shelf, project):
    assert amount(shelf) == "4 groups"
    shelf.fill("#shelf .search", "RED snow")
    wait_until(lambda: shown_prompts(shelf) == ["a red fox, snow"])
    assert amount(shelf) == "1 of 4 groups"
    wait_until(lambda: shown_prompt(shelf) == "a red fox, snow")
    shelf.wait_for_selector("#images-step:has-text('Picking from 1 of 4 groups')")
    shelf.click("#shelf .amount button")
    wait_until(lambda: len(shown_prompts(shelf)) == 4)
    shelf.select_option("#shelf [data-filter=model]", "flux")
    wait_until(lambda: shown_prompts(shelf) == ["a red fox, forest", "a grey cat"])
    shelf.fill("#shelf .search", "fox")
    wait_until(lambda: shown_prompts(shelf) == ["a red fox, forest"])
    shelf.wait_for_function("document.querySelector('#picker .count')?.textContent === '0 of 1'")


@pytest.mark.thorough
def test_keys_typed_in_the_shelf_pick_nothing(shelf, project):
    shelf.fill("#shelf .search", "fox")
    shelf.locator("#shelf .search").press_sequentially("12")
    shelf.locator("#shelf .chip").first.focus()
    press(shelf, "1", "2", "s")
    shelf.wait_for_timeout(300)
    assert project.picks.revision() == 0
    assert shelf.locator("#picker .cell.best").count() == 0


@pytest.mark.thorough
def test_a_reload_keeps_what_was_chosen(shelf, project):
    asked = []
    shelf.on("request", lambda request: is_event(request) and asked.append(request.url))
    shelf.fill("#shelf .search", "fox")
    shelf.select_option("#shelf .order", "size")
    shelf.click("#shelf .grouping summary")
    shelf.check("#shelf [data-option=ignore_case]")
    shelf.wait_for_selector("#images-step:has-text('Picking from 2 of 4 groups')")
    come_to_rest(shelf, asked, 2000)  # the browser's storage is written after the answer
    reload(shelf)
    shelf.wait_for_selector("#picker .cell:not([hidden]) img")
    wait_until(lambda: shelf.text_content("#picker .count") == "0 of 2" and shown_prompt(shelf).startswith("a red fox"))
    unfold(shelf)
    wait_until(lambda: amount(shelf) == "2 of 4 groups")
    assert shelf.input_value("#shelf .search") == "fox"
    assert shelf.input_value("#shelf .order") == "size"
    assert shelf.is_checked("#shelf [data-option=ignore_case]")


@pytest.mark.thorough
def test_grouping_without_lora_tags_brings_groups_together(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    for number, strength in enumerate(("0.4", "0.4", "0.8", "0.8")):
        write_image(folder / f"{number}.png", f"a fox <lora:fur:{strength}>", number)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    open_shelf(page, start_app(project.path))
    assert amount(page) == "2 groups"
    page.click("#shelf .grouping summary")
    page.check("#shelf [data-option=ignore_loras]")
    wait_until(lambda: amount(page) == "1 group")
    page.wait_for_function("document.querySelectorAll('#picker .cell:not([hidden]) img').length === 4")


@pytest.mark.thorough
def test_a_group_shows_its_images_with_everything_their_files_say(shelf, project):
    shelf.click("#shelf .row:has-text('a grey cat')")
    shelf.wait_for_selector("#shelf .candidate")
    assert shelf.locator("#shelf .candidate").count() == 3
    shelf.wait_for_function("[...document.querySelectorAll('#shelf .pane img')].every((image) => image.naturalWidth === 32)")
    facts = shelf.locator("#shelf .image dl").inner_text()
    for word in ("a grey cat", "Seed", "Steps", "20", "flux", "32 × 32", "2_"):
        assert word in facts
    shelf.click("#shelf .image .raw button")
    shelf.wait_for_selector("#shelf .raw pre:has-text('Steps: 20')")
    shelf.click("#shelf .pane .primary")
    wait_until(lambda: shown_prompt(shelf) == "a grey cat")
    press(shelf, "1", "2")  # the keys are the picker's again
    wait_until(lambda: project.picks.pairs())
    assert project.picks.pairs()[0].prompt == "a grey cat"
    wait_until(lambda: shown_prompt(shelf) != "a grey cat")
    shelf.wait_for_selector("#shelf .row:has-text('a grey cat') .picked:has-text('picked')", state="attached")


@pytest.mark.thorough
def test_prompts_hidden_in_pixels_are_searched_where_asked_for_without_closing_what_is_open(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    for number in range(2):
        write_image(folder / f"{number}.png", "a fox", number, size=(40, 90))
    hide("a fox\nSteps: 20, Sampler: Euler, Seed: 3", "stealth_pngcomp").save(folder / "hidden.png")
    Image.new("RGB", (40, 90)).save(folder / "silent.png")
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    open_shelf(page, start_app(project.path))
    page.click("#shelf .chip:has-text('2 without metadata')")
    page.wait_for_selector("#shelf .files li:has-text('hidden.png')")
    page.check("#shelf [data-stand-in=pixels]")
    page.wait_for_selector("#shelf .row:has-text('a fox'):has-text('3 images')")
    page.wait_for_selector("#shelf .files li:has-text('hidden.png')", state="detached")
    assert page.locator("#shelf .files li").count() == 1
    assert page.is_visible("#shelf")


@pytest.mark.thorough
def test_a_scan_that_ends_tells_the_picker_how_much_there_is(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    for number in range(20):
        write_image(folder / f"{number}.png", f"prompt {number // 2}", number)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    app = start_app(project.path)
    open_shelf(page, app)
    assert "of 10" in page.text_content("#picker .count")
    for number in range(20, 60):
        write_image(folder / f"{number}.png", f"prompt {number // 2}", number)
    page.click("#scan")
    page.wait_for_function("document.querySelector('#picker .count')?.textContent === '0 of 30'")


@pytest.mark.thorough
def test_a_key_picks_nothing_while_the_list_hides_the_picker(shelf, project):
    shelf.click("#shelf .row >> nth=0")  # what is open fills the window
    shelf.wait_for_selector("#shelf .candidate")
    shelf.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    assert shelf.evaluate("document.querySelector('#picker .stage').getBoundingClientRect().top > 0.8 * innerHeight")
    press(shelf, "1", "2")
    shelf.wait_for_timeout(300)
    assert project.picks.revision() == 0
    shelf.click("#images-step .label-wrap, #images-step > button")
    shelf.wait_for_function("document.querySelector('#picker .stage')?.getBoundingClientRect().top < innerHeight / 3")
    shelf.evaluate("document.activeElement.blur()")
    press(shelf, "1", "2")
    wait_until(lambda: project.picks.revision() == 1)


@pytest.mark.thorough
def test_groups_nobody_picked_from_come_first_when_asked_for(shelf, project):
    press(shelf, "Escape")
    picked = shown_prompt(shelf)
    shelf.locator("#picker .cell:not([hidden])").nth(0).click()
    shelf.locator("#picker .cell:not([hidden])").nth(1).click()
    wait_until(lambda: project.picks.pairs())
    shelf.select_option("#shelf .order", "unpicked")
    wait_until(lambda: shown_prompts(shelf)[-1:] == [picked])


@pytest.mark.thorough
def test_a_typed_prompt_brings_an_image_left_out_into_its_group(shelf, project):
    folder = folder_of(project)
    shelf.click("#shelf .chip:has-text('2 without metadata')")
    shelf.wait_for_selector("#shelf .files li")
    assert shelf.locator("#shelf .files .name").all_inner_texts() == ["silent_1.png", "silent_2.png"]
    first, second = shelf.locator("#shelf .files textarea").nth(0), shelf.locator("#shelf .files textarea").nth(1)
    first.fill("  a grey  cat,")
    first.press("Enter")
    shelf.wait_for_selector("#shelf .files .result:has-text('Saved')")
    shelf.wait_for_selector("#shelf .chip:has-text('1 without metadata')")
    second.fill("half typed")
    shelf.wait_for_timeout(1500)  # the page looks for news: what is half typed stays
    assert second.input_value() == "half typed"
    second.fill("a grey cat")
    second.press("Enter")
    shelf.wait_for_selector("#shelf .chip:has-text('without metadata')", state="detached")
    assert sizes(project, folder)["a grey cat"] == 5
    shelf.wait_for_selector("#shelf .row:has-text('a grey cat') .size:has-text('5 images')")


def sizes(project, folder) -> dict[str, int]:
    view = View(folder=folder)
    lines = project.library.catalogue(view).lines
    faces = project.library.faces(view, lines)
    return {faces[line.key].prompt: line.size for line in lines}


@pytest.mark.thorough
def test_a_text_beside_the_image_stands_in_for_what_the_file_does_not_say(shelf, project):
    folder = Path(folder_of(project))
    for name in ("silent_1", "silent_2"):
        (folder / f"{name}.txt").write_text("a quiet pond", encoding="utf-8")
    assert not shelf.is_visible("#shelf .stand-ins")
    shelf.click("#shelf .chip:has-text('2 without metadata')")
    shelf.check("#shelf [data-stand-in=sidecar]")
    shelf.wait_for_selector("#shelf .chip:has-text('without metadata')", state="detached")
    wait_until(lambda: "a quiet pond" in sizes(project, str(folder)))
    wait_until(lambda: amount(shelf) == "5 groups")
    shelf.uncheck("#shelf [data-stand-in=sidecar]")
    shelf.wait_for_selector("#shelf .chip:has-text('2 without metadata')")


@pytest.mark.thorough
def test_an_uploaded_table_stands_in_for_what_the_file_does_not_say(shelf, project, tmp_path):
    table = tmp_path / "prompts.csv"
    table.write_text("file,prompt\nsilent_1.png,a quiet pond\nsilent_2.png,a quiet pond\n", encoding="utf-8")
    shelf.click("#shelf .chip:has-text('2 without metadata')")
    shelf.set_input_files("#shelf .table-file", table)
    wait_until(lambda: "a quiet pond" in sizes(project, folder_of(project)))
    shelf.wait_for_function("document.querySelector('#shelf [data-stand-in=table]')?.checked")


def test_a_zip_is_taken_in_scanned_and_picked_from_and_what_is_no_image_is_named(page, start_app, tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for number in range(4):
            name = f"{number}.png"
            archive.write(write_image(tmp_path / "made" / name, f"prompt {number // 2}", number), f"some folder/{name}")
        archive.writestr("readme.md", "words")
    loose = [write_image(tmp_path / "made" / "loose.png", "prompt 0", 9), tmp_path / "tool.exe"]
    loose[1].write_bytes(b"MZ")
    app = start_app(tmp_path / "project")
    page.goto(app.url)
    page.wait_for_selector("#shelf .teach:visible")
    page.set_input_files("#shelf .file-input", [tmp_path / "mine.zip", *loose])
    page.wait_for_selector("#picker .cell:not([hidden]) img")
    project = open_project(app.project)
    uploads = project.path / "uploads"
    assert sorted(size for size in sizes(project, str(uploads)).values()) == [2, 3]
    page.wait_for_function(f"document.querySelector('#folder :is(input, textarea)')?.value === {str(uploads)!r}")
    press(page, "1", "2")
    wait_until(lambda: project.picks.pairs())
    unfold(page)
    page.click("#shelf .chip:has-text('not taken')")
    page.wait_for_selector("#shelf .files .name:has-text('tool.exe')")
    assert not list((project.path / "cache" / "gradio").rglob("mine.zip")), "what was taken in is not kept twice"


@pytest.mark.thorough
def test_the_end_of_a_long_list_is_reached_without_loading_what_lies_between(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    for number in range(MANY):
        for image in range(2):
            write_image(
                folder / f"{number // 100:03}" / f"{number:05}_{image}.png",
                f"prompt {number:05}",
                2 * number + image,
                size=(1, 1),
            )
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    app = start_app(project.path)
    asked = []
    page.on("request", lambda request: asked.append(request.post_data or "") if "component_server" in request.url else None)
    open_shelf(page, app)
    wait_until(lambda: amount(page) == f"{MANY:,} groups")
    before = len(pages_asked(asked))
    page.focus("#shelf .list")
    press(page, "End")
    page.wait_for_selector(f"#shelf .row:has-text('prompt {MANY - 1:05}')")
    assert page.evaluate("document.querySelector('#shelf .list').scrollHeight") == MANY * 56
    assert page.locator("#shelf .row").count() <= MOST_ROWS
    assert len(pages_asked(asked)) - before <= 2
    press(page, "ArrowUp", "PageUp", "Home", "PageDown", "ArrowDown")
    page.wait_for_selector("#shelf .row.active:has-text('prompt 000')")
    page.evaluate("document.querySelector('#shelf .list').scrollTop = 56 * 1500")
    page.wait_for_selector("#shelf .row:has-text('prompt 01500')")
    assert page.locator("#shelf .row").count() <= MOST_ROWS
    assert len(pages_asked(asked)) - before <= 6
    press(page, "End", "Enter")
    page.wait_for_selector(f"#shelf .pane .whole:has-text('prompt {MANY - 1:05}')")


def pages_asked(asked: list[str]) -> list[str]:
    return [body for body in asked if re.search(r'"fn_name":\s*"list_lines"', body)]


def test_hostile_prompts_names_and_texts_are_shown_as_text_and_run_nothing(page, start_app, tmp_path):
    folder = tmp_path / "project" / "candidates"
    for number in range(2):
        write_image(folder / f"{number}.png", HOSTILE, number, model="<img src=x onerror=window.hacked=1>")
    write_prompted(folder / "<img src=x onerror=window.hacked=1>.png", f"{HOSTILE} alone", plain())
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    open_shelf(page, start_app(project.path))
    assert shown_prompts(page) == [HOSTILE]
    page.click("#shelf .row")
    page.wait_for_selector("#shelf .candidate")
    assert page.text_content("#shelf .pane .whole") == HOSTILE
    page.click("#shelf .image .raw button")
    page.wait_for_selector("#shelf .raw pre")
    page.click("#shelf .chip:has-text('alone')")
    page.wait_for_selector("#shelf .files .name:has-text('onerror')")
    page.fill("#shelf .search", HOSTILE)
    page.wait_for_timeout(800)
    assert page.evaluate("window.hacked") is None
