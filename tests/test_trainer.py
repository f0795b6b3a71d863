import contextlib
import math
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dpo.adapters import attach_adapter
from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, Note, ProbeEnd, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.families import load_family
from dpo.pairs import Like, Ranking, split_pairs
from dpo.parallel import Processes
from dpo.remembered import RememberedErrors
from dpo.runs import create_run
from dpo.trainer import TrainingError, item_index, train
from tests.tiny import build_pipeline, make_pairs

CONFIG = TrainConfig(
    beta=20.0, learning_rate=5e-3, max_steps=6, batch_size=4, accumulation=1, lora_rank=2, warmup_steps=0, resolution=16,
    save_every=100, validate_every=2, max_chosen_drift=10.0, keep_best=False,
    validation_share=0.13,  # holds out one of the four prompts of `make_pairs`
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """start(name, config, items) -> (events of a new or continued run, its adapter, the run). Images and cache are shared."""
    pairs = make_pairs(tmp_path / "images")
    runs = {}

    def start(name="run", config=CONFIG, items=pairs):
        family = load_family(build_pipeline())
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=config.ref_model_sync_steps > 0)
        run = runs[name] if name in runs else create_run(tmp_path / "runs", name, config, items)
        runs[name] = run
        data = [
            found
            for side in split_pairs(items, config.validation_share)
            for found in encode_items(side, family, config.resolution, tmp_path / "cache")
            if not isinstance(found, Note)
        ]
        memory = RememberedErrors(tmp_path / "reference", "tiny") if config.reference_draws else None
        return train(config, *data, family, adapter, run, processes=Processes(), memory=memory), adapter, run

    return start


def steps_of(events) -> list[dict]:
    return [comparable(event.metrics) for event in events if isinstance(event, StepEnd)]


def comparable(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name != "memory_bytes"}


def count_forwards(adapter) -> list[int]:
    """Rows of every forward pass from now on."""
    rows = []
    adapter._family.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    return rows


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
    whole_steps = steps_of(events)
    events, _, run = start("parts")
    seen = []
    for event in events:
        if isinstance(event, StepEnd):
            seen.append(comparable(event.metrics))
            if event.step == 3:
                run.request_stop()
    run.clear_stop()
    events, resumed, _ = start("parts")
    events = list(events)
    assert isinstance(events[0], RunStarted) and events[0].step == 3
    seen += steps_of(events)
    assert torch.equal(weights(whole), weights(resumed))
    assert seen == whole_steps


def test_closing_the_generator_checkpoints(start):
    events, adapter, run = start()
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, StepEnd) and event.step == 2:
                break
    assert [path.name for path in run.checkpoints.glob("step-*")] == ["step-000002.pt"]
    assert weights(adapter).abs().sum() > 0


def test_a_stop_within_a_step_throws_away_only_that_step(start):
    config = replace(CONFIG, batch_size=1, accumulation=4, validate_every=0)
    events, adapter, run = start(config=config)
    rows = count_forwards(adapter)
    for event in events:
        if isinstance(event, StepEnd):
            rows.clear()
            adapter._family.denoiser.register_forward_hook(lambda *_: run.request_stop() if len(rows) == 2 else None)
    assert isinstance(event, RunEnded) and (event.reason, event.step) == ("stopped", 1)
    assert run.adapter.exists()
    assert rows == [2, 2]  # of four micro-batches the first: a pass of the reference and one of the policy


@pytest.mark.parametrize(
    "change", [{"batch_size": 2, "accumulation": 2}, {"execution": "sequential"}, {"execution": "policy_concurrent"}]
)
def test_neither_a_halved_batch_nor_the_execution_mode_changes_what_is_learned(start, change):
    events, plain, _ = start("plain", replace(CONFIG, max_steps=3))
    plain_steps = steps_of(events)
    events, changed, _ = start("changed", replace(CONFIG, max_steps=3, **change))
    changed_steps = steps_of(events)
    for one, other in zip(plain_steps, changed_steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)
    torch.testing.assert_close(weights(plain), weights(changed), rtol=1e-2, atol=2e-3)


