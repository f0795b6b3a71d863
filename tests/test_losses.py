"""Every loss by itself. Evidence: values of an independent implementation (tests/loss_vectors.json), values by hand, and laws."""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch

from dpo import losses
from dpo.config import ConfigError, TrainConfig
from dpo.losses import apo_zero, exo_pair, hinge, kto, logratios, mapo, nca_pair, per_image_error, ranking_weights, sft, sigmoid
from dpo.menu import LOSSES, NOT_OFFERED

VECTORS = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())
OF_PAIRS = ["sigmoid", "robust", "exo_pair", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero"]
SMOOTHED = ["sigmoid", "robust", "exo_pair"]


def evaluate(name, chosen, rejected, beta, smoothing=0.0, dtype=torch.float64):
    """(value, derivative by chosen, derivative by rejected) of one comparison."""
    ratios = [torch.tensor([ratio], dtype=dtype, requires_grad=True) for ratio in (chosen, rejected)]
    more = {"label_smoothing": smoothing} if name in SMOOTHED else {}
    value = getattr(losses, name)(*ratios, beta=beta, **more)
    value.sum().backward()
    return value.item(), *(ratio.grad.item() for ratio in ratios)


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("dtype, tolerance, rounding", [(torch.float64, 1e-9, 1e-14), (torch.float32, 2e-6, 1e-7)])
def test_values_and_gradients_equal_the_reference_vectors(name, dtype, tolerance, rounding):
    """`rounding` is of terms of size 1 that cancel, as at an optimum, where nothing relative is left."""
    vectors = [vector for vector in VECTORS["scalar"] if vector["loss"] == name]
    assert len(vectors) > 30
    for vector in vectors:
        chosen, rejected, beta = vector["r_w"], vector["r_l"], vector["beta"]
        value, by_chosen, by_rejected = evaluate(name, chosen, rejected, beta, vector["label_smoothing"], dtype)
        assert value == pytest.approx(float(vector["value_sci"]), rel=tolerance, abs=rounding), vector
        if name == "hinge" and math.isclose(beta * (chosen - rejected), 1):
            continue  # the kink: any slope between the two sides is one
        scale = rounding * beta * (2 * beta * max(abs(chosen), abs(rejected)) if name in ("ipo", "sppo_hard") else 1)
        assert by_chosen == pytest.approx(float(vector["dL_dr_w"]), rel=tolerance, abs=scale), vector
        assert by_rejected == pytest.approx(float(vector["dL_dr_l"]), rel=tolerance, abs=scale), vector


@pytest.mark.parametrize("case, expected", VECTORS["gradient_at_zero"].items())
def test_a_fresh_adapter_is_pulled_as_the_reference_says(case, expected):
    """There both log-ratios are 0: chosen up, rejected down, in every loss on offer."""
    case = case.replace("cdpo", "sigmoid").replace("_norm", "")
    name, _, smoothing = case.rstrip(")").partition("(ls=")
    _, by_chosen, by_rejected = evaluate(name, 0.0, 0.0, 1.0, float(smoothing or 0))
    assert (by_chosen, by_rejected) == pytest.approx(expected, abs=1e-6)
    assert by_chosen < 0 < by_rejected


# ------------------------------------------------------------------------------------------------ what goes in


def test_error_is_a_mean_over_the_image_in_float32():
    """(2**2 + 0) / 2 = 2 for the first image; half precision goes in, float32 comes out."""
    prediction = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)
    error = per_image_error(prediction, torch.zeros(2, 2, dtype=torch.bfloat16))
    assert error.tolist() == [2.0, 1.0]
    assert error.dtype == torch.float32


def test_denoising_better_than_the_reference_is_a_positive_logratio():
    assert logratios(torch.tensor([0.1]), torch.tensor([0.2])).item() > 0
    assert logratios(torch.tensor([0.3]), torch.tensor([0.2])).item() < 0


# ------------------------------------------------------------------------------------------------ laws of each


def test_policy_equal_to_reference_costs_log_2():
    """margin = beta * (0 - 0) = 0, so -log sigmoid(0) = log 2, whatever beta and smoothing are."""
    for beta, smoothing in ((1.0, 0.0), (5000.0, 0.0), (5000.0, 0.3)):
        assert evaluate("sigmoid", 0.0, 0.0, beta, smoothing)[0] == pytest.approx(math.log(2), abs=1e-12)


