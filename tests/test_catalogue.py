"""What the index answers: groups, counts, filters, what is left out; over real files of one pixel or a few."""

import os
import time
from dataclasses import replace

import pytest

from dpo.catalogue import ImageFacts
from dpo.groups import View
from dpo.library import LibraryError
from dpo.metadata import format_parameters
from dpo.metadata.writer import write_png
from dpo.project import open_project
from tests.pictures import plain


class Folder:
    """A folder of images and the library of a project beside it."""

    def __init__(self, place):
        self.path = place / "images"
        self.path.mkdir()
        self.library = open_project(place / "project").library
        self.view = View(str(self.path))

    def add(self, name, prompt="a cat", size=(8, 8), colour=None, day=None, **settings):
        """Each file is another picture unless a colour is given."""
        colour = colour or (len(list(self.path.rglob("*.png"))) % 256, 7, 7)
        text = format_parameters(prompt, steps=20, sampler="Euler a", guidance=7, seed=settings.pop("seed", 1), **settings)
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        write_png(plain(colour, size), path, text)
        if day:
            made = time.mktime(time.strptime(day, "%Y-%m-%d")) + 3600 * 23
            os.utime(path, (made, made))
        return path

    def scan(self):
        self.library.scan(self.path)
        return self.library.catalogue(self.view)

    def text(self, line):
        return self.library.faces(self.view, [line])[line.key].prompt

    def names(self, view):
        """The file names of each group of a view."""
        groups = (self.library.group(view, line.key) for line in self.library.catalogue(view).lines)
        return [sorted(os.path.basename(image.path) for image in group.images) for group in groups]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_lines_are_groups_of_two_or_more_in_the_order_of_their_first_paths(folder):
    for name, prompt in (("d", "zebra"), ("a", "zebra"), ("b", "ant"), ("c", "ant"), ("e", "alone")):
        folder.add(f"{name}.png", prompt)
    catalogue = folder.scan()
    assert [(folder.text(line), line.size, line.aspect) for line in catalogue.lines] == [("zebra", 2, 1.0), ("ant", 2, 1.0)]
    assert (catalogue.images, catalogue.prompts, catalogue.reasons) == (5, 3, {"alone": 1})


def test_a_line_says_what_its_group_says(folder):
    for number in range(5):
        folder.add(f"{number}.png", "one", day=f"2026-11-1{number}")
    (line,) = folder.scan().lines
    group = folder.library.group(folder.view, line.key)
    assert (line.key, folder.text(line), line.aspect, line.size) == (group.key, group.prompt, group.aspect, len(group.images))
    assert (
        folder.library.faces(folder.view, [line])[line.key].first
        == group.images[0].key
        == min(image.key for image in group.images)
    )
    assert line.newest == os.stat(folder.path / "4.png").st_mtime


def test_case_and_inner_commas_make_another_prompt(folder):
    for name, prompt in (("a", "a cat"), ("b", "A cat"), ("c", "a, cat")):
        folder.add(f"{name}.png", prompt)
    catalogue = folder.scan()
    assert (catalogue.prompts, catalogue.lines, catalogue.reasons) == (3, [], {"alone": 3})


def test_shapes_are_told_apart_by_pixels_and_nearly_equal_ones_are_one(folder):
    for name, size in (("a", (64, 64)), ("b", (128, 127)), ("c", (64, 96)), ("d", (128, 192))):
        folder.add(f"{name}.png", size=size)
    folder.scan()
    assert folder.names(folder.view) == [["a.png", "b.png"], ["c.png", "d.png"]]


def test_late_files_change_no_key_whatever_their_shape(folder):
    folder.add("m.png", size=(1000, 1000))
    folder.add("n.png", size=(1000, 1000))
    (before,) = folder.scan().lines
    for name, size in (("a", (1010, 1000)), ("b", (992, 1000)), ("c", (2000, 1990)), ("z", (500, 500)), ("d", (1010, 1000))):
        folder.add(f"{name}.png", size=size)
        lines = {line.key: line for line in folder.scan().lines}
        assert before.key in lines
    assert lines[before.key].size == 6  # 992 has no room beside 1010
    folder.add("0.png", size=(980, 1000))
    assert {line.key for line in folder.scan().lines} >= lines.keys()


