import contextlib
from dataclasses import replace

import pytest
import torch

from dpo.cache import encode_pairs
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, Note, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.pairs import Pair, split_pairs
from dpo.runs import RunError, create_run
from dpo.trainer import TrainingError, pair_index, train
from dpo.training import execute, keep_reference
from tests.test_adapters import build_learned
from tests.test_scoring import build
from tests.tiny import build_pipeline, make_pairs

CONFIG = TrainConfig(
    beta=20.0, learning_rate=5e-3, max_steps=6, batch_size=4, accumulation=1, lora_rank=2, warmup_steps=0, resolution=16,
    save_every=100, validate_every=2, validation_share=0.25, max_chosen_drift=10.0,
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """start(name, config) -> (events of a new or continued run, its adapter, the run). Pairs and cache are shared."""
    pairs = make_pairs(tmp_path / "images")
    runs = {}

    def start(name="run", config=CONFIG, pairs=pairs):
        family, adapter = build(torch.float32, moved=False)
        run = runs[name] if name in runs else create_run(tmp_path / "runs", name, config, pairs)
        runs[name] = run
        data = []
        for part in split_pairs(pairs, config.validation_share, config.seed):
            data += [
                item for item in encode_pairs(part, family, config.resolution, tmp_path / "cache") if not isinstance(item, Note)
            ]
        return train(config, *data, family, adapter, run), adapter, run

    return start


def weights(adapter) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in adapter.parameters()])


def test_the_first_step_of_a_fresh_adapter_has_margin_zero_and_loss_log_2(start):
    events, _, _ = start()
    first = next(event for event in events if isinstance(event, StepEnd))
    assert first.metrics["rewards/margins"] == 0.0
    assert first.metrics["rewards/accuracies"] == 0.0  # ties are not wins
    assert first.metrics["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)


def test_training_learns_to_prefer_the_chosen_images_on_prompts_it_has_not_seen(start):
    events, _, run = start(config=replace(CONFIG, max_steps=20, learning_rate=1e-2, beta=100.0))
    events = list(events)
    validations = [event for event in events if isinstance(event, ValidationEnd)]
    assert validations[-1].metrics["rewards/accuracies"] == 1.0
    assert validations[-1].metrics["loss"] < validations[0].metrics["loss"] < 0.6931
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "finished"
    assert run.adapter.exists()


def test_a_rewarded_image_is_one_whose_error_fell_whichever_of_the_two_was_chosen(start, tmp_path):
    """Self-consistent metrics cannot see a sign error, but the drift is measured without the log-ratio: error over error."""
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in make_pairs(tmp_path / "images")]
    config = replace(CONFIG, max_steps=20, learning_rate=2e-2, beta=100.0, validate_every=0, validation_share=0.0)
    for name, arguments in (("bright", (config,)), ("dark", (config, swapped))):
        last = [event for event in start(name, *arguments)[0] if isinstance(event, StepEnd)][-1].metrics
        assert last["rewards/margins"] > 0, name
        assert last["rewards/chosen"] == pytest.approx(-100.0 * last["errors/chosen_drift"], rel=1e-4), name


def test_a_stopped_and_resumed_run_ends_bitwise_equal_to_an_uninterrupted_one(start):
    events, whole, _ = start("whole")
    whole_steps = [event.metrics for event in events if isinstance(event, StepEnd)]
    events, _, run = start("parts")
    seen = []
    for event in events:
        if isinstance(event, StepEnd):
            seen.append(event.metrics)
            if event.step == 3:
                run.request_stop()
    run.clear_stop()
    events, resumed, _ = start("parts")
    events = list(events)
    assert isinstance(events[0], RunStarted) and events[0].step == 3
    seen += [event.metrics for event in events if isinstance(event, StepEnd)]
    assert torch.equal(weights(whole), weights(resumed))
    assert seen == whole_steps


def test_closing_the_generator_checkpoints(start):
    events, adapter, run = start()
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, StepEnd) and event.step == 2:
                break
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000002.pt"]
    assert weights(adapter).abs().sum() > 0


def test_a_stop_within_a_step_throws_away_only_that_step(start):
    config = replace(CONFIG, batch_size=1, accumulation=4, validate_every=0)
    events, adapter, run = start(config=config)
    forwards = 0

    def count(*_):
        nonlocal forwards
        forwards += 1
        if forwards == 2 * 4 + 2:  # two passes a micro-batch: the first of step 2 is done
            run.request_stop()

    adapter._family.denoiser.register_forward_hook(count)
    events = list(events)
    assert isinstance(events[-1], RunEnded) and (events[-1].reason, events[-1].step) == ("stopped", 1)
    assert run.adapter.exists()
    assert forwards == 10


