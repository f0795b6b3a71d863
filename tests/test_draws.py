"""Draws: by hand where a law has a formula, else by a claim about all of them."""

import dataclasses
import itertools
import math

import pytest
import torch

from dpo.config import TrainConfig
from dpo.draws import Draws, fixed_draw, pair_generator, place
from dpo.families import load_family
from tests.batches import make_batch, take_items
from tests.tiny import build_pipeline

LAWS = ["stratified", "uniform", "logit_normal", "family", "list"]


@pytest.fixture(scope="module")
def family():
    return load_family(build_pipeline())


def settings(**values) -> TrainConfig:
    if values.get("timestep_sampling") == "list":
        values = {"timestep_list": "0.8, 0.55, 0.3"} | values
    return TrainConfig(**values)


def draw(family, batch, **values):
    return Draws(settings(**values), family).draw(batch)


def at(family, v, **values):
    return place(settings(**values), family, torch.tensor(v, dtype=torch.float64), [1.0] * len(v)).tolist()


# ------------------------------------------------------------------------------------------------ laws


def test_uniform_and_stratified_fill_the_range_evenly(family):
    for law in ("uniform", "stratified", "family"):
        found = at(family, [0.0, 0.25, 0.5], timestep_sampling=law, min_timestep=0.2, max_timestep=0.6)
        assert found == pytest.approx([0.2, 0.3, 0.4])


def test_logit_normal_is_the_inverse_of_its_distribution_function(family):
    """v = Phi(x) is taken to 1 / (1 + exp(-x)): the median to 1/2, Phi(1) = 0.841345 to 0.731059."""
    found = at(family, [0.158655, 0.5, 0.841345], timestep_sampling="logit_normal")
    assert found == pytest.approx([0.268941, 0.5, 0.731059], abs=1e-5)


def test_logit_normal_in_a_range_is_cut_off_there_and_keeps_its_shape(family):
    """From 1/2 to 1 is the upper half: v = 1/2 is the upper quartile, x = 0.674490, u = 1 / (1 + 0.509416)."""
    found = at(family, [0.0, 0.5], timestep_sampling="logit_normal", min_timestep=0.5)
    assert found == pytest.approx([0.5, 0.662508], abs=1e-5)
    ends = at(family, [0.0, 1 - 1e-9], timestep_sampling="logit_normal", min_timestep=0.3, max_timestep=0.4)
    assert ends == pytest.approx([0.3, 0.4], abs=1e-6)


def test_the_familys_own_law_is_the_one_it_was_trained_with(family):
    flow = load_family(build_pipeline())
    flow.timestep_sampling = "logit_normal"
    assert at(flow, [0.9], timestep_sampling="family") == at(family, [0.9], timestep_sampling="logit_normal")
    assert at(family, [0.9], timestep_sampling="family") == pytest.approx([0.9])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.1, 0.7)])
def test_no_draw_reaches_the_end_of_the_range_however_it_is_rounded(family, law, low, high):
    limits = {} if law == "list" else {"min_timestep": low, "max_timestep": high}
    u = place(settings(timestep_sampling=law, **limits), family, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), [1.0] * 2)
    steps = family.timesteps(u).tolist()
    assert steps[0] >= (300 if law == "list" else 1000 * low) and steps[1] < 1000 * high


def test_a_list_is_taken_in_turn(family):
    batch = make_batch(family, 7)
    assert draw(family, batch, timestep_sampling="list").timesteps[::2].tolist() == [800, 550, 300, 800, 550, 300, 800]
    later = dataclasses.replace(batch, numbers=[7, 8, 9, 10, 11, 12, 13])
    assert draw(family, later, timestep_sampling="list").timesteps[:4].tolist() == [550, 550, 300, 300]


def test_successive_items_cover_the_schedule_evenly(family):
    """64 of them: a golden-ratio sequence leaves no gap wider than 3 / 64 of the schedule; by chance some would be."""
    steps = sorted(draw(family, make_batch(family, 64), seed=3).timesteps[::2].tolist())
    gaps = [b - a for a, b in itertools.pairwise([0, *steps, 1000])]
    assert max(gaps) < 1000 * 3 / 64


def test_uniform_draws_are_independent_of_each_other(family):
    """Of 256 draws the mean is 1/2 within 4 standard errors, 1/sqrt(12 * 256) each, and neighbours are uncorrelated."""
    u = draw(family, make_batch(family, 256), timestep_sampling="uniform").u[::2]
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * 256)
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]) < 4 / math.sqrt(255)


