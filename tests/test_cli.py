"""`python -m dpo ...`: what the tabs do, headless. More of `train` in test_train_command; the demo command in test_demo."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import dpo.metadata
from dpo.__main__ import main
from dpo.metadata import format_parameters, read_image
from dpo.metadata.records import REASONS
from dpo.metadata.writer import write_png
from dpo.project import open_project
from tests.headers import FILES, write_safetensors
from tests.metadata.files import png, text_chunk
from tests.pictures import paint_folder
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


def test_the_first_keys_of_a_row_are_those_that_scripts_rely_on(folder, capsys):
    assert main(["scan", str(folder), "--json"]) == 0
    promised = ["path", "prompt", "negative_prompt", "generator", "seed", "width", "height", "error"]
    for line in capsys.readouterr().out.splitlines():
        row = json.loads(line, parse_constant=pytest.fail)  # called for NaN and Infinity, which are no JSON
        assert list(row)[:8] == promised
        assert (row["error"] is None) == (row["prompt"] is not None)
        assert (row["reason"] in REASONS) == (row["prompt"] is None)


def test_rows_are_printed_while_the_folder_is_read(folder, capsys, monkeypatch):
    printed = []
    real = dpo.metadata.read_image
    monkeypatch.setattr("dpo.metadata.read_image", lambda path, **options: printed.append(capsys.readouterr().out) or real(path))
    main(["scan", str(folder), "--json"])
    assert printed[0] == "" and all(text.count("\n") == 1 for text in printed[1:])


def test_rows_are_utf_8_whatever_the_terminal_is_set_to_and_whatever_metadata_holds(tmp_path):
    graph = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "café \ud83d \U0001f431"}}}  # half a character, a cat
    (tmp_path / "half.png").write_bytes(png(text_chunk("prompt", json.dumps(graph))))
    command = [sys.executable, "-m", "dpo", "scan", str(tmp_path), "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    prompt = json.loads(output.decode("utf-8"))["prompt"]
    assert prompt.startswith("café ") and prompt.endswith(" \U0001f431")


def test_the_table_counts_files_by_generator_and_by_what_was_found(folder, capsys):
    (folder / "silent.png").write_bytes(png())
    assert main(["scan", str(folder), "--stats"]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0] == ["generator", "found", "files", "share"]
    assert cells[1] == ["a1111", "a prompt", "8", "80.0%"]
    assert sorted(cells[2:4]) == [
        ["none", "cut short or damaged", "1", "10.0%"],
        ["none", "no generation metadata", "1", "10.0%"],
    ]
    assert cells[4] == ["all", "10", "100.0%"]


def test_stealth_texts_are_read_only_where_asked_for(folder, capsys, monkeypatch):
    asked = []
    real = dpo.metadata.read_image
    monkeypatch.setattr("dpo.metadata.read_image", lambda path, stealth: asked.append(stealth) or real(path))
    main(["scan", str(folder), "--stats"])
    main(["scan", str(folder), "--stats", "--stealth"])
    assert asked == [False] * 9 + [True] * 9


def test_a_reader_that_stops_early_ends_the_scan_without_a_traceback(folder):
    for number in range(300):  # more rows than a pipe holds
        (folder / f"{number:0200}.png").write_bytes(b"")
    command = [sys.executable, "-m", "dpo", "scan", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_a_folder_that_is_not_there_is_one_sentence_and_status_2(tmp_path, capsys):
    assert main(["scan", str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert "nowhere" in captured.err and len(captured.err.splitlines()) == 1 and captured.out == ""


def test_train_and_sample_from_the_pairs_of_a_project(folder, tmp_path, capsys):
    build_pipeline().save_pretrained(tmp_path / "model")
    project = open_project(tmp_path / "project")
    project.library.scan(folder)
    arguments = ["train", "demo", "--project", str(project.path), "--model", str(tmp_path / "model"), "--json"]
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


def test_pairs_go_out_of_a_project_and_into_another(tmp_path, capsys):
    images = paint_folder(tmp_path / "images", prompts=4, per_prompt=2, side=16)
    rows = [f"prompt {number},{images[2 * number]},{images[2 * number + 1]}\n" for number in range(4)]
    (tmp_path / "pairs.csv").write_text("".join(["prompt,chosen,rejected\n", *rows, f"odd,{images[0]},nowhere.png\n"]))

    one, other, out = (str(tmp_path / name) for name in ("one", "other", "out"))
    assert main(["pairs", "import", str(tmp_path / "pairs.csv"), "--project", one]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("4 pairs taken from pairs. 1 left out.")
    assert "line 6: nowhere.png is not there" in captured.err

    assert main(["pairs", "export", out, "--kind", "onetrainer", "--share", "0.25", "--project", one, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": out, "kind": "onetrainer", "pairs": 4}
    assert main(["pairs", "import", out, "--project", other, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["taken"], said["already"], said["needs_reject"], said["left"]) == (4, 0, 0, [])
    assert {pair.prompt for pair in open_project(tmp_path / "other").picks.pairs()} == {f"prompt {number}" for number in range(4)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "nowhere"], "nowhere does not exist"),
        (["import", "owner/name", "--kind", "hub"], "Say how many rows to take"),
        (["import", ".", "--limit", "0"], "limit=0 is too small"),
        (["export", "out", "--kind", "csv"], "There are no pairs to export yet"),
        (["export", "out", "--kind", "csv", "--share", "2"], "share=2.0 is not between 0 and 0.5"),
    ],
)
def test_mistakes_with_pairs_are_one_sentence_and_status_2(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pairs", *arguments, "--project", str(tmp_path / "project")]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and len(captured.err.splitlines()) == 1 and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_model_says_what_a_file_is_and_refuses_what_it_cannot_be(tmp_path, capsys):
    file = write_safetensors(tmp_path / "noob.safetensors", FILES["sdxl"] | {"v_pred": (0,), "ztsnr": (0,)})
    assert main(["model", str(file), "--components", "owner/name"]) == 0
    said = capsys.readouterr().out
    assert "Stable Diffusion XL, v-prediction with zero-terminal SNR, float16" in said and "its settings from owner/name." in said
    assert main(["model", str(file), "--prediction-type", "epsilon"]) == 0
    assert "epsilon" in capsys.readouterr().out
    file = write_safetensors(tmp_path / "lora.safetensors", {"a.lora_down.weight": (4, 4)})
    assert main(["model", str(file)]) == 2
    assert "is a LoRA, an adapter and no model" in capsys.readouterr().err


def test_sample_takes_the_settings_of_the_model(tmp_path, capsys):
    """A model of epsilon that is told to predict v paints something else."""
    build_pipeline().save_pretrained(tmp_path / "model")
    pictures = []
    for number, more in enumerate(([], ["--offload", "1"], ["--prediction-type", "v_prediction"])):
        out = tmp_path / str(number)
        assert main(["sample", "--model", str(tmp_path / "model"), "--prompt", "a", "--seed", "1", "--sampling-steps", "2",
                     "--out", str(out), *more]) == 0  # fmt: skip
        pictures.append(np.asarray(Image.open(out / "00000-1.png")))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert main(["sample", "--prompt", "a", "--seed", "1", "--quantization", "int4"]) == 2
    assert "quantization='int4' is not known. Choose one of: none, nf4" in capsys.readouterr().err