def test_conservative_dpo_rests_where_the_odds_are_those_of_the_label():
    """At s = 0.1 the margin log(0.9 / 0.1) = log 9 has slope 0, and is pulled back from beyond."""
    assert evaluate("sigmoid", math.log(9), 0.0, 1.0, 0.1)[1] == pytest.approx(0, abs=1e-15)
    assert evaluate("sigmoid", 2 * math.log(9), 0.0, 1.0, 0.1)[1] > 0


def test_exo_rests_at_the_same_odds_and_costs_nothing_there():
    assert evaluate("exo_pair", math.log(9), 0.0, 1.0, 0.1)[:2] == pytest.approx((0, 0), abs=1e-15)


def test_exo_without_smoothing_takes_a_thousandth():
    """At a margin of 0: half log(0.5 / 0.999) and half log(0.5 / 0.001), 2.761231 as in version 0.28 of TRL."""
    ratio = torch.zeros(1, dtype=torch.float64)
    assert exo_pair(ratio, ratio, beta=1.0).item() == pytest.approx(0.5 * math.log(0.25 / (0.999 * 0.001)), abs=1e-12)
    assert exo_pair(ratio, ratio, beta=1.0).item() == exo_pair(ratio, ratio, beta=1.0, label_smoothing=1e-3).item()


def test_hinge_leaves_a_solved_pair_alone():
    assert hinge(torch.tensor([0.1, 0.2]), torch.tensor([0.05, -0.1]), beta=10.0).tolist() == pytest.approx([0.5, 0.0])


def test_nca_rests_at_a_chosen_reward_of_log_2():
    """sigmoid(log 2) = 2/3: -(1 - 2/3) + 1/2 * 2/3 = 0."""
    chosen = torch.tensor([math.log(2)], dtype=torch.float64, requires_grad=True)
    nca_pair(chosen, torch.zeros(1, dtype=torch.float64), beta=1.0).sum().backward()
    assert chosen.grad.item() == pytest.approx(0, abs=1e-15)


def test_apo_zero_of_rewards_worked_out_by_hand():
    """1 - sigmoid(log 3) + sigmoid(-log 3) = 1/4 + 1/4."""
    ratio = torch.tensor([math.log(3)], dtype=torch.float64)
    assert apo_zero(ratio, -ratio, beta=1.0).item() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("name", ["exo_pair", "apo_zero"])
@pytest.mark.parametrize("ratio", [-12.5, -5.0, 5.0, 12.5])
def test_slopes_keep_their_precision_in_float32_where_a_loss_saturates(name, ratio):
    """They are small there, and lost where they are taken from 1 - sigmoid: 1% off at 12.5."""
    exact, rounded = (evaluate(name, ratio, -ratio, 1.0, 0.1, dtype) for dtype in (torch.float64, torch.float32))
    assert rounded[1:] == pytest.approx(exact[1:], rel=2e-6)


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("margin", [1e4, -1e4])
def test_nothing_overflows_at_a_margin_of_ten_thousand(name, smoothing, margin):
    for shares in ((1.0, 0.0), (0.0, -1.0), (0.5, -0.5)):
        found = evaluate(name, shares[0] * margin, shares[1] * margin, 1.0, smoothing, torch.float32)
        assert all(map(math.isfinite, found)), (found, shares)


# ------------------------------------------------------------------------------------------------ without a reference


def test_sft_is_the_chosen_error():
    assert sft(torch.tensor([0.25])).item() == 0.25


def mapo_by_hand(chosen: float, rejected: float, steps: float) -> float:
    """Their code line by line; `steps` is their number of timesteps."""
    odds = 0.5 * chosen / (math.exp(0.5 * chosen) - 1) - 0.5 * rejected / (math.exp(0.5 * rejected) - 1)
    return chosen - 0.1 * -math.log1p(math.exp(-steps * odds))


@pytest.mark.parametrize("chosen, rejected", [(0.1, 0.11), (0.3, 0.1), (0.99, 1.01), (1.5, 2.5), (3.0, 0.5)])
def test_mapo_equals_its_published_code_at_a_quarter_of_its_timesteps(chosen, rejected):
    """Their T = 1000 timesteps is our beta 250."""
    errors = (torch.tensor([error], dtype=torch.float64) for error in (chosen, rejected))
    assert mapo(*errors, beta=250.0).item() == pytest.approx(mapo_by_hand(chosen, rejected, 1000), rel=1e-9)


def test_the_margin_of_mapo_is_beta_times_the_difference_of_small_errors():
    """So that beta has one unit: at -0.1 log sigmoid(x), slope -0.05 beta by the rejected error where both are equal."""
    rejected = torch.tensor([1e-6], dtype=torch.float64, requires_grad=True)
    mapo(torch.tensor([1e-6], dtype=torch.float64), rejected, beta=1000.0).sum().backward()
    assert rejected.grad.item() == pytest.approx(-0.05 * 1000, rel=1e-5)


