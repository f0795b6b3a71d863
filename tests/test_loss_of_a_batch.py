"""From the errors of a batch to its loss, its safeguard and its metrics. Evidence: published end-to-end values, values by hand,
and laws. The losses one by one: tests/test_losses.py."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dpo.config import TrainConfig
from dpo.losses import (
    Comparisons,
    Labels,
    Recipe,
    by_quartile,
    kto,
    make_recipe,
    preference_losses,
    ranking_weights,
    reward_metrics,
    safeguard_scale,
)
from dpo.menu import LOSSES

VECTORS = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())["end_to_end"]
F64 = torch.float64
OF_PAIRS = [name for name, info in LOSSES.items() if info.data == "pairs"]
NOTHING = Labels(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=F64))
NO_PAIRS = Comparisons(*(torch.zeros(0, dtype=torch.long),) * 2, *(torch.zeros(0, dtype=F64),) * 2)


def pairs(count: int, smoothing: float = 0.0) -> Comparisons:
    """Rows are chosen 0, rejected 0, chosen 1, rejected 1, ..."""
    rows = torch.arange(2 * count).reshape(count, 2)
    return Comparisons(rows[:, 0], rows[:, 1], torch.ones(count, dtype=F64), torch.full((count,), smoothing, dtype=F64))


def recipe(terms="sigmoid", *, beta=10.0, label_smoothing=0.0, sft_weight=0.0, **more) -> Recipe:
    if terms == "robust" and not label_smoothing:
        label_smoothing = 0.1
    config = TrainConfig(loss=terms, beta=beta, label_smoothing=label_smoothing, sft_weight=sft_weight)
    return make_recipe(config, **more)


def loss(policy, reference, made=None, *, comparisons=None, **more) -> torch.Tensor:
    """(M,) of pairs."""
    policy, reference = torch.as_tensor(policy, dtype=F64), None if reference is None else torch.as_tensor(reference, dtype=F64)
    comparisons = comparisons or pairs(len(policy) // 2)
    return preference_losses(policy, reference, comparisons, NOTHING, made or recipe(**more)).total


def likes(*liked: bool) -> Labels:
    return Labels(torch.arange(len(liked)), torch.tensor(liked), torch.ones(len(liked), dtype=F64))


# ------------------------------------------------------------------------------------------------ from errors to the loss


@pytest.mark.parametrize(
    "named, terms, more",
    [
        ("sigmoid_TRL_OneTrainer_diffusersLoRA", "sigmoid", {}),
        ("cdpo_0p1", "sigmoid", {"label_smoothing": 0.1}),
        ("ipo_norm", "ipo", {}),
        ("sft", "sft", {}),
        ("rpo_alpha_0p25", "sigmoid", {"sft_weight": 0.25}),
        ("mpo_0p8_sigmoid_0p2_bco_1_sft", "sigmoid 0.8, bco_pair 0.2, sft 1", {}),
    ],
)
def test_whole_loss_equals_the_end_to_end_vectors(named, terms, more):
    """From mean squared errors to the loss, so that a sign or a scale anywhere between shows."""
    for vector in VECTORS:
        policy = [vector["mse_policy_w"], vector["mse_policy_l"]]
        reference = [vector["mse_ref_w"], vector["mse_ref_l"]]
        found = loss(policy, reference, terms=terms, beta=vector["beta"], **more).item()
        assert found == pytest.approx(vector[named], rel=1e-6, abs=1e-6)


def test_their_halved_beta_is_ours_at_half():
    """Salesforce's script multiplies by 0.5 * beta: its 5000 must be our 2500."""
    for vector in VECTORS:
        policy = [vector["mse_policy_w"], vector["mse_policy_l"]]
        reference = [vector["mse_ref_w"], vector["mse_ref_l"]]
        halved = loss(policy, reference, beta=vector["beta"] / 2).item()
        assert halved == pytest.approx(vector["sigmoid_Salesforce_half_beta"], abs=1e-6)


def test_lowering_the_chosen_error_lowers_the_loss_and_lowering_the_rejected_error_raises_it():
    start = loss([0.2, 0.2], [0.2, 0.2]).item()
    assert loss([0.1, 0.2], [0.2, 0.2]).item() < start < loss([0.2, 0.1], [0.2, 0.2]).item()


