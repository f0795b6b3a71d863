from dataclasses import replace

import pytest
import torch

from dpo.adapters import POLICY, attach_adapter
from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.draws import fixed_draw
from dpo.families import load_family
from dpo.pairs import Like, Ranking
from dpo.scoring import Reference, errors
from dpo.validation import FEWEST_DRAWS, MOST_DRAWS, Validation
from tests.tiny import build_pipeline, make_pairs

CONFIG = TrainConfig(beta=50.0, lora_rank=2, resolution=16, batch_size=2)


def move(family, amount: float) -> None:
    """As if the policy had learned something."""
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if "lora_B" in name and f".{POLICY}." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=amount)


@pytest.fixture
def make(tmp_path):
    """make(config, items, moved) -> (Validation, family, adapter, its data); the policy moves after the reference is measured."""

    def make(config=CONFIG, items=None, moved=0.3):
        family = load_family(build_pipeline())
        moving = bool(config.ref_model_sync_steps)
        adapter = attach_adapter(family, config, starting=None, reference=None, moving=moving)
        items = make_pairs(tmp_path / "images") if items is None else items
        *_, data = encode_items(items, family, 16, tmp_path / "cache")
        validation = Validation(config, data, family, adapter, Reference(family, adapter, config.reference_mode))
        move(family, moved)
        return validation, family, adapter, data

    return make


def test_two_validations_of_the_same_weights_are_equal(make):
    validation, family, _, _ = make()
    first = validation.measure()
    move(family, 0.1)
    assert validation.measure() != first
    move(family, 0.3)
    assert validation.measure() == first
    assert make()[0].measure() == first  # another run of this seed


def test_a_fresh_adapter_has_margin_zero_exactly_and_the_loss_log_2_in_every_execution_mode(make):
    for execution in ("full_concurrent", "policy_concurrent", "sequential"):
        metrics = make(replace(CONFIG, execution=execution), moved=0.0)[0].measure()
        assert metrics["rewards/margins"] == metrics["errors/chosen_drift"] == metrics["rewards/accuracies"] == 0.0
        assert metrics["loss"] == metrics["loss/preference"] == pytest.approx(0.6931471805599453, abs=1e-6)


def test_the_metrics_are_the_means_over_items_and_draws_worked_out_one_by_one(make):
    """In batches of one, by hand; the file's order of pairs and draws does not matter."""
    validation, family, adapter, data = make()
    chosen, rejected = [], []
    draws = MOST_DRAWS  # 8 pairs are few
    for index in range(len(data)):
        (batch,) = data.batches([index], [index], [0])
        for draw in range(draws):
            noised = fixed_draw(family, batch, draw, draws, CONFIG.seed, CONFIG)
            with torch.no_grad():
                policy = errors(family, noised)
                with adapter.as_reference():
                    ratios = errors(family, noised) - policy
            chosen.append(ratios[0].item())
            rejected.append(ratios[1].item())
    margins = [CONFIG.beta * (better - worse) for better, worse in zip(chosen, rejected, strict=True)]
    found = validation.measure()
    assert found["rewards/margins"] == pytest.approx(sum(margins) / len(margins), rel=1e-3)
    assert found["rewards/accuracies"] == sum(margin > 0 for margin in margins) / len(margins)
    assert found["errors/chosen_drift"] == pytest.approx(-sum(chosen) / len(chosen), rel=1e-3)
    loss = torch.nn.functional.softplus(-torch.tensor(margins)).mean().item()
    assert found["loss"] == pytest.approx(loss, rel=1e-3)


def test_quartiles_of_the_schedule_average_to_the_margin_for_the_draws_are_stratified(make):
    found = make()[0].measure()
    quartiles = [found[f"margins/quartile_{quarter}"] for quarter in range(1, 5)]
    assert sum(quartiles) / 4 == pytest.approx(found["rewards/margins"], rel=1e-5)
    assert len(set(quartiles)) == 4