def test_mapo_lowers_the_chosen_error_and_raises_the_rejected_one():
    chosen, rejected = torch.tensor([0.2], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    mapo(chosen, rejected, beta=10.0).sum().backward()
    assert chosen.grad.item() > 1 and rejected.grad.item() < 0  # a gradient step goes the other way


@pytest.mark.parametrize("error", [0.0, 1e-9, 1.0, 50.0, 1e4])
def test_mapo_is_smooth_from_no_error_to_absurd_ones(error):
    chosen, rejected = (torch.tensor([value], requires_grad=True) for value in (error, 2 * error))
    mapo(chosen, rejected, beta=2500.0).sum().backward()
    assert all(math.isfinite(tensor.grad.item()) for tensor in (chosen, rejected))


# ------------------------------------------------------------------------------------------------ likes and rankings


def test_kto_of_rewards_worked_out_by_hand():
    """beta 10, log-ratio 0.3, offset 1: reward 3 - 1 = 2. Liked costs 1 - sigmoid(2), disliked sigmoid(2)."""
    ratio = torch.tensor([0.3, 0.3], dtype=torch.float64)
    values = kto(ratio, torch.tensor([True, False]), beta=10.0, offset=1.0)
    expected = 1 / (1 + math.exp(2))
    assert values.tolist() == pytest.approx([expected, 1 - expected], abs=1e-12)


def test_kto_pulls_a_liked_image_up_and_another_down():
    ratio = torch.zeros(2, requires_grad=True)
    kto(ratio, torch.tensor([True, False]), beta=2.0).sum().backward()
    assert ratio.grad.tolist() == pytest.approx([-0.5, 0.5])


def test_kto_does_not_overflow():
    ratio = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    values = kto(ratio, torch.tensor([True, True, False, False]), beta=1.0)
    values.sum().backward()
    assert values.tolist() == [0.0, 1.0, 1.0, 0.0] and ratio.grad.tolist() == [0.0] * 4


def test_weights_of_a_ranking_of_three_are_those_worked_out_by_hand():
    """Scores 1, 1/2, 0: gains 1, 0.4142, 0. 1 / log2(1 + place): 1, 0.6309, 0.5. Gaps 0.5858 * 0.3691 = 0.2162, 1 * 0.5 and
    0.4142 * 0.1309 = 0.0542, in all 0.7705."""
    assert ranking_weights(3).tolist() == pytest.approx([0.2806, 0.6490, 0.0704], abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 8, 30])
def test_weights_of_a_ranking_sum_to_1_and_a_mistake_about_the_best_counts_most(count):
    weights = ranking_weights(count)
    assert weights.shape == (count * (count - 1) // 2,) and weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert weights.argmax() == count - 2  # best against worst: the last comparison of the first image
    assert (weights > 0).all()


# ------------------------------------------------------------------------------------------------ the menu and the settings


def test_every_loss_on_the_menu_says_truly_whether_smoothing_means_something_to_it():
    for name, info in LOSSES.items():
        if name != "rankdpo":  # sigmoid over many comparisons
            takes = "label_smoothing" in inspect.signature(getattr(losses, name)).parameters
            assert takes == info.smoothing, name


def test_every_loss_says_where_its_formula_is_from():
    for name in {*LOSSES} - {"rankdpo", "sft"}:
        assert "et al. 20" in " ".join(inspect.getdoc(getattr(losses, name)).split()), name
    assert "RankDPO" in inspect.getdoc(sigmoid)


def test_nothing_is_both_offered_and_not():
    assert not LOSSES.keys() & NOT_OFFERED.keys()
    assert all(why.endswith(".") and "Choose " in why for why in NOT_OFFERED.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "robust", "label_smoothing": 0.5},
        {"loss": "exo_pair", "label_smoothing": 1.0},
        {"loss": "exo_pair", "label_smoothing": -0.1},
        {"loss": "ipo", "beta": 0.0},
        {"loss": "sppo_hard", "beta": 0.0},
        {"loss": "sigmoid 0.8, bco_pair x"},
        {"loss": "sigmoid 0.8 0.1, bco_pair"},
        {"loss": "dpo"},
        {"loss": "discopop"},
    ],
)
def test_what_would_break_a_loss_is_refused_before_anything_is_loaded(settings):
    with pytest.raises(ConfigError):
        TrainConfig(**settings)