def test_a_folder_that_was_renamed_keeps_the_keys_of_its_groups(folder):
    folder.add("old/z.png", size=(1000, 1000))
    folder.scan()
    folder.add("old/a.png", size=(1010, 1000))  # by path it is first, by arrival second
    (before,) = folder.scan().lines
    (folder.path / "old").rename(folder.path / "new")
    assert [line.key for line in folder.scan().lines] == [before.key]


@pytest.mark.parametrize(
    "options, names",
    [
        ({}, [["a.png", "b.png"]]),
        ({"ignore_case": True}, [["a.png", "b.png", "c.png"]]),
        ({"ignore_loras": True}, [["a.png", "b.png", "d.png"]]),
        ({"ignore_loras": True, "ignore_case": True}, [["a.png", "b.png", "c.png", "d.png", "e.png"]]),
    ],
)
def test_options_leave_lora_tags_and_case_aside(folder, options, names):
    prompts = {"a": "a cat", "b": "a cat", "c": "A Cat", "d": "a cat <lora:x:1>", "e": "A cat, <lora:y:.5>"}
    for name, prompt in prompts.items():
        folder.add(f"{name}.png", prompt)
    folder.scan()
    view = replace(folder.view, **options)
    assert folder.names(view) == names
    assert folder.library.catalogue(view).reasons.get("alone", 0) == 5 - len(names[0])


def test_same_model_and_same_seed_split_groups(folder):
    for name, model, seed in (("a", "sdxl", 1), ("b", "sdxl", 2), ("c", "flux", 1), ("d", "flux", 2), ("e", "sdxl", 1)):
        folder.add(f"{name}.png", model=model, seed=seed)
    folder.scan()
    assert folder.names(replace(folder.view, same_model=True)) == [["a.png", "b.png", "e.png"], ["c.png", "d.png"]]
    assert folder.names(replace(folder.view, same_seed=True)) == [["a.png", "c.png", "e.png"], ["b.png", "d.png"]]
    both = replace(folder.view, same_model=True, same_seed=True)
    assert folder.names(both) == [["a.png", "e.png"]]
    assert [row.path[-5:] for row in folder.library.left_out(both, "alone", 0, 9)] == ["b.png", "c.png", "d.png"]


@pytest.mark.parametrize(
    "filters, images",
    [
        ({"search": "CAT mat"}, 2),
        ({"search": "mat 'dog"}, 0),
        ({"search": "%"}, 0),
        ({"model": "flux"}, 2),
        ({"generator": "a1111"}, 4),
        ({"generator": "comfyui"}, 0),
        ({"size": "16x8"}, 2),
        ({"size": " 8 × 8 "}, 2),
        ({"since": "2026-11-02"}, 3),
        ({"until": "2026-11-02"}, 2),
        ({"since": "2026-11-02", "until": "2026-11-03"}, 2),
        ({"search": "cat", "model": "flux", "size": "8x8"}, 0),
    ],
)
def test_filters_choose_images_before_they_are_grouped(folder, filters, images):
    folder.add("a.png", "a Cat on a mat", model="sdxl", day="2026-11-01")
    folder.add("b.png", "a Cat on a mat", model="sdxl", day="2026-11-02")
    folder.add("c.png", "a cat", (16, 8), model="flux", day="2026-11-03")
    folder.add("d.png", "a dog", (16, 8), model="flux", day="2026-11-04")
    folder.scan()
    assert folder.library.catalogue(replace(folder.view, **filters)).images == images


@pytest.mark.parametrize("filters", [{"since": "yesterday"}, {"until": "2026-13-01"}, {"size": "large"}])
def test_a_filter_that_says_nothing_names_itself_and_the_remedy(folder, filters):
    (name,) = filters
    with pytest.raises(LibraryError, match=rf"{name}='.+Write it as"):
        folder.library.catalogue(replace(folder.view, **filters))


def test_facets_count_what_can_be_filtered_by_most_first(folder):
    for name, model, size in (("a", "sdxl", (8, 8)), ("b", "flux", (8, 8)), ("c", "flux", (16, 8)), ("d", "", (8, 8))):
        folder.add(f"{name}.png", model=model, size=size)
    plain().save(folder.path / "silent.png")
    folder.scan()
    assert folder.library.facets(folder.path) == {
        "generator": [("a1111", 4)], "model": [("flux", 2), ("sdxl", 1)], "size": [("8x8", 3), ("16x8", 1)],
    }  # fmt: skip


