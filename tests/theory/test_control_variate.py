"""Theorem 2 and Corollary 1: L_UPO as a control variate of the cross-entropy."""

from itertools import pairwise, product

import pytest
import torch

from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.pointwise import cross_entropy
from upo.functional.propensity import binned_upo_loss
from upo.functional.theory import beta_star

N, BINS, DRAWS = 300, 4, 20_000


def world(tilt, seed=0, n=N):
    """p and p_hat = tilt * p in (0, 0.5), and a weight of one sign that varies."""
    g = torch.Generator().manual_seed(seed)
    p = 0.02 + 0.25 * torch.rand(n, generator=g, dtype=torch.float64)
    w = 0.2 + 0.8 * torch.rand(n, generator=g, dtype=torch.float64)
    return p, tilt * p, w


def resampled(p, p_hat, w, draws=DRAWS, seed=1):
    """CE and L_UPO of ``draws`` logs: [draws] each."""
    g = torch.Generator().manual_seed(seed)
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, BINS))
    o = torch.bernoulli(p.expand(draws, -1), generator=g)
    ce = cross_entropy(torch.logit(p_hat).expand_as(o), o).mean(-1)
    rows = [x.expand_as(o) for x in (p_hat, w, index)]
    return ce, binned_upo_loss(rows[0], o, rows[1], rows[2], BINS)


