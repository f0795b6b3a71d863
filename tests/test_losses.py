"""Evidence: values of an independent implementation (tests/loss_vectors.json), values by hand, and laws."""

import json
import math
from pathlib import Path

import pytest
import torch

from dpo.losses import Comparisons, logratios, per_image_error, preference_loss, reward_metrics, sigmoid

VECTORS = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())


def compare(count: int, smoothing: float = 0.0, dtype=torch.float64) -> Comparisons:
    """Rows are chosen first: row i against row i + count."""
    order = torch.arange(count)
    return Comparisons(order, order + count, torch.ones(count, dtype=dtype), torch.full((count,), smoothing, dtype=dtype))


def loss(policy, reference, *, beta=10.0, label_smoothing=0.0, sft_weight=0.0, comparisons=None):
    policy, reference = (torch.as_tensor(values, dtype=torch.float64) for values in (policy, reference))
    comparisons = comparisons or compare(len(policy) // 2)
    return preference_loss(policy, reference, comparisons, beta=beta, label_smoothing=label_smoothing, sft_weight=sft_weight)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_sigmoid_equals_the_reference_vectors(dtype, tolerance):
    for vector in VECTORS["scalar"]:
        chosen, rejected = (torch.tensor([vector[key]], dtype=dtype, requires_grad=True) for key in ("r_w", "r_l"))
        value = sigmoid(chosen, rejected, beta=vector["beta"], label_smoothing=vector["label_smoothing"])
        value.sum().backward()
        assert value.item() == pytest.approx(float(vector["value_sci"]), rel=tolerance, abs=1e-11), vector
        if dtype == torch.float64:
            assert chosen.grad.item() == pytest.approx(float(vector["dL_dr_w"]), rel=1e-6, abs=1e-9), vector
            assert rejected.grad.item() == pytest.approx(float(vector["dL_dr_l"]), rel=1e-6, abs=1e-9), vector


def test_whole_loss_equals_the_end_to_end_vectors():
    """From mean squared errors to the loss, so that a sign or a scale anywhere between shows."""
    for vector in VECTORS["end_to_end"]:
        policy = [vector["mse_policy_w"], vector["mse_policy_l"]]
        reference = [vector["mse_ref_w"], vector["mse_ref_l"]]
        expected = vector["sigmoid_TRL_OneTrainer_diffusersLoRA"]
        assert loss(policy, reference, beta=vector["beta"]).item() == pytest.approx(expected, abs=1e-6)
        smoothed = loss(policy, reference, beta=vector["beta"], label_smoothing=0.1).item()
        assert smoothed == pytest.approx(vector["cdpo_0p1"], abs=1e-6)


def test_their_halved_beta_is_ours_at_half():
    """Salesforce's script multiplies by 0.5 * beta: its 5000 must be our 2500."""
    for vector in VECTORS["end_to_end"]:
        policy = [vector["mse_policy_w"], vector["mse_policy_l"]]
        reference = [vector["mse_ref_w"], vector["mse_ref_l"]]
        halved = loss(policy, reference, beta=vector["beta"] / 2).item()
        assert halved == pytest.approx(vector["sigmoid_Salesforce_half_beta"], abs=1e-6)


def test_policy_equal_to_reference_costs_log_2():
    """margin = beta * (0 - 0) = 0, so -log sigmoid(0) = log 2, whatever beta and smoothing are."""
    for beta, smoothing in ((1.0, 0.0), (5000.0, 0.0), (5000.0, 0.3)):
        values = loss([0.3, 0.1], [0.3, 0.1], beta=beta, label_smoothing=smoothing)
        assert values.item() == pytest.approx(math.log(2), abs=1e-12)


def test_denoising_better_than_the_reference_is_a_positive_logratio():
    assert logratios(torch.tensor([0.1]), torch.tensor([0.2])).item() > 0
    assert logratios(torch.tensor([0.3]), torch.tensor([0.2])).item() < 0


def test_lowering_the_chosen_error_lowers_the_loss_and_lowering_the_rejected_error_raises_it():
    start = loss([0.2, 0.2], [0.2, 0.2]).item()
    assert loss([0.1, 0.2], [0.2, 0.2]).item() < start < loss([0.2, 0.1], [0.2, 0.2]).item()


def test_swapping_chosen_and_rejected_negates_the_margin():
    policy, reference = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    pairs = compare(3)
    swapped = Comparisons(pairs.rejected, pairs.chosen, pairs.weight, pairs.smoothing)
    forth = reward_metrics(policy, reference, pairs, beta=7.0)["rewards/margins"]
    back = reward_metrics(policy, reference, swapped, beta=7.0)["rewards/margins"]
    torch.testing.assert_close(forth, -back)


def test_loss_is_per_pair_before_any_mean():
    """Taking the mean of the log-ratios first would hide that one pair is right and one is wrong."""
    both = loss([0.1, 0.5, 0.4, 0.2], [0.3, 0.3, 0.3, 0.3])
    first = loss([0.1, 0.4], [0.3, 0.3])
    second = loss([0.5, 0.2], [0.3, 0.3])
    torch.testing.assert_close(both, torch.cat([first, second]))
    assert both[0] < math.log(2) < both[1]


def test_two_sources_of_doubt_combine_as_independent_flips():
    """0.1 and 0.2: flipped by exactly one of them with probability 0.1 * 0.8 + 0.2 * 0.9 = 0.26."""
    combined = loss([0.1, 0.4], [0.3, 0.3], label_smoothing=0.2, comparisons=compare(1, smoothing=0.1))
    torch.testing.assert_close(combined, loss([0.1, 0.4], [0.3, 0.3], label_smoothing=0.26))


def test_supervised_mix_adds_the_chosen_error_alone():
    """0.5 times the chosen error of 0.1 is 0.05; the rejected error of 0.4 does not enter."""
    added = loss([0.1, 0.4], [0.3, 0.3], sft_weight=0.5) - loss([0.1, 0.4], [0.3, 0.3])
    assert added.item() == pytest.approx(0.05)


def test_a_tie_is_not_a_win():
    policy = torch.tensor([0.2, 0.2, 0.2, 0.3])
    metrics = reward_metrics(policy, torch.tensor([0.2, 0.2, 0.2, 0.2]), compare(2, dtype=torch.float32), beta=1.0)
    assert metrics["rewards/margins"][0] == 0
    assert metrics["rewards/accuracies"].tolist() == [0.0, 1.0]


def test_drift_is_the_chosen_error_over_the_references():
    metrics = reward_metrics(torch.tensor([0.5, 0.1]), torch.tensor([0.2, 0.2]), compare(1), beta=1.0)
    assert metrics["errors/chosen_drift"].item() == pytest.approx(0.3)


def test_error_is_a_mean_over_the_image_in_float32():
    """(2**2 + 0) / 2 = 2 for the first image; half precision goes in, float32 comes out."""
    prediction = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)
    error = per_image_error(prediction, torch.zeros(2, 2, dtype=torch.bfloat16))
    assert error.tolist() == [2.0, 1.0]
    assert error.dtype == torch.float32


def test_one_ranked_group_makes_many_comparisons_of_the_same_rows():
    """Three rows, best to worst; every comparison equals the pair it names."""
    policy, reference = torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0.2, 0.2, 0.2])
    ranked = Comparisons(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), torch.ones(3), torch.zeros(3))
    losses = preference_loss(policy, reference, ranked, beta=10.0, label_smoothing=0.0, sft_weight=0.0)
    for value, (better, worse) in zip(losses, ((0, 1), (0, 2), (1, 2)), strict=True):
        pair = loss(policy[[better, worse]], reference[[better, worse]])
        assert value.item() == pytest.approx(pair.item(), rel=1e-6)
