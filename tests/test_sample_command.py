import numpy as np
import pytest
from PIL import Image

from dpo.__main__ import main
from dpo.metadata import Lora, read_image
from tests.test_adapters import build_learned
from tests.tiny import build_pipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, two adapters, a picture and a file of prompts."""
    folder = tmp_path_factory.mktemp("sample")
    build_pipeline().save_pretrained(folder / "model")
    for name, rank in (("large", 3), ("small", 2)):
        build_learned(rank, 6.0)[1].save(folder / f"{name}.safetensors")
    Image.radial_gradient("L").save(folder / "picture.png")
    (folder / "prompts.txt").write_text("a cat\n\na dog\n")
    return folder


@pytest.fixture
def sample(place, tmp_path, monkeypatch, capsys):
    """sample(*flags) -> (status, printed lines, the error); in a folder of its own, with the model and few steps."""
    monkeypatch.chdir(place)

    def sample(*flags):
        status = main(["sample", "--model", "model", "--sampling-steps", "2", "--out", str(tmp_path / "out"), *flags])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return sample


def test_every_adapter_at_every_strength_paints_every_prompt_and_a_grid_shows_them(sample, tmp_path):
    status, lines, _ = sample(
        "--prompts-file", "prompts.txt", "--prompt", "a fox", "--seed", "1", "--adapter", "large.safetensors",
        "--adapter", "small.safetensors", "--strength", "0", "--strength", "0.5", "--sampler", "DPM++ 2M Karras",
        "--format", "webp", "--grid", str(tmp_path / "grid.png"),
    )  # fmt: skip
    assert status == 0
    assert lines == [
        *(str(tmp_path / "out" / f"{row:05d}-1-{column}-{name}.webp")
          for row in range(3) for column, name in enumerate(("large-0", "large-0.5", "small-0", "small-0.5"))),
        str(tmp_path / "grid.png"),
    ]  # fmt: skip
    records = [read_image(line) for line in lines[:-1]]
    assert [record.prompt for record in records[::4]] == ["a fox", "a cat", "a dog"]
    assert [record.loras for record in records[:4]] == [
        (Lora(name, strength),) for name in ("large", "small") for strength in (0.0, 0.5)
    ]  # fmt: skip
    assert {record.sampler for record in records} == {"DPM++ 2M Karras"}
    assert Image.open(tmp_path / "grid.png").width > 4 * 160


def test_images_start_from_a_picture_and_say_so(sample, tmp_path):
    asked = ("--prompt", "a", "--seed", "1", "--sampling-steps", "10", "--width", "16", "--height", "16", "--format", "jpeg")
    assert sample(*asked, "--picture", "picture.png", "--picture-strength", "0.5")[0] == 0
    path = tmp_path / "out" / "00000-1.jpg"
    from_picture = np.asarray(Image.open(path)).astype(int)
    assert "D\0e\0n\0o\0i\0s\0i\0n\0g" in Image.open(path).info["exif"].decode("latin-1")
    assert sample(*asked)[0] == 0
    assert np.abs(from_picture - np.asarray(Image.open(path))).max() > 10


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--prompts-file", "absent.txt"], "absent.txt cannot be read"),
        ([], "There is no prompt"),
        (["--prompt", "a", "--sampler", "euler"], "sampler='euler' does not fit this model. Choose one of Euler, "),
        (["--prompt", "a", "--adapter", "absent.safetensors"], "absent.safetensors is not a file"),
        (["--prompt", "a", "--picture", "prompts.txt"], "prompts.txt is not an image"),
        (["--prompt", "a", "--picture", "picture.png", "--picture-strength", "2"], "picture_strength=2.0 is out of range"),
    ],
    ids=["no file", "no prompt", "sampler", "adapter", "picture", "strength"],
)
def test_mistakes_are_one_sentence_and_status_2_and_nothing_is_made(flags, says, sample, tmp_path):
    status, lines, error = sample("--seed", "1", *flags)
    assert (status, lines) == (2, [])
    assert says in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name_are_told_apart(sample, place):
    (place / "other").mkdir(exist_ok=True)
    (place / "other" / "small.safetensors").write_bytes((place / "small.safetensors").read_bytes())
    status, lines, _ = sample(
        "--prompt", "a", "--seed", "1", "--adapter", "small.safetensors", "--adapter", "other/small.safetensors"
    )  # fmt: skip
    assert status == 0
    assert [line.rpartition("/")[2] for line in lines] == [
        "00000-1-0-small.safetensors.png",
        "00000-1-1-other-small.safetensors.png",
    ]