def test_seeds_of_64_bits_come_back_as_they_were(folder):
    folder.add("a.png", seed=2**64 - 1)
    folder.add("b.png", seed=2**64 - 1)
    folder.scan()
    (line,) = folder.library.catalogue(replace(folder.view, same_seed=True)).lines
    assert [image.record.seed for image in folder.library.group(replace(folder.view, same_seed=True), line.key).images] == [
        2**64 - 1
    ] * 2


def test_copies_of_one_file_count_once_and_are_listed(folder):
    for name in ("b", "c"):
        folder.add(f"{name}.png")
    (folder.path / "a.png").write_bytes((folder.path / "b.png").read_bytes())
    catalogue = folder.scan()
    assert (catalogue.lines[0].size, catalogue.reasons, catalogue.images) == (2, {"copy": 1}, 3)
    assert folder.names(folder.view) == [["a.png", "c.png"]]
    assert [row.path for row in folder.library.left_out(folder.path, "copy", 0, 9)] == [str(folder.path / "b.png")]


def test_a_copy_of_the_only_image_makes_no_group(folder):
    folder.add("b.png")
    (folder.path / "a.png").write_bytes((folder.path / "b.png").read_bytes())
    catalogue = folder.scan()
    assert (catalogue.lines, catalogue.reasons) == ([], {"alone": 1, "copy": 1})


def test_files_with_the_same_pixels_are_copies_once_that_is_known(folder):
    for name in "abc":
        folder.add(f"{name}.png", colour="red" if name != "c" else "blue", seed=ord(name))
    assert folder.scan().lines[0].size == 3
    keys = {os.path.basename(image.path): image.key for image in folder.library.images(folder.path)}
    before = folder.library.revision()
    folder.library.note_pixels([(keys["a.png"], "1" * 32, "0" * 16), (keys["c.png"], "2" * 32, "f" * 16)])
    assert folder.library.revision() == before, "nothing that anybody sees has changed"
    folder.library.note_pixels([(keys["b.png"], "1" * 32, "0" * 16)])
    catalogue = folder.library.catalogue(folder.view)
    assert (catalogue.lines[0].size, catalogue.reasons) == (2, {"copy": 1})
    ((copy, *_),) = folder.library.left_out(folder.path, "copy", 0, 9)
    assert [sorted([*names, os.path.basename(copy)]) for names in folder.names(folder.view)] == [["a.png", "b.png", "c.png"]]


def test_pixels_that_are_known_are_known_again_when_a_file_is_read_again(folder):
    for name in "ab":
        folder.add(f"{name}.png", colour="red", seed=ord(name))
    folder.scan()
    folder.library.note_pixels([(image.key, "1" * 32, "0" * 16) for image in folder.library.images(folder.path)])
    os.utime(folder.path / "a.png", (1, 1))
    assert folder.scan().reasons == {"alone": 1, "copy": 1}


def test_noting_what_was_folded_already_changes_nothing(folder):
    folder.add("b.png")
    (folder.path / "a.png").write_bytes((folder.path / "b.png").read_bytes())
    folder.scan()
    before = folder.library.revision()
    folder.library.note_pixels([(folder.library.images(folder.path)[0].key, "1" * 32, "0" * 16)])
    assert folder.library.revision() == before


def test_near_duplicates_are_marked_and_stay(folder):
    hashes = {"a": "0000000000000000", "b": "000000000000000f", "c": "00000000000000ff", "d": "ffffffffffffffff"}
    for name in hashes:
        folder.add(f"{name}.png")
    folder.scan()
    keys = {os.path.basename(image.path)[0]: image.key for image in folder.library.images(folder.path)}
    folder.library.note_pixels([(keys[name], name * 8, dhash) for name, dhash in hashes.items()])
    near = folder.library.near(keys.values())
    assert near.keys() == {keys[name] for name in "abc"} and len(set(near.values())) == 1
    assert folder.library.near([keys["a"], keys["d"]]) == {}
    assert folder.library.catalogue(folder.view).lines[0].size == 4


def test_unprepared_images_are_those_of_groups_and_each_comes_once(folder):
    for name, prompt in (("a", "x"), ("b", "x"), ("c", "alone"), ("e", "y"), ("f", "y")):
        folder.add(f"{name}.png", prompt)
    (folder.path / "d.png").write_bytes((folder.path / "a.png").read_bytes())
    folder.scan()
    found = folder.library.unprepared(folder.path, 9)
    assert [os.path.basename(path) for _, path in found] == ["a.png", "b.png", "e.png", "f.png"]
    assert folder.library.unprepared(folder.path, 2) == found[:2]
    folder.library.note_pixels([(key, key, "0" * 16) for key, _ in found[:3]])
    assert folder.library.unprepared(folder.path, 9) == found[3:]


