import json
import os

import pytest

from dpo.groups import View
from dpo.library import StandIns
from dpo.project import open_project
from dpo.standins import StandInError, folder_prompt, read_sidecar, read_table
from tests.pictures import plain, write_prompted


@pytest.fixture
def folder(tmp_path):
    """Two images that say nothing, and one that says its prompt."""
    (tmp_path / "images").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        plain(colour).save(tmp_path / "images" / f"{name}.png")
    write_prompted(tmp_path / "images" / "own.png", "its own", plain("green"))
    return tmp_path / "images"


@pytest.fixture
def library(tmp_path, folder):
    library = open_project(tmp_path / "project").library
    library.scan(folder)
    return library


def prompts(library, folder) -> dict[str, str | None]:
    return {os.path.basename(image.path): image.record.prompt for image in library.images(folder)}


def record(library, path):
    return next(image.record for image in library.images(path.parent) if image.path == str(path))


def refuse_images(monkeypatch):
    """From here on, opening an image fails the test."""
    monkeypatch.setattr("dpo.scan.read_file", lambda *_: pytest.fail("an image was opened"))


# ------------------------------------------------------------------------------------------------ what a text says


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("a.txt", "a cat\non a mat\n", {"prompt": "a cat\non a mat"}),
        ("a.txt", "\ufeffa café", {"prompt": "a café"}),
        ("a.txt", "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 8x8, Model: sdxl",
         {"prompt": "a cat", "negative_prompt": "dog", "steps": 20, "seed": 5, "guidance": 7.0, "model": "sdxl"}),
        ("a.txt", "Prompt: a cat\nWidth: 512\nHeight: 768\nSeed: 5\nSteps: 25\nGuidance Scale: 7.5\nNegative Prompt: dog\n",
         {"prompt": "a cat", "negative_prompt": "dog", "seed": 5, "steps": 25, "guidance": 7.5}),
        ("a.json", '{"caption": "a cat"}', {"prompt": "a cat"}),
        ("a.json", '{"Prompt": "a cat", "Seed": 18446744073709551615}', {"prompt": "a cat", "seed": 2**64 - 1}),
        ("a.json", '{"prompt": "a cat", "negative_prompt": "dog", "seed": 5, "num_inference_steps": 25, "guidance_scale": 7.5, '
         '"use_stable_diffusion_model": "sd-v1-5", "sampler_name": "euler"}',
         {"prompt": "a cat", "negative_prompt": "dog", "seed": 5, "steps": 25, "guidance": 7.5, "model": "sd-v1-5"}),
        ("a.json", '{"parameters": "a cat\\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 8x8"}',
         {"prompt": "a cat", "seed": 5}),
        ("a.json", '{"meta": {"prompt": "a cat"}}', {"prompt": "a cat"}),
        ("a.json", json.dumps({
            "1": {"class_type": "KSampler", "inputs": {
                "seed": 5, "steps": 4, "cfg": 1, "sampler_name": "euler", "positive": ["2", 0], "negative": ["3", 0]}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "dog"}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}},
            "5": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0]}}}),
         {"prompt": "a cat", "negative_prompt": "dog", "seed": 5}),
    ],
    ids=["caption", "byte order mark", "a1111", "easy diffusion text", "caption json", "capital keys", "easy diffusion json",
         "a1111 in json", "nested", "comfyui graph"],
)  # fmt: skip
def test_a_text_beside_an_image_is_read_whoever_wrote_it(tmp_path, name, text, values):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_sidecar(str(tmp_path / name))
    assert {key: found.get(key) for key in values} == values


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("a.txt", b" , \n", "says none"),
        ("a.txt", b"one\ntwo \xff\xfe\n", "row 2: no valid UTF-8"),
        ("a.json", b"{not json", "no valid JSON"),
        ("a.json", b'{"tags": 1}', "says none"),
        ("a.json", b"{" * 9000, "no valid JSON"),
        ("a.txt", b"x" * (5 << 20), "larger than 4 MB"),
    ],
)
def test_a_text_that_is_of_no_use_says_which_and_why(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StandInError, match=rf"^{name}.*{words}"):
        read_sidecar(str(tmp_path / name))


