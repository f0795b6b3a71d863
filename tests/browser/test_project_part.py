"""The project as a whole, through the page: taken along as a zip, opened by an app that has nothing yet, and diagnostics."""

from __future__ import annotations

import pytest

from dpo.log import log_file
from dpo.project import open_project
from tests.browser.picking import wait_until
from tests.operations import best_worst

pytestmark = pytest.mark.browser


def unfold(page, url: str) -> None:
    page.goto(url)
    page.click("#this-project summary")
    page.wait_for_function("document.querySelector('#this-project .where').textContent")


def test_a_project_is_downloaded_and_opened_by_an_app_that_has_nothing_yet(page, start_app, project, groups, tmp_path):
    project.picks.apply([best_worst(group, number) for number, group in enumerate(groups[:3])])
    unfold(page, start_app(project.path).url)
    assert "beside it" in page.text_content("#this-project .where")
    page.click("#this-project .pack [type=submit]")
    page.wait_for_selector("#this-project .download:not([hidden])")
    with page.expect_download() as download:
        page.click("#this-project .download")
    download.value.save_as(tmp_path / "sent.zip")
    page.click("#this-project .copy")
    wait_until(lambda: page.input_value("#this-project .text").startswith("Image DPO Studio\n\nVersions\n  python 3."))
    assert str(tmp_path) not in page.input_value("#this-project .text")
    log = log_file(project.path).read_text(encoding="utf-8")
    assert "zip is done" in log and "open on port" in log and groups[0].prompt not in log

    unfold(page, start_app(tmp_path / "fresh").url)
    assert "part of this project" in page.text_content("#this-project .where")
    page.set_input_files("#this-project .file", tmp_path / "sent.zip")
    page.wait_for_selector("#this-project .sentence:has-text('3 pairs and 0 runs unpacked.')")
    there = open_project(tmp_path / "fresh").picks.pairs()
    assert len(there) == 3 and all(image.startswith(str(tmp_path / "fresh")) for pair in there for image in pair.images)
    page.reload()
    page.wait_for_selector("#review-step :text('3 Review: 3 pairs')")
