"""What a person sees on a Space: that it forgets, and on ZeroGPU what is not there, why, and where to have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dpo.jobs import JobRegistry
from dpo.project import open_project
from dpo.space import Space
from tests.browser.conftest import free_port
from tests.browser.training import open_tab
from ui import create_app, launch
from ui.security import check_doors
from ui.session import Studio, project_secret
from ui.space import FORGETS, NO_JOBS

pytestmark = pytest.mark.browser


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    """A ZeroGPU Space without storage, on this machine."""
    pytest.importorskip("spaces", reason="the package `spaces` is not installed")
    project, port = open_project(tmp_path), free_port()
    space = Space("someone/studio", Path("~"), is_kept=False, has_zero_gpu=True)
    studio = Studio(project, JobRegistry(NO_JOBS), project_secret(project.path), space=space)
    app = create_app(studio)
    launch(app, studio, check_doors("127.0.0.1", None, False), port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    app.close()


def test_on_zero_gpu_what_needs_jobs_is_not_there_and_a_notice_says_why_and_where_to_have_it(page, url):
    open_tab(page, url, "Train")
    notice = page.locator(".no-jobs", has_text=NO_JOBS)
    notice.first.wait_for()
    link = notice.get_by_role("link", name="Duplicate this Space").first
    assert link.get_attribute("href") == "https://huggingface.co/spaces/someone/studio?duplicate=true"
    assert page.locator("#start-training").count() == 0
    page.get_by_text(FORGETS).locator("visible=true").wait_for()

    page.get_by_role("tab", name="Pairs").click()
    page.locator("#scan").wait_for()
    assert page.locator("#candidates-step").count() == page.locator("#scorers-step").count() == 0

    page.get_by_role("tab", name="Compare").click()
    page.locator("#start-compare").wait_for()
    page.locator("#compare-way").get_by_text("Test").click()
    notice.locator("visible=true").wait_for()
    assert page.locator("#start-blind").count() == 0