# ------------------------------------------------------------------------------------------------ fresh draws


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("options", [{}, {"shared_noise": False}, {"reference_draws": 4}], ids=["fresh", "unshared", "returning"])
def test_a_draw_does_not_depend_on_what_else_is_in_the_batch(family, law, options):
    batch = make_batch(family)
    whole = draw(family, batch, timestep_sampling=law, seed=7, **options)
    alone = draw(family, take_items(batch, [1]), timestep_sampling=law, seed=7, **options)
    assert torch.equal(alone.noisy, whole.noisy[2:4])
    assert torch.equal(alone.timesteps, whole.timesteps[2:4])


@pytest.mark.parametrize("law", LAWS)
def test_another_seed_draws_other_noise(family, law):
    batch = make_batch(family)
    assert not torch.equal(
        draw(family, batch, timestep_sampling=law, seed=8).noisy, draw(family, batch, timestep_sampling=law).noisy
    )


def test_rows_of_one_item_get_the_same_draw_and_other_items_another(family):
    batch = make_batch(family, twins=True)
    noised = draw(family, batch)
    assert torch.equal(noised.noisy[0::2], noised.noisy[1::2])
    assert torch.equal(noised.timesteps[0::2], noised.timesteps[1::2])
    assert not torch.equal(noised.noisy[0] - batch.latents[0], noised.noisy[2] - batch.latents[2])


def test_every_image_of_a_ranking_shares_the_draw(family):
    noised = draw(family, make_batch(family, kind="rankings"))
    assert noised.timesteps.tolist() == [noised.timesteps[0]] * 3 + [noised.timesteps[3]] * 4
    assert noised.timesteps[0] != noised.timesteps[3]


def test_noise_that_is_not_shared_is_drawn_for_every_row_alone(family):
    """Also the timesteps: over 200 pairs those of chosen and rejected images are uncorrelated, whatever the law."""
    for law in LAWS:
        noised = draw(family, make_batch(family, 200, twins=True), shared_noise=False, timestep_sampling=law)
        assert not torch.isclose(noised.target[0::2], noised.target[1::2]).flatten(1).all(1).any()
        assert abs(torch.corrcoef(torch.stack([noised.u[0::2], noised.u[1::2]]))[0, 1]) < 4 / math.sqrt(200), law


def test_u_says_where_the_timesteps_are(family):
    noised = draw(family, make_batch(family, 8), min_timestep=0.5)
    assert torch.equal(family.timesteps(noised.u), noised.timesteps) and noised.u.min() >= 0.5


# ------------------------------------------------------------------------------------------------ draws that return


def visited(family, visit, **values):
    batch = dataclasses.replace(make_batch(family), visits=[visit] * 3)
    return draw(family, batch, **values)


@pytest.mark.parametrize("law", LAWS)
def test_the_same_draws_return_every_k_visits_in_any_run(family, law):
    values = {"reference_draws": 4, "timestep_sampling": law}
    first = visited(family, 1, seed=0, **values)
    batch = dataclasses.replace(make_batch(family), visits=[5] * 3, numbers=[70, 80, 90])
    again = draw(family, batch, seed=99, **values)
    assert torch.equal(first.noisy, again.noisy) and torch.equal(first.timesteps, again.timesteps)
    assert not torch.equal(first.noisy, visited(family, 2, **values).noisy)


@pytest.mark.parametrize("options", [{}, {"shared_noise": False}])
def test_the_k_draws_of_an_item_lie_in_k_strata_of_the_range(family, options):
    found = [visited(family, visit, reference_draws=8, min_timestep=0.2, max_timestep=0.6, **options).u for visit in range(8)]
    strata = ((torch.stack(found) - 0.2) / 0.4 * 8).long()  # (8, R)
    assert strata.sort(0).values.T.tolist() == [list(range(8))] * 6


def test_the_first_visits_of_all_items_are_not_all_in_one_stratum(family):
    u = draw(family, make_batch(family, 64), reference_draws=4).u[::2]
    counts = torch.bincount((4 * u).long(), minlength=4)
    assert counts.min() >= 6  # 16 expected in each, standard deviation 3.5


def test_a_key_names_row_and_draw_and_all_that_decides_them(family):
    batch = make_batch(family)
    config = settings(reference_draws=4)
    keys = Draws(config, family).keys(batch)
    assert len(set(keys)) == 6
    later = dataclasses.replace(batch, visits=[4, 5, 6], numbers=[40, 50, 60])
    again = Draws(settings(reference_draws=4, seed=5, beta=7.0), family).keys(later)
    assert again[:2] == keys[:2] and not {*again[2:]} & {*keys}
    for other in (
        {"reference_draws": 5}, {"min_timestep": 0.1}, {"max_timestep": 0.9}, {"timestep_sampling": "logit_normal"},
        {"timestep_sampling": "list"}, {"shared_noise": False},
    ):  # fmt: skip
        assert not {*Draws(settings(**{"reference_draws": 4} | other), family).keys(batch)} & {*keys}, other