@pytest.mark.parametrize("name", OF_PAIRS)
def test_loss_of_two_pairs_is_the_mean_of_the_losses_of_each(name):
    """Taking the mean of the log-ratios first would hide that one pair is right and one is wrong."""
    both = loss([0.1, 0.4, 0.5, 0.2], [0.3] * 4, terms=name)
    parts = torch.cat([loss([0.1, 0.4], [0.3] * 2, terms=name), loss([0.5, 0.2], [0.3] * 2, terms=name)])
    torch.testing.assert_close(both, parts)
    assert both[0] != both[1]


def test_terms_add_up_with_their_weights():
    parts = [loss([0.1, 0.4], [0.3, 0.2], terms=name).item() for name in ("sigmoid", "ipo")]
    mixed = loss([0.1, 0.4], [0.3, 0.2], terms="sigmoid 0.75, ipo 2").item()
    assert mixed == pytest.approx(0.75 * parts[0] + 2 * parts[1])


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_loss_without_reference_is_computed_without_one_and_others_need_it(name):
    if LOSSES[name].needs_reference:
        with pytest.raises(TypeError):
            loss([0.1, 0.4], None, terms=name)
    else:
        assert loss([0.1, 0.4], None, terms=name).item() == loss([0.1, 0.4], [0.9, 0.7], terms=name).item()


def test_supervised_mix_adds_the_chosen_error_alone_and_is_no_part_of_the_preference_term():
    """0.5 times the chosen error of 0.1 is 0.05; the rejected error of 0.4 does not enter."""
    policy, reference = torch.tensor([0.1, 0.4], dtype=F64), torch.tensor([0.3, 0.3], dtype=F64)
    found = preference_losses(policy, reference, pairs(1), NOTHING, recipe(sft_weight=0.5))
    assert (found.total - found.preference).item() == pytest.approx(0.05)
    assert found.preference.item() == loss([0.1, 0.4], [0.3, 0.3]).item()


def test_sft_among_several_losses_is_the_supervised_mix_and_alone_it_is_the_loss():
    policy, reference = torch.tensor([0.1, 0.4], dtype=F64), torch.tensor([0.3, 0.3], dtype=F64)
    one, other, alone = (
        preference_losses(policy, reference, pairs(1), NOTHING, made)
        for made in (recipe("sigmoid, sft 0.5"), recipe(sft_weight=0.5), recipe("sft"))
    )
    assert (one.total.item(), one.preference.item()) == (other.total.item(), other.preference.item())
    assert alone.total.item() == alone.preference.item() == pytest.approx(0.1)


def test_a_recipe_has_the_beta_of_the_settings_unless_told_another():
    config = TrainConfig(loss="sigmoid 0.8, ipo 0.2", beta=7.0, label_smoothing=0.1, sft_weight=0.25)
    assert make_recipe(config) == Recipe((("sigmoid", 0.8), ("ipo", 0.2)), 7.0, 0.1, 0.25, 0.0)
    assert make_recipe(config, beta=9.0, kto_offset=2.0) == replace(make_recipe(config), beta=9.0, kto_offset=2.0)


# ------------------------------------------------------------------------------------------------ how sure a pick was


def test_two_sources_of_doubt_combine_as_independent_flips():
    """0.1 and 0.2: flipped by exactly one of them with probability 0.1 * 0.8 + 0.2 * 0.9 = 0.26."""
    for name in ("sigmoid", "robust", "exo_pair"):
        combined = loss([0.1, 0.4], [0.3, 0.3], terms=name, label_smoothing=0.2, comparisons=pairs(1, smoothing=0.1))
        torch.testing.assert_close(combined, loss([0.1, 0.4], [0.3, 0.3], terms=name, label_smoothing=0.26))


@pytest.mark.parametrize("name", [name for name in OF_PAIRS if not LOSSES[name].smoothing and name != "sft"])
def test_where_smoothing_means_nothing_an_unsure_pair_counts_less(name):
    """A pick that is right in 8 of 10 cases: 0.8 - 0.2 of it is left."""
    sure = loss([0.1, 0.4], [0.3, 0.3], terms=name)
    torch.testing.assert_close(loss([0.1, 0.4], [0.3, 0.3], terms=name, comparisons=pairs(1, smoothing=0.2)), 0.6 * sure)


def test_the_supervised_terms_compare_nothing_and_count_in_full():
    unsure = pairs(1, smoothing=0.2)
    assert loss([0.1, 0.4], None, terms="sft", comparisons=unsure).item() == pytest.approx(0.1)
    mixed = [loss([0.1, 0.4], [0.3] * 2, terms="ipo", sft_weight=weight, comparisons=unsure).item() for weight in (0.0, 1.0)]
    assert mixed[1] - mixed[0] == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------ rankings and likes


