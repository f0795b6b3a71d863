"""Data sets in a real browser: what comes in and goes out through the page, and the folder that follows the picks."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from dpo.project import open_project
from tests.browser.picking import press, wait_until
from tests.browser.test_review import open_review, prompts
from tests.pictures import paint_folder

pytestmark = pytest.mark.browser


@pytest.fixture
def project(tmp_path):
    """Six prompts with four images each, the first of them picked from."""
    folder = tmp_path / "project" / "candidates"
    paint_folder(folder, prompts=6, per_prompt=4)
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    group = project.library.groups(folder)[0]
    keys = [image.key for image in group.images]
    pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys[:2]}
    project.picks.apply([{"client": "earlier-page", "number": 0, **pick}])
    return project


@pytest.fixture
def review(page, start_app, project):
    open_review(page, start_app(project.path))
    return page


def make_onetrainer(folder: Path) -> Path:
    """Three pairs in OneTrainer's folders, and a chosen image without its other half."""
    paths = paint_folder(folder / "painted", prompts=4, per_prompt=2, seed=5)
    for number in range(4):
        for side, path in zip(("chosen", "rejected"), paths[2 * number : 2 * number + 2], strict=True):
            (folder / side).mkdir(exist_ok=True)
            shutil.move(path, folder / side / f"{number}.png")
            (folder / side / f"{number}.txt").write_text(f"made elsewhere {number}", encoding="utf-8")
    (folder / "rejected" / "3.png").unlink()
    shutil.rmtree(folder / "painted")
    return folder


@pytest.mark.thorough
def test_a_folder_made_elsewhere_is_imported_and_reviewed_by_itself(review, project, tmp_path):
    folder = make_onetrainer(tmp_path / "made-elsewhere")
    review.click("#datasets [data-panel=import]")
    review.fill("#datasets .import .path", str(folder))
    press(review, "Enter")
    review.wait_for_selector("#datasets .sentence:has-text('3 pairs taken from made-elsewhere')")
    assert review.text_content("#datasets .left summary") == "1 not taken"
    assert "has no rejected image" in review.text_content("#datasets .left table")
    wait_until(lambda: len(prompts(review)) == 4)
    review.select_option("#review [data-filter=source]", label="import: made-elsewhere")
    wait_until(lambda: sorted(prompts(review)) == [f"made elsewhere {number}" for number in range(3)])


@pytest.mark.thorough
def test_an_uploaded_zip_is_imported_and_kept_in_the_project(review, project, tmp_path):
    folder = make_onetrainer(tmp_path / "sent")
    archive = shutil.make_archive(str(tmp_path / "sent"), "zip", folder)
    shutil.rmtree(folder)
    review.click("#datasets [data-panel=import]")
    review.set_input_files("#datasets .file", archive)
    review.wait_for_selector("#datasets .sentence:has-text('3 pairs taken from sent')")
    imported = [picked for picked in project.picks.picked_pairs() if picked.pair.source == "import: sent"]
    assert len(imported) == 3
    assert all(Path(picked.pair.chosen).is_relative_to(project.path / "imports") for picked in imported)


@pytest.mark.thorough
def test_what_cannot_be_imported_says_so_and_keeps_what_was_typed(review, project, tmp_path):
    review.click("#datasets [data-panel=import]")
    review.fill("#datasets .import .path", str(tmp_path / "nowhere"))
    press(review, "Enter")
    review.wait_for_selector("#datasets .error:has-text('does not exist')")
    assert review.input_value("#datasets .import .path") == str(tmp_path / "nowhere")
    review.fill("#datasets .import .path", str(make_onetrainer(tmp_path / "second")))
    press(review, "Enter")
    review.wait_for_selector("#datasets .sentence:has-text('3 pairs taken')")
    assert review.locator("#datasets .error:visible").count() == 0


def test_an_export_is_written_and_downloaded_with_the_share_that_training_has_a_name_for(review, project):
    review.click("#datasets [data-panel=export]")
    review.fill("#datasets .export .share", "0.4")
    review.select_option("#datasets .kind", "csv")
    review.click("#datasets .export [type=submit]")
    review.wait_for_selector("#datasets .sentence:has-text('1 pair exported to')")
    with review.expect_download() as download:
        review.click("#datasets .download")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert "train.csv" in names and "README.md" in names
    review.evaluate("document.querySelector('#datasets .export .share').value = 0.9")
    review.evaluate("document.querySelector('#datasets .export').noValidate = true")
    review.click("#datasets .export [type=submit]")
    review.wait_for_selector("#datasets .error:has-text('validation_share=0.9 is too large')")
    review.set_viewport_size({"width": 900, "height": 800})
    review.wait_for_timeout(1500)
    assert review.is_visible("#datasets .error:has-text('too large')") and review.is_enabled("#datasets .export [type=submit]")


def test_the_live_folder_receives_a_pair_as_it_is_picked_loses_it_on_undo_and_is_finalised(review, project, tmp_path):
    live = tmp_path / "live"

    def stems() -> set[str]:
        return {entry["stem"] for entry in json.loads((live / "manifest.json").read_text())["pairs"]} if live.exists() else set()

    review.click("#datasets [data-panel=live]")
    review.fill("#datasets .live .path", str(live))
    press(review, "Enter")
    review.wait_for_selector(f"#datasets .live-line:has-text('1 pair in {live}, up to date')")
    before = stems()
    review.locator("#picker").scroll_into_view_if_needed()
    review.locator("#picker .cell:not([hidden])").nth(2).click()
    review.locator("#picker .cell:not([hidden])").nth(0).click()
    wait_until(lambda: len(stems()) == 2)
    (new,) = stems() - before
    assert {path.stem for path in (live / "chosen").glob("*.png")} == {*before, new}
    press(review, "z")
    wait_until(lambda: stems() == before)
    assert {path.stem for path in (live / "chosen").glob("*.png")} == before
    review.click("#datasets .finalise-live")
    review.wait_for_selector("#datasets .sentence:has-text('is finalised')")
    assert (live / "concepts.json").is_file()
    review.click("#datasets .stop-live")
    wait_until(lambda: project.picks.rules().live_folder == "")


@pytest.mark.thorough
def test_a_live_folder_of_before_brings_its_pairs_so_that_its_groups_are_done(page, start_app, project, tmp_path):
    earlier = open_project(tmp_path / "earlier")
    paint_folder(tmp_path / "earlier" / "candidates", prompts=6, per_prompt=4)
    earlier.library.scan(earlier.path / "candidates")
    for number, group in enumerate(earlier.library.groups(earlier.path / "candidates")[1:3]):
        keys = [image.key for image in group.images]
        pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys[2:4]}
        earlier.picks.apply([{"client": "other-page", "number": number, **pick}])
    from dpo.exchange import LiveFolder

    LiveFolder(tmp_path / "live").bring_up_to_date(earlier.picks.picked_pairs())
    open_review(page, start_app(project.path))
    assert page.text_content("#picker .count") == "1 of 6"
    page.click("#datasets [data-panel=live]")
    page.fill("#datasets .live .path", str(tmp_path / "live"))
    press(page, "Enter")
    page.wait_for_selector("#datasets .live-line:has-text('3 pairs in')")
    assert len(project.picks.picked_pairs()) == 3
