"""N-IPS, N-DR: weights by what else was rated around a pair."""

import math

import pytest
import torch
from balancing_runs import adam
from small_estimators import built, roughened

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.exposure import neighbourhood_factor, target_kernel
from upo.functional.prediction import ips_loss
from upo.learners.exposure import ExposureLearner, ExposureLevel
from upo.learners.prediction import InversePropensity
from upo.models.exposure import ExposureDensity


def test_a_kernel_integrates_to_one():
    g = torch.linspace(-8, 8, 4001, dtype=torch.float64)[None]
    kernel = target_kernel(g, torch.tensor([[-1.0, 0.5]], dtype=torch.float64), 0.7)
    torch.testing.assert_close(kernel.sum(-1) * 0.004, torch.ones(1, 2).double())


def test_right_densities_give_the_loss_at_the_target():
    """E[o K(g - g0) e / (p q)] is the smoothed e(g0); public code's product with q is not."""
    g = torch.linspace(-4, 4, 8001, dtype=torch.float64)[None]
    q = (torch.exp(-((g - 1.0) ** 2) / 2) / math.sqrt(2 * math.pi)).expand(1, -1)
    e, target = 2.0 + 0.3 * g, torch.tensor([[-0.5]], dtype=torch.float64)
    at_target = torch.exp(-((target - 1.0) ** 2) / 2) / math.sqrt(2 * math.pi)
    factor = neighbourhood_factor(g, target, at_target[..., None].expand(1, 1, 8001), 0.05)
    mean = (q * factor * e).sum() * 0.001
    assert mean.item() == pytest.approx(2.0 - 0.15, rel=0.01)  # q bends within the kernel
    public = (q * target_kernel(g, target, 0.05)[:, 0] * at_target * e).sum() * 0.001
    assert abs(public.item() - 1.85) > 1.0


def placed(*overrides):
    _, estimator, sampler = built("n_ips", *overrides)
    roughened(estimator, scale=0.3)
    ExposureLearner(estimator, optimizer=adam()).on_stage_start()
    return estimator, sampler.chunk(0, 1)[0]


def test_a_flat_kernel_and_a_uniform_density_leave_ips():
    estimator, batch = placed("estimator.networks.exposure.width=inf")
    for p in estimator.networks["exposure"].parameters():
        p.data.zero_()
    ExposureLevel(estimator).on_stage_start()
    space = estimator.space
    p_hat = estimator.propensity(batch.rows).clamp(min=estimator.weighting.floor(estimator))
    expected = ips_loss(estimator.errors(batch.rows), p_hat, space.density)
    torch.testing.assert_close(InversePropensity()(estimator, batch), expected)


def test_factors_have_the_mean_1_and_prefer_targets():
    estimator, batch = placed("estimator.networks.exposure.targets=1")
    exposure = estimator.networks["exposure"]
    for p in exposure.parameters():
        p.data.zero_()  # a uniform density
    ExposureLevel(estimator).on_stage_start()
    factor = exposure.factor(estimator, batch.rows)
    distance = (exposure.statistic(batch.rows) - exposure.targets).abs()
    for r in range(2):
        near = distance[r].argsort()
        assert (factor[r][near].diff() <= 1e-6).all()
    exposure.settle(estimator)
    space = estimator.space
    every = space.pairs_at(space.keys.expand(2, -1), space.n_observed)
    mean = exposure.factor(estimator, every).mean(-1)
    assert ((mean - 1).abs() < 0.1).all()  # 1 over training rows; a tenth is held out


def test_the_statistic_counts_the_other_ratings_of_user_and_item():
    estimator, batch = placed()
    exposure, pairs, space = estimator.networks["exposure"], batch.pairs, estimator.space
    users, items = space.keys // space.n_items, space.keys % space.n_items
    found = exposure.statistic(pairs) * exposure.scale + exposure.center
    for place in range(0, pairs.total, 37):
        u, i = int(pairs.users[0, place]), int(pairs.items[0, place])
        others = ((users == u) ^ (items == i)).sum()
        assert found[0, place].item() == pytest.approx(int(others), abs=1e-3)


def test_the_classifier_learns_the_density_of_the_log():
    _, estimator, sampler = built("n_ips", seeds=(0,))
    roughened(estimator, scale=0.1)
    learner = ExposureLearner(estimator, optimizer=adam(0.02))
    learner.on_stage_start()
    batch = sampler.chunk(0, 1)[0]
    losses = [learner.update(batch)["loss"].item() for _ in range(150)]
    assert losses[-1] < min(losses[0], math.log(2) - 0.01)
    exposure = estimator.networks["exposure"]
    odds = exposure.logit(
        estimator.features("representation", batch.rows), exposure.statistic(batch.rows)
    )
    assert odds.mean() > 0  # the log's own values are likelier than uniform ones


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"targets": 0}, {"width": 0.0}])
def test_options_are_checked(wrong):
    with pytest.raises(InputError, match=r"networks\.exposure"):
        ExposureDensity(Sizes(5, 5, [0]), dim=2, **wrong)


def test_learners_name_what_they_miss():
    _, estimator, _ = built("n_ips")
    with pytest.raises(InputError, match="ExposureDensity"):
        ExposureLevel(estimator, network="representation")
