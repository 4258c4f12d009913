from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.functional.diagnostics import dr_variance
from upo.functional.imputation import imputation_loss, omega_bias, omega_jl, omega_mrdr, omega_mse
from upo.functional.propensity import clip_propensity

OMEGAS = [omega_jl, omega_mrdr, omega_bias, omega_mse]
FORMULAS = {
    omega_jl: lambda p: 1 / p,
    omega_mrdr: lambda p: (1 - p) / (p * p),
    omega_bias: lambda p: (1 - p) ** 2 / (p * p * p),
    omega_mse: lambda p: 0.5 * (1 - p) ** 2 / p**3 + 0.5 * (1 - p) / p**2,
}
PROPENSITY = st.floats(0.01, 1)
every_omega = pytest.mark.parametrize("omega", OMEGAS, ids=lambda f: f.__name__)
N = 6


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@every_omega
@given(PROPENSITY)
@settings(max_examples=50)
def test_weights_match_their_formulas(omega, p):
    # the same float64 operations up to their order
    assert omega(double(p)).item() == pytest.approx(FORMULAS[omega](p), rel=1e-12, abs=1e-12)


@given(PROPENSITY)
@settings(max_examples=50)
def test_limits_of_the_mixture(p):
    p = double(p)
    assert torch.equal(omega_mse(p, mix=1.0), omega_bias(p))
    assert torch.equal(omega_mse(p, mix=0.0), omega_mrdr(p))
    low, high = (
        torch.minimum(omega_bias(p), omega_mrdr(p)),
        torch.maximum(omega_bias(p), omega_mrdr(p)),
    )
    assert low * (1 - 1e-12) <= omega_mse(p, mix=0.3) <= high * (1 + 1e-12)  # float64 rounding


@given(st.floats(0.01, 0.999))
@settings(max_examples=50)
def test_bias_over_variance_weight_is_the_odds_of_absence(p):
    p = double(p)
    torch.testing.assert_close(omega_bias(p) / omega_mrdr(p), (1 - p) / p, rtol=1e-12, atol=0)


def test_a_certain_observation_has_no_variance_and_no_bias():
    one = double(1.0)
    assert omega_mrdr(one) == omega_bias(one) == omega_mse(one) == 0
    assert omega_jl(one) == 1


@every_omega
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_clipped_extremes_are_finite_and_not_negative(omega, dtype):
    weights = omega(clip_propensity(torch.tensor([[0.0, 1.0]], dtype=dtype), 1e-3))
    assert torch.isfinite(weights).all()
    assert (weights >= 0).all()


def expected(omega, e, e_hat, p):
    """E over o of L_imp, every pattern enumerated; observed pairs only enter it."""
    total = torch.zeros(len(e), dtype=torch.float64)
    for bits in product([False, True], repeat=N):
        o = torch.tensor(bits)
        if o.any():
            loss = imputation_loss(e[:, o], e_hat[:, o], omega(p[:, o]), int(o.sum()) / N)
            total += torch.where(o, p[0], 1 - p[0]).prod() * loss
    return total


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=8)
def test_expected_losses(seed):
    g = torch.Generator().manual_seed(seed)
    e, e_hat, p = torch.rand(3, 2, N, generator=g, dtype=torch.float64).clamp(0.05, 0.95)
    p = p[:1].expand(2, -1)
    gap = (e - e_hat) ** 2
    exact = {"rtol": 1e-12, "atol": 1e-12}  # float64 sums over 64 patterns
    # MRDR: |D| times the variance of the doubly robust loss
    torch.testing.assert_close(
        expected(omega_mrdr, e, e_hat, p), N * dr_variance(p, p, e, e_hat), **exact
    )
    # DR-JL: the mean squared gap over all of D
    torch.testing.assert_close(expected(omega_jl, e, e_hat, p), gap.mean(-1), **exact)
    # DR-BIAS: E of the squared bias terms (o - p)^2 / p^2, weighted to D, of observed pairs
    bias = ((1 - p) ** 2 / p**2 * gap).mean(-1)
    torch.testing.assert_close(expected(omega_bias, e, e_hat, p), bias, **exact)


@every_omega
def test_the_loss_is_least_at_the_error(omega):
    g = torch.Generator().manual_seed(0)
    e, e_hat, p = torch.rand(3, 2, N, generator=g, dtype=torch.float64).clamp(0.05, 0.95)
    assert (imputation_loss(e, e, omega(p), 0.3) == 0).all()
    assert (imputation_loss(e, e_hat, omega(p), 0.3) > 0).all()


@every_omega
def test_gradients(omega):
    g = torch.Generator().manual_seed(0)
    e, e_hat, p = (
        torch.rand(2, N, generator=g, dtype=torch.float64).clamp(0.2, 0.9).requires_grad_()
        for _ in range(3)
    )
    assert torch.autograd.gradcheck(
        lambda a, b, q: imputation_loss(a, b, omega(q), 0.3), (e, e_hat, p)
    )
    assert torch.autograd.gradcheck(partial(omega_mse, mix=0.3), (p,))
