"""What the page may do with data sets: where it may reach, and how a long task ends early."""

import csv

import pytest

from dpo.jobs import JobRegistry
from dpo.project import open_project
from tests.pictures import paint_folder
from ui.dataset_jobs import Stopped, Task, Tasks
from ui.datasets import Datasets, begin_export, begin_import, keep_live, stop_task
from ui.places import PlaceError
from ui.session import Studio, page_session, project_secret, restore_session


@pytest.fixture
def datasets(tmp_path):
    project = open_project(tmp_path / "project")
    return Datasets(Studio(project, JobRegistry(), project_secret(project.path), is_shared=True))


def finish(datasets):
    assert datasets.tasks.current.finished.wait(60)
    return datasets.tasks.current


def ask(datasets, **more) -> dict:
    return {**page_session(datasets.studio, restore_session({})), **more}


def write_table(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "chosen", "rejected"), *rows])
    return path


def test_a_table_on_a_shared_page_names_no_image_outside_the_project(datasets, tmp_path):
    project = datasets.studio.project
    outside, inside = (paint_folder(folder, 1, 2) for folder in (tmp_path / "secret", project.path / "uploads"))
    table = write_table(project.path / "uploads" / "t.csv", ("a", *outside), ("b", *inside), ("c", inside[0], outside[0]))
    begin_import(datasets, ask(datasets, path=str(table)))
    task = finish(datasets)
    assert [pair.prompt for pair in project.picks.pairs()] == ["b"]
    assert len(task.left) == 2 and all("outside the project folder" in reason for _, reason in task.left)


@pytest.mark.parametrize("begin, field", [(begin_import, "path"), (keep_live, "folder")])
def test_a_shared_page_reaches_no_folder_outside_the_project(datasets, tmp_path, begin, field):
    with pytest.raises(PlaceError, match="outside the project folder"):
        begin(datasets, ask(datasets, **{field: str(tmp_path)}))


def test_an_export_counts_its_pairs_and_one_that_is_stopped_leaves_nothing(datasets):
    project = datasets.studio.project
    images = paint_folder(project.path / "candidates", 3, 2)
    begin_import(
        datasets, ask(datasets, path=str(write_table(project.path / "t.csv", *(("p", *images[i : i + 2]) for i in (0, 2, 4)))))
    )
    finish(datasets)
    begin_export(datasets, ask(datasets, kind="onetrainer", share=0.1))
    done = finish(datasets)
    assert (done.done, done.total, done.error) == (2, 3, "")
    before = set(project.exports.rglob("*"))
    datasets.tasks = EagerToStop()
    begin_export(datasets, ask(datasets, kind="csv", share=0.1))
    assert "was stopped" in finish(datasets).error
    assert {path for path in project.exports.rglob("*") if path.is_file()} <= before


class EagerToStop(Tasks):
    """Every task is asked to stop as it begins."""

    def start(self, kind, title, work):
        def stopped(task):
            task.stop.set()
            work(task)

        return super().start(kind, title, stopped)


def test_a_task_that_runs_is_told_to_stop_by_the_page(datasets):
    datasets.tasks.current = Task("import", "Importing cats")
    datasets.tasks.current.report(1, 4)
    assert datasets.tasks.current.seconds_left is not None
    stop_task(datasets, ask(datasets))
    with pytest.raises(Stopped, match="Importing cats was stopped"):
        datasets.tasks.current.report(2, 4)