def ranked(count: int) -> Comparisons:
    better, worse = (torch.tensor(rows) for rows in zip(*itertools.combinations(range(count), 2), strict=True))
    return Comparisons(better, worse, ranking_weights(count).to(F64), torch.zeros(len(better), dtype=F64))


def test_a_ranking_costs_its_comparisons_by_their_weights():
    """Every comparison is the pair of the two rows it names, and the weights of a group sum to 1, as a pair's one does."""
    policy, reference = [0.1, 0.4, 0.2, 0.35], [0.3, 0.25, 0.2, 0.3]
    values = loss(policy, reference, terms="rankdpo", comparisons=ranked(4))
    for value, weight, rows in zip(values, ranking_weights(4), itertools.combinations(range(4), 2), strict=True):
        pair = loss([policy[row] for row in rows], [reference[row] for row in rows])
        assert value.item() == pytest.approx(weight.item() * pair.item(), rel=1e-6)
    assert loss([0.2] * 4, [0.2] * 4, terms="rankdpo", comparisons=ranked(4)).sum().item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_supervised_mix_of_a_ranking_weighs_one_image():
    added = [loss([0.2] * 4, [0.2] * 4, terms="rankdpo", sft_weight=w, comparisons=ranked(4)).sum().item() for w in (0, 1)]
    assert added[1] - added[0] == pytest.approx(0.2, rel=1e-6)


def test_likes_cost_what_kto_says_with_the_offset_of_the_step():
    policy, reference = torch.tensor([0.1, 0.4], dtype=F64), torch.tensor([0.3, 0.3], dtype=F64)
    found = preference_losses(policy, reference, NO_PAIRS, likes(True, False), recipe("kto", kto_offset=0.5))
    expected = kto(reference - policy, torch.tensor([True, False]), beta=10.0, offset=0.5)
    torch.testing.assert_close(found.total, expected)
    assert expected.tolist() == pytest.approx([1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(1.5))])


# ------------------------------------------------------------------------------------------------ the safeguard


def test_safeguard_lets_through_what_leaves_the_chosen_image_better_worked_out_by_hand():
    """mu = 0.5. |g_c|^2 = 4 and g_r . g_c = 8: 0.5 * 4 / 8 = 1/4. Then 0.5 * 4 / 1, more than all. Then against each other."""
    chosen = torch.tensor([[2.0, 0.0]] * 3)
    rejected = torch.tensor([[4.0, 7.0], [0.5, 7.0], [-4.0, 7.0]])
    assert safeguard_scale(chosen, rejected, 0.5).tolist() == [0.25, 1.0, 1.0]


def test_safeguard_is_of_each_pair_not_of_the_batch():
    one, other = torch.randn(2, 1, 3, 4, 4), torch.randn(2, 1, 3, 4, 4)
    both = safeguard_scale(torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]]), 0.9)
    torch.testing.assert_close(both, torch.cat([safeguard_scale(*one, 0.9), safeguard_scale(*other, 0.9)]))


@pytest.mark.parametrize("mu", [0.1, 0.6, 0.9, 1.0])
def test_a_safeguarded_step_lowers_the_chosen_error_at_least_by_the_share_mu(mu):
    """To first order: both predictions move by -(g_c - scale * g_r), so the chosen error by the product of that and g_c."""
    torch.manual_seed(0)
    shared = torch.randn(200, 8)
    chosen, rejected = shared + torch.randn(200, 8), 2 * shared + torch.randn(200, 8)
    scale = safeguard_scale(chosen, rejected, mu)
    change = -((chosen - scale[:, None] * rejected) * chosen).sum(1)
    assert (change <= -mu * chosen.square().sum(1) * (1 - 1e-5)).logical_or(scale == 1).all()
    assert (change <= 1e-4).all() and (scale < 1).float().mean() > 0.2 and (scale >= 0).all()


def test_safeguard_of_a_perfect_prediction_is_a_number():
    zero, some = torch.zeros(1, 4), torch.ones(1, 4)
    assert [safeguard_scale(*pair, 0.9).item() for pair in ((zero, some), (some, zero), (zero, zero))] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", [name for name in OF_PAIRS if name != "sft"])
