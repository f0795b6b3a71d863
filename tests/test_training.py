import errno
from dataclasses import replace

import pytest
import torch

from dpo.events import Note, RunEnded, RunStarted, StepEnd
from dpo.jobs import JobRegistry
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import RunError, create_run
from dpo.training import execute, keep_reference, make_run, prompts_to_sample, start_training
from tests.test_adapters import build_learned
from tests.test_trainer import CONFIG
from tests.tiny import build_pipeline, make_pairs


def test_a_whole_run_from_files_to_adapter_and_the_reference_is_kept_with_its_hash(tmp_path):
    build_pipeline().save_pretrained(tmp_path / "model")
    _, adapter = build_learned(rank=2, alpha=4.0)
    adapter.save(tmp_path / "start" / "start.safetensors")
    pairs = make_pairs(tmp_path / "images")
    config = replace(
        CONFIG, model=str(tmp_path / "model"), starting_adapter=str(tmp_path / "start" / "start.safetensors"), max_steps=2
    )
    run = create_run(tmp_path / "runs", "whole", config, pairs)
    events = list(execute(run, tmp_path / "cache"))
    assert events[-1] == RunEnded(2, "finished", "Finished after 2 steps.")
    first = next(event for event in events if isinstance(event, StepEnd))
    assert first.metrics["rewards/margins"] == 0.0  # the reference is the starting adapter, not the base
    assert run.adapter.exists() and run.reference.exists()

    (tmp_path / "start" / "start.safetensors").unlink()  # the run has its own copy
    assert keep_reference(run, tmp_path / "start" / "start.safetensors") == run.reference
    run.reference.write_bytes(run.reference.read_bytes()[:-1] + b"?")
    with pytest.raises(RunError, match="has changed since the run began"):
        keep_reference(run, tmp_path / "start" / "start.safetensors")


def test_a_run_warns_once_of_prompts_that_are_longer_than_its_model_reads(tmp_path, monkeypatch):
    """Prompts 0 to 3 have nine tokens with the marks of begin and end; some are held out."""
    monkeypatch.setattr("dpo.families.stable_diffusion.StableDiffusion.reach", ("tokenizer", 8))
    build_pipeline().save_pretrained(tmp_path / "model")
    config = replace(CONFIG, model=str(tmp_path / "model"), max_steps=1, validation_share=0.5)
    events = list(execute(create_run(tmp_path / "runs", "long", config, make_pairs(tmp_path / "images")), tmp_path / "cache"))
    warnings = [event.message for event in events if isinstance(event, Note) and event.tone == "warning"]
    assert [text for text in warnings if "longer" in text] == [
        "4 of 4 prompts are longer than this model reads: up to 1 token at the end is not seen."
    ]


def test_a_run_that_ends_suddenly_while_its_reference_is_copied_copies_it_again(tmp_path, monkeypatch):
    """Between the copy and the whole hash of it there is no moment after which the run would refuse to go on."""
    (tmp_path / "start.safetensors").write_bytes(b"an adapter")
    run = create_run(tmp_path / "runs", "cats", CONFIG, make_items("a", "b", "c", "d"))
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError):
        keep_reference(run, tmp_path / "start.safetensors")
    monkeypatch.undo()
    run.reference.write_bytes(b"an ada")
    assert keep_reference(run, tmp_path / "start.safetensors").read_bytes() == b"an adapter"


def test_a_failure_a_person_can_mend_is_the_last_event(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    run = create_run(tmp_path / "runs", "broken", replace(CONFIG, model=str(tmp_path)), pairs)
    end = list(execute(run, tmp_path / "cache"))[-1]
    assert end.reason == "failed" and "is not a diffusers model: it has no model_index.json" in end.message


def test_a_pair_whose_image_is_corrupt_is_named(tmp_path):
    build_pipeline().save_pretrained(tmp_path / "model")
    pairs = make_pairs(tmp_path / "images")
    with open(pairs[2].rejected, "wb") as file:
        file.write(b"not a picture")
    run = create_run(tmp_path / "runs", "corrupt", replace(CONFIG, model=str(tmp_path / "model")), pairs)
    end = list(execute(run, tmp_path / "cache"))[-1]
    assert end.reason == "failed" and "02-rejected.png cannot be opened" in end.message and "Delete the pairs" in end.message


def test_running_out_of_memory_says_what_to_change_and_keeps_what_was_saved(tmp_path, monkeypatch):
    build_pipeline().save_pretrained(tmp_path / "model")
    config = replace(CONFIG, model=str(tmp_path / "model"), save_every=1, max_steps=3)
    run = create_run(tmp_path / "runs", "large", config, make_pairs(tmp_path / "images"))
    forward = torch.optim.AdamW.step
    steps = []

    def step(self, *arguments):
        steps.append(self)
        if len(steps) > 2:  # the probe takes one, the run's first step is the second
            raise torch.OutOfMemoryError
        return forward(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    end = list(execute(run, tmp_path / "cache"))[-1]
    assert (end.step, end.reason) == (1, "failed")
    assert end.message.startswith(
        "Out of memory at step 1 (resolution=16, batch_size=4, execution='full_concurrent', gradient_checkpointing=False)"
    )
    assert (run.checkpoints / "step-000001.pt").exists()


def test_what_a_run_must_do_without_is_noted_in_it(tmp_path, monkeypatch):
    project = open_project(tmp_path / "project")
    pairs = [replace(pair, prompt="the same for all") for pair in make_pairs(tmp_path / "images")]
    monkeypatch.setattr("dpo.training.items_for", lambda project, config: pairs)
    run = make_run(project, replace(CONFIG, model="demo", resolution=64), "one prompt")
    (note,) = [event for event in run.events() if isinstance(event, Note)]
    assert note.tone == "warning" and "alidation" in note.message


@pytest.mark.parametrize("reason, state", [("finished", "done"), ("failed", "failed")])
def test_a_run_on_several_gpus_is_launched_from_the_queue_and_followed_there(tmp_path, monkeypatch, reason, state):
    project, jobs = open_project(tmp_path / "project"), JobRegistry()
    pairs = make_pairs(tmp_path / "images")
    monkeypatch.setattr("dpo.training.items_for", lambda project, config: pairs)

    def launch(run, gpus):
        yield RunStarted(0, 5, 8, 0)
        yield StepEnd(3, 0.1)
        yield RunEnded(3, reason, f"{gpus} processes trained {run.name}.")

    monkeypatch.setattr("dpo.training.launch", launch)
    run = start_training(project, jobs, replace(CONFIG, model="demo", resolution=64, gpus=2, accumulation=2), "two")
    job = jobs.find("train", run.name)
    assert job.finished.wait(30)
    assert (job.state, job.done, job.total, job.message) == (state, 3, 5, "2 processes trained two.")
    assert run.events() == []  # its processes write them, not the queue


def test_held_out_prompts_are_sampled_first_and_each_once():
    training, held_out = make_items("a", "b", "a", "c"), make_items("x", "x")
    assert prompts_to_sample((training, held_out), 3) == ["x", "a", "b"]


def make_items(*prompts):
    return [Pair(prompt, "chosen.png", "rejected.png") for prompt in prompts]