@pytest.mark.parametrize("name, prompt", [("12_a cat", "a cat"), ("a cat", "a cat"), ("3d cat", "3d cat"), ("7_", "")])
def test_the_number_of_repeats_is_no_part_of_a_folders_prompt(name, prompt):
    assert folder_prompt(f"/images/{name}/x.png") == prompt


@pytest.mark.parametrize(
    "text, rows",
    [
        ("file,prompt\na.png,a cat\n", {"a.png": "a cat"}),
        ("caption;Filename\n\"a; cat\";sub\\a.png\n", {"sub/a.png": "a; cat"}),
        ("id\tprompt\timage\n1\ta cat, a mat\t./a.png\n2\t\tb.png\n", {"a.png": "a cat, a mat"}),
        ("\ufeffa.png,a cat\n\nb.png,\"two\nlines\"\n", {"a.png": "a cat", "b.png": "two\nlines"}),
    ],
)  # fmt: skip
def test_tables_are_read_by_the_names_of_their_columns(tmp_path, text, rows):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "t.csv") == rows


@pytest.mark.parametrize(
    "text, words",
    [
        (b"file,words\na.png,a cat\n", "row 1: its columns are file, words. Name one"),
        (b"file,id,prompt\na.png,1,a cat\nb.png,2\n", "row 3: has 2 columns, so column 3 is missing"),
        (b"file,prompt\n,a cat\n", "row 2, column 1: no file name"),
        (b"file,prompt\na.png,a cat\na.png,a dog\n", "row 3, column 1: a.png has another prompt in row 2"),
        (b"file,prompt\na.png,a\xff cat\n", "row 2: no valid UTF-8"),
        (b"file,prompt\na.png,\n", "no row with a prompt"),
        (b"", "no row with a prompt"),
    ],
)
def test_a_table_of_no_use_names_row_and_column(tmp_path, text, words):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(StandInError, match=rf"^t\.csv.*{words}"):
        read_table(tmp_path / "t.csv")


def test_a_table_that_is_not_there_says_so(tmp_path):
    with pytest.raises(StandInError, match="cannot be read"):
        read_table(tmp_path / "t.csv")


# ------------------------------------------------------------------------------------------------ in the library


def test_choosing_sidecars_gives_prompts_without_opening_an_image_and_taking_them_back_too(library, folder, monkeypatch):
    (folder / "a.txt").write_text("a cat")
    (folder / "b.png.json").write_text('{"prompt": "a cat"}')
    (folder / "own.txt").write_text("not used")
    refuse_images(monkeypatch)
    library.set_stand_ins(folder, StandIns(sidecar=True))
    assert prompts(library, folder) == {"a.png": "a cat", "b.png": "a cat", "own.png": "its own"}
    given = record(library, folder / "a.png")
    assert (given.certainty, given.where, given.reason, given.error) == ("given", "a.txt beside it", "", None)
    (group,) = library.groups(folder)
    assert [image.record.prompt for image in group.images] == ["a cat", "a cat"]
    library.set_stand_ins(folder, StandIns())
    assert prompts(library, folder) == {"a.png": None, "b.png": None, "own.png": "its own"}
    assert library.catalogue(View(str(folder))).reasons == {"alone": 1, "no_metadata": 2}


def test_a_sidecar_that_changes_is_seen_by_the_next_scan_and_no_image_is_opened(library, folder, monkeypatch):
    library.set_stand_ins(folder, StandIns(sidecar=True))
    refuse_images(monkeypatch)
    for text, prompt in (("a cat", "a cat"), ("a larger cat", "a larger cat"), (None, None)):
        if text:
            (folder / "a.txt").write_text(text)
        else:
            (folder / "a.txt").unlink()
        library.scan(folder)
        assert prompts(library, folder)["a.png"] == prompt
    monkeypatch.setattr("dpo.standins.read_sidecar", lambda _: pytest.fail("an unchanged text was read again"))
    library.scan(folder)


def test_new_images_get_what_stands_in_for_them_in_the_same_scan(library, folder):
    library.set_stand_ins(folder, StandIns(sidecar=True))
    plain("white").save(folder / "new.png")
    (folder / "new.txt").write_text("new")
    library.scan(folder)
    assert prompts(library, folder)["new.png"] == "new"


