"""Pairs that have only a chosen image get a rejected one from the base model (the demo, at 2 steps)."""

import pytest
from PIL import Image

from dpo.candidates import CandidatesError
from dpo.health import check_health
from dpo.jobs import JobRegistry
from dpo.metadata import read_image
from dpo.picks import Agreement, ImportedPair, Sides
from dpo.project import open_project
from dpo.rejects import RejectsRequest, make_rejects_of, pairs_in_need, start_rejects

REQUEST = RejectsRequest(sampling_steps=2, seed=3)
SIZES = {"a red ball on grass": (640, 320), "a blue cube on sand": (50, 50), "a green cone": (300, 300)}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One whose imports have photographs without rejected images, one of them gone since; after the rejects were made."""
    folder = tmp_path_factory.mktemp("rejects")
    project = open_project(folder / "project")
    rows = []
    for number, (prompt, size) in enumerate(SIZES.items()):
        path = folder / f"{number}.png"
        Image.new("RGB", size, (number * 70, 120, 40)).save(path)
        key = project.library.add_files([path])[str(path)]
        rows.append(ImportedPair(prompt, key, "", (str(path),), 0.9, "photographs", "photographs.csv"))
    assert project.picks.import_pairs(rows) == 3
    (folder / "2.png").unlink()
    assert [picked.pair.prompt for picked in pairs_in_need(project)] == list(SIZES)[:2]
    jobs = JobRegistry()
    job = start_rejects(project, jobs, REQUEST)
    assert job.finished.wait(100) and (job.state, job.result, job.message) == ("done", 2, "2 of 2 images")
    return project


def test_the_need_is_gone_and_the_pair_says_where_its_reject_came_from(project):
    assert pairs_in_need(project) == []
    pairs = project.picks.pairs()
    assert [(pair.prompt, pair.source, pair.confidence) for pair in pairs] == [
        (prompt, "import: base-model reject", 0.9) for prompt in list(SIZES)[:2]
    ]


def test_the_reject_has_the_prompt_of_its_pair_and_the_shape_training_gives_the_chosen_image(project):
    """640 x 320 at about 64 x 64 pixels, sides in multiples of 16: 96 x 48."""
    records = [read_image(pair.rejected) for pair in project.picks.pairs()]
    assert [(record.width, record.height) for record in records] == [(96, 48), (64, 64)]
    assert [record.prompt for record in records] == list(SIZES)[:2]
    assert {(record.model, record.steps) for record in records} == {("demo", 2)}
    assert len({record.seed for record in records}) == 2


def test_health_says_what_such_pairs_teach(project):
    findings = check_health(project.picks.picked_pairs(), {}, Sides(0, 0, 0), Agreement(0, 0, None), "demo", 0.1)
    (finding,) = [finding for finding in findings if finding.code == "base_rejects"]
    assert finding.sentence.startswith("2 of 2 pairs (100%) have a rejected image by the base model")
    assert len(finding.pairs) == 2


def test_without_a_pair_in_need_nothing_is_loaded(project, tmp_path):
    with pytest.raises(CandidatesError, match="No pair needs a rejected image"):
        make_rejects_of(open_project(tmp_path), REQUEST)