def test_every_reason_is_counted_and_its_files_are_paged(folder):
    for number in range(5):
        plain((number, 0, 0)).save(folder.path / f"silent{number}.png")
    (folder.path / "broken.png").write_bytes(b"no picture")
    folder.add("lonely.png")
    catalogue = folder.scan()
    assert catalogue.reasons == {"no_metadata": 5, "not_image": 1, "alone": 1}
    assert "silent0.png" in catalogue.example
    pages = [folder.library.left_out(folder.path, "no_metadata", start, 2) for start in (0, 2, 4)]
    assert [os.path.basename(row.path) for page in pages for row in page] == [f"silent{number}.png" for number in range(5)]
    for reason, count in catalogue.reasons.items():
        rows = folder.library.left_out(folder.path, reason, 0, 99)
        assert len(rows) == count and all(len(row.sentence) > 20 for row in rows)


def test_lines_are_sorted_as_asked(folder):
    for row in ("a x 01", "b x 02", "c y 05", "d y 01", "e z 03", "f z 03", "g z 03"):
        name, prompt, day = row.split()
        folder.add(f"{name}.png", prompt, day=f"2026-11-{day}")
    catalogue = folder.scan()
    prompts = {by: [folder.text(line) for line in catalogue.sorted(by)] for by in ("path", "size", "newest")}
    assert prompts == {"path": ["x", "y", "z"], "size": ["z", "x", "y"], "newest": ["y", "z", "x"]}


def test_the_last_answer_is_kept_until_the_index_changes(folder):
    folder.add("a.png")
    first = folder.scan()
    assert folder.library.catalogue(folder.view) is first
    folder.add("b.png")
    assert folder.scan() is not first


def test_a_key_of_another_view_finds_no_group(folder):
    for name in "ab":
        folder.add(f"{name}.png")
    (line,) = folder.scan().lines
    assert folder.library.group(replace(folder.view, ignore_case=True), line.key) is None
    assert folder.library.group(folder.view, "0" * 27) is None
    assert folder.library.group(folder.view, "no key") is None


def test_members_name_the_groups_that_hold_any_of_the_images_with_all_their_copies(folder):
    for name, prompt in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("e", "alone")):
        folder.add(f"{name}.png", prompt)
    catalogue = folder.scan()
    keys = {os.path.basename(image.path)[0]: image.key for image in folder.library.images(folder.path)}
    folder.library.note_pixels([(keys["a"], "1", "0" * 16)])
    found = folder.library.members(folder.view, [keys["a"], keys["e"], "0" * 24])
    assert found == {catalogue.lines[0].key: sorted([(keys["a"],), (keys["b"],)])}


def test_what_is_known_of_many_images_takes_one_question_and_none_per_image(folder):
    for number in range(30):
        folder.add(f"{number:02}.png", f"  a {number}  cat, ", size=(8, 16), model="paint.safetensors")
    folder.scan()
    keys = [image.key for image in folder.library.images(folder.path)]
    folder.library.note_pixels([(keys[0], "d" * 32, "ff" * 8)])
    asked = []
    connection = folder.library._database.connection()
    connection.set_trace_callback(asked.append)
    facts = folder.library.image_facts([*keys, "0123456789"])
    connection.set_trace_callback(None)
    assert len(asked) == 1 and facts.keys() == set(keys)
    path = str(folder.path / "00.png")
    assert facts[keys[0]] == ImageFacts(path, 8, 16, "a 0 cat", "paint.safetensors", "a1111", "d" * 32, 2**64 - 1)
    assert (facts[keys[1]].digest, facts[keys[1]].dhash) == ("", None)


def test_facts_of_copies_are_those_of_the_file_that_came_first_and_an_image_without_prompt_has_some(folder):
    first = folder.add("b.png")
    folder.scan()
    (folder.path / "a.png").write_bytes(first.read_bytes())
    plain("green", (9, 7)).save(folder.path / "silent.png")
    folder.scan()
    by_name = {os.path.basename(image.path): image.key for image in folder.library.images(folder.path)}
    facts = folder.library.image_facts(by_name.values())
    assert facts[by_name["a.png"]].path == str(first)
    assert facts[by_name["silent.png"]][1:6] == (9, 7, "", "", "")
    assert folder.library.image_facts([]) == {}
