import pytest
import torch

from upo.functional.multiple_robust import (
    balancing_coefficients,
    balancing_weights,
    multiple_robust_loss,
    positive_weights,
    triangle,
)


def world(seed=0, replicas=2, columns=4, n=400):
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(replicas, columns, n, generator=g, dtype=torch.float64)
    u[:, : columns // 2] = 1 / (0.05 + 0.95 * u[:, : columns // 2])
    observed = torch.rand(n, generator=g) < 0.3
    return u, observed, g


def weights(u, observed, ridge=0.0):
    u_o = u[..., observed]
    return balancing_weights(u_o, balancing_coefficients(u_o, u.mean(-1), ridge))


def test_without_ridge_the_weights_balance_every_column():
    u, observed, _ = world()
    omega = weights(u, observed)
    balanced = (omega[:, None] * u[..., observed]).mean(-1)
    torch.testing.assert_close(balanced, u.mean(-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_an_error_in_the_span_is_estimated_exactly_whatever_was_observed(seed):
    u, observed, g = world(seed)
    c = torch.randn(2, 4, generator=g, dtype=torch.float64)
    e = (u * c[..., None]).sum(-2)
    estimate = multiple_robust_loss(e[..., observed], weights(u, observed))
    torch.testing.assert_close(estimate, e.mean(-1), rtol=1e-6, atol=1e-6)


def test_it_is_the_mean_of_the_regression_over_all_pairs():
    u, observed, g = world()
    e = torch.rand(2, 400, generator=g, dtype=torch.float64)
    u_o, e_o = u[..., observed], e[..., observed]
    eta = torch.linalg.lstsq(u_o.transpose(-1, -2), e_o.unsqueeze(-1)).solution.squeeze(-1)
    residual = (u_o * (e_o - (u_o * eta[..., None]).sum(-2))[:, None]).sum(-1)
    torch.testing.assert_close(residual, torch.zeros(2, 4).double(), rtol=0, atol=1e-8)
    expected = (u * eta[..., None]).sum(-2).mean(-1)
    estimate = multiple_robust_loss(e_o, weights(u, observed))
    torch.testing.assert_close(estimate, expected, rtol=1e-6, atol=0)


def test_one_right_propensity_and_one_wrong_imputation_are_consistent():
    g = torch.Generator().manual_seed(0)
    n = 200_000
    p = 0.1 + 0.8 * torch.rand(n, generator=g, dtype=torch.float64)
    e = 1.5 - p + 0.3 * torch.rand(n, generator=g, dtype=torch.float64)
    e_hat = torch.rand(n, generator=g, dtype=torch.float64)
    u = torch.stack([1 / p, e_hat])[None]
    estimates, naive = [], []
    for _ in range(8):
        observed = torch.rand(n, generator=g) < p
        estimates.append(multiple_robust_loss(e[None, observed], weights(u, observed)).item())
        naive.append(e[observed].mean().item())
    estimates = torch.tensor(estimates)
    # three standard errors of the resamples
    assert abs(estimates.mean() - e.mean()) < 3 * estimates.std() / 8**0.5 + 1e-3
    assert abs(torch.tensor(naive).mean() - e.mean()) > 0.05


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_collinear_and_empty_columns_are_finite(ridge):
    u, observed, _ = world()
    u[:, 1] = u[:, 0]
    u[:, 3] = 0.0
    omega = weights(u, observed, ridge)
    assert torch.isfinite(omega).all()
    balanced = (omega[:, None] * u[..., observed]).mean(-1)
    torch.testing.assert_close(balanced, u.mean(-1), rtol=1e-12 if ridge == 0 else 0.1, atol=1e-9)


def test_the_ridge_does_not_depend_on_the_columns_scales():
    u, observed, _ = world()
    scaled = u * torch.tensor([1e3, 1.0, 1e-3, 10.0]).double()[:, None]
    torch.testing.assert_close(weights(u, observed, 0.1), weights(scaled, observed, 0.1))


def test_the_gradient_reaches_the_errors():
    u, observed, g = world(n=40)
    omega = weights(u, observed)
    e = torch.rand(omega.shape, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: multiple_robust_loss(x, omega), e)


def test_a_ridge_misses_by_itself_times_the_coefficients():
    u, observed, _ = world()
    u_o = u[..., observed]
    scale = u_o.square().mean(-1).rsqrt()
    c = balancing_coefficients(u_o, u.mean(-1), 0.1)
    balanced = (balancing_weights(u_o, c)[:, None] * u_o).mean(-1)
    miss = scale * (u.mean(-1) - balanced)
    torch.testing.assert_close(miss, 0.1 * c / scale, rtol=1e-9, atol=1e-12)


def test_a_mean_outside_the_span_is_balanced_as_its_projection():
    u, observed, _ = world()
    u[:, 3, observed] = 0.0  # what the log never shows
    u_o, mean = u[..., observed], u.mean(-1)
    balanced = (balancing_weights(u_o, balancing_coefficients(u_o, mean))[:, None] * u_o).mean(-1)
    torch.testing.assert_close(balanced[:, :3], mean[:, :3], rtol=1e-12, atol=0)
    assert (balanced[:, 3] == 0).all()
    assert (mean[:, 3] > 0).all()


def test_a_doubled_column_changes_no_weight():
    u, observed, _ = world()
    twice = torch.cat([u, 7 * u[:, :1]], dim=1)
    # the doubled direction has a singular value of rounding
    torch.testing.assert_close(weights(twice, observed), weights(u, observed), rtol=1e-9, atol=1e-9)


def test_the_triangle_has_the_squares_of_the_columns():
    u, _, _ = world()
    for rows in (u, u[..., :2]):  # fewer rows than columns, too
        t = triangle(rows)
        torch.testing.assert_close(t.mT @ t, rows @ rows.mT)


def test_positive_weights_balance_every_column_too():
    u, observed, _ = world()
    u[:, 0] = 1.0
    u_o = u[..., observed]
    omega = positive_weights(u_o, u.mean(-1))
    assert (omega > 0).all()
    # the least ridge is 1e-9
    torch.testing.assert_close((omega[:, None] * u_o).mean(-1), u.mean(-1), rtol=1e-7, atol=0)
