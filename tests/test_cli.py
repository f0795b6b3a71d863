"""`python -m dpo ...`: what the tabs do, headless. The demo command is tested in test_demo."""

import json

import numpy as np
import pytest
from PIL import Image

from dpo.__main__ import main
from dpo.metadata import format_parameters, read_image
from dpo.metadata.writer import write_png
from dpo.project import open_project
from tests.tiny import build_pipeline


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        image = Image.new("RGB", (16, 16), (number * 30, 40, 200 - number * 20))
        text = format_parameters(f"a cat {number // 2}", "dog", steps=4, sampler="Euler", guidance=5, seed=number, size="16x16")
        write_png(image, folder / f"{number}.png", text)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_scan_prints_one_object_per_file_readable_or_not(folder, capsys):
    assert main(["scan", str(folder), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 9
    good = next(row for row in rows if row["path"].endswith("/3.png"))
    assert (good["prompt"], good["negative_prompt"], good["seed"], good["width"], good["error"]) == (
        "a cat 1",
        "dog",
        3,
        16,
        None,
    )
    broken = next(row for row in rows if row["path"].endswith("broken.png"))
    assert broken["prompt"] is None and "broken.png" in broken["error"]

    assert main(["scan", str(folder)]) == 0
    assert "9 images, 8 with a prompt." in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_one_sentence_and_status_2(tmp_path, capsys):
    assert main(["scan", str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert "nowhere" in captured.err and len(captured.err.splitlines()) == 1 and captured.out == ""


def test_train_and_sample_from_the_pairs_of_a_project(folder, tmp_path, capsys):
    build_pipeline().save_pretrained(tmp_path / "model")
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    arguments = ["train", "--project", str(project.path), "--preset", "demo", "--model", str(tmp_path / "model"), "--json"]
    assert main(arguments) == 2
    assert "There are 0 pairs and training needs at least 4" in capsys.readouterr().err

    picks = [
        {
            "client": "test-client", "number": number, "op": "best_worst", "group": group.key,
            "images": [image.key for image in group.images], "result": [group.images[0].key, group.images[1].key],
        }
        for number, group in enumerate(project.library.groups(folder))
    ]  # fmt: skip
    assert project.picks.apply(picks).new == 4
    assert main([*arguments, "--max-steps", "2", "--batch-size", "2", "--resolution", "16", "--name", "cats"]) == 0
    end = json.loads(capsys.readouterr().out)
    assert (end["step"], end["reason"]) == (2, "finished")

    sample = [
        "sample",
        "--model",
        str(tmp_path / "model"),
        "--prompt",
        "a cat",
        "--prompt",
        "a dog",
        "--seed",
        "1",
        "--sampling-steps",
        "2",
    ]
    assert main([*sample, "--out", str(tmp_path / "base")]) == 0
    assert main([*sample, "--adapter", end["adapter"], "--strength", "0", "--out", str(tmp_path / "zero")]) == 0
    base, zero = (sorted((tmp_path / name).iterdir()) for name in ("base", "zero"))
    assert len(base) == len(zero) == 2
    for one, other in zip(base, zero, strict=True):
        assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
    record = read_image(zero[1])
    assert (record.prompt, record.seed, record.steps, record.width) == ("a dog", 1, 2, 16)

    assert main([*arguments, "--name", "cats"]) == 2
    assert "A run named 'cats' exists already" in capsys.readouterr().err
    assert main([*arguments, "--name", "dogs", "--resume"]) == 2
    assert "There is no run named 'dogs'" in capsys.readouterr().err


def test_a_wrong_setting_is_said_before_anything_loads(tmp_path, capsys):
    assert main(["train", "--project", str(tmp_path / "project"), "--beta", "0"]) == 2
    assert capsys.readouterr().err == "beta=0.0 is too small. Set it to 1e-06 or more.\n"