def test_the_variance_is_the_stated_quadratic_in_beta():
    """All 2^8 logs of eight pairs with their chances: no sampling at all."""
    p, p_hat, w = world(1.6, n=8)
    o = torch.tensor(list(product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    chance = torch.where(o > 0, p, 1 - p).prod(-1)
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, 2))
    ce = cross_entropy(torch.logit(p_hat).expand_as(o), o).mean(-1)
    upo = binned_upo_loss(p_hat.expand_as(o), o, w.expand_as(o), index.expand_as(o), 2)

    def cov(x, y):
        return (chance * (x - (chance * x).sum()) * (y - (chance * y).sum())).sum()

    best = -cov(ce, upo) / cov(upo, upo)
    rho2 = cov(ce, upo) ** 2 / (cov(ce, ce) * cov(upo, upo))
    for beta in (-2.0, 0.0, 0.5, 3.0, float(best)):
        total = ce + beta * upo
        stated = cov(ce, ce) + beta**2 * cov(upo, upo) + 2 * beta * cov(ce, upo)
        torch.testing.assert_close(cov(total, total), stated, rtol=0, atol=1e-12)
        assert cov(total, total) >= (1 - rho2) * cov(ce, ce) - 1e-12
    least = ce + best * upo
    torch.testing.assert_close(cov(least, least), (1 - rho2) * cov(ce, ce), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tilt", [1.0, 1.4, 2.0])
def test_beta_star_from_one_sample_reduces_the_variance_of_another(tilt):
    p, p_hat, w = world(tilt)
    beta, rho2 = beta_star(*resampled(p, p_hat, w))
    ce, upo = resampled(p, p_hat, w, seed=2)
    # each variance of 20,000 draws has a relative standard error of 1 %; the two are correlated
    assert float((ce + beta * upo).var() / ce.var()) == pytest.approx(float(1 - rho2), abs=0.03)
    for other in (beta - 0.5, beta + 0.5):
        assert (ce + other * upo).var() >= (ce + beta * upo).var()


@pytest.mark.parametrize(("tilt", "sign"), [(2.0, 1), (0.5, -1)], ids=["too high", "too low"])
def test_the_sign_of_beta_star_follows_from_the_error_of_the_propensity(tilt, sign):
    """Where p_hat is far from p every bin's residual has one sign, so L_UPO is linear in o.

    Then Cov(CE, L_UPO) = -+ sum p (1 - p) w logit(p_hat) / n^2: of propensities that are too high,
    and below 1/2, beta* is positive; of those that are too low it is negative, and no beta > 0
    reduces the variance.
    """
    p, p_hat, w = world(tilt)
    ce, upo = resampled(p, p_hat, w)
    noise = p * (1 - p)
    a = -torch.logit(p_hat)
    exact = sign * (noise * w * a).sum() / (noise * w**2).sum()
    exact_rho2 = (noise * w * a).sum() ** 2 / ((noise * w**2).sum() * (noise * a**2).sum())
    beta, rho2 = beta_star(ce, upo)
    assert float(beta) * sign > 0.5
    # the slope's standard error is sqrt((1 - rho^2) / T) of sd(CE) / sd(UPO), below 1 %; a bin in
    # a few per cent of the logs has the other sign, which bends it a little more
    torch.testing.assert_close(beta, exact, rtol=0.1, atol=0)
    assert float(rho2) == pytest.approx(float(exact_rho2), abs=0.05)
    if sign < 0:
        variance = [(ce + b * upo).var() for b in (0.0, 0.1, 0.5, 1.0)]
        assert variance == sorted(variance)  # rising from beta = 0 on
        assert variance[1] > 1.02 * variance[0]


def test_a_symmetric_residual_has_next_to_no_covariance():
    """At p_hat = p the residuals have either sign alike: rho^2 is small and beta* gains nothing."""
    _, rho2 = beta_star(*resampled(*world(1.0)))
    assert rho2 < 0.1


def reduced(ce, controls):
    """Least variance of CE + sum beta_k control_k over all beta, as a share of V(CE)."""
    x = torch.stack(controls, dim=-1)
    x, y = x - x.mean(0), (ce - ce.mean()).unsqueeze(-1)
    return float((y - x @ torch.linalg.lstsq(x, y).solution).var() / ce.var())


def penalties(p_hat, index, o):
    """The losses of four fixed weights, of which each bounds one of the four metrics."""
    g = torch.Generator().manual_seed(5)
    phi, gap = 2 * torch.rand(2, len(p_hat), generator=g, dtype=torch.float64) - 1
    weights = [
        torch.ones_like(p_hat),
        phi / (p_hat * (1 - p_hat)),
        gap / p_hat,
        (1 - p_hat) * gap**2 / p_hat**2,
    ]
    rows = p_hat.expand_as(o), index.expand_as(o)
    return [binned_upo_loss(rows[0], o, w.expand_as(o), rows[1], BINS) for w in weights]


@pytest.mark.parametrize("tilt", [0.6, 1.0, 1.5])
def test_another_free_control_variate_cannot_raise_the_least_variance(tilt):
    """Corollary 1 says that four weighted penalties leave *more* variance than UPO alone.

    With freely chosen strengths that is not so in general: each further term can only help, since
    its strength may be 0. What the corollary can mean is a comparison of *given* strengths.
    """
    p, p_hat, w = world(tilt)
    o = torch.bernoulli(p.expand(4000, -1), generator=torch.Generator().manual_seed(1))
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, BINS))
    ce = cross_entropy(torch.logit(p_hat).expand_as(o), o).mean(-1)
    rows = [x.expand_as(o) for x in (p_hat, w, index)]
    controls = [
        binned_upo_loss(rows[0], o, rows[1], rows[2], BINS),
        *penalties(p_hat, index, o),
    ]
    shares = [reduced(ce, controls[: k + 1]) for k in range(len(controls))]
    # an exact minimum over nested sets, but for the rounding of the least squares
    assert all(b <= a + 1e-9 for a, b in pairwise(shares))
    assert shares[-1] < shares[0]


def test_fixed_strengths_may_raise_the_variance_above_that_of_the_plain_loss():
    """The other half of it: a strength that is too large costs more than no penalty at all."""
    ce, upo = resampled(*world(1.5))
    beta, rho2 = beta_star(ce, upo)
    assert rho2 > 0.2
    assert (ce + 2.5 * beta * upo).var() > 1.05 * ce.var()
    assert (ce + beta * upo).var() < ce.var()
