"""Images of another model than the one that is trained are told before a run: by names, and by the hash where a file has one."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dpo.config import TrainConfig
from dpo.events import Note
from dpo.foreign_models import describe_foreign, foreign_models, model_stem, read_sha256
from dpo.metadata.a1111 import format_parameters
from dpo.metadata.writer import write_png
from dpo.pairs import Like, Pair, Ranking
from dpo.project import Project, open_project
from dpo.training import make_run
from tests.headers import FILES, write_safetensors
from tests.tiny import make_pairs


def images(*models: str) -> dict[str, str]:
    return {f"{number}.png": model for number, model in enumerate(models)}


def test_images_of_the_model_itself_and_images_that_do_not_say_are_nothing_to_tell():
    assert describe_foreign(images("paint_xl", "Paint XL.safetensors [0a1b2c3d]", ""), "models/paint-xl.safetensors") == ""
    assert describe_foreign({}, "demo") == ""


def test_the_sentence_counts_images_and_names_both_models():
    said = describe_foreign(images("demo", "flux", "flux", "juggernautXL.safetensors", ""), "demo")
    assert said.startswith(
        "3 of 5 images were made by flux and juggernautxl, and this run trains demo: the adapter also learns to "
    )
    assert describe_foreign(images("demo", "flux"), "demo").startswith("1 of 2 images was made by flux, and this run trains demo")
    said = describe_foreign(images("a", "a", "b", "c", "d"), "demo")
    assert said.startswith("5 of 5 images were made by a, b and 2 more, and this run")


def test_a_long_name_is_cut():
    assert "x" * 60 in describe_foreign(images("x" * 500), "demo") and "x" * 61 not in describe_foreign(images("x" * 500), "demo")


def test_one_image_of_every_other_name_is_asked_whether_it_is_the_model_after_all():
    asked = []

    def is_same(path: str) -> bool:
        asked.append(path)
        return path == "1.png"

    said = describe_foreign(images("demo", "old name", "old-name", "flux"), "demo", is_same)
    assert asked == ["1.png", "3.png"]
    assert said.startswith("1 of 4 images was made by flux, and this run trains demo")


@pytest.mark.parametrize("name", ["C:\\models\\Paint_XL.safetensors [0a1b]", "owner/paint-xl", "paint xl.gguf", " paint-xl/ "])
def test_a_name_is_the_stem_of_a_file(name):
    assert model_stem(name) == "paint-xl"


# ------------------------------------------------------------------------------------------------ of a project


@pytest.fixture
def project(tmp_path) -> Project:
    return open_project(tmp_path / "project")


def scanned(project: Project, folder: Path, model: str, more: str = "") -> list[Pair]:
    """Pairs of images that say they are of the model, and that the library has seen."""
    pairs = make_pairs(folder)
    for pair in pairs:
        for path in pair.images:
            text = format_parameters(pair.prompt, "", steps=1, sampler="Euler", guidance=1, seed=1, size="16x16", model=model)
            with Image.open(path) as image:
                image.load()
            write_png(image, Path(path), text + more)
    project.library.scan(folder)
    return pairs


def test_every_kind_of_item_is_looked_at_and_each_image_counts_once(project, tmp_path):
    pairs = scanned(project, tmp_path / "images", "flux")
    one, other = pairs[0].images
    items = [pairs[0], Like("a", one, True), Ranking("a", (one, other, pairs[1].chosen)), Pair("a", one, "never-scanned.png")]
    (said,) = foreign_models(project, TrainConfig(), items, hashes=False)
    assert said.startswith("3 of 4 images were made by flux, and this run trains demo")
    assert foreign_models(project, replace(TrainConfig(), model="owner/flux"), items, hashes=True) == []


@pytest.mark.parametrize("form", [", Model hash: {}", ', Hashes: {{"vae": "0123456789", "model": "{}"}}'])
def test_a_renamed_checkpoint_file_is_known_by_its_hash(project, tmp_path, form):
    """A1111 writes the first ten digits of the sha256."""
    file = write_safetensors(tmp_path / "renamed.safetensors", FILES["sd1_unet"] | {"a": (1,)})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert read_sha256(str(file)) == digest
    pairs = scanned(project, tmp_path / "images", "first name", form.format(digest[:10].upper()))
    config = TrainConfig(model=str(file))
    assert foreign_models(project, config, pairs, hashes=False)[0].startswith("16 of 16 images were made by first-name")
    assert foreign_models(project, config, pairs, hashes=True) == []
    with file.open("ab") as opened:
        opened.write(b"x")
    assert foreign_models(project, config, pairs, hashes=True)[0].startswith("16 of 16 images were made by first-name")


def test_a_run_on_images_of_another_model_is_made_with_a_warning(project, tmp_path, monkeypatch):
    pairs = scanned(project, tmp_path / "images", "flux")
    monkeypatch.setattr("dpo.training.items_for", lambda project, config: pairs)
    run = make_run(project, TrainConfig(resolution=64), "cats-1")
    (note,) = [event for event in run.events() if isinstance(event, Note)]
    assert note.tone == "warning"
    assert note.message.startswith("16 of 16 images were made by flux, and this run trains demo")
