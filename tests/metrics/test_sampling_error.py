import pytest
import torch
from torch.nn.functional import one_hot

from upo.functional.diagnostics import (
    bmse,
    bmse_terms,
    dr_bias,
    dr_bias_terms,
    dr_variance,
    dr_variance_terms,
    ece,
)
from upo.metrics import sampling_error as se

PAIRS, BINS, DRAWN, DRAWS = 20_000, 5, 1_000, 400


@pytest.fixture(scope="module")
def world():
    """A propensity that is somewhat wrong everywhere, so that no diagnostic is near 0."""
    g = torch.Generator().manual_seed(0)
    rows = torch.rand(6, PAIRS, generator=g, dtype=torch.float64)
    p = 0.02 + 0.2 * rows[0]
    p_hat = (p * (0.6 + 0.3 * rows[1])).clamp(0.01, 0.99)
    o = (rows[2] < p).double()
    e, e_hat = rows[3], 0.5 * rows[4]
    phi = torch.stack([rows[5], rows[0]], dim=-1)
    index = (p_hat * 25).long().clamp(max=BINS - 1)
    return p, p_hat, o, e, e_hat, phi, index


def vectors(world):
    """x of each diagnostic, [N, K]."""
    p, p_hat, o, e, e_hat, phi, index = world
    return {
        "ece": one_hot(index, BINS) * (o - p_hat).unsqueeze(-1),
        "bmse": bmse_terms(p_hat, o).unsqueeze(-1) * phi,
        "bias": dr_bias_terms(p_hat, o, e, e_hat).unsqueeze(-1),
        "variance": dr_variance_terms(p_hat, p, e, e_hat).unsqueeze(-1),
    }


def value(name, mean):
    if name == "ece":
        return mean.abs().sum(-1)
    if name == "bmse":
        return mean.square().sum(-1)
    return mean[..., 0].abs() / (PAIRS if name == "variance" else 1)


def error(name, mean, cov):
    if name in ("ece", "bmse"):
        return getattr(se, f"{name}_error")(mean, cov)
    return se.bias_error(cov) if name == "bias" else se.variance_error(cov, PAIRS)


def drawn(x, o, seed):
    """All observed pairs and a sample of the others."""
    others = torch.nonzero(o == 0)[:, 0]
    g = torch.Generator().manual_seed(seed)
    sample = others[torch.randperm(len(others), generator=g)[:DRAWN]]
    seen = x[o == 1]
    return [(se.stratum(seen), len(seen)), (se.stratum(x[sample]), len(others))]


def test_means_over_all_of_d_are_the_diagnostics(world):
    p, p_hat, o, e, e_hat, phi, index = world
    whole = {
        "ece": ece(p_hat, o, index, BINS),
        "bmse": bmse(p_hat, o, phi),
        "bias": dr_bias(p_hat, o, e, e_hat),
        "variance": dr_variance(p_hat, p, e, e_hat),
    }
    for name, x in vectors(world).items():
        all_of_d = [(se.stratum(x), PAIRS)]
        mean, cov = se.estimated_mean(all_of_d), se.covariance(all_of_d)
        torch.testing.assert_close(value(name, mean), whole[name], rtol=1e-12, atol=0)
        assert error(name, mean, cov) == 0  # nothing was sampled


@pytest.mark.parametrize("name", ["ece", "bmse", "bias", "variance"])
def test_standard_errors_are_the_spread_over_repeated_samples(world, name):
    x, o = vectors(world)[name], world[2]
    truth = value(name, x.mean(0))
    values, errors = [], []
    for seed in range(DRAWS):
        strata = drawn(x, o, seed)
        mean, cov = se.estimated_mean(strata), se.covariance(strata)
        values.append(value(name, mean))
        errors.append(error(name, mean, cov))
    values, errors = torch.stack(values), torch.stack(errors)
    # the spread of 400 draws has a relative standard error of 1 / sqrt(800) = 3.5 %: four of them
    assert abs(errors.mean() / values.std() - 1) < 0.15
    inside = ((values - truth).abs() < 1.96 * errors).double().mean()
    assert 0.91 < inside < 0.985  # 95 % with a standard error of 1.1 points: 3.6 of them
    # the mean of the draws: four of its standard errors
    assert abs(values.mean() - truth) < 4 * values.std() / DRAWS**0.5 + errors.mean() ** 2


def test_a_balanced_bmse_has_an_error_too():
    """Where the mean is 0 the first-order part vanishes; the squared norm still varies."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(DRAWS, 200, 3, generator=g, dtype=torch.float64)
    strata = [(se.stratum(x), 10**9)]
    norms = se.estimated_mean(strata).square().sum(-1)
    predicted = (2 * torch.eye(3, dtype=torch.float64).square().sum()).sqrt() / 200
    # chi-squared with 3 degrees of freedom: its spread over 400 draws is known to about 6 %
    assert abs(norms.std() / predicted - 1) < 0.25
    at_zero = se.bmse_error(torch.zeros(DRAWS, 3, dtype=torch.float64), se.covariance(strata))
    assert abs(at_zero.mean() / predicted - 1) < 0.05


def test_blocks_merge():
    x = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 5
    merged = se.merged(se.merged(se.stratum(x[:, :7]), se.stratum(x[:, 7:8])), se.stratum(x[:, 8:]))
    once = se.stratum(x)
    nothing = se.stratum(x[:, :0])
    assert se.merged(nothing, nothing).rows == 0
    for both in (se.merged(nothing, once), se.merged(once, nothing)):
        assert both.rows == once.rows
        assert torch.equal(both.mean, once.mean)
        assert torch.equal(both.scatter, once.scatter)
    assert merged.rows == once.rows
    # float64 rounding only
    torch.testing.assert_close(merged.mean, once.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(merged.scatter, once.scatter, rtol=1e-11, atol=1e-11)


def test_what_cannot_be_judged_raises():
    with pytest.raises(ValueError, match="rows"):
        se.stratum(torch.zeros(2))
    with pytest.raises(ValueError, match="5 pairs cannot be judged by 0 rows"):
        se.covariance([(se.stratum(torch.zeros(0, 2)), 5)])
    one = se.stratum(torch.ones(1, 2))
    assert se.covariance([(one, 1)]).sum() == 0
    with pytest.raises(ValueError, match="5 pairs cannot be judged by 1 rows"):
        se.covariance([(one, 5)])
    with pytest.raises(ValueError, match="1 pairs cannot be judged by 2 rows"):
        se.covariance([(se.stratum(torch.ones(2, 2)), 1)])
