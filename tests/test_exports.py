"""Exports as a person asks for them: from the page, from the command line, of a run, of a file, of two as one."""

import json
from dataclasses import replace

import gradio as gr
import pytest
import torch
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dpo.__main__ import main
from dpo.adapter_loading import load_adapter
from dpo.adapters import POLICY, attach_adapter
from dpo.config import TrainConfig
from dpo.events import RunEnded, RunStarted
from dpo.families import load_family
from dpo.formats.merging import merge_adapters
from dpo.formats.origin import described
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run
from dpo.sampling import paint
from tests.families.checks import PROMPT, SETTINGS, difference, move
from tests.tiny import build_pipeline
from ui.downloads import export_url, routes
from ui.export_part import Export, ask_export, draw_export, export_lines
from ui.session import Session, Studio


@pytest.fixture
def studio(tmp_path):
    return Studio(open_project(tmp_path / "project"), JobRegistry(), b"s" * 32)


@pytest.fixture
def model(tmp_path):
    """A diffusers folder of a tiny model."""
    build_pipeline().save_pretrained(tmp_path / "tiny model")
    return tmp_path / "tiny model"


def family_with(kind="lora", std=0.3, rank=2, alpha=6.0, seed=0):
    config = TrainConfig(adapter=kind, lora_rank=rank, lora_alpha=alpha, seed=seed)
    family = load_family(build_pipeline())
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    move(family, std)
    return family, adapter, config


def finished_run(studio, model, kind="lora", name="cats"):
    _, adapter, config = family_with(kind, alpha=0.0 if kind == "oft" else 6.0)
    run = create_run(studio.project.runs, name, replace(config, model=str(model)), [Pair(f"p{n}", "c", "r") for n in range(8)])
    run.append(RunStarted(0, 20, 7, 1))
    run.append(RunEnded(20, "finished"))
    adapter.save(run.adapter)
    return run


def image(family):
    return paint(family, [(family.prompt_arguments(PROMPT, ""), 1)], SETTINGS)


def lines_of(part):
    return part.props["lines"]


def changes_of(family):
    return {name: layer.get_delta_weight(POLICY) for name, layer in family.denoiser.named_modules() if hasattr(layer, "lora_A")}


def shown(studio, seen=""):
    return Export(*draw_export(studio, Session(), seen))


# ------------------------------------------------------------------------------------------------ the page


def test_a_finished_run_is_exported_as_a_job_and_downloaded_by_signed_address(studio, model):
    run = finished_run(studio, model)
    part = shown(studio)
    assert [value for _, value in part.format.choices] == ["diffusers", "comfyui", "kohya"] and part.place.visible
    assert not part.file.visible
    said = ask_export(studio, Session(), "comfyui", "fp16")
    assert lines_of(said) == [{"text": "Getting ready."}]
    job = studio.jobs.find("export", "cats")
    assert job.finished.wait(60) and job.state == "done", job.message
    after = shown(studio, part.seen)
    assert after.format == gr.skip()  # what a person chose stays
    assert lines_of(after.lines)[0]["text"].startswith(
        "cats-comfyui-fp16: The file was loaded into a fresh pipeline and makes the same"
    )
    client = TestClient(Starlette(routes=routes(studio)))
    for button, start in ((after.file, b""), (after.card, b"---\nlibrary_name: diffusers")):
        answer = client.get(button.link)
        assert answer.status_code == 200 and answer.content.startswith(start)
    assert client.get(after.file.link).headers["content-disposition"] == 'attachment; filename="cats.safetensors"'
    assert {tensor.dtype for name, tensor in load_file(job.result.file).items() if "alpha" not in name} == {torch.float16}
    forged = export_url(studio, "cats-comfyui-fp16/cats.safetensors").replace("cats.safetensors", "../../picks.sqlite")
    assert client.get(forged).status_code == 404
    assert run.adapter.is_file()


def test_an_adapter_file_that_cannot_be_read_is_a_sentence_where_exports_would_be(studio, model):
    run = finished_run(studio, model)
    run.adapter.write_bytes(b"torn")
    part = shown(studio)
    (line,) = lines_of(part.lines)
    assert not part.place.visible and line["tone"] == "bad" and "is damaged" in line["text"]


