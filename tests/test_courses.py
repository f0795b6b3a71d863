"""Of images that share their course down to a place in the schedule: it is read from the file, kept with the pick, and limits
what training draws of the pair. And the set of candidates that images are of."""

import dataclasses
import os

import pytest
from PIL import Image

from dpo.metadata import read_image
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.records import Course
from dpo.metadata.writer import write_png
from dpo.pairs import Pair, items_from_json, items_to_json
from dpo.project import open_project


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path / "project")


def paint(project, folder, number, **course):
    path = project.path / folder / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(
        Image.new("RGB", (64, 64), (number * 20, 90, 90)),
        path,
        format_parameters("a cat", steps=9, sampler="DDIM", seed=number, **course),
    )
    return path


def pick(project, folder, first, second, number=1):
    project.library.scan(folder)
    images = project.library.images_at([first, second])
    keys = [images[str(path)].key for path in (first, second)]
    pick = {"op": "best_worst", "group": "ab" * 16, "images": keys, "result": keys}
    assert project.picks.apply([{"client": "page", "number": number, **pick}]).refused == ()
    return project.picks.pairs()[-1]


def test_a_course_is_read_from_the_file_and_what_is_none_is_left(project):
    assert read_image(paint(project, "a", 1, branch=0.45, branch_seed=7)).course == Course(7, 0.45)
    for number, said in enumerate(({"branch": 0.45}, {"branch_seed": 7}, {"branch": "main", "branch_seed": 7},
                                   {"branch": 1.5, "branch_seed": 7})):  # fmt: skip
        assert read_image(paint(project, "a", 2 + number, **said)).course is None


@pytest.mark.parametrize(
    "courses, limit",
    [
        (((7, 0.45), (7, 0.45)), 0.45),
        (((7, 0.45), (7, 0.6)), 0.6),
        (((7, 0.45), (8, 0.45)), 1.0),
        (((7, 0.45), None), 1.0),
        ((None, None), 1.0),
    ],
    ids=["one course", "two branches of it", "two courses", "one branched", "none branched"],
)
def test_a_pair_is_limited_to_where_its_courses_differ(project, courses, limit):
    said = [{"branch_seed": course[0], "branch": course[1]} if course else {} for course in courses]
    first, second = (paint(project, "images", number, **course) for number, course in enumerate(said))
    assert pick(project, project.path / "images", first, second).max_timestep == limit


def test_the_limit_outlives_the_index(project):
    paths = [paint(project, "images", number, branch=0.45, branch_seed=7) for number in range(2)]
    pick(project, project.path / "images", *paths)
    for file in project.path.glob("index.sqlite*"):
        os.unlink(file)
    assert [pair.max_timestep for pair in open_project(project.path).picks.pairs()] == [0.45]


def test_a_pair_is_of_the_set_that_both_its_images_lie_in(project):
    one = [paint(project, "rounds/one/more", number) for number in range(2)]
    two = paint(project, "rounds/two", 3)
    elsewhere = [paint(project, "rounds-of-old", number) for number in range(4, 6)]
    assert pick(project, project.path, *one).round == "one"
    assert pick(project, project.path, *elsewhere, number=2).round == ""
    other = paint(project, "rounds/one", 8)
    assert pick(project, project.path, two, other, number=3).round == ""


def test_pairs_of_earlier_runs_have_no_limit():
    pair = Pair("a cat", "a.png", "b.png", max_timestep=0.4)
    (record,) = items_to_json([pair])
    assert items_from_json([record]) == [pair]
    del record["max_timestep"]
    assert items_from_json([record]) == [dataclasses.replace(pair, max_timestep=1.0)]