@pytest.mark.parametrize(
    "change", [{"batch_size": 2, "accumulation": 2}, {"execution": "sequential"}, {"execution": "policy_concurrent"}]
)
def test_neither_a_halved_batch_nor_the_execution_mode_changes_what_is_learned(start, change):
    events, plain, _ = start("plain", replace(CONFIG, max_steps=3))
    plain_steps = [event.metrics for event in events if isinstance(event, StepEnd)]
    events, changed, _ = start("changed", replace(CONFIG, max_steps=3, **change))
    changed_steps = [event.metrics for event in events if isinstance(event, StepEnd)]
    for one, other in zip(plain_steps, changed_steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)
    torch.testing.assert_close(weights(plain), weights(changed), rtol=1e-2, atol=2e-3)


def test_every_epoch_visits_every_pair_once_in_its_own_order():
    first = [pair_index(10, 3, number) for number in range(10)]
    second = [pair_index(10, 3, number) for number in range(10, 20)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != [pair_index(10, 4, number) for number in range(10)]


def test_metrics_are_of_the_whole_step_not_its_last_micro_batch(start):
    config = replace(CONFIG, batch_size=1, accumulation=4, max_steps=2, validate_every=0)
    coarse = [event for event in start("coarse", replace(config, batch_size=4, accumulation=1))[0] if isinstance(event, StepEnd)]
    fine = [event for event in start("fine", config)[0] if isinstance(event, StepEnd)]
    assert fine[1].metrics["rewards/margins"] == pytest.approx(coarse[1].metrics["rewards/margins"], rel=1e-3)


def test_a_loss_that_is_not_finite_names_step_values_and_remedy_and_leaves_the_adapter_alone(start):
    events, adapter, _ = start(config=replace(CONFIG, learning_rate=1e30))
    with pytest.raises(
        TrainingError, match=r"became (nan|inf) at step 2 \(beta=20.0, learning_rate=1e\+30\). Lower the learning"
    ):
        list(events)
    assert weights(adapter).isfinite().all()


def test_a_run_that_breaks_the_images_is_stopped_with_that_reason_and_the_last_good_adapter(start):
    config = replace(CONFIG, learning_rate=1.0, max_steps=200, beta=1.0, max_chosen_drift=0.05, save_every=2, validate_every=0)
    events, _, _ = start(config=config)
    end = list(events)[-1]
    assert end.reason == "damaged" and end.step < 200
    assert "above the reference's, over the limit of 0.05" in end.message
    assert "Lower the learning rate (1) or raise beta (1)" in end.message


def test_only_three_checkpoints_are_kept_and_the_last_step_is_one(start):
    events, _, run = start(config=replace(CONFIG, save_every=1))
    saved = [event.step for event in events if isinstance(event, CheckpointSaved)]
    assert saved == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [f"step-{step:06d}.pt" for step in (4, 5, 6)]


def test_validation_is_the_same_whenever_it_is_asked_and_never_changes_training(start):
    often = [
        event for event in start("often", replace(CONFIG, validate_every=1))[0] if isinstance(event, (StepEnd, ValidationEnd))
    ]
    rarely = [
        event for event in start("rarely", replace(CONFIG, validate_every=3))[0] if isinstance(event, (StepEnd, ValidationEnd))
    ]
    steps = [[event.metrics for event in events if isinstance(event, StepEnd)] for events in (often, rarely)]
    assert steps[0] == steps[1]
    by_step = [{event.step: event.metrics for event in events if isinstance(event, ValidationEnd)} for events in (often, rarely)]
    assert by_step[0][3] == by_step[1][3] and by_step[0][6] == by_step[1][6]


def test_no_prompt_is_on_both_sides_of_the_split_however_it_is_spaced():
    pairs = [
        Pair(prompt, str(i), str(i)) for i, prompt in enumerate(["a cat", " a  cat, ", "a dog", "a hat", "a bat", "a mat"] * 3)
    ]
    training, validation = split_pairs(pairs, 0.4, seed=1)
    assert len(training) + len(validation) == 18
    assert {" ".join(p.prompt.strip(", ").split()) for p in training}.isdisjoint(
        " ".join(p.prompt.strip(", ").split()) for p in validation
    )
    assert len({" ".join(p.prompt.strip(", ").split()) for p in validation}) == 2
    assert split_pairs(pairs, 0.4, seed=1) == (training, validation)
    assert split_pairs(pairs, 0.0, seed=1) == (pairs, [])


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
