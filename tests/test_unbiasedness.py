"""On the embedded world at known propensities, the mean over resampled logs is the ideal loss."""

import pytest
import torch

from upo.data.world import SyntheticWorld
from upo.functional.errors import cross_entropy
from upo.functional.prediction import dr_loss, dr_loss_public, ips_loss, naive_loss

RESAMPLES = 500


@pytest.fixture(scope="module")
def world():
    """Every pair of a small world: true propensity, prediction error, imputed error."""
    simulated = SyntheticWorld(60, 50, dim=4, seed=1, density=0.1)
    index = torch.arange(60 * 50)
    users, items = index // 50, index % 50
    p = simulated.propensity(users, items)
    g = torch.Generator().manual_seed(3)
    f_logit = torch.randn(len(index), generator=g, dtype=torch.float64)
    pseudo = torch.rand(len(index), generator=g, dtype=torch.float64)
    e = cross_entropy(f_logit, simulated.label(users, items).double())
    observed = torch.rand(RESAMPLES, len(index), generator=g, dtype=torch.float64) < p
    return p, e, cross_entropy(f_logit, pseudo), observed


def estimates(world, loss):
    """The estimate of each resampled log."""
    p, e, e_hat, observed = world
    values = []
    for o in observed:
        density = float(o.double().mean())
        values.append(loss(e[o][None], e_hat[o][None], p[o][None], e_hat[None], density))
    return torch.cat(values)


LOSSES = {
    "ips": lambda e, e_hat, p, e_hat_d, density: ips_loss(e, p, density),
    "dr, any imputation": lambda e, e_hat, p, e_hat_d, density: dr_loss(
        e, e_hat, p, e_hat_d, density
    ),
    "dr, no imputation": lambda e, e_hat, p, e_hat_d, density: dr_loss(
        e, 0 * e_hat, p, 0 * e_hat_d, density
    ),
}
BIASED = {
    "naive": lambda e, e_hat, p, e_hat_d, density: naive_loss(e),
    "dr as in public code": lambda e, e_hat, p, e_hat_d, density: dr_loss_public(
        e, e_hat, p, e_hat_d
    ),
}


def distance(world, loss):
    """Distance of the mean estimate from the ideal loss, in standard errors of that mean."""
    values = estimates(world, loss)
    error = values.std() / RESAMPLES**0.5
    return float((values.mean() - world[1].mean()).abs() / error)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_logs_is_the_ideal_loss(world, name):
    # three standard errors: a fixed seed, so the 0.3 % that chance allows does not come and go
    assert distance(world, LOSSES[name]) < 3


@pytest.mark.parametrize("name", BIASED)
def test_what_is_biased_is_caught(world, name):
    assert distance(world, BIASED[name]) > 6
