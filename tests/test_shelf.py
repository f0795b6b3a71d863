"""What the shelf answers, what a token lets a page ask for, and what becomes of an upload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dpo import StudioError
from dpo.catalogue import Catalogue
from dpo.groups import View
from dpo.jobs import JobRegistry
from dpo.metadata.records import CERTAINTIES, REASONS
from dpo.project import open_project
from tests.pictures import plain, write_prompted
from ui import words
from ui.security import check_doors, launch_settings
from ui.session import Session, Studio, page_session, token_view
from ui.shelf_answers import ANSWERS
from ui.uploads import UploadError, uploaded_file


@pytest.fixture
def studio(tmp_path) -> Studio:
    """Three prompts: one with three images, two with two; one image alone, one without a prompt, one that is a copy."""
    folder = tmp_path / "project" / "candidates"
    folder.mkdir(parents=True)
    for number, prompt in enumerate(["fox", "fox", "fox", "cat", "cat", "owl", "owl", "tree"]):
        write_prompted(folder / f"{number}.png", prompt, plain(f"#0000{number:02x}"), seed=number)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    plain("#ff0000").save(folder / "silent.png")
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    return Studio(project, JobRegistry(), b"s" * 32)


def ask(studio: Studio, name: str, view: View | None = None, **payload) -> dict:
    return ANSWERS[name](studio, view or View(str(studio.project.path / "candidates")), payload)


def test_pages_of_the_list_are_cut_from_one_order(studio):
    whole = ask(studio, "list_lines", start=0, count=100)
    assert [line["prompt"] for line in whole["lines"]] == ["fox", "cat", "owl"] and whole["total"] == 3
    assert ask(studio, "list_lines", start=1, count=1)["lines"] == whole["lines"][1:2]
    assert ask(studio, "list_lines", start=5, count=10) == {"total": 3, "lines": []}
    assert [line["size"] for line in whole["lines"]] == [3, 2, 2]
    assert len(ask(studio, "list_lines", start=-4, count=10**9)["lines"]) == 3


def test_what_is_picked_is_said_and_comes_last_when_asked_for(studio):
    group = studio.project.library.group(
        View(str(studio.project.path / "candidates")), ask(studio, "list_lines", count=1)["lines"][0]["key"]
    )
    keys = [image.key for image in group.images]
    pick = {"op": "best_worst", "group": group.key, "images": keys, "result": keys[:2]}
    assert studio.project.picks.apply([{"client": "page", "number": 0, **pick}]).new == 1
    lines = ask(studio, "list_lines", count=9, sort="unpicked")["lines"]
    assert [(line["prompt"], line["picked"]) for line in lines] == [("cat", ""), ("owl", ""), ("fox", "picked")]


@pytest.mark.parametrize(
    "payload",
    [{"wanted": {"search": "%' OR 1=1"}}, {"wanted": {"since": "never"}}, {"wanted": 7}, {"sort": "; DROP"}, {"start": "x"},
     {"count": None}],
)  # fmt: skip
def test_nonsense_from_a_page_is_no_mistake_of_ours(studio, payload):
    assert ask(studio, "list_lines", **({"start": 0, "count": 9} | payload))["total"] in (0, 3)


def test_every_image_in_no_group_is_behind_a_reason_with_its_sentence(studio):
    facts = ask(studio, "list_facts")
    assert [text for _, text in facts["reasons"]] == ["1 without metadata", "1 alone with its prompt", "1 copy"]
    for code, _ in facts["reasons"]:
        (file,) = ask(studio, "list_files", reason=code, start=0, count=10)["files"]
        assert file["name"] in ("silent.png", "7.png", "copy.png", "0.png") and file["sentence"]
    assert ask(studio, "list_files", reason="../etc", start=0, count=10)["files"] == []


def test_an_image_outside_the_pages_folder_is_not_told_of(studio, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (key,) = (image.key for image in studio.project.library.images(studio.project.path) if image.path.endswith("silent.png"))
    assert ask(studio, "read_raw_text", key=key) == {"texts": []}
    for name in ("read_raw_text", "give_prompt"):
        with pytest.raises(StudioError, match="not in the index"):
            ask(studio, name, View(str(tmp_path / "elsewhere")), key=key, prompt="fox")


def test_a_typed_prompt_says_how_many_there_are_now_and_can_be_taken_back(studio):
    (file,) = ask(studio, "list_files", reason="no_metadata", start=0, count=10)["files"]
    assert ask(studio, "give_prompt", key=file["key"], prompt=" cat ")["said"] == "Saved: one of 3 now."
    assert ask(studio, "give_prompt", key=file["key"], prompt="new")["said"] == "Saved. No other image here has this prompt yet."
    assert ask(studio, "give_prompt", key=file["key"], prompt="")["said"] == "Taken back."
    assert ask(studio, "list_files", reason="no_metadata", start=0, count=10)["total"] == 1


def test_a_shared_page_reaches_no_table_outside_the_project(studio, tmp_path):
    (tmp_path / "prompts.csv").write_text("file,prompt\nsilent.png,fox\n")
    shared = replace(studio, is_shared=True)
    with pytest.raises(StudioError, match="outside the project"):
        ask(shared, "choose_stand_ins", chosen={"table": str(tmp_path / "prompts.csv")})
    ask(studio, "choose_stand_ins", chosen={"table": str(tmp_path / "prompts.csv")})
    assert ask(studio, "list_lines", count=1)["lines"][0]["size"] == 4


def test_a_token_is_good_for_the_very_view_it_was_signed_for(studio):
    page = page_session(studio, Session(view=View("", search="a fox")))
    assert token_view(studio, page) == View(str(studio.project.path / "candidates"), search="a fox")
    other = page_session(studio, Session(view=View("", search="a cat")))
    assert token_view(studio, page | {"view": other["view"]}) is None
    assert token_view(studio, page | {"view": page["view"].replace("candidates", "..")}) is None
    for broken in (None, {}, {"token": page["token"]}, page | {"token": 7}, page | {"token": "x.y"}, page | {"view": {}}):
        assert token_view(studio, broken) is None


# --- What is left out, and what is on its way


def test_the_line_of_a_folder_says_what_is_left_out_and_what_is_picked_from():
    whole = Catalogue([1, 2, 3], 360, 60, {"no_metadata": 2, "no_prompt": 1, "copy": 9}, "", [])
    assert words.summary_line(whole, whole) == "360 images, 60 prompts, 3 without a prompt: why?"
    chosen = replace(whole, lines=[1])
    assert words.summary_line(replace(whole, reasons={"damaged": 1, "alone": 4}), chosen).endswith(
        "5 left out: why? Picking from 1 of 3 groups."
    )
    assert words.summary_line(replace(whole, reasons={}), whole) == "360 images, 60 prompts"


def test_every_reason_has_its_words():
    assert words.REASON_WORDS.keys() == REASONS.keys() == words.REASON_ADVICE.keys()
    assert set(words.SILENT) <= REASONS.keys() and words.CERTAINTY_WORDS.keys() == set(CERTAINTIES)
    assert (words.reason_words("copy", 1), words.reason_words("no_metadata", 1200)) == ("1 copy", "1,200 without metadata")


def test_only_files_that_gradio_took_are_taken_in(tmp_path, monkeypatch):
    monkeypatch.setattr("ui.uploads.get_upload_folder", lambda: str(tmp_path / "uploads"))
    (tmp_path / "uploads" / "a").mkdir(parents=True)
    (tmp_path / "uploads" / "a" / "cat.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    assert uploaded_file(str(tmp_path / "uploads/a/cat.png")).name == "cat.png"
    for path in ("secret.png", "uploads/../secret.png", "uploads/a", "uploads/gone.png"):
        with pytest.raises(UploadError, match="did not arrive"):
            uploaded_file(str(tmp_path / path))


def test_an_upload_that_brings_nothing_says_so_and_leaves_no_copies(studio, tmp_path):
    (tmp_path / "tool.exe").write_bytes(b"MZ")
    upload = studio.uploads.start(studio.project, [tmp_path / "tool.exe"], [("huge.png", "too large")])
    assert upload.finished.wait(20)
    assert "Nothing of this upload could be taken" in upload.problem
    assert [name for name, _ in upload.skipped] == ["huge.png", "tool.exe"]
    assert not (tmp_path / "tool.exe").exists()


def test_a_shared_page_takes_smaller_files_than_a_persons_own():
    own, shared = check_doors("127.0.0.1", None, False), check_doors("0.0.0.0", "me:a-long-secret", False)
    sizes = [launch_settings(doors, 1, [])["max_file_size"] for doors in (own, shared)]
    assert sizes == [4 << 30, 512 << 20]  # bytes