def test_the_safeguard_scales_the_gradient_of_the_rejected_image_and_no_value(name):
    reference, scale = torch.tensor([0.3, 0.25, 0.3, 0.4], dtype=F64), torch.tensor([0.25, 0.0], dtype=F64)
    found = []
    for held in (None, scale):
        policy = torch.tensor([0.2, 0.3, 0.28, 0.36], dtype=F64, requires_grad=True)
        losses = preference_losses(policy, reference, pairs(2), NOTHING, recipe(name, beta=2.0), rejected_scale=held)
        losses.total.sum().backward()
        found.append((losses.total.detach(), policy.grad))
    (value, gradient), (held_value, held_gradient) = found
    assert torch.equal(value, held_value) and gradient.abs().min() > 0
    torch.testing.assert_close(held_gradient, gradient * torch.tensor([1.0, 0.25, 1.0, 0.0], dtype=F64))


# ------------------------------------------------------------------------------------------------ metrics


def test_swapping_chosen_and_rejected_negates_the_margin():
    policy, reference = torch.rand(6, dtype=F64), torch.rand(6, dtype=F64)
    forth = pairs(3)
    back = replace(forth, chosen=forth.rejected, rejected=forth.chosen)
    margins = [reward_metrics(policy, reference, way, NOTHING, beta=7.0)["rewards/margins"] for way in (forth, back)]
    torch.testing.assert_close(margins[0], -margins[1])
    assert margins[0].abs().min() > 0


def test_a_tie_is_not_a_win():
    policy, reference = torch.tensor([0.2, 0.2, 0.2, 0.3]), torch.full((4,), 0.2)
    metrics = reward_metrics(policy, reference, pairs(2), NOTHING, beta=1.0)
    assert metrics["rewards/margins"][0] == 0
    assert metrics["rewards/accuracies"].tolist() == [0.0, 1.0]


def test_metrics_of_a_pair_worked_out_by_hand():
    """Errors 0.5 and 0.1 against 0.2 and 0.4: log-ratios -0.3 and 0.3, times a beta of 10."""
    policy, reference = torch.tensor([0.5, 0.1], dtype=F64, requires_grad=True), torch.tensor([0.2, 0.4], dtype=F64)
    metrics = reward_metrics(policy, reference, pairs(1), NOTHING, beta=10.0)
    assert not any(values.requires_grad for values in metrics.values())
    assert {name: round(values.item(), 9) for name, values in metrics.items()} == {
        "errors/policy": 0.3, "errors/reference": 0.3, "errors/chosen_drift": 0.3,
        "rewards/chosen": -3.0, "rewards/rejected": 3.0, "rewards/margins": -6.0, "rewards/accuracies": 0.0,
        "logratios/chosen": -0.3, "logratios/rejected": 0.3,
    }  # fmt: skip


def test_metrics_of_likes_take_liked_images_for_chosen_ones():
    """Log-ratios 0.1, -0.2, 0.3 and 0: the first two are right, the third was disliked and rose, the fourth is a tie."""
    reference = torch.full((4,), 0.5, dtype=F64)
    policy = reference - torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=F64)
    metrics = reward_metrics(policy, reference, NO_PAIRS, likes(True, False, False, True), beta=10.0)
    assert metrics["rewards/chosen"].tolist() == pytest.approx([1.0, 0.0])
    assert metrics["rewards/rejected"].tolist() == pytest.approx([-2.0, 3.0])
    assert metrics["rewards/margins"].tolist() == pytest.approx([1.0, 2.0, -3.0, 0.0])
    assert metrics["rewards/accuracies"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert metrics["errors/chosen_drift"].tolist() == pytest.approx([-0.1, 0.0])
    assert metrics["errors/policy"].tolist() == pytest.approx([0.4, 0.7, 0.2, 0.5])


def test_metrics_that_have_no_value_are_left_out():
    errors = torch.tensor([0.5, 0.1])
    assert set(reward_metrics(errors, None, pairs(1), NOTHING, beta=1.0)) == {"errors/policy"}
    disliked = reward_metrics(errors, errors, NO_PAIRS, likes(False, False), beta=1.0)
    assert "rewards/rejected" in disliked and not {"rewards/chosen", "errors/chosen_drift"} & disliked.keys()


def test_quartiles_are_of_the_schedule_and_empty_ones_are_left_out():
    u = torch.tensor([0.0, 0.249, 0.25, 0.76, 0.999])
    found = by_quartile(torch.arange(5.0), u)
    assert {name: values.tolist() for name, values in found.items()} == {"1": [0.0, 1.0], "2": [2.0], "4": [3.0, 4.0]}