def test_a_sidecar_of_no_use_says_so_where_the_image_is_listed(library, folder):
    (folder / "a.json").write_text("{")
    library.set_stand_ins(folder, StandIns(sidecar=True))
    (row,) = (row for row in library.left_out(folder, "no_metadata", 0, 9) if row.path.endswith("a.png"))
    assert "a.json beside the image is no valid JSON" in row.sentence


def test_a_table_gives_prompts_by_path_and_name(library, folder):
    (folder / "sub").mkdir()
    plain("white").save(folder / "sub" / "a.png")
    library.scan(folder)
    (folder / "t.csv").write_text("file,prompt\na.png,by name\nsub/a.png,by path\n")
    library.set_stand_ins(folder, StandIns(table=str(folder / "t.csv")))
    by_path = {os.path.relpath(image.path, folder): image.record.prompt for image in library.images(folder)}
    assert by_path == {"a.png": "by name", "b.png": None, "own.png": "its own", os.path.join("sub", "a.png"): "by path"}


def test_a_table_of_no_use_changes_nothing(library, folder):
    library.set_stand_ins(folder, StandIns(folder_name=True))
    (folder / "t.csv").write_text("nothing\n")
    with pytest.raises(StandInError):
        library.set_stand_ins(folder, StandIns(table="t.csv"))
    assert library.stand_ins(folder) == StandIns(folder_name=True)
    assert prompts(library, folder)["a.png"] == "images"


def test_the_nearest_choice_holds_for_a_folder_and_those_inside_it(library, folder):
    (folder / "3_a cat").mkdir()
    plain("white").save(folder / "3_a cat" / "x.png")
    library.scan(folder)
    library.set_stand_ins(folder, StandIns(folder_name=True))
    assert library.stand_ins(folder / "3_a cat") == StandIns(folder_name=True)
    assert prompts(library, folder)["x.png"] == "a cat"
    library.set_stand_ins(folder / "3_a cat", StandIns())
    assert (prompts(library, folder)["x.png"], prompts(library, folder)["a.png"]) == (None, "images")


def test_a_text_beside_goes_before_a_table_and_that_before_the_folder(library, folder):
    (folder / "a.txt").write_text("beside")
    (folder / "t.csv").write_text("file,prompt\na.png,table\nb.png,table\n")
    plain("white").save(folder / "c.png")
    library.scan(folder)
    library.set_stand_ins(folder, StandIns(sidecar=True, folder_name=True, table="t.csv"))
    assert prompts(library, folder) == {"a.png": "beside", "b.png": "table", "c.png": "images", "own.png": "its own"}


def test_a_typed_prompt_goes_before_everything_and_can_be_taken_back(library, folder, monkeypatch):
    refuse_images(monkeypatch)
    keys = {os.path.basename(image.path): image.key for image in library.images(folder)}
    library.set_stand_ins(folder, StandIns(folder_name=True))
    for name in ("a.png", "own.png"):
        library.give_prompt(keys[name], "  typed  ")
    assert prompts(library, folder) == {"a.png": "typed", "b.png": "images", "own.png": "typed"}
    assert (record(library, folder / "own.png").certainty, record(library, folder / "own.png").seed) == ("given", 1)
    for name in ("a.png", "own.png"):
        library.give_prompt(keys[name], " , ")
    assert prompts(library, folder) == {"a.png": "images", "b.png": "images", "own.png": "its own"}
    assert record(library, folder / "own.png").certainty == "exact"


def test_what_people_said_outlives_the_index(library, folder, tmp_path):
    keys = {os.path.basename(image.path): image.key for image in library.images(folder)}
    library.give_prompt(keys["own.png"], "typed")
    library.set_stand_ins(folder, StandIns(folder_name=True))
    for path in (tmp_path / "project").glob("index.sqlite*"):
        path.unlink()
    again = open_project(tmp_path / "project").library
    again.scan(folder)
    assert prompts(again, folder) == {"a.png": "images", "b.png": "images", "own.png": "typed"}


def test_a_broken_image_gets_no_prompt(library, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("a cat")
    library.set_stand_ins(folder, StandIns(sidecar=True))
    library.scan(folder)
    assert prompts(library, folder)["broken.png"] is None
    assert library.catalogue(View(str(folder))).reasons["not_image"] == 1
