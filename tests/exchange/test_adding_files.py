"""Files that an import names are indexed where they lie, as a scan would have read them."""

import os
from pathlib import Path

from dpo.library import StandIns
from tests.pictures import paint_folder, plain, write_prompted


def test_named_files_are_indexed_and_what_lies_beside_them_is_not(project, images):
    keys = project.library.add_files([images[0], str(images[5])])
    assert list(keys) == [str(images[0]), str(images[5])]
    assert [image.path for image in project.library.images(images[0].parent)] == [str(images[0]), str(images[5])]
    assert project.library.image(keys[str(images[5])]).record.prompt


def test_a_scan_knows_the_files_that_were_added_and_the_other_way_round(project, images):
    keys = project.library.add_files(images[:4])
    report = project.library.scan(images[0].parent)
    assert (report.total, report.unchanged) == (24, 4)
    revision = project.library.revision()
    assert project.library.add_files(images[:4]) == keys
    assert project.library.revision() == revision, "nothing was read again"


def test_what_is_no_image_has_no_key_and_its_reason_can_be_asked_for(project, tmp_path, images):
    (tmp_path / "broken.png").write_bytes(images[0].read_bytes()[:50])
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    plain().save(tmp_path / "silent.png")
    names = ("broken.png", "folder.png", "pipe.png", "none.png", "silent.png")
    paths = [str(tmp_path / name) for name in names]
    assert list(project.library.add_files(paths)) == [paths[4]], "an image without a prompt is one"
    known = project.library.images_at(paths)
    assert list(known) == [paths[0], paths[4]]
    assert known[paths[0]].record.reason == "damaged" and "broken.png" in known[paths[0]].record.error


def test_a_path_is_answered_as_it_was_given(project, images, monkeypatch, tmp_path):
    monkeypatch.chdir(images[0].parent)
    (tmp_path / "way").symlink_to(images[0].parent)
    given = [images[0].name, f"../images/{images[0].name}", str(tmp_path / "way" / images[0].name)]
    keys = project.library.add_files(given)
    assert list(keys) == given and len(set(keys.values())) == 1
    assert len(project.library.images(tmp_path)) == 1, "one file, however it is called"


def test_what_stands_in_for_prompts_in_their_folder_holds_for_added_files(project, tmp_path):
    path = tmp_path / "sorted" / "silent.png"
    path.parent.mkdir()
    plain().save(path)
    path.with_suffix(".txt").write_text("a cat beside it")
    project.library.set_stand_ins(tmp_path, StandIns(sidecar=True))
    project.library.add_files([path])
    assert project.library.images_at([path])[str(path)].record.prompt == "a cat beside it"


def test_many_files_are_read_by_several_processes_with_the_same_outcome(project, tmp_path, monkeypatch):
    paths = paint_folder(tmp_path / "many", prompts=10, per_prompt=2, side=8)
    monkeypatch.setattr("dpo.index.FEW", 5)
    counted = []
    keys = project.library.add_files(paths, lambda done, total: counted.append((done, total)))
    assert counted[0] == (0, 20) and counted[-1] == (20, 20)
    assert list(keys) == list(map(str, paths))


def test_a_file_that_moved_is_found_where_it_was_added(project, images, tmp_path):
    (key,) = project.library.add_files(images[:1]).values()
    moved = write_prompted(tmp_path / "other.png", "x", plain()).with_name("moved.png")
    images[0].rename(moved)
    assert project.library.add_files([moved]) == {str(moved): key}
    assert Path(project.library.image(key).path) == moved
