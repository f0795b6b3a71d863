import contextlib
from dataclasses import replace

import pytest
import torch

from dpo.adapters import attach_adapter
from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.draws import Draws, fixed_draw
from dpo.events import Note, ProbeEnd
from dpo.families import load_family
from dpo.pairs import Like
from dpo.probe import ITEMS, TARGET, probe, probe_config
from dpo.scoring import Reference, errors
from tests.tiny import build_pipeline, make_pairs

CONFIG = TrainConfig(beta=50.0, learning_rate=1e-3, lora_rank=2, resolution=16, batch_size=2, accumulation=2)


@pytest.fixture
def make(tmp_path):
    """make(config, items) -> (the generator of the probe, the adapter, the family)."""

    def make(config=CONFIG, items=None):
        family = load_family(build_pipeline())
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
        items = make_pairs(tmp_path / "images") if items is None else items
        *_, data = encode_items(items, family, 16, tmp_path / "cache")
        reference = Reference(family, adapter, config.reference_mode)
        return probe(config, data, family, adapter, reference, Draws(config, family)), adapter, family

    return make


@pytest.fixture
def measured(make):
    """measured(config, items) -> the metrics of the probe."""

    def measured(config=CONFIG, items=None):
        *_, end = make(config, items)[0]
        assert isinstance(end, ProbeEnd) and end.step == 0
        return end.metrics

    return measured


def weights(adapter) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in adapter.parameters()]).clone()


def test_the_adapter_is_bitwise_what_it_was_and_a_step_was_made_meanwhile(make):
    events, adapter, family = make()
    before, seen = weights(adapter), []
    family.denoiser.register_forward_pre_hook(lambda *_: seen.append(weights(adapter)))
    events = list(events)
    assert torch.equal(weights(adapter), before)
    assert (seen[-1] - before).abs().max() == pytest.approx(CONFIG.learning_rate, rel=0.05)  # Adam's first step is the rate
    assert all(parameter.grad is None for parameter in adapter.parameters())
    assert isinstance(events[0], Note)


def test_a_probe_that_breaks_off_leaves_the_adapter_too(make):
    events, adapter, family = make()
    before, calls = weights(adapter), []

    def fail(*_):
        calls.append(0)
        if len(calls) == 6:  # two passes for each of two micro-batches of the step, then the look
            assert not torch.equal(weights(adapter), before)
            raise RuntimeError("out of memory")

    family.denoiser.register_forward_pre_hook(fail)
    with contextlib.closing(events), pytest.raises(RuntimeError, match="out of memory"):
        list(events)
    assert torch.equal(weights(adapter), before)
    assert all(parameter.grad is None for parameter in adapter.parameters())


def test_two_probes_of_the_same_start_are_equal(measured):
    assert measured() == measured()


def test_the_metrics_are_those_the_page_shows_and_agree_with_each_other(measured):
    found = measured()
    assert found.keys() == {
        "probe/margin_p50", "probe/margin_p90", "probe/saturated", "probe/logratio_std", "probe/suggested_beta",
        "probe/base_separates",
    }  # fmt: skip
    assert 0 < found["probe/margin_p50"] < found["probe/margin_p90"]
    assert found["probe/logratio_std"] == pytest.approx(1.4826 * found["probe/margin_p50"] / CONFIG.beta)
    unlimited = measured(replace(CONFIG, max_chosen_drift=1e6))
    assert unlimited["probe/suggested_beta"] == pytest.approx(TARGET * CONFIG.beta / found["probe/margin_p50"], rel=0.05)


def test_the_suggestion_does_not_depend_on_the_beta_it_is_asked_about(measured):
    """Adam's step has the same size whatever beta multiplies the gradient by; the clip is off so that nothing else does."""
    low, high = (
        measured(replace(CONFIG, beta=beta, max_grad_norm=0.0, adam_epsilon=1e-30, max_chosen_drift=1e6)) for beta in (5.0, 500.0)
    )
    assert low["probe/suggested_beta"] == pytest.approx(high["probe/suggested_beta"], rel=0.15)
    assert high["probe/margin_p50"] == pytest.approx(100 * low["probe/margin_p50"], rel=0.15)


def test_margins_past_four_count_as_saturated(measured):
    assert measured()["probe/saturated"] == 0.0
    assert measured(replace(CONFIG, beta=1e9))["probe/saturated"] == 1.0


def test_no_beta_is_suggested_under_which_a_pair_pushes_past_the_damage_limit(measured):
    """4 / 0.05 = 80: at a lower beta a pair still pushes when its errors are the damage limit apart."""
    assert measured(replace(CONFIG, learning_rate=1.0))["probe/suggested_beta"] == 80.0


def test_the_base_separates_pairs_by_its_own_error_whichever_is_chosen(make, measured, tmp_path):
    pairs = make_pairs(tmp_path / "images")
    share = measured(items=pairs)["probe/base_separates"]
    swapped = measured(items=[replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs])
    assert swapped["probe/base_separates"] == pytest.approx(1 - share)

    _, _, family = make(items=pairs)  # the sign by itself: with other draws, and without the probe's code
    *_, data = encode_items(pairs, family, 16, tmp_path / "cache")
    (batch,) = data.batches(range(8), range(8), [0] * 8)
    with torch.no_grad():
        found = torch.stack([errors(family, fixed_draw(family, batch, draw, 8, 0, CONFIG)) for draw in range(8)])
    chosen_is_better = (found[:, 0::2] < found[:, 1::2]).float().mean().item()
    assert abs(chosen_is_better - 0.5) > 0.2 and (share > 0.5) == (chosen_is_better > 0.5)


def test_at_most_32_items_are_looked_at_and_not_those_of_the_step(make, tmp_path):
    events, _, family = make(items=make_pairs(tmp_path / "many", prompts=60, per_prompt=1))
    rows = []
    family.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    list(events)
    assert sum(rows) == 2 * 2 * (CONFIG.step_size + ITEMS)  # policy and reference, two images a pair


def test_losses_that_know_no_beta_and_optimizers_that_start_slowly_get_no_suggestion(measured, tmp_path):
    assert measured(replace(CONFIG, loss="sft")).keys() == {"probe/base_separates"}
    assert measured(replace(CONFIG, loss="mapo"))["probe/suggested_beta"] > 0  # measured against the base
    likes = [Like(pair.prompt, pair.chosen, True) for pair in make_pairs(tmp_path / "images")]
    found = measured(replace(CONFIG, loss="kto"), likes)
    assert "probe/base_separates" not in found and found["probe/suggested_beta"] > 0


def test_a_probe_without_a_run_measures_what_the_run_would(tmp_path):
    build_pipeline().save_pretrained(tmp_path / "model")
    config = replace(CONFIG, model=str(tmp_path / "model"), validation_share=0.3)
    events = list(probe_config(config, make_pairs(tmp_path / "images", prompts=8), tmp_path / "cache"))
    assert any(isinstance(event, Note) and event.total for event in events)  # it says what it prepares
    assert events[-1].metrics["probe/suggested_beta"] > 0