def test_keys_of_a_ranking_count_its_own_rows(family):
    """Three rows and four: the last is row 3 of the second item, whatever stands before it."""
    keys = Draws(settings(reference_draws=4, loss="rankdpo"), family).keys(make_batch(family, kind="rankings"))
    assert [key.split(" draw")[0] for key in keys] == [f"key 0 row {row}" for row in range(3)] + [
        f"key 1 row {row}" for row in range(4)
    ]
    likes = Draws(settings(reference_draws=4, loss="kto"), family).keys(make_batch(family, kind="likes"))
    assert [key.split(" draw")[0] for key in likes] == ["key 0 row 0", "key 1 row 0", "key 2 row 0"]


def test_draws_that_never_return_have_no_keys(family):
    assert Draws(settings(), family).keys(make_batch(family)) is None


# ------------------------------------------------------------------------------------------------ validation


def test_fixed_draws_lie_one_in_each_stratum_and_are_always_the_same(family):
    batch, config = make_batch(family), settings(min_timestep=0.2, max_timestep=0.6)
    found = [fixed_draw(family, batch, number, 4, 0, config) for number in range(4)]
    for number, noised in enumerate(found):
        assert ((noised.u - 0.2) / 0.4 * 4).long().tolist() == [number] * 6
    again = fixed_draw(family, take_items(batch, [2]), 1, 4, 0, config)
    assert torch.equal(again.noisy, found[1].noisy[4:])


def test_fixed_draws_are_shared_also_where_training_does_not_share(family):
    batch = make_batch(family, twins=True)
    noised = fixed_draw(family, batch, 0, 4, 0, settings(shared_noise=False))
    assert torch.equal(noised.noisy[0::2], noised.noisy[1::2])


def test_pair_generators_of_different_numbers_and_seeds_differ():
    found = {torch.randn(1, generator=pair_generator(seed, number)).item() for seed in (0, 1, "a") for number in range(20)}
    assert len(found) == 60


# ------------------------------------------------------------------------------------------------ limits of single items


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("options", [{}, {"shared_noise": False}, {"reference_draws": 4}], ids=["fresh", "unshared", "returning"])
def test_an_item_with_a_limit_is_drawn_below_it_and_changes_no_other(family, law, options):
    values = options | {"timestep_sampling": law}
    batch = make_batch(family, 64)
    limited = dataclasses.replace(batch, limits=[0.35 if number % 2 else 1.0 for number in range(64)])
    free, held = draw(family, batch, **values), draw(family, limited, **values)
    is_limited = (batch.groups % 2).bool()
    assert held.u[is_limited].max() < 0.35 < free.u[is_limited].max()
    assert torch.equal(held.u[~is_limited], free.u[~is_limited])
    assert torch.equal(held.noisy[~is_limited], free.noisy[~is_limited])


def test_a_limit_cuts_the_law_off_as_the_end_of_the_range_does(family):
    """Uniform from 0.2 to 0.4: v = 1/2 is 0.3. A limit above the run's own end changes nothing."""
    v = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64)
    found = place(settings(timestep_sampling="uniform", min_timestep=0.2, max_timestep=0.6), family, v, [1.0, 0.4, 0.8])
    assert found.tolist() == pytest.approx([0.4, 0.3, 0.4])


def test_fixed_draws_of_a_limited_item_lie_in_strata_below_the_limit(family):
    batch = dataclasses.replace(make_batch(family), limits=[1.0, 0.4, 1.0])
    u = torch.stack([fixed_draw(family, batch, number, 4, 0, settings()).u for number in range(4)])
    assert (u[:, 2:4] * 10).floor().tolist() == [[number, number] for number in range(4)]
    free = torch.stack([fixed_draw(family, make_batch(family), number, 4, 0, settings()).u for number in range(4)])
    assert torch.equal(u[:, :2], free[:, :2])


def test_what_is_remembered_of_an_item_has_another_name_once_it_has_a_limit(family):
    batch, draws = make_batch(family), Draws(settings(reference_draws=4), family)
    free, held = draws.keys(batch), draws.keys(dataclasses.replace(batch, limits=[1.0, 0.4, 0.5]))
    assert [one == other for one, other in zip(free, held, strict=True)] == [True, True, False, False, False, False]
    assert len({held[2], held[4], free[2]}) == 3