def test_intervals_hold_their_means_and_are_over_prompts(make, tmp_path):
    found = make()[0].measure()
    for name in ("rewards/accuracies", "rewards/margins", "errors/chosen_drift"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
        assert found[f"{name}_low"] < found[f"{name}_high"]
    one_prompt = [
        replace(pair, prompt="prompt 0" if number % 2 else "Prompt  0")
        for number, pair in enumerate(make_pairs(tmp_path / "images"))
    ]
    found = make(items=one_prompt)[0].measure()
    assert (found["rewards/accuracies_low"], found["rewards/accuracies_high"]) == (0.0, 1.0)
    assert "rewards/margins_low" not in found and "errors/chosen_drift_low" not in found


def test_few_items_get_many_draws_and_many_few(make, tmp_path):
    counts = {}
    for number in (4, 40, 80):
        validation, family, _, _ = make(items=make_pairs(tmp_path / f"{number}", prompts=number, per_prompt=1))
        rows = []
        family.denoiser.register_forward_pre_hook(lambda module, args, rows=rows: rows.append(len(args[0])))
        validation.measure()
        counts[number] = sum(rows) // 2 // number  # two images a pair; nothing but the policy is run
    assert counts == {4: MOST_DRAWS, 40: 6, 80: FEWEST_DRAWS}


def test_sequential_validation_holds_one_image_at_a_time(make):
    validation, family, _, _ = make(replace(CONFIG, execution="sequential"))
    rows = set()
    family.denoiser.register_forward_pre_hook(lambda module, args: rows.add(len(args[0])))
    validation.measure()
    assert rows == {1}


@pytest.mark.parametrize("loss", ["sft", "mapo"])
def test_a_loss_without_a_reference_is_measured_against_the_base(make, loss):
    with_reference, without = make()[0].measure(), make(replace(CONFIG, loss=loss))[0].measure()
    for name in ("rewards/margins", "rewards/accuracies", "errors/chosen_drift"):
        assert without[name] == with_reference[name], name
    if loss == "sft":  # its loss is the error of the chosen images
        assert 0.1 < without["loss"] < 10 and without["loss"] != with_reference["loss"]


def test_a_reference_that_moves_is_not_what_validation_measures_against(make):
    config = replace(CONFIG, ref_model_sync_steps=2)
    validation, _, adapter, _ = make(config)
    before = validation.measure()
    adapter.sync_reference(1.0)
    assert before["errors/chosen_drift"] != 0.0
    assert validation.measure() == before


def test_adaptive_beta_changes_nothing_here(make):
    assert make(replace(CONFIG, adaptive_beta=0.5))[0].measure() == make()[0].measure()


def test_rankings_are_measured_by_all_their_comparisons(make, tmp_path):
    pairs = make_pairs(tmp_path / "images")
    images = [(pairs[at].chosen, pairs[at].rejected, pairs[at + 1].rejected) for at in (0, 2, 4, 6)]
    rankings = [Ranking(pairs[2 * at].prompt, paths) for at, paths in enumerate(images)]
    found = make(replace(CONFIG, loss="rankdpo"), rankings)[0].measure()
    assert 0.0 <= found["rewards/accuracies_low"] <= found["rewards/accuracies"] <= 1.0
    same = make(replace(CONFIG, loss="rankdpo"), rankings, moved=0.0)[0].measure()
    assert same["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)  # the weights of a ranking sum to 1


def test_likes_are_measured_by_the_sign_of_their_reward(make, tmp_path):
    pairs = make_pairs(tmp_path / "images")
    likes = [Like(pair.prompt, pair.chosen, True) for pair in pairs] + [Like(pair.prompt, pair.rejected, False) for pair in pairs]
    config = replace(CONFIG, loss="kto")
    found = make(config, likes)[0].measure()
    wanted = (found["rewards/chosen"] - found["rewards/rejected"]) / 2
    assert found["rewards/margins"] == pytest.approx(wanted, rel=1e-5)
    assert found["errors/chosen_drift"] == pytest.approx(-found["rewards/chosen"] / CONFIG.beta, rel=1e-5)
    assert make(config, likes, moved=0.0)[0].measure()["loss"] == pytest.approx(0.5, abs=1e-6)
    only_bad = make(config, likes[8:])[0].measure()  # nothing was chosen, so nothing is known of chosen images
    assert "errors/chosen_drift" not in only_bad and "rewards/accuracies" in only_bad


def test_validation_leaves_the_policy_and_its_gradients_alone(make):
    validation, _, adapter, _ = make()
    before = adapter.copy()
    validation.measure()
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapter.state_dict().items())
    assert all(parameter.grad is None for parameter in adapter.parameters())
