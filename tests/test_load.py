"""Sessions that pick at once, and what is left of those that have gone. How fast: `python -m tests.benchmarks load`."""

from __future__ import annotations

import gc
import json
import random
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio.state_holder import SessionState

import ui
from dpo.jobs import JobRegistry
from tests.benchmarks import load
from tests.benchmarks._visitor import Visitor
from tests.benchmarks.kills import compare, read_rows
from tests.test_security import free_port
from ui import create_app, launch
from ui.security import check_doors
from ui.session import Studio, project_secret

KEPT = 3  # sessions


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[tuple]:
    """(project, page, its address), in this process; of sessions fewer are kept than usual, and files left behind go sooner."""
    project = load.paint_project(tmp_path_factory.mktemp("load") / "project", 90, 2)
    studio, port = Studio(project, JobRegistry(), project_secret(project.path)), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ui, "MOST_SESSIONS", KEPT)
        patch.setattr(ui, "LEFT_FILES", (1, 1))
        page = create_app(studio)
        launch(page, studio, check_doors("127.0.0.1", None, False), port, wait=False)
    yield project, page, f"http://127.0.0.1:{port}/"
    page.close()


def test_of_sessions_that_pick_at_once_no_pick_is_lost_and_none_doubled(opened):
    project, _, url = opened
    crowd = load.Crowd([Visitor(url, project, random.Random(number)) for number in range(6)], pick_seconds=0.1, most=8)
    crowd.begin(600)
    crowd.end()
    assert (len(crowd.made), crowd.refused) == (6 * 8, [])
    assert compare(crowd.made, read_rows(project.path)) == (0, 0)


def test_of_sessions_that_have_gone_only_the_newest_are_kept_and_no_event_of_them_waits(opened):
    project, page, url = opened
    for number in range(2 * KEPT):
        visitor = Visitor(url, project, random.Random(number))
        visitor.arrive()
        visitor.talk()
        visitor.leave()
    gc.collect()
    assert len(page.app.state_holder.session_data) == KEPT
    assert len([thing for thing in gc.get_objects() if type(thing) is SessionState]) == KEPT
    queue = page._queue
    assert not any(queue.pending_event_ids_session.values()) and not queue.event_ids_to_events


def test_a_page_that_is_open_is_kept_however_many_come_and_go(opened):
    project, page, url = opened
    stays = Visitor(url, project, random.Random(-1))
    stays.arrive()
    for number in range(2 * KEPT):
        visitor = Visitor(url, project, random.Random(number))
        visitor.arrive()
        visitor.leave()
        stays.beat()
    assert stays.session in page.app.state_holder.session_data
    stays.leave()


def test_a_file_that_was_sent_and_never_taken_in_is_deleted(opened):
    _, _, url = opened
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nnothing\r\n--x--\r\n'
    request = urllib.request.Request(f"{url}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
    with urllib.request.urlopen(request) as answer:
        (path,) = json.load(answer)
    assert Path(path).is_file()
    end = time.monotonic() + 30
    while Path(path).exists():
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.1)