def test_a_run_on_rankings_and_one_on_likes_learn_what_is_liked(start, tmp_path):
    pairs = make_pairs(tmp_path / "images")
    rankings = [
        Ranking(one.prompt, (one.chosen, other.chosen, one.rejected)) for one, other in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    likes = [Like(pair.prompt, image, image == pair.chosen) for pair in pairs for image in pair.images]
    # The same draw at every visit: with fresh ones, a liked image and a disliked one differ mostly by their noise at first.
    config = replace(CONFIG, max_steps=16, learning_rate=1e-2, beta=100.0, batch_size=12, reference_draws=1)
    for name, items in (("rankdpo", rankings), ("kto", likes)):
        steps = steps_of(start(name, replace(config, loss=name), items)[0])
        margins = [step["rewards/margins"] for step in steps]
        assert margins[-1] > margins[len(margins) // 2] > margins[0] == 0.0, name


def test_a_loss_without_a_reference_makes_no_pass_of_one_but_to_validate(start):
    events, adapter, _ = start(config=replace(CONFIG, loss="mapo", max_steps=4, validate_every=4))
    rows = count_forwards(adapter)
    for event in events:
        if isinstance(event, StepEnd):
            assert "rewards/margins" not in event.metrics
            assert event.step == 1 or rows == [8]
            rows.clear()
        if isinstance(event, ValidationEnd):
            assert "errors/chosen_drift" in event.metrics


def test_remembered_draws_cost_the_reference_pass_only_once_for_this_run_and_all_later(start):
    config = replace(CONFIG, batch_size=8, validation_share=0.0, validate_every=0, reference_draws=2, max_steps=4)
    events, adapter, _ = start("first", config)
    rows, forwards = count_forwards(adapter), []
    for event in events:
        if isinstance(event, StepEnd):
            forwards.append(len(rows))
        if isinstance(event, StepEnd | ProbeEnd):
            rows.clear()
    assert forwards == [1, 2, 1, 1]  # eight pairs are one step: the probe has met draw 0, draw 1 is new, then both return
    events, adapter, _ = start("sweep", replace(config, beta=200.0, learning_rate=1e-3, loss="ipo", seed=5))
    rows = count_forwards(adapter)
    for event in events:
        if isinstance(event, ProbeEnd):
            rows.clear()
    assert rows == [16] * 4


def test_remembered_errors_are_those_that_would_be_computed(start):
    config = replace(CONFIG, batch_size=8, validation_share=0.0, validate_every=0, reference_draws=1, max_steps=3)
    cold = steps_of(start("cold", config)[0])
    warm = steps_of(start("warm", config)[0])
    assert cold == warm


def test_a_moving_reference_brings_the_margin_back_to_zero(start):
    config = replace(CONFIG, ref_model_sync_steps=3, max_steps=5, learning_rate=1e-2, validation_share=0.0, validate_every=0)
    steps = steps_of(start("moving", config)[0])
    assert steps[2]["rewards/margins"] != 0.0
    assert steps[3]["rewards/margins"] == 0.0 and steps[4]["rewards/margins"] != 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.6}, {"ema_decay": 0.9, "keep_best": True, "patience": 50},
        {"adaptive_beta": 0.5, "scheduler": "cosine", "warmup_steps": 3}, {"reference_draws": 2},
        {"safeguard_mu": 0.9, "sft_weight": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_resumed_run_is_an_uninterrupted_one_whatever_else_it_keeps_in_mind(start, change):
    config = replace(CONFIG, **change)
    events, whole, whole_run = start("whole", config)
    whole_steps = steps_of(events)
    events, _, run = start("parts", config)
    seen = []
    for event in events:
        if isinstance(event, StepEnd):
            seen.append(comparable(event.metrics))
            if event.step == 3:
                run.request_stop()
    run.clear_stop()
    events, resumed, _ = start("parts", config)
    seen += steps_of(events)
    assert seen == whole_steps
    assert torch.equal(weights(whole), weights(resumed))
    exported, whole_exported = load_file(run.adapter), load_file(whole_run.adapter)
    assert all(torch.equal(tensor, whole_exported[name]) for name, tensor in exported.items())


def test_every_epoch_visits_every_item_once_in_its_own_order():
    first = [item_index(10, 3, number) for number in range(10)]
    second = [item_index(10, 3, number) for number in range(10, 20)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != [item_index(10, 4, number) for number in range(10)]


def test_metrics_are_of_the_whole_step_not_its_last_micro_batch(start):
    config = replace(CONFIG, batch_size=1, accumulation=4, max_steps=2, validate_every=0)
    coarse = [event for event in start("coarse", replace(config, batch_size=4, accumulation=1))[0] if isinstance(event, StepEnd)]
    fine = [event for event in start("fine", config)[0] if isinstance(event, StepEnd)]
    assert fine[1].metrics["rewards/margins"] == pytest.approx(coarse[1].metrics["rewards/margins"], rel=1e-3)


def test_a_loss_that_is_not_finite_names_step_values_and_remedy_and_leaves_the_adapter_alone(start):
    events, adapter, _ = start(config=replace(CONFIG, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"became (nan|inf) at step 2 \(beta=20, learning_rate=1e\+30\). Lower the learning"):
        list(events)
    assert weights(adapter).isfinite().all()


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_reaches_adapter_or_checkpoint(start):
    """The loss of that step is fine: without this, the next one is nan, and so is what was saved in between."""
    events, adapter, run = start(config=replace(CONFIG, save_every=1, validate_every=0))
    with pytest.raises(TrainingError, match=r"The gradient became nan at step 2 \(beta=20, learning_rate=0.005\). Lower the"):
        for event in events:
            if isinstance(event, StepEnd):
                adapter.parameters()[0].register_hook(lambda gradient: gradient * math.nan)
    assert weights(adapter).isfinite().all()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001.pt"]


@pytest.mark.parametrize("limit", [1e-3, 0.0])
def test_the_optimizer_gets_no_longer_gradient_than_the_clip_and_its_length_before_is_recorded(start, limit, monkeypatch):
    lengths, step = [], torch.optim.AdamW.step

    def spy(optimizer, *arguments):
        (group,) = optimizer.param_groups
        lengths.append(torch.cat([parameter.grad.flatten() for parameter in group["params"]]).norm().item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    recorded = [metrics["grad_norm"] for metrics in steps_of(start(config=replace(CONFIG, max_grad_norm=limit, max_steps=3))[0])]
    assert min(recorded) > 2e-3
    assert lengths[1:] == pytest.approx([limit] * 3 if limit else recorded, rel=1e-3)  # the first one is the probe's


def test_a_run_that_breaks_the_images_is_stopped_with_that_reason_and_the_last_good_adapter(start):
    config = replace(CONFIG, learning_rate=0.1, max_steps=200, beta=1.0, max_chosen_drift=0.05, save_every=2, validate_every=0)
    events, _, _ = start(config=config)
    end = list(events)[-1]
    assert end.reason == "damaged" and end.step < 200
    assert "above the reference's, over the limit of 0.05" in end.message
    assert "Lower the learning rate (0.1) or raise beta (1)" in end.message


def test_only_the_newest_checkpoints_are_kept_and_the_last_step_is_one(start):
    events, _, run = start(config=replace(CONFIG, save_every=1, keep_checkpoints=2))
    saved = [event.step for event in events if isinstance(event, CheckpointSaved) and not event.is_best]
    assert saved == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in run.checkpoints.glob("step-*")) == ["step-000005.pt", "step-000006.pt"]


def test_the_best_adapter_is_exported_and_its_step_is_named(start):
    """At a rate at which validation gets worse, an early step is the best, and the file holds that step's weights."""
    config = replace(CONFIG, keep_best=True, learning_rate=0.3, max_steps=8, validate_every=1, beta=1.0)
    events, adapter, _ = start(config=config)
    best, by_step = None, {}
    for event in events:
        if isinstance(event, StepEnd):
            by_step[event.step] = weights(adapter).clone()
        if isinstance(event, CheckpointSaved) and event.is_best:
            best = event.step
    assert best < 8 and event.message.endswith(f"The adapter is that of step {best}, the best validation.")
    assert torch.equal(weights(adapter), by_step[best])


def test_patience_ends_a_run_that_does_not_get_better(start):
    config = replace(CONFIG, learning_rate=0.0, max_steps=50, validate_every=1, patience=3)
    end = list(start(config=config)[0])[-1]
    assert (end.step, end.reason) == (4, "finished")  # the first validation is better than nothing, the next three are no better
    assert end.message.startswith("Stopped early after step 4: no better value of")


def test_a_paused_run_waits_with_a_checkpoint_and_goes_on_to_the_same_end(start):
    whole = steps_of(start("whole")[0])
    events, _, run = start("paused")
    seen, notes = [], []
    for event in events:
        if isinstance(event, StepEnd):
            seen.append(comparable(event.metrics))
            if event.step == 2:
                run.request_pause()
        if isinstance(event, Note) and event.message.startswith("Paused after step 2"):
            assert (run.checkpoints / "step-000002.pt").exists()
            threading.Timer(0.5, run.clear_pause).start()
            paused = time.monotonic()
        if isinstance(event, Note) and event.message.startswith("Going on"):
            notes.append(time.monotonic() - paused)
    assert len(notes) == 1 and notes[0] > 0.4
    assert seen == whole


def test_a_stop_ends_a_paused_run(start):
    events, _, run = start()
    run.request_pause()
    for event in events:
        if isinstance(event, Note) and event.message.startswith("Paused"):
            run.request_stop()
    assert (event.reason, event.step) == ("stopped", 1)


def test_a_probe_before_the_first_step_leaves_no_trace_in_the_run(start):
    """The run's first margin is exactly zero after it, and a resumed run is not probed again."""
    events, adapter, run = start()
    seen = []
    for event in events:
        seen.append(type(event))
        if isinstance(event, ProbeEnd):
            assert all(not parameter.grad.any() for parameter in adapter.parameters() if parameter.grad is not None)
        if isinstance(event, StepEnd) and event.step == 1:
            assert event.metrics["rewards/margins"] == 0.0
            run.request_stop()
    assert seen.index(ProbeEnd) < seen.index(StepEnd)
    run.clear_stop()
    assert ProbeEnd not in [type(event) for event in start()[0]]


def test_what_a_step_reports_is_complete(start):
    first = next(event for event in start()[0] if isinstance(event, StepEnd))
    assert first.metrics.keys() >= {
        "loss", "loss/preference", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
        "logratios/chosen", "logratios/rejected", "errors/policy", "errors/reference", "errors/chosen_drift", "grad_norm",
        "learning_rate", "beta", "memory_bytes",
    }  # fmt: skip
    assert any(name.startswith("margins/quartile_") for name in first.metrics)


def test_validation_is_the_same_whenever_it_is_asked_and_never_changes_training(start):
    often = [
        event for event in start("often", replace(CONFIG, validate_every=1))[0] if isinstance(event, (StepEnd, ValidationEnd))
    ]
    rarely = [
        event for event in start("rarely", replace(CONFIG, validate_every=3))[0] if isinstance(event, (StepEnd, ValidationEnd))
    ]
    steps = [steps_of(events) for events in (often, rarely)]
    assert steps[0] == steps[1]
    by_step = [{event.step: event.metrics for event in events if isinstance(event, ValidationEnd)} for events in (often, rarely)]
    assert by_step[0][3] == by_step[1][3] and by_step[0][6] == by_step[1][6]
