"""What the Pairs tab's part for candidates reads from its form and says of sets and jobs; in a browser: test_loop."""

import pytest

from dpo.candidates import CandidatesError, CandidateSet, CandidatesRequest, open_set
from dpo.jobs import Job, JobRegistry
from dpo.project import open_project
from tests.pictures import paint_folder
from ui.candidates_part import count_words, draw_candidates, known_prompts, read_request, report_of, set_words, standing
from ui.places import PlaceError
from ui.session import Session, Studio

TYPED = {
    "name": " mine ", "model": "demo", "adapter": "", "strength": 1, "both": False, "prompts": "a red ball\n\n a cube \n",
    "per_prompt": 4.0, "steps": 9, "guidance": 2, "width": None, "height": 128, "negative": " blurry ", "seed": 5,
    "differ": "everything", "share": 0.4,
}  # fmt: skip


@pytest.fixture
def studio(tmp_path):
    return Studio(open_project(tmp_path / "project"), JobRegistry(), b"secret" * 6)


def test_the_form_is_read_into_a_request(studio):
    assert read_request(studio, **TYPED) == CandidatesRequest(
        "mine", prompts=("a red ball", "a cube"), per_prompt=4, sampling_steps=9, guidance_scale=2.0, height=128,
        negative_prompt="blurry", seed=5,
    )  # fmt: skip
    assert read_request(studio, **TYPED | {"differ": "details only"}).branch == 0.4


def test_a_set_without_name_or_seed_gets_others_than_the_sets_that_are_there(studio):
    nameless = TYPED | {"name": "", "seed": None}
    first = read_request(studio, **nameless)
    open_set(studio.project, first)
    second = read_request(studio, **nameless)
    assert [(each.name, each.seed) for each in (first, second)] == [("set-1", 0), ("set-2", 1)]


@pytest.mark.parametrize(
    "typed, sentence",
    [
        ({"per_prompt": None}, "Images per prompt is empty. Write a whole number."),
        ({"per_prompt": 2.5}, "Images per prompt is 2.5. Write a whole number."),
        ({"strength": None}, "Strength is empty. Write a number."),
        ({"steps": None}, "Sampling steps is empty. Write a whole number."),
    ],
    ids=["no count", "half an image", "no strength", "no steps"],
)
def test_what_cannot_be_read_names_its_field(studio, typed, sentence):
    with pytest.raises(CandidatesError) as caught:
        read_request(studio, **TYPED | typed)
    assert str(caught.value) == sentence


def test_a_shared_page_reaches_no_model_and_no_adapter_outside_the_project(studio):
    studio.is_shared = True
    for place in ({"model": "/elsewhere/model"}, {"adapter": "/elsewhere/a.safetensors"}):
        with pytest.raises(PlaceError, match="outside the project folder"):
            read_request(studio, **TYPED | place)


def test_the_prompts_of_the_images_are_offered_each_once(studio, tmp_path):
    paint_folder(tmp_path / "images", 3, 2)
    studio.project.library.scan(tmp_path / "images")
    session = Session(folder=str(tmp_path / "images"))
    expected = {image.record.prompt for image in studio.project.library.images(tmp_path / "images")}
    assert len(known_prompts(studio, session)) == 3 and {*known_prompts(studio, session)} == expected


def test_counts_are_said_before_anything_is_made(tmp_path):
    assert count_words("a\nb\na", 6, True) == "2 prompts × 12 = 24 images"
    assert [count_words(prompts, number, False) for prompts, number in (("", 6), ("a", None), ("a", 1))] == [
        "", "", "1 prompt × 1 = 1 image",
    ]  # fmt: skip
    request = CandidatesRequest("one", prompts=("a",), per_prompt=6)
    assert set_words(CandidateSet("one", tmp_path, request, 2, 6)) == "one: 2 of 6 images"
    assert set_words(CandidateSet("one", tmp_path, request, 6, 6)) == "one: 6 images"


def test_a_job_is_reported_as_it_stands_and_the_page_hears_of_every_change(studio):
    job = Job("candidates", "generating one", "one")
    told = []
    for state, message in (("queued", ""), ("running", "2 of 6 images"), ("stopped", "3 of 6 images"), ("failed", "No room.")):
        job.state, job.message = state, message
        told.append(report_of(job, studio.jobs))
    assert [report["headline"] for report in told] == [
        "Generating one waits.", "Generating one: 2 of 6 images.", "Generating one was stopped: 3 of 6 images.",
        "Generating one failed.",
    ]  # fmt: skip
    assert (told[3]["detail"], told[3]["tone"]) == ("No room.", "bad")
    assert standing(studio) == ()
    done = studio.jobs.submit("candidates", "generating one", "one", lambda job: job.report(1, 2, "1 of 2 images"))
    assert done.finished.wait(5) and standing(studio)[1:] == ("done", 1, "1 of 2 images")


def test_an_unfinished_set_is_offered_to_be_gone_on_with(studio):
    assert [update.visible for update in (draw_candidates(studio)[4], draw_candidates(studio)[6])] == [False, False]
    open_set(studio.project, read_request(studio, **TYPED))
    *_, row, chosen, go_on, _, _ = draw_candidates(studio)
    assert (row.visible, chosen.choices, chosen.value, go_on.visible) == (True, [("mine: 0 of 8 images", "mine")], "mine", True)