def test_what_is_not_offered_is_told_with_its_reason_and_not_in_the_list(studio, model):
    run = finished_run(studio, model, "oft")
    part = shown(studio)
    assert [value for _, value in part.format.choices] == ["diffusers"]
    reason = "This OFT rotates what goes into a layer; ComfyUI and LyCORIS rotate what comes out of it."
    assert lines_of(part.lines) == [{"text": f"OFT not as comfyui or kohya: {reason}"}]
    said = ask_export(studio, Session(), "kohya", "fp16")
    assert lines_of(said)[0]["tone"] == "bad" and "Choose diffusers" in lines_of(said)[0]["text"]
    assert described(run.adapter) == ("StableDiffusionPipeline", "oft")


def test_a_run_without_an_adapter_shows_no_export(studio, model):
    assert not shown(studio).place.visible
    run = finished_run(studio, model)
    run.adapter.unlink()
    assert not shown(studio).place.visible
    assert "has no adapter yet" in lines_of(ask_export(studio, Session(), "comfyui", "fp16"))[0]["text"]


def test_a_failed_export_says_why(studio, tmp_path):
    run = finished_run(studio, tmp_path / "gone")
    ask_export(studio, Session(), "comfyui", "fp16")
    job = studio.jobs.find("export", "cats")
    assert job.finished.wait(60) and job.state == "failed"
    assert export_lines(run, job, studio.jobs)[0] == {"text": job.message, "tone": "bad"}
    assert "gone" in job.message and not list(studio.project.exports.rglob("*.safetensors"))


# ------------------------------------------------------------------------------------------------ the command line


def test_a_run_and_a_file_are_exported_from_the_command_line(studio, model, tmp_path, capsys):
    run = finished_run(studio, model)
    command = ["export", "cats", "--project", str(studio.project.path), "--format", "kohya", "--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(tmp_path / "out" / "cats.safetensors") and said["precision"] == "fp16" and said["effect"] > 0
    assert (tmp_path / "out" / "README.md").is_file()

    again = ["export", said["file"], "--format", "diffusers", "--dtype", "bf16", "--out", str(tmp_path / "again")]
    assert main(again) == 2  # its header has the folder's name only
    assert "'tiny model'" in capsys.readouterr().err
    status = main([*again, "--model", str(model)])
    assert status == 0, capsys.readouterr().err
    assert "makes the same image" in capsys.readouterr().out
    assert main(["export", str(run.path), "--format", "comfyui", "--dtype", "fp32", "--out", str(tmp_path / "third")]) == 0
    assert "makes the same image, in every grey level." in capsys.readouterr().out


def test_two_runs_merged_from_the_command_line_are_their_weighted_sum(tmp_path, capsys):
    files, changes = [], []
    for number, (rank, alpha) in enumerate(((2, 6.0), (3, 1.0))):
        family, adapter, _ = family_with(rank=rank, alpha=alpha, seed=number)
        adapter.save(tmp_path / f"{number}.safetensors")
        files.append(tmp_path / f"{number}.safetensors")
        changes.append(changes_of(family))
    out = tmp_path / "both.safetensors"
    assert main(["merge", *map(str, files), "--weights", "0.7", "-0.4", "--out", str(out)]) == 0
    assert "rank 5." in capsys.readouterr().out
    family = load_family(build_pipeline())
    base = image(family)
    load_adapter(family, out, POLICY)
    expected = {name: 0.7 * change - 0.4 * changes[1][name] for name, change in changes[0].items()}
    torch.testing.assert_close(changes_of(family), expected, rtol=1e-5, atol=1e-6)
    assert difference(image(family), base) > 0
    assert described(out) == ("StableDiffusionPipeline", "lora")


def test_an_adapter_at_weight_one_with_nothing_of_another_is_itself(tmp_path):
    family, adapter, _ = family_with()
    adapter.save(tmp_path / "a.safetensors")
    merge_adapters(tmp_path / "a.safetensors", tmp_path / "a.safetensors", (1.0, 0.0), tmp_path / "b.safetensors")
    fresh = load_family(build_pipeline())
    load_adapter(fresh, tmp_path / "b.safetensors", POLICY)
    assert difference(image(fresh), image(family)) <= 1
