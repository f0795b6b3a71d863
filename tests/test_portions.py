"""Memory that runs out while a run trains: the step is made again in smaller parts, with the same result."""

from dataclasses import replace

import pytest
import torch

from dpo.adapters import attach_adapter
from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.events import Note, StepEnd
from dpo.families import load_family
from dpo.parallel import Processes
from dpo.portions import Portions, is_out_of_memory, memory_report
from dpo.remembered import RememberedErrors
from dpo.runs import create_run
from dpo.trainer import TrainingError, train
from tests.tiny import build_pipeline, make_pairs

CONFIG = TrainConfig(
    beta=20.0, learning_rate=5e-3, max_steps=3, batch_size=4, accumulation=2, lora_rank=2, warmup_steps=0, resolution=16,
    validate_every=0, validation_share=0.0, max_chosen_drift=10.0, save_every=2,
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """start(most rows that fit, config) -> (events, weights at the end, rows of every pass of the steps, the run)."""
    pairs = make_pairs(tmp_path / "images")

    def start(fits, config=CONFIG, name="run", broken_after=0, memory=False):
        family = load_family(build_pipeline())
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
        run = create_run(tmp_path / "runs", name, config, pairs)
        data, empty = (
            [*encode_items(side, family, config.resolution, tmp_path / "cache")][-1] for side in (pairs, [])
        )  # fmt: skip
        rows, events = [], []

        def limit(module, args, output):
            if not events or not any(isinstance(event, Note) and "Measuring" in event.message for event in events):
                return
            rows.append(len(args[0]))
            if len(args[0]) > fits and len(rows) > broken_after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        errors = RememberedErrors(tmp_path / name, "tiny") if memory else None
        steps = train(config, data, empty, family, adapter, run, processes=Processes(), memory=errors)
        for event in steps:
            events.append(event)
            if type(event).__name__ == "ProbeEnd":
                family.denoiser.register_forward_hook(limit)
        weights = torch.cat([parameter.detach().flatten() for parameter in adapter.parameters()])
        return events, weights, rows, run

    return start


def warnings(events):
    return [event.message for event in events if isinstance(event, Note) and event.tone == "warning"]


def losses(events):
    return [event.metrics["loss"] for event in events if isinstance(event, StepEnd)]


def test_a_step_that_does_not_fit_is_made_again_in_halves_with_the_same_draws_and_the_same_result(start):
    """8 rows of 4 pairs do not fit, nor do the 4 rows of 2 pairs; the 2 rows of a pair do. Every step keeps its 8 pairs."""
    whole, expected, plain, _ = start(100, name="whole")
    events, weights, rows, _ = start(2, name="halved")
    assert warnings(events) == [
        "Out of memory at step 1. It is made again, 2 pairs at a time, with the same result.",
        "Out of memory at step 1. It is made again, 1 pair at a time, with the same result.",
    ]
    assert losses(events) == pytest.approx(losses(whole), rel=1e-5)
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-5)
    assert set(plain) == {8} and rows.count(2) == 3 * 8 * 2  # 3 steps of 8 pairs, policy and reference
    assert not warnings(whole)


def test_where_a_pair_does_not_fit_its_images_come_one_at_a_time(start):
    whole, expected, _, _ = start(100, name="whole")
    events, weights, _, _ = start(1, name="single")
    assert warnings(events)[-1] == "Out of memory at step 1. It is made again, one image at a time, with the same result."
    assert losses(events) == pytest.approx(losses(whole), rel=1e-5)
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-5)


def test_a_single_image_that_does_not_fit_ends_the_run_with_what_to_change_and_the_checkpoint_as_it_was(start):
    config = replace(CONFIG, save_every=1, batch_size=1, execution="sequential")
    with pytest.raises(
        TrainingError, match=r"Out of memory at step 1 .*Try gradient_checkpointing=True, a lower resolution\. What"
    ):
        start(0, config)


def test_gradients_of_a_pass_that_failed_half_way_are_not_in_the_step(start):
    """The first passes of the step went well; what they added to the gradient is thrown away with the step."""
    _, expected, _, _ = start(100, name="whole")
    events, weights, _, _ = start(4, name="late", broken_after=3)
    assert len(warnings(events)) == 1
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-5)


def test_errors_remembered_of_larger_portions_are_not_mixed_with_those_of_smaller_ones(start):
    config = replace(CONFIG, reference_draws=8)
    events, _, rows, _ = start(4, config, memory=True)
    assert len(warnings(events)) == 1
    assert rows.count(4) == 3 * 4 * 2  # the reference is computed in every step


def test_only_what_is_about_memory_is_taken_for_it():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_portions_shrink_to_one_image_and_no_further():
    portions = Portions(replace(CONFIG, batch_size=3))
    assert list(portions.split(range(5))) == [[0, 1, 2], [3, 4]]
    assert [portions.shrink() for _ in range(4)] == ["2 pairs at a time", "1 pair at a time", "one image at a time", ""]
    assert list(portions.split(range(2))) == [[0], [1]] and portions.config.execution == "sequential"


def test_the_report_leaves_out_what_is_done_already(tmp_path):
    assert "Try gradient_checkpointing=True, execution='sequential', batch_size=1" in memory_report(CONFIG, 1, tmp_path)
    done = replace(CONFIG, gradient_checkpointing=True, execution="sequential", batch_size=1)
    assert "Try a lower resolution." in memory_report(done, 1, tmp_path)
