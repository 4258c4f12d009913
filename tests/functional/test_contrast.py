"""Losses without a propensity, by their limits."""

import pytest
import torch

from upo.functional.contrast import contrast_loss, imputed_loss
from upo.functional.pointwise import cross_entropy
from upo.functional.prediction import dr_loss

EXACT = {"rtol": 0, "atol": 1e-12}  # float64 means of a few hundred terms


def draw(*shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)).double()


def test_without_its_terms_the_contrast_is_the_mean_error():
    e, f_o, f_d = draw(50).abs(), draw(50, seed=1), draw(80, seed=2)
    torch.testing.assert_close(contrast_loss(e, f_o, f_d, 0.0, 0.0), e.mean(-1), **EXACT)


def test_the_contrast_is_least_where_both_mean_predictions_agree():
    f_o, f_d = draw(400), draw(400, seed=1)
    shift = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    for _ in range(60):  # Newton's method by secants would do; the loss is convex in the mean
        loss = contrast_loss(torch.zeros_like(f_o), f_o, f_d + shift, 1.0, 0.0).sum()
        (slope,) = torch.autograd.grad(loss, shift)
        shift = (shift - 4 * slope).detach().requires_grad_()
    found, wanted = torch.sigmoid(f_d + shift).mean(-1), torch.sigmoid(f_o).mean(-1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_the_contrast_has_a_gradient_on_both_batches():
    f_o, f_d = draw(30).requires_grad_(), draw(40, seed=1).requires_grad_()
    loss = contrast_loss(torch.zeros_like(f_o), f_o, f_d, 1.0, 0.0).sum()
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, [f_o, f_d]))


def test_imputation_alone_is_dr_at_a_propensity_of_one():
    e, e_hat, e_hat_d = draw(20).abs(), draw(20, seed=1).abs(), draw(60, seed=2).abs()
    known = dr_loss(e, e_hat, torch.ones_like(e), e_hat_d, 0.3)
    torch.testing.assert_close(imputed_loss(e, e_hat, e_hat_d, 0.3), known, **EXACT)


def test_imputation_alone_differs_from_dr_by_the_inverse_odds():
    e, e_hat, e_hat_d = draw(20).abs(), draw(20, seed=1).abs(), draw(60, seed=2).abs()
    p_hat = torch.sigmoid(draw(20, seed=3))
    gap = dr_loss(e, e_hat, p_hat, e_hat_d, 0.3) - imputed_loss(e, e_hat, e_hat_d, 0.3)
    torch.testing.assert_close(gap, 0.3 * ((1 / p_hat - 1) * (e - e_hat)).mean(-1), **EXACT)


@pytest.mark.parametrize("logit", [-80.0, 0.0, 80.0])
def test_certain_predictions_and_an_empty_batch_stay_finite(logit):
    f_o = torch.full((2, 5), logit, requires_grad=True)
    for f_d in (torch.full((2, 5), -logit), torch.zeros(2, 0)):
        loss = contrast_loss(cross_entropy(f_o, torch.ones(2, 5)), f_o, f_d, 1.0, 0.1)
        (slope,) = torch.autograd.grad(loss.sum(), f_o)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(slope).all()
